"""What a file's network takes.

What YOLOv5's own exporter writes takes ``[N, 3, H, W]`` floats, RGB, 0 to 1. A file may have a stage of its own before
that (another layout or type, 1/255, channels reversed); its effect is measured, so that it can be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1

from ovyolo.errors import ExportError, UnsupportedModelError
from ovyolo.export.imported.reading import Runner

__all__ = ["InputStage", "find_stage"]

STAGE_OPERATIONS = ("Convert", "Transpose", "Multiply", "Divide", "Subtract", "Add", "Gather", "Reshape")


@dataclass
class InputStage:
    """What lies between a file's input and its first layer.

    Args:
        entry: what the first layer reads, ``[N, 3, H, W]`` floats.
        nhwc: the file's input is ``[N, H, W, 3]``.
        takes_bytes: the file's input is 0 to 255, otherwise 0 to 1.
        takes_bgr: the file's input is BGR, otherwise RGB.
        gain: ``entry`` is this many times the byte.
        entry_bgr: ``entry`` is BGR, otherwise RGB.
        offset: what is added to a byte where the file's input is signed, -128; otherwise 0.
        notes: what had to be assumed.
    """

    entry: ov.Output
    nhwc: bool = False
    takes_bytes: bool = False
    takes_bgr: bool = False
    gain: float = 1 / 255
    entry_bgr: bool = False
    offset: int = 0
    notes: list[str] = field(default_factory=list)

    def feed(self, picture: NDArray[np.uint8], parameter: ov.Node) -> NDArray[Any]:
        """``picture`` (u8 BGR ``[H, W, 3]``) as the file's own input ``parameter`` wants it."""
        kind = parameter.get_output_element_type(0).to_dtype()
        image: NDArray[Any] = picture if self.takes_bgr else picture[..., ::-1]
        image = image if self.takes_bytes else image.astype(np.float32) / 255
        image = image.astype(np.int16) + self.offset if self.offset else image
        image = image if self.nhwc else image.transpose(2, 0, 1)
        batch = parameter.get_output_shape(0)[0]
        return np.ascontiguousarray(np.broadcast_to(image.astype(kind), (batch, *image.shape)))


def find_stage(model: ov.Model, *, rgb: bool = False) -> InputStage:
    """Find out what the only input of ``model`` (static, FP32) takes; with ``rgb``, RGB unless it says otherwise.

    Raises:
        UnsupportedModelError: it is not a picture of three channels.
        ExportError: its preprocessing is not understood.
    """
    parameter = model.get_parameters()[0]
    shape = list(parameter.get_output_shape(0))
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise UnsupportedModelError(
            f"its input {shape} is not a picture of three channels: that is not a YOLOv5 detector"
        )
    converted, reverses, notes = _converter_settings(model)
    # the stage is run on a copy, so that the graph itself stays as it is
    copy = model.clone()
    copied = _end_of_stage(copy.get_parameters()[0].output(0))
    nhwc, scale, swapped = _measure(copy, copied)
    entry = _end_of_stage(parameter.output(0))
    takes_bytes = parameter.get_output_element_type(0).is_integral() or converted or scale != 1.0
    takes_bgr = reverses or swapped
    declared = _declared_bgr(model)
    if declared is not None and not takes_bgr:
        takes_bgr = declared
        notes += ["Its source says that it takes BGR."] if declared else []
    elif rgb and not takes_bgr:
        notes.append("It is taken to have been trained on RGB pictures, as its kind of file does not say.")
    elif not takes_bgr and (takes_bytes or _key(entry) != _key(parameter.output(0))):
        raise ExportError(
            "the operations at its input prepare pictures, but nothing tells whether of RGB or BGR, as OpenVINO may "
            "have hidden a change of order in the weights: export the .onnx or .pt that it was made from"
        )
    return InputStage(
        entry=entry,
        nhwc=nhwc,
        takes_bytes=takes_bytes,
        takes_bgr=takes_bgr,
        gain=scale if takes_bytes else scale / 255,
        entry_bgr=takes_bgr != swapped,
        offset=-128 if parameter.get_output_element_type(0).get_type_name() == "i8" else 0,
        notes=notes,
    )


def _key(value: ov.Output) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()


