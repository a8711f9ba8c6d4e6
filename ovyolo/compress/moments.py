"""What goes into each layer: means and covariances of the patches it sees, from calibration pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.layers import Layer
from ovyolo.core import shared_core

if TYPE_CHECKING:
    import openvino

__all__ = ["Moments", "Sums", "Window", "few_of", "in_chunks", "measure_moments", "rounds_of"]

PATCHES = 256  # a picture and layer
MOMENT_PICTURES = 48
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


class Sums:
    """Collects patches of one layer's input.

    Args:
        inputs: numbers a patch.

    Example:
        >>> sums = Sums(2)
        >>> sums.add(np.array([[0.0, 1.0], [2.0, 1.0]], np.float32))
        >>> sums.moments().mean.tolist(), sums.moments().covariance.tolist()
        ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, inputs: int) -> None:
        self._sum = np.zeros(inputs)
        self._squares = np.zeros((inputs, inputs), np.float32)
        self._count = 0

    def add(self, patches: NDArray[np.float32]) -> None:
        """More patches ``(n, inputs)``."""
        self._sum += patches.sum(axis=0, dtype=np.float64)
        self._squares += patches.T @ patches
        self._count += len(patches)

    def moments(self) -> Moments:
        """Of all that came."""
        number = max(1, self._count)
        mean = self._sum / number
        return Moments(mean, self._squares.astype(np.float64) / number - np.outer(mean, mean))


def in_chunks(inputs: Mapping[str, int]) -> list[list[str]]:
    """Layers in groups whose covariances fit into memory together.

    Args:
        inputs: numbers a patch of each layer, by name.
    """
    groups: list[list[str]] = [[]]
    held = 0
    for name, count in inputs.items():
        need = 12 * count * count  # collected in float32, returned in float64
        if groups[-1] and held + need > CHUNK_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += need
    return groups


def _chunks(layers: Sequence[Layer]) -> list[list[Layer]]:
    named = {layer.name: layer for layer in layers}
    sizes = {layer.name: layer.weights.size // layer.weights.shape[0] for layer in layers}
    return [[named[name] for name in chunk] for chunk in in_chunks(sizes)]


def few_of(pictures: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.uint8]]:
    """As many of the pictures as moments need, evenly spread."""
    return pictures[:: max(1, -(-len(pictures) // MOMENT_PICTURES))]


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
        sums = {layer.name: Sums(layer.weights.size // layer.weights.shape[0]) for layer in chunk}
        for picture in pictures:
            request.infer([picture[None]])
            inputs = [request.get_output_tensor(i).data for i in range(max(ports.values()) + 1)]
            for layer in chunk:
                sums[layer.name].add(_patches(inputs[ports[layer.name]], nodes[layer.name], rng))
            done += 1
            tell(done)
        del request
        for layer in chunk:
            yield layer, sums.pop(layer.name).moments()


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
    kernel = [int(size) for size in node.get_input_shape(1)[2:]]
    window = Window(
        (kernel[0], kernel[1]), tuple(options["strides"]), tuple(options["pads_begin"]), tuple(options["pads_end"]),
        tuple(options["dilations"]),
    )  # fmt: skip
    return window.patches(data[0], rng)


@dataclass(frozen=True)
class Window:
    """What a convolution sees at one place; each is ``(rows, columns)``.

    Args:
        kernel: weights that it multiplies with.
        strides: from one place to the next.
        begin, end: padding with zeros on either side; negative at the end where pixels are left out.
        dilations: from one weight to the next.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]
    dilations: tuple[int, int] = (1, 1)

    def patches(self, data: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """At most :data:`PATCHES` patches ``(n, inputs)`` at random places of ``data`` ``(channels, H, W)``.

        Example:
            >>> data = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
            >>> Window((1, 1), (2, 2), (0, 0), (0, 0)).patches(data, np.random.default_rng(0)).tolist()
            [[0.0]]
        """
        begin, end = self.begin, self.end
        padded = np.pad(data, ((0, 0), (begin[0], max(0, end[0])), (begin[1], max(0, end[1]))))
        sizes = [
            (data.shape[1 + axis] + begin[axis] + end[axis] - self.dilations[axis] * (self.kernel[axis] - 1) - 1)
            // self.strides[axis] + 1
            for axis in (0, 1)
        ]  # fmt: skip
        count = sizes[0] * sizes[1]
        place = rng.integers(0, count, min(PATCHES, count))
        top = place // sizes[1] * self.strides[0]
        left = place % sizes[1] * self.strides[1]
        rows = top[:, None, None] + (np.arange(self.kernel[0]) * self.dilations[0])[None, :, None]
        columns = left[:, None, None] + (np.arange(self.kernel[1]) * self.dilations[1])[None, None, :]
        cut = padded[:, rows, columns]  # channels, patches, kernel rows, kernel columns
        return np.ascontiguousarray(cut.transpose(1, 0, 2, 3).reshape(len(place), -1))
