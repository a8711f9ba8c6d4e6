"""From NNCF's quantizers to the INT8 network: exact input range, and weights rounded so that little is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.activations import make_dynamic, widen
from ovyolo.compress.layers import Layer, layers_of, quantized_names, set_bias, set_weights
from ovyolo.compress.moments import few_of, measure_moments, rounds_of
from ovyolo.compress.nncf_bridge import compress_weights, quantize_graph
from ovyolo.compress.rounding import round_16, round_compensated, round_nearest
from ovyolo.compress.scheme import Scheme
from ovyolo.compress.stages import Stages
from ovyolo.compress.weight_formats import store_weights

if TYPE_CHECKING:
    import openvino

__all__ = ["Quantizer"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Rounded:
    steps: Array
    scale: Array
    bias: Array | None


class Quantizer:
    """Quantizes one FP32 network in one or several ways; what does not depend on the way is done once.

    Args:
        model: the folded network.
        pictures: calibration pictures, letterboxed.
        stages: told what goes on.
    """

    def __init__(self, model: openvino.Model, pictures: Sequence[NDArray[np.uint8]], stages: Stages) -> None:
        self.model = model
        self.layers = layers_of(model)
        self.pictures = pictures
        self._stages = stages
        self._rounded: dict[tuple[str, str, int], dict[str, _Rounded]] = {}

    def __call__(self, scheme: Scheme) -> openvino.Model:
        """The network quantized by ``scheme``; its ``model`` stays as it is.

        Raises:
            ExportError: NNCF cannot.
        """
        if scheme.weights_only:
            return self._weights_only(scheme)
        with self._stages.stage("measuring ranges", len(self.pictures), "picture") as tell:
            quantized = quantize_graph(self.model, self.pictures, scheme, tell)
        exact_input(quantized)
        if scheme.refined:
            self._set_weights(quantized, scheme)
        if scheme.bits == 16:
            widen(quantized)
        if scheme.activations == "dynamic":
            make_dynamic(quantized)
        quantized.validate_nodes_and_infer_types()
        return quantized

    def _weights_only(self, scheme: Scheme) -> openvino.Model:
        if scheme.weight_format == "int8":
            return compress_weights(self.model, "int8_asym" if scheme.weights == "asymmetric" else "int8_sym")
        copy = self.model.clone()
        for node in copy.get_ordered_ops():
            layer = self.layers.get(node.get_friendly_name())
            if layer is not None:
                node.input(1).replace_source_output(store_weights(layer, scheme.weight_format))
        copy.validate_nodes_and_infer_types()
        return copy

    def _set_weights(self, quantized: openvino.Model, scheme: Scheme) -> None:
        names = [name for name in quantized_names(quantized) if name in self.layers]
        key = scheme.rounding, scheme.overflow, scheme.bits
        if key not in self._rounded:
            self._rounded[key] = self._round([self.layers[name] for name in names], scheme)
        nodes = {node.get_friendly_name(): node for node in quantized.get_ordered_ops()}
        for name in names:
            rounded = self._rounded[key][name]
            set_weights(nodes[name], rounded.steps, rounded.scale)
            if rounded.bias is not None:
                set_bias(nodes[name], rounded.bias)

    def _round(self, layers: Sequence[Layer], scheme: Scheme) -> dict[str, _Rounded]:
        pairs = scheme.overflow == "pairs"
        found: dict[str, _Rounded] = {}
        compensable = [layer for layer in layers if layer.kind in ("Convolution", "MatMul")]
        if scheme.bits == 16:
            return {layer.name: _Rounded(*round_16(layer), layer.bias) for layer in layers}
        if scheme.rounding == "compensated":
            few = few_of(self.pictures)
            rounds = rounds_of(compensable)
            with self._stages.stage("measuring layers", rounds * len(few), "picture") as tell:
                moments = measure_moments(self.model, compensable, few, tell)
                for layer, measured in moments:
                    steps, scale, left = round_compensated(layer, measured, pairs)
                    bias = None if layer.bias is None else layer.bias - _shaped(left, layer.bias)
                    found[layer.name] = _Rounded(steps, scale, bias)
        for layer in layers:
            if layer.name not in found:
                found[layer.name] = _Rounded(*round_nearest(layer, pairs), None)
        return found


def _shaped(per_output: Array, bias: Array) -> Array:
    """Values an output in the shape of the layer's bias."""
    if bias.size == per_output.size:
        return per_output.reshape(bias.shape)
    # one number for all outputs: take the mean off
    return np.full(bias.shape, per_output.mean())


def exact_input(quantized: openvino.Model) -> None:
    """Let the first quantizer keep the camera's bytes as they are: 256 steps for 0 to 255, whatever the calibration
    pictures hold. In place."""
    from openvino import opset1

    for node in quantized.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0).get_node()
        while source.get_type_name() in ("Convert", "Transpose"):
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Parameter":
            low, high = (opset1.constant(np.float32(value)).output(0) for value in (0, 255))
            for index, value in ((1, low), (2, high), (3, low), (4, high)):
                node.input(index).replace_source_output(value)
