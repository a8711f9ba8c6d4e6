"""Quantizers of activations other than NNCF's: 16 bits, and ranges taken from each picture as it is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

__all__ = ["behind_dynamic", "make_dynamic", "widen"]

LEVELS_16 = 65536
SUFFIX = "/dynamic"
TINY = 1e-6


def _quantizers(model: openvino.Model) -> list[openvino.Node]:
    """Those of activations: what they quantize is computed."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            while source.get_type_name() == "Convert":
                source = source.input_value(0).get_node()
            if source.get_type_name() != "Constant":
                found.append(node)
    return found


def _replace(node: openvino.Node, value: openvino.Output) -> None:
    for target in list(node.output(0).get_target_inputs()):
        target.replace_source_output(value)


def widen(model: openvino.Model) -> None:
    """Give the quantizers of activations 65536 steps instead of 256, in place; the camera's bytes need no more."""
    from openvino import opset1

    for node in _quantizers(model):
        if not _reads_picture(node):
            new = opset1.fake_quantize(*node.input_values(), LEVELS_16)
            new.set_friendly_name(node.get_friendly_name())
            _replace(node, new.output(0))


def make_dynamic(model: openvino.Model) -> None:
    """Let activations be quantized to the range that they have in each picture, in place.

    Written as arithmetic, because OpenVINO computes quantizers of unknown range by a slow reference.
    """
    from openvino import opset1, opset5

    for node in _quantizers(model):
        if _reads_picture(node):
            continue
        value = node.input_value(0)
        axes = opset1.constant(np.arange(len(value.get_shape()), dtype=np.int64))
        nought = opset1.constant(np.float32(0))
        low = opset1.minimum(opset1.reduce_min(value, axes, True), nought)
        high = opset1.maximum(opset1.reduce_max(value, axes, True), opset1.constant(np.float32(TINY)))
        step = opset1.multiply(opset1.subtract(high, low), opset1.constant(np.float32(1 / 255)))
        origin = opset5.round(opset1.divide(low, step), "half_to_even")
        steps = opset1.subtract(opset5.round(opset1.divide(value, step), "half_to_even"), origin)
        bounded = opset1.clamp(steps, 0.0, 255.0)
        new = opset1.multiply(opset1.add(bounded, origin), step)
        new.set_friendly_name(node.get_friendly_name() + SUFFIX)
        _replace(node, new.output(0))


def _reads_picture(node: openvino.Node) -> bool:
    source = node.input_value(0).get_node()
    while source.get_type_name() in ("Convert", "Transpose"):
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Parameter")


def behind_dynamic(node: openvino.Node) -> openvino.Output | None:
    """What a quantizer made by :func:`make_dynamic` quantizes; None for other operations."""
    if not node.get_friendly_name().endswith(SUFFIX):
        return None
    # times step, plus origin, clamp, minus origin, round, divide
    for _ in range(6):
        value = node.input_value(0)
        node = value.get_node()
    return value
