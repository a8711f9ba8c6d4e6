"""Reading an ``.onnx``, ``.tflite`` or ``.xml`` file, and running graphs for the exporter's own checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1

from ovyolo.core import shared_core
from ovyolo.errors import ExportError, reason_of
from ovyolo.export.imported.onnx_metadata import OnnxDamagedError, read_onnx_metadata

__all__ = ["Runner", "float32_graph", "read_graph", "reads_tflite", "tidy", "weights_precision"]

FLOATS = ("f16", "bf16", "f64")
# 2025.0 crashes on damaged files and computes some quantized operations wrongly; this one was tested
TFLITE_SINCE = (2026, 4)


def read_graph(path: Path) -> tuple[ov.Model, dict[str, str]]:
    """The network in ``path`` as it is, and the metadata of an ONNX file.

    Raises:
        ExportError: the file, or one that belongs to it, is missing, damaged or something else.
    """
    metadata: dict[str, str] = {}
    if path.is_file() and not path.stat().st_size:
        raise ExportError(f"{path} is empty: fetch or export the file again")
    if not path.is_file():
        raise ExportError(f"{path} does not exist: give the path of an .onnx, .tflite or .xml file")
    if path.suffix.lower() == ".xml":
        with open(path, "rb") as file:
            if b"<net" not in file.read(1 << 16):
                raise ExportError(f"{path} is not an OpenVINO IR: it has no <net> element")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise ExportError(f"{path} needs its weights beside it, but {weights.name} is missing: copy both files")
    elif path.suffix.lower() == ".tflite":
        with open(path, "rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise ExportError(f"{path} is not a TensorFlow Lite model: fetch or export the file again")
        if not reads_tflite():
            raise ExportError(
                f"{path} needs OpenVINO {'.'.join(map(str, TFLITE_SINCE))} or later to be read, and this is "
                f"{ov.__version__.split('-')[0]}: upgrade it where you export; what is exported runs on older ones"
            )
    else:
        try:
            metadata = read_onnx_metadata(path)
        except OnnxDamagedError as error:
            raise ExportError(f"{path}: {error}; fetch or export the file again") from error
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        model = shared_core().read_model(path)
    except RuntimeError as error:
        if "external" in str(error):
            raise ExportError(
                f"{path} has its weights in another file, which is missing or damaged ({reason_of(error)}): keep both "
                "files together"
            ) from error
        raise ExportError(
            f"{path} cannot be read by OpenVINO {ov.__version__.split('-')[0]}: it is damaged, incomplete or has "
            f"operations that OpenVINO does not know ({reason_of(error)})"
        ) from error
    return model, metadata


def reads_tflite() -> bool:
    """Whether this OpenVINO reads TensorFlow Lite's files reliably."""
    numbers = ov.__version__.split("-")[0].split(".")[:2]
    return tuple(int(number) if number.isdigit() else 0 for number in numbers) >= TFLITE_SINCE


def weights_precision(model: ov.Model) -> str:
    """What most weights are stored in: ``"INT8"`` where any are quantized, else ``"FP16"`` or ``"FP32"``."""
    sizes: dict[str, int] = {}
    for node in model.get_ops():
        if node.get_type_name() in ("FakeQuantize", "FakeConvert"):
            return "INT8"
        if node.get_type_name() == "Constant":
            kind = node.get_output_element_type(0).get_type_name()
            sizes[kind] = sizes.get(kind, 0) + int(np.prod(node.get_output_shape(0), dtype=np.int64))
    integers = sizes.get("i8", 0) + sizes.get("u8", 0)
    if integers > sum(sizes.get(kind, 0) for kind in ("f32", *FLOATS)):
        return "INT8"
    return "FP16" if sizes.get("f16", 0) + sizes.get("bf16", 0) > sizes.get("f32", 0) else "FP32"


def float32_graph(model: ov.Model) -> None:
    """Make every floating-point number of ``model`` FP32, in place: parameters, constants and conversions."""
    for parameter in model.get_parameters():
        if parameter.get_output_element_type(0).get_type_name() in FLOATS:
            parameter.set_element_type(ov.Type.f32)
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant" and node.get_output_element_type(0).get_type_name() in FLOATS:
            new = opset1.constant(constant_array(node).astype(np.float32))
        elif kind == "Convert" and node.get_output_element_type(0).get_type_name() in (*FLOATS, "f32"):
            source = node.input_value(0).get_node()
            if source.get_type_name() == "Constant":
                new = opset1.constant(constant_array(source).astype(np.float32))
            elif node.get_output_element_type(0) == ov.Type.f32:
                continue
            else:
                new = opset1.convert(node.input_value(0), "f32")
        else:
            continue
        new.set_friendly_name(node.get_friendly_name())
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(new.output(0))
    model.validate_nodes_and_infer_types()


def constant_array(node: ov.Node) -> NDArray[Any]:
    """The numbers of a Constant; bfloat16, which NumPy has not, becomes FP32."""
    if node.get_output_element_type(0) == ov.Type.bf16:
        return np.array(node.get_data(dtype=np.float32))
    return np.array(node.data)


def tidy(model: ov.Model) -> None:
    """Fold what is constant and join what belongs together (``x * sigmoid(x)`` becomes Swish), in place."""
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=True)


class Runner:
    """A compiled model on the CPU, computing in FP32 whatever the CPU would prefer."""

    def __init__(self, model: ov.Model) -> None:
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        core = shared_core()
        try:
            # INT8 kernels round here and there otherwise; computed in FP32, quantized networks can be compared as well
            compiled = core.compile_model(model, "CPU", {**config, "LP_TRANSFORMS_MODE": "NO"})
        except RuntimeError as error:
            if "LP_TRANSFORMS_MODE" not in str(error):
                raise
            compiled = core.compile_model(model, "CPU", config)
        self._request = compiled.create_infer_request()

    def __call__(self, inputs: Sequence[NDArray[Any]] | Mapping[int, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """All outputs, as FP32 arrays of their own."""
        feeds = inputs if isinstance(inputs, Mapping) else dict(enumerate(inputs))
        results = self._request.infer(dict(feeds))
        return [np.array(results[i], dtype=np.float32) for i in range(len(results))]
