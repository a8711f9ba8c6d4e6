"""What goes into each layer: means and covariances of the patches it sees, from calibration pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.layers import Layer
from ovyolo.core import shared_core

if TYPE_CHECKING:
    import openvino

__all__ = ["Moments", "measure_moments", "rounds_of"]

PATCHES = 256  # a picture and layer
CHUNK_BYTES = 3 * 2**28
SEED = 5


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the inputs ``x`` ``[inputs]`` that one output of a layer is made of, in the order of its weights.

    Args:
        mean: float64 ``(inputs,)``.
        covariance: float64 ``(inputs, inputs)``.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def _chunks(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers in groups whose covariances fit into memory together."""
    groups: list[list[Layer]] = [[]]
    held = 0
    for layer in layers:
        inputs = layer.weights.size // layer.weights.shape[0]
        need = 12 * inputs * inputs  # collected in float32, returned in float64
        if groups[-1] and held + need > CHUNK_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(layer)
        held += need
    return groups


def rounds_of(layers: Sequence[Layer]) -> int:
    """How often :func:`measure_moments` goes through the pictures."""
    return len(_chunks(layers))


def measure_moments(
    model: openvino.Model,
    layers: Sequence[Layer],
    pictures: Sequence[NDArray[np.uint8]],
    tell: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Layer, Moments]]:
    """The moments of each layer's input, layer by layer.

    At random places of each picture the patch that the convolution sees is cut out, padding included.

    Args:
        model: the folded FP32 network.
        layers: convolutions without groups, or matrix products, of ``model``.
        pictures: u8 ``(H, W, 3)`` each, letterboxed.
        tell: called with the number of pictures done, over all rounds.
    """
    done = 0
    for chunk in _chunks(layers):
        if not chunk:
            continue
        request, ports, nodes = _compile(model, chunk)
        rng = np.random.default_rng(SEED)
        sums = {layer.name: np.zeros(layer.weights.size // layer.weights.shape[0]) for layer in chunk}
        squares: dict[str, NDArray[np.float32]] = {
            name: np.zeros((total.size, total.size), np.float32) for name, total in sums.items()
        }
        count = dict.fromkeys(sums, 0)
        for picture in pictures:
            request.infer([picture[None]])
            inputs = [request.get_output_tensor(i).data for i in range(max(ports.values()) + 1)]
            for layer in chunk:
                patches = _patches(inputs[ports[layer.name]], nodes[layer.name], rng)
                sums[layer.name] += patches.sum(axis=0, dtype=np.float64)
                squares[layer.name] += patches.T @ patches
                count[layer.name] += len(patches)
            done += 1
            tell(done)
        del request
        for layer in chunk:
            number = max(1, count[layer.name])
            mean = sums.pop(layer.name) / number
            covariance = squares.pop(layer.name).astype(np.float64) / number - np.outer(mean, mean)
            yield layer, Moments(mean, covariance)


def _compile(model: openvino.Model, chunk: Sequence[Layer]) -> tuple[Any, dict[str, int], dict[str, Any]]:
    """A request whose outputs are the layers' inputs; which output is whose; and the layers' operations."""
    import openvino as ov
    from openvino import opset1

    copy = model.clone()
    wanted = {layer.name for layer in chunk}
    nodes = {node.get_friendly_name(): node for node in copy.get_ordered_ops() if node.get_friendly_name() in wanted}
    places: dict[tuple[str, int], int] = {}
    outputs: list[ov.Output] = []
    ports: dict[str, int] = {}
    for layer in chunk:
        value = nodes[layer.name].input_value(0)
        key = value.get_node().get_friendly_name(), value.get_index()
        if key not in places:
            places[key] = len(outputs)
            outputs.append(value)
        ports[layer.name] = places[key]
    part = ov.Model([opset1.result(value) for value in outputs], copy.get_parameters(), "inputs")
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return shared_core().compile_model(part, "CPU", config).create_infer_request(), ports, nodes


def _patches(data: NDArray[np.float32], node: openvino.Node, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random patches ``(n, inputs)`` of a layer's input ``data``."""
    if node.get_type_name() == "MatMul":
        rows = data.reshape(-1, data.shape[-1])
        return np.ascontiguousarray(rows[rng.integers(0, len(rows), min(PATCHES, len(rows)))])
    options = node.get_attributes()
    rows_out, columns_out = (int(size) for size in node.get_output_shape(0)[2:])
    kernel = [int(size) for size in node.get_input_shape(1)[2:]]
    place = rng.integers(0, rows_out * columns_out, min(PATCHES, rows_out * columns_out))
    begin, end = list(options["pads_begin"]), list(options["pads_end"])
    padded = np.pad(data[0], ((0, 0), (begin[0], max(0, end[0])), (begin[1], max(0, end[1]))))
    top = place // columns_out * options["strides"][0]
    left = place % columns_out * options["strides"][1]
    rows = top[:, None, None] + (np.arange(kernel[0]) * options["dilations"][0])[None, :, None]
    columns = left[:, None, None] + (np.arange(kernel[1]) * options["dilations"][1])[None, None, :]
    cut = padded[:, rows, columns]  # channels, patches, kernel rows, kernel columns
    return np.ascontiguousarray(cut.transpose(1, 0, 2, 3).reshape(len(place), -1))
