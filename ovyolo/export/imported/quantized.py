"""Files that were quantized elsewhere: ONNX Runtime's QDQ, TensorFlow Lite's INT8, PyTorch's export.

Their quantizers are made OpenVINO's own, so that its 8-bit kernels take them; 8-bit weights stay 8-bit constants while
everything around them is worked on; and what such tools do to the decoding behind the heads, where one scale has to
serve pixels and probabilities, is left out: it is cut off anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1

from ovyolo.export.imported.cut import operations_behind

__all__ = ["StoredWeights", "drop_behind_heads", "join_quantizers", "keep_stored", "take_stored"]

Array = NDArray[Any]
INTEGERS = ("i8", "u8", "i16", "u16", "i32")
STORED = ("i8", "u8")
CONVOLUTIONS = ("Convolution", "GroupConvolution")
TURNS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
BETWEEN_STEPS = 0.02  # of a step: what FP32 arithmetic around the weights explains


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """How a convolution's weights are stored: ``(steps - zero) * scale``.

    Args:
        weights: what they are, float32.
        scale: of a step, ``(outputs, 1, 1, 1)``, or with groups ``(groups, outputs, 1, 1, 1)``.
        zero: the step that stands for 0, likewise.
        kind: ``"i8"`` or ``"u8"``.
    """

    weights: Array
    scale: Array
    zero: Array
    kind: str


def constant_value(value: ov.Output) -> Array | None:
    """What a value that depends on constants alone is; None for others."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return np.array(node.data)
    if kind not in ("Convert", "Reshape", "Squeeze", "Unsqueeze", "Subtract", "Multiply"):
        return None
    first = constant_value(node.input_value(0))
    if first is None:
        return None
    if kind == "Convert":
        return np.asarray(first).astype(node.get_output_element_type(0).to_dtype())
    if kind in ("Reshape", "Squeeze", "Unsqueeze"):
        return first.reshape(list(node.get_output_shape(0))) if node.output(0).partial_shape.is_static else None
    second = constant_value(node.input_value(1))
    if second is None:
        return None
    return np.asarray(first - second if kind == "Subtract" else first * second)


def take_stored(model: ov.Model) -> dict[str, StoredWeights]:
    """Replace weights stored in 8 bits by what they are in FP32, in place; returns how they were stored, by layer."""
    found: dict[str, StoredWeights] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() not in CONVOLUTIONS:
            continue
        stored = _stored(node)
        if stored is not None:
            found[node.get_friendly_name()] = stored
            node.input(1).replace_source_output(opset1.constant(stored.weights).output(0))
    return found


def _stored(convolution: ov.Node) -> StoredWeights | None:
    shape = [int(size) for size in convolution.get_input_shape(1)]
    kept = 2 if convolution.get_type_name() == "GroupConvolution" else 1
    value = convolution.input_value(1)
    scale: Array = np.ones((1,) * len(shape), np.float32)
    zero: Array = np.zeros((1,) * len(shape), np.float32)
    kinds = set()
    while (node := value.get_node()).get_type_name() != "Constant":
        kind = node.get_type_name()
        if kind in ("Multiply", "Subtract"):
            other = constant_value(node.input_value(1))
            if other is None or (kind == "Multiply" and "Multiply" in kinds):
                return None
            kinds.add(kind)
            # numbers an output stand for themselves only where they lie along the outputs' axes
            if other.size not in (1, int(np.prod(shape[:kept]))):
                return None
            wanted = (1,) * len(shape) if other.size == 1 else (*shape[:kept], *(1,) * (len(shape) - kept))
            if kind == "Multiply":
                scale = other.astype(np.float32).reshape(wanted)
            else:
                zero = other.astype(np.float32).reshape(wanted)
        elif kind not in ("Convert", "Reshape"):
            return None
        value = node.input_value(0)
    kind = value.get_element_type().get_type_name()
    if kind not in STORED or "Multiply" not in kinds:
        return None
    steps = np.array(value.get_node().data).reshape(shape).astype(np.float32)
    each = (*shape[:kept], *(1,) * (len(shape) - kept))
    scale, zero = np.broadcast_to(scale, each), np.broadcast_to(zero, each)
    weights = ((steps - zero) * scale).astype(np.float32)
    whole = constant_value(convolution.input_value(1))
    if whole is None or not np.allclose(whole, weights, rtol=1e-5, atol=0):
        return None
    return StoredWeights(weights, scale, zero, kind)


