"""What the process boundary costs: a frame through a worker, beside the same old runtime called directly, in turn.

    python benchmarks/worker_boundary.py --model MODEL [--release R] [--rounds N] [--smoke] [--json]
    python benchmarks/worker_boundary.py --thin …   # a layer a head, inputs and outputs as yolov5n has them at 640

Both sides copy a picture of the input's size into the input, compute it on the CPU by the old OpenVINO, one at a time,
and read the outputs in memory that they gave to the runtime. ``direct`` does it in the old Python itself (this same
script, started there; it takes its own time), by the calls that copy least; ``worker`` from here, through
:func:`ovyolo.vpu.open_worker_session`. They take turns. The price is the median of the differences of neighbours: what
``--thin`` shows best, because hardly anything else is in it. Needs an environment of ``ovyolo vpu setup``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

INTERVAL = (2.5, 97.5)


def direct(model):
    """In the old Python: for each line on standard input, one frame; answers its milliseconds."""
    compute = direct_2021(model) if is_2021() else direct_2022(model)
    for line in sys.stdin:
        picture = np.random.default_rng(int(line)).integers(0, 256, compute.shape, np.uint8)
        begin = time.perf_counter()
        total = read(compute(picture))
        spent = time.perf_counter() - begin
        print(json.dumps({"ms": 1e3 * spent, "sum": total}), flush=True)


def read(outputs):
    """Touch a part of every output, about as much as a decoder does."""
    return float(sum(float(output.ravel()[::97].sum()) for output in outputs))


def is_2021():
    try:
        import openvino.runtime  # noqa: F401
    except ImportError:
        return True
    return False


def direct_2022(model):
    from openvino.runtime import Core, Tensor

    core = Core()
    known = set(core.get_property("CPU", "SUPPORTED_PROPERTIES"))
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENFORCE_BF16": "NO"}
    compiled = core.compile_model(model, "CPU", {k: v for k, v in wanted.items() if k in known})
    request = compiled.create_infer_request()
    image = np.zeros(tuple(compiled.input(0).shape), np.uint8)
    outputs = {port.get_any_name(): np.zeros(tuple(port.shape), np.float32) for port in compiled.outputs}
    request.set_input_tensor(Tensor(image, shared_memory=True))
    for name, output in outputs.items():
        request.set_tensor(name, Tensor(output, shared_memory=True))

    def compute(picture):
        image[:] = picture
        request.start_async()  # infer() would also copy the outputs
        request.wait()
        return [outputs[name] for name in sorted(outputs)]

    compute.shape = image.shape
    return compute


def direct_2021(model):
    from openvino.inference_engine import Blob, IECore, TensorDesc

    core = IECore()
    network = core.read_network(model)
    (name,) = network.input_info
    network.input_info[name].precision = "U8"
    known = set(core.get_metric("CPU", "SUPPORTED_CONFIG_KEYS"))
    loaded = core.load_network(network, "CPU", {"ENFORCE_BF16": "NO"} if "ENFORCE_BF16" in known else {})
    request = loaded.requests[0]
    image = np.zeros(tuple(network.input_info[name].input_data.shape), np.uint8)
    outputs = {output: np.zeros(tuple(port.shape), np.float32) for output, port in network.outputs.items()}
    request.set_blob(name, Blob(TensorDesc("U8", list(image.shape), "NCHW"), image))
    for output, array in outputs.items():
        request.set_blob(output, Blob(TensorDesc("FP32", list(array.shape), "NCHW"), array))

    def compute(picture):
        image[:] = picture
        request.async_infer()  # infer() and output_blobs would also copy the outputs
        request.wait(-1)
        return [outputs[output] for output in sorted(outputs)]

    compute.shape = image.shape
    compute.network = loaded  # its requests do not keep it
    return compute


class Direct:
    """The other process, asked from here."""

    def __init__(self, python, model):
        command = [str(python), "-I", __file__, "--direct", "--model", str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, seed):
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["ms"], answer["sum"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)


class Worker:
    """The session, from here."""

    def __init__(self, model, environment):
        from ovyolo.vpu import open_worker_session

        self._session, card = open_worker_session(model, "LEGACY.CPU", environment=environment)
        self._order = np.argsort(card.head.outputs)
        self.runtime = self._session.effective["RUNTIME"]

    def __call__(self, seed):
        picture = np.random.default_rng(seed).integers(0, 256, self._session.input_shape, np.uint8)
        begin = time.perf_counter()
        self._session.input(0)[:] = picture
        self._session.submit(0)
        outputs = self._session.wait(0)
        total = read([outputs[k] for k in self._order])
        return 1e3 * (time.perf_counter() - begin), total

    def close(self):
        self._session.close()


def thin_model(path):
    """An IR that computes next to nothing from 1.2 MB into 8.6 MB."""
    import openvino as ov
    from openvino import opset1

    from ovyolo.card import Card, Head
    from ovyolo.export.portable import save_ir

    image = opset1.parameter([1, 640, 640, 3], np.uint8, name="images")
    image.output(0).get_tensor().set_names({"images"})
    planes = opset1.transpose(opset1.convert(image, "f32"), np.array([0, 3, 1, 2]))
    results = []
    for level, stride in enumerate((8, 16, 32)):
        weights = np.random.default_rng(level).normal(0, 0.01, (255, 3, 1, 1)).astype(np.float32)
        head = opset1.convolution(planes, opset1.constant(weights), [stride] * 2, [0, 0], [0, 0], [1, 1])
        head.output(0).get_tensor().set_names({f"head{level}"})
        results.append(opset1.result(head))
    names, anchors = tuple(f"class{index}" for index in range(80)), ((8.0, 8.0),) * 3
    head = Head("anchors", ("head0", "head1", "head2"), (8, 16, 32), (anchors,) * 3)
    return save_ir(ov.Model(results, [image], "thin"), Card(names, (640, 640), head), path)


def measure(options):
    from ovyolo.bench.machine import describe, load_warning
    from ovyolo.detector import model_file
    from ovyolo.vpu import Environment, find_environment
    from ovyolo.vpu.environment import home, python_in

    if options.thin:
        model = thin_model(Path(tempfile.mkdtemp()) / "thin.xml")
    else:
        model = model_file(Path(options.model), options.imgsz, None).resolve()
    release = options.release
    environment = Environment(python_in(home() / release), release) if release else find_environment(stick=False)
    sides = {"direct": Direct(environment.python, model), "worker": Worker(model, environment)}
    rounds = 5 if options.smoke else options.rounds
    taken = {name: [] for name in sides}
    for seed in range(-min(10, rounds), rounds):  # negative: to warm up
        sums = []
        for name in sorted(sides, reverse=bool(seed % 2)):  # either is first in half of the rounds
            spent, total = sides[name](abs(seed))
            sums.append(total)
            if seed >= 0:
                taken[name].append(spent)
        if not np.isclose(*sums, rtol=1e-4):
            sys.exit(f"error: the two computed different heads for picture {seed}: {sums}")
    for side in sides.values():
        side.close()
    spent = {name: np.array(values) for name, values in taken.items()}
    difference = spent["worker"] - spent["direct"]
    rng = np.random.default_rng(0)
    drawn = np.median(difference[rng.integers(rounds, size=(1000, rounds))], axis=1)
    result = {
        "machine": describe(),
        "runtime": sides["worker"].runtime,
        "model": model.name,
        "rounds": rounds,
        "median_ms": {name: float(np.median(values)) for name, values in spent.items()},
        "fastest_tenth_ms": {name: float(np.percentile(values, 10)) for name, values in spent.items()},
        "price_ms": float(np.median(difference)),
        "price_interval_ms": [float(edge) for edge in np.percentile(drawn, INTERVAL)],
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items() if name != "instructions"))
    print(load_warning() or "no other program was busy")
    print(f"{result['model']} on OpenVINO {result['runtime']}, CPU, {rounds} rounds, the two in turn")
    for name, value in result["median_ms"].items():
        print(f"{name:8} {value:7.2f} ms a frame, the fastest tenth within {result['fastest_tenth_ms'][name]:.2f} ms")
    low, high = result["price_interval_ms"]
    print(f"price    {result['price_ms']:7.2f} ms a frame ({low:.2f} to {high:.2f}: 95 % of the median)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model")
    what.add_argument("--thin", action="store_true")
    parser.add_argument("--imgsz", type=int, help="for a .pt")
    parser.add_argument("--release", help="of the old OpenVINO (default: the best that is there)")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--smoke", action="store_true", help="five rounds: shows that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--direct", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.direct:
        direct(options.model)
    else:
        measure(options)


if __name__ == "__main__":
    main()
