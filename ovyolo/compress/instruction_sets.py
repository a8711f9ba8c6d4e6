"""On which instruction sets an INT8 file computes what it should: run on each that this CPU has, and compared.

oneDNN, which computes OpenVINO's convolutions, can be kept from using the newest instructions
(``ONEDNN_MAX_CPU_ISA``), in a process of its own because it looks only once. And whatever the CPU, the stored weights
themselves show whether any pair of products can overflow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.compress.head_error import head_error
from ovyolo.compress.rounding import PAIR_LIMIT
from ovyolo.core import shared_core

if TYPE_CHECKING:
    import openvino

__all__ = ["check_instruction_sets", "overflowing_layers"]

VARIABLE = "ONEDNN_MAX_CPU_ISA"
TIMEOUT = 300
# the instruction sets to step down to, what oneDNN calls them, and the feature that the CPU needs for them
STEPS = (
    ("avx512_vnni", "AVX512_CORE_VNNI", "avx512_vnni"),
    ("avx512", "AVX512_CORE", "avx512f"),
    ("avx_vnni", "AVX2_VNNI", "avx_vnni"),
    ("avx2", "AVX2", "avx2"),
)
# the change of heads, as a share, above which an instruction set computes something else: rounding alone gives less
SAME = 0.01


def overflowing_layers(model: openvino.Model) -> list[str]:
    """Convolutions of an INT8 model in which a pair of 8-bit products can saturate on a CPU without VNNI."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"):
            continue
        steps = _steps(node.input_value(1).get_node())
        if steps is None:
            continue
        kind = node.get_type_name()
        steps = steps.reshape(list(node.input_value(1).get_shape()))  # groups may be made behind the stored weights
        if kind == "GroupConvolution":
            steps = steps.reshape(-1, *steps.shape[2:])
        elif kind == "ConvolutionBackpropData":
            steps = steps.swapaxes(0, 1)
        rows = steps.reshape(steps.shape[0], steps.shape[1], -1).astype(np.int32)
        padded = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2), (0, 0)))
        for sign in (1, -1):
            part = np.maximum(sign * padded, 0)
            if (part[:, 0::2] + part[:, 1::2] > PAIR_LIMIT).any():
                found.append(node.get_friendly_name())
                break
    return found


def _steps(node: openvino.Node) -> NDArray[Any] | None:
    """The stored 8-bit weights behind a layer's weight input; None where there are none."""
    while node.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() not in ("i8", "u8"):
        return None
    return np.array(node.data)


def check_instruction_sets(path: Path, card: Card, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """Run the INT8 file ``path`` limited to each instruction set that this CPU has.

    Returns:
        ``checked``: by name, ``"same"``, ``"differs (… %)"`` or why it could not be run; compared with the same file
        computed in floating point where rounding allows, else with this CPU's best. ``reference``: the change of
        heads between that and floating point.
    """
    from ovyolo._nms import cpu_features

    has = set(cpu_features())
    steps = [(name, word) for name, word, feature in STEPS if feature in has]
    if not steps:
        return {"checked": {}, "reference": None}
    checked: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="ovyolo-isa-") as folder:
        np.save(Path(folder) / "pictures.npy", np.stack(pictures))
        exact = _run(path, folder, {"LP": "1"})
        if isinstance(exact, str):
            return {"checked": {name: exact for name, _ in steps}, "reference": None}
        errors = {}
        for name, word in steps:
            found = _run(path, folder, {VARIABLE: word})
            if isinstance(found, str):
                checked[name] = found
            else:
                errors[name] = head_error(card, exact, found).total
        # INT8 rounds where floating point does not: the least change among the instruction sets is that
        floor = min(errors.values(), default=0.0)
        for name, error in errors.items():
            checked[name] = "same" if error <= floor + SAME else f"differs ({100 * error:.1f} %)"
    return {"checked": checked, "reference": round(floor, 5)}


def _run(path: Path, folder: str, variables: dict[str, str]) -> list[list[NDArray[np.float32]]] | str:
    """The heads that a process of its own computes; or why there are none."""
    out = Path(folder) / "out.npz"
    command = [sys.executable, "-m", "ovyolo.compress.instruction_sets", str(path), folder]
    # the same ovyolo, installed or not
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not run ({type(error).__name__})"
    if done.returncode or not out.is_file():
        return "not run (" + ((done.stderr.strip().splitlines() or ["no output"])[-1])[:120] + ")"
    with np.load(out) as stored:
        count = 1 + max(int(name.split("_")[0]) for name in stored.files)
        heads = 1 + max(int(name.split("_")[1]) for name in stored.files)
        found = [[stored[f"{picture}_{head}"] for head in range(heads)] for picture in range(count)]
    out.unlink()
    return found


def _child(path: str, folder: str) -> None:
    """Compute the heads of the pictures in ``folder``; runs in a process of its own."""

    from ovyolo.runtime import read_model

    core = shared_core()
    model, card = read_model(Path(path), core)
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if os.environ.get("LP"):
        config["LP_TRANSFORMS_MODE"] = "NO"
    request = core.compile_model(model, "CPU", config).create_infer_request()
    found = {}
    for index, picture in enumerate(np.load(Path(folder) / "pictures.npy")):
        request.infer([picture[None]])
        for head, name in enumerate(card.head.outputs):
            found[f"{index}_{head}"] = np.array(request.get_tensor(name).data)
    np.savez(Path(folder) / "out.npz", **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    _child(*sys.argv[1:3])