def keep_stored(model: ov.Model, stored: dict[str, StoredWeights]) -> int:
    """Store weights in 8 bits again, in place, where they are what they were but for their order and a factor an
    output: the first layer takes bytes in another order now. Returns how many layers' are not."""
    missed = 0
    for node in model.get_ordered_ops():
        one = stored.get(node.get_friendly_name()) if node.get_type_name() in CONVOLUTIONS else None
        if one is None:
            continue
        now = constant_value(node.input_value(1))
        steps = None if now is None or now.shape != one.weights.shape else _steps(now, one)
        if steps is None:
            missed += 1
            continue
        values, scale = steps
        dtype = {"i8": np.int8, "u8": np.uint8}[one.kind]
        product: ov.Node = opset1.convert(opset1.constant(values.astype(dtype)), "f32")
        if one.zero.any():
            product = opset1.subtract(product, opset1.constant(np.array(one.zero, np.float32)))
        product = opset1.multiply(product, opset1.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()
    return missed


def _steps(now: Array, one: StoredWeights) -> tuple[Array, Array] | None:
    axes = tuple(axis for axis, size in enumerate(one.scale.shape) if size == 1)
    before = np.abs(one.weights).max(axis=axes, keepdims=True) if axes else np.abs(one.weights)
    after = np.abs(now).max(axis=axes, keepdims=True) if axes else np.abs(now)
    scale = one.scale * np.where(before > 0, after / np.where(before > 0, before, 1), 1)
    steps = now / np.where(scale > 0, scale, 1) + one.zero
    whole = np.round(steps)
    low, high = (-128, 127) if one.kind == "i8" else (0, 255)
    if np.abs(steps - whole).max() > BETWEEN_STEPS or whole.min() < low or whole.max() > high:
        return None
    return whole, scale


def join_quantizers(model: ov.Model) -> int:
    """Make one FakeQuantize of each that is followed by a conversion to integers and back, in place; returns how many.

    ``FakeQuantize -> Convert -> Convert -> Subtract zero -> Multiply scale``, as ONNX's QuantizeLinear and
    DequantizeLinear are read, becomes a FakeQuantize whose steps are the numbers that they stand for.
    """
    joined = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for integers in _readers(node.output(0)):
            if (
                integers.get_type_name() != "Convert"
                or integers.get_output_element_type(0).get_type_name() not in INTEGERS
            ):
                continue
            for floats in _readers(integers.output(0)):
                end = _dequantized(floats)
                if end is None:
                    continue
                last, zero, scale = end
                low, high = (constant_value(node.input_value(i)) for i in (3, 4))
                if low is None or high is None:
                    continue
                ends = [opset1.constant(((limit - zero) * scale).astype(np.float32)).output(0) for limit in (low, high)]
                inputs = [*(node.input_value(i) for i in range(3)), *ends]
                new = opset1.fake_quantize(*inputs, node.get_attributes()["levels"])
                new.set_friendly_name(last.get_friendly_name())
                new.output(0).get_tensor().set_names(last.output(0).get_tensor().get_names())
                for target in list(last.output(0).get_target_inputs()):
                    target.replace_source_output(new.output(0))
                joined += 1
    model.validate_nodes_and_infer_types()
    return joined


def _readers(value: ov.Output) -> list[ov.Node]:
    return list({target.get_node().get_name(): target.get_node() for target in value.get_target_inputs()}.values())


def _dequantized(floats: ov.Node) -> tuple[ov.Node, Array, Array] | None:
    """The last operation of ``Convert -> Subtract -> Multiply`` from ``floats`` on, with one zero and one scale."""
    if floats.get_type_name() != "Convert" or floats.get_output_element_type(0).get_type_name() != "f32":
        return None
    node, numbers = floats, {"Subtract": np.zeros(1, np.float32)}
    for kind in ("Subtract", "Multiply"):
        following = _readers(node.output(0))
        if len(following) != 1 or following[0].get_type_name() != kind:
            continue
        number = constant_value(following[0].input_value(1))
        if number is None or number.size != 1:
            return None
        node, numbers[kind] = following[0], number.astype(np.float32).reshape(1)
    return (node, numbers["Subtract"], numbers["Multiply"]) if "Multiply" in numbers else None


def _rounds(node: ov.Node) -> bool:
    """Whether it makes floats integers that are only returned, or made floats again."""
    return (
        node.get_type_name() == "Convert"
        and node.get_input_element_type(0).get_type_name() == "f32"
        and node.get_output_element_type(0).get_type_name() in INTEGERS
        and all(reader.get_type_name() in ("Convert", "Result", *TURNS) for reader in _readers(node.output(0)))
    )


def drop_behind_heads(model: ov.Model) -> int:
    """Leave out quantizers, and conversions to integers, behind the last convolutions, in place; returns how many."""
    dropped = 0
    for node in operations_behind([result.input_value(0) for result in model.get_results()]):
        kind = node.get_type_name()
        if kind == "FakeQuantize" or _rounds(node):
            if constant_value(node.input_value(0)) is not None:
                continue
            for target in list(node.output(0).get_target_inputs()):
                target.replace_source_output(node.input_value(0))
            dropped += 1
    model.validate_nodes_and_infer_types()
    return dropped
