"""The layers of a quantized network: their weights, biases and inputs, to be set anew or put back to floating point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.activations import behind_dynamic

if TYPE_CHECKING:
    import openvino

__all__ = ["Layer", "float_layers", "layers_of", "quantized_names", "restore", "set_bias", "set_weights"]

Array = NDArray[Any]
FLOATS = ("f32", "f16", "bf16", "f64")
LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
# operations that hand numbers on unchanged, so that a quantizer before them could as well stand behind them
TRANSPARENT = ("Concat", "MaxPool", "Interpolate", "Transpose", "Reshape", "Convert", "SpaceToDepth", "DepthToSpace")


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or matrix product of the FP32 network.

    Args:
        name: its name, the same in the quantized network.
        kind: the operation's type.
        weights: float32, as the operation takes them.
        bias: the constant added to its result, or None.
        multiplications: how many it takes for one picture.
    """

    name: str
    kind: str
    weights: Array
    bias: Array | None
    multiplications: int

    @property
    def output_axis(self) -> int:
        """The axis of ``weights`` that counts outputs."""
        return {"GroupConvolution": 1, "ConvolutionBackpropData": 1}.get(self.kind, 0)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of one number an output, to be multiplied with ``weights``."""
        kept = {"GroupConvolution": (0, 1), "ConvolutionBackpropData": (1,)}.get(self.kind, (0,))
        return tuple(size if axis in kept else 1 for axis, size in enumerate(self.weights.shape))


def layers_of(model: openvino.Model) -> dict[str, Layer]:
    """The layers of a folded FP32 network that have constant weights, by name, in order."""
    found = {}
    for node in _nodes(model):
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant":
            continue
        data = np.array(weights.data, np.float32)
        if node.get_type_name() == "MatMul" and (data.ndim != 2 or not node.get_attributes()["transpose_b"]):
            continue
        adder = _adder(node)
        bias = None if adder is None else np.array(adder[0].input_value(adder[1]).get_node().data, np.float32)
        out = [int(size) for size in node.get_output_shape(0)]
        positions = int(np.prod(out[2:])) if node.get_type_name() != "MatMul" else int(np.prod(out[:-1]))
        if node.get_type_name() == "ConvolutionBackpropData":
            positions = int(np.prod([int(size) for size in node.get_input_shape(0)][2:]))
        name = node.get_friendly_name()
        found[name] = Layer(name, node.get_type_name(), data, bias, data.size * positions)
    return found


def quantized_names(model: openvino.Model) -> list[str]:
    """The layers of a quantized network whose weights are stored in fewer bits."""
    return [node.get_friendly_name() for node in _nodes(model) if _is_quantized(node)]


def float_layers(model: openvino.Model) -> list[str]:
    """The layers of a quantized network whose weights are not."""
    return [node.get_friendly_name() for node in _nodes(model) if not _is_quantized(node)]


def _nodes(model: openvino.Model) -> Iterator[openvino.Node]:
    for node in model.get_ordered_ops():
        if node.get_type_name() in LAYERS:
            yield node


def _is_quantized(node: openvino.Node) -> bool:
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape", "FakeQuantize", "Gather"):
        if source.get_type_name() in ("FakeQuantize", "Gather"):  # or a codebook, read by index
            return True
        source = source.input_value(0).get_node()
    return source.get_type_name() == "Constant" and source.get_element_type().get_type_name() not in FLOATS


def _adder(node: openvino.Node) -> tuple[openvino.Node, int] | None:
    """The operation that adds a constant per channel to the result of ``node``, and that constant's input."""
    readers = list(node.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return None
    adder = readers[0].get_node()
    side = 1 - readers[0].get_index()
    constant = adder.input_value(side).get_node()
    shape = [int(size) for size in constant.get_output_shape(0)]
    if constant.get_type_name() != "Constant" or sum(size > 1 for size in shape) > 1:
        return None
    return adder, side


def _by_name(model: openvino.Model) -> dict[str, openvino.Node]:
    return {node.get_friendly_name(): node for node in _nodes(model)}


def set_weights(node: openvino.Node, steps: Array, scale: Array) -> None:
    """Give ``node`` the weights ``steps * scale``, ``steps`` stored as they are: 8-bit or 16-bit integers."""
    from openvino import opset1

    stored = opset1.constant(steps)
    product = opset1.multiply(opset1.convert(stored, "f32"), opset1.constant(scale.astype(np.float32)))
    product.set_friendly_name(f"{node.get_friendly_name()}/weights")
    node.input(1).replace_source_output(product.output(0))


def set_bias(node: openvino.Node, bias: Array) -> None:
    """Add ``bias`` to the result of ``node`` instead of what is added to it now."""
    from openvino import opset1

    found = _adder(node)
    if found is not None:
        adder, side = found
        adder.input(side).replace_source_output(opset1.constant(bias.astype(np.float32)).output(0))


def restore(model: openvino.Model, layers: dict[str, Layer], names: list[str]) -> openvino.Model:
    """A copy of the quantized ``model`` in which the named layers compute in floating point, from unquantized inputs.

    A quantizer that other layers still need stays for them.
    """
    from openvino import opset1

    copy = model.clone()
    nodes = _by_name(copy)
    known: dict[tuple[str, int], openvino.Output] = {}
    for name in names:
        node, layer = nodes[name], layers[name]
        node.input(1).replace_source_output(opset1.constant(layer.weights).output(0))
        if layer.bias is not None:
            set_bias(node, layer.bias)
        node.input(0).replace_source_output(_unquantized(node.input_value(0), known))
    copy.validate_nodes_and_infer_types()
    return copy


def _unquantized(value: openvino.Output, known: dict[tuple[str, int], openvino.Output]) -> openvino.Output:
    """``value`` as it would be without the quantizers right behind it; operations between are doubled."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return _unquantized(node.input_value(0), known)
    dynamic = behind_dynamic(node)
    if dynamic is not None:
        return _unquantized(dynamic, known)
    if kind not in TRANSPARENT:
        return value
    key = node.get_friendly_name(), value.get_index()
    if key not in known:
        inputs = [_unquantized(source, known) for source in node.input_values()]
        if all(new == old for new, old in zip(inputs, node.input_values(), strict=True)):
            known[key] = value
        else:
            twin = node.clone_with_new_inputs(inputs) if hasattr(node, "clone_with_new_inputs") else _twin(node, inputs)
            twin.set_friendly_name(f"{node.get_friendly_name()}/float")
            known[key] = twin.output(value.get_index())
    return known[key]


def _twin(node: openvino.Node, inputs: list[openvino.Output]) -> openvino.Node:
    """The same operation on other inputs."""
    from openvino.utils.node_factory import NodeFactory

    version = str(node.get_type_info().version_id)
    return NodeFactory(version).create(node.get_type_name(), inputs, node.get_attributes())