def _declared_bgr(model: ov.Model) -> bool | None:
    """Whether the file says, in the key of Intel's Model API, that BGR pictures go in as they are; None if nothing."""
    key = ["model_info", "reverse_input_channels"]
    if not model.has_rt_info(key):
        return None
    return str(model.get_rt_info(key).value).strip().lower() not in ("true", "yes", "1")


def _converter_settings(model: ov.Model) -> tuple[bool, bool, list[str]]:
    """Whether OpenVINO's Model Optimizer was told to put 1/255, and a change of channel order, into the weights."""

    def setting(*names: str) -> str:
        for name in names:
            if model.has_rt_info(["conversion_parameters", name]):
                return str(model.get_rt_info(["conversion_parameters", name]).value)
        return ""

    def numbers(*names: str) -> list[float]:
        return [float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d*)?(?![\w.])", setting(*names))]

    means = numbers("mean_values")
    scales = [*numbers("scale"), *numbers("scale_values")]
    if any(means) or any(abs(s - 255) > 0.5 and s != 1 for s in scales):
        raise ExportError(
            f"it was converted with mean values {means} and scale values {scales}, which is not how YOLOv5 is "
            "trained: export the .pt itself"
        )
    scaled = any(s != 1 for s in scales)
    reverses = setting("reverse_input_channels").strip().lower() in ("true", "yes", "1")
    form = f"{'BGR' if reverses else 'RGB'} from 0 to {'255' if scaled else '1'}"
    notes = [f"Its source says that it was converted to take {form}."] if scaled or reverses else []
    return scaled, reverses, notes


def _consumers(value: ov.Output) -> list[ov.Node]:
    """The operations that read ``value``, each once, but for those that only want its shape."""
    nodes = {target.get_node().get_name(): target.get_node() for target in value.get_target_inputs()}
    return [node for node in nodes.values() if node.get_type_name() != "ShapeOf"]


def _end_of_stage(value: ov.Output) -> ov.Output:
    """Follow ``value`` through operations that only prepare a picture."""
    while True:
        nodes = _consumers(value)
        if len(nodes) != 1:
            return value
        node = nodes[0]
        kind = node.get_type_name()
        if kind in STAGE_OPERATIONS and all(
            source.get_node().get_type_name() == "Constant" or source == value for source in node.input_values()
        ):
            value = node.output(0)
            continue
        joined = _joined_again(node)
        if joined is None:
            return value
        value = joined


def _joined_again(node: ov.Node) -> ov.Output | None:
    """Where ``node`` splits a picture into its channels: the concatenation of just these; otherwise None."""
    if node.get_type_name() not in ("Split", "VariadicSplit") or any(
        o.get_shape() != node.output(0).get_shape() for o in node.outputs()
    ):
        return None
    joints = [_consumers(output) for output in node.outputs()]
    if any(len(nodes) != 1 for nodes in joints):
        return None
    joint = joints[0][0]
    same = all(nodes[0].get_name() == joint.get_name() for nodes in joints)
    if not same or joint.get_type_name() != "Concat" or joint.get_input_size() != len(joints):
        return None
    return joint.output(0)


def _measure(model: ov.Model, end: ov.Output) -> tuple[bool, float, bool]:
    """What the operations before ``end`` do: ``(from NHWC, factor, channels reversed)``."""
    parameter = model.get_parameters()[0]
    if end.get_node().get_name() == parameter.get_name():
        if parameter.get_output_shape(0)[1] != 3:
            raise UnsupportedModelError("its network takes [N, H, W, 3], YOLOv5's take [N, 3, H, W]")
        return False, 1.0, False
    shape = list(parameter.get_output_shape(0))
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 256, shape).astype(parameter.get_output_element_type(0).to_dtype())
    result = Runner(ov.Model([opset1.result(end)], [parameter]))([sample])[0]
    for nhwc, scale, swapped in product((False, True), (1.0, 1 / 255), (False, True)):
        if shape[3 if nhwc else 1] != 3:
            continue
        expected = (sample.transpose(0, 3, 1, 2) if nhwc else sample).astype(np.float64) * scale
        expected = expected[:, ::-1] if swapped else expected
        if result.shape == expected.shape and np.allclose(result, expected, rtol=2e-3, atol=1e-6):
            return nhwc, scale, swapped
    raise ExportError(
        "the operations at its input are neither 1/255, nor another layout, nor reversed channels, which is all that "
        "YOLOv5 needs: export the .pt itself"
    )
