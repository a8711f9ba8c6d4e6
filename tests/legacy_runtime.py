"""Check that an IR made today is read, and computes the same, on an old OpenVINO.

    python tests/legacy_runtime.py make MODEL FOLDER   # today's Python: input and raw heads of MODEL, as .npz
    python3.9 tests/legacy_runtime.py check FOLDER     # an old Python with an old OpenVINO: compares

Runs on Python 3.7 and later, with NumPy and whichever OpenVINO is installed.
"""

import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-3  # of each head's standard deviation


def make(model, folder):
    """Compute ``model``'s heads on a fixed picture and keep both in ``folder``, beside a copy of the model."""
    import shutil

    from ovyolo.export import export
    from ovyolo.runtime import open_session

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.xml"
    if model.suffix == ".xml":
        shutil.copy(model, path)
        shutil.copy(model.with_suffix(".bin"), path.with_suffix(".bin"))
    else:
        export(model, path, imgsz=320)
    session, card = open_session(path)
    image = np.random.default_rng(0).integers(0, 256, session.input_shape, np.uint8)
    session.input(0)[:] = image
    session.submit(0)
    heads = dict(zip(card.head.outputs, session.wait(0)))
    np.savez(str(folder / "expected.npz"), image=image, **heads)


def infer_2021(path, image):
    """OpenVINO 2021: outputs by name, through the Inference Engine API."""
    from openvino.inference_engine import IECore

    core = IECore()
    network = core.read_network(str(path))
    network.input_info["images"].precision = "U8"
    loaded = core.load_network(network, "CPU", {"ENFORCE_BF16": "NO"})
    return loaded.infer({"images": image})


def infer_2022(path, image):
    """OpenVINO 2022 and later: outputs by tensor name."""
    try:
        from openvino import Core
    except ImportError:
        from openvino.runtime import Core

    core = Core()
    config = {}
    for key, value in (("INFERENCE_PRECISION_HINT", "f32"), ("ENFORCE_BF16", "NO")):
        if key in core.get_property("CPU", "SUPPORTED_PROPERTIES"):
            config[key] = value
    compiled = core.compile_model(str(path), "CPU", config)
    request = compiled.create_infer_request()
    request.infer({0: image})
    return {name: request.get_tensor(name).data for port in compiled.outputs for name in port.get_names()}


def check(folder):
    """Compare; the exit status says whether all heads agree."""
    expected = np.load(str(folder / "expected.npz"))
    try:
        import openvino.inference_engine as legacy

        version = getattr(legacy, "__version__", "2021")
    except ImportError:
        version = ""
    infer = infer_2021 if version.startswith("2021") else infer_2022
    found = infer(folder / "model.xml", expected["image"])
    worst = 0.0
    for name in sorted(set(expected.files) - {"image"}):
        worst = max(worst, float(np.abs(found[name] - expected[name]).max() / expected[name].std()))
    print("%s: raw heads differ by %.1e of their standard deviation" % (infer.__name__, worst))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(check(Path(sys.argv[2])))
