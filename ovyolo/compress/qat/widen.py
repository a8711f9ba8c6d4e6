"""Wider steps for the weights of the layers that bear it: still 8 bits and as fast, and a smaller file once zipped.

A layer whose steps are k times as wide uses 1/k of the 255 numbers, and each of its weights takes log2 k bits less in a
zip. Rounding errors grow with the steps' squares, and what a layer's errors do to the heads is measured, so that steps
grow where a saved byte costs least (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers",
1988). Bytes saved in this way cost far less accuracy than those saved by zeros.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovyolo.card import Card
from ovyolo.compress.head_error import ENOUGH_PICTURES, head_error
from ovyolo.compress.qat.compensate import bias_of, in_floating_point, rounded_layers, steps_of
from ovyolo.compress.qat.heads import heads_of
from ovyolo.compress.qat.influence import channel_influence
from ovyolo.compress.qat.insert import picture_tensors
from ovyolo.compress.qat.quantizers import PairGuard
from ovyolo.errors import TargetError

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["WIDTHS", "choose_widths", "harms_of", "shapes_of", "widths_at", "zipped_sizes"]

WIDTHS = tuple(2 ** (half / 2) for half in range(11))  # up to 32 times as wide: 3 bits
LEAST_HARM = 1e-14  # a byte: where nothing is seen in the pictures, steps grow alike everywhere
PROBE = 8.0  # the width at which a layer's harm is measured
UNLIKE = 8.0  # how many times as wide as its layer's, or as narrow, a channel's steps may be
MOST = 64.0
Shapes = Mapping[str, Tensor]


def choose_widths(sizes: Mapping[str, Sequence[int]], harms: Mapping[str, float], limit: float) -> dict[str, float]:
    """How many times as wide each layer's steps are to be, so that all take at most ``limit`` bytes and harm least.

    Args:
        sizes: bytes of each layer, zipped, at each of :data:`WIDTHS`.
        harms: what each layer's rounding does at the width 1; at another it is that times its square.
        limit: bytes of all together.

    Raises:
        TargetError: the widest steps are not enough; says how small they become.

    Example:
        >>> sizes = {"tough": range(110, 0, -10), "frail": range(110, 0, -10)}
        >>> choose_widths(sizes, {"tough": 1.0, "frail": 4.0}, 160)
        {'tough': 4.0, 'frail': 2.0}
    """
    at = dict.fromkeys(sizes, 0)
    least = sum(min(size) for size in sizes.values())
    if least > limit:
        raise TargetError(f"with the widest steps the weights take {least / 1e6:.3f} MB, {limit / 1e6:.3f} are left")

    def price(name: str) -> float:
        """What a byte costs that the layer's next wider steps save."""
        now = at[name]
        saved = sizes[name][now] - sizes[name][now + 1]
        harm = harms[name] + LEAST_HARM * sizes[name][0]
        return harm * float(WIDTHS[now + 1] ** 2 - WIDTHS[now] ** 2) / max(saved, 1e-3)

    while sum(sizes[name][now] for name, now in at.items()) > limit:
        name = min((name for name, now in at.items() if now + 1 < len(WIDTHS)), key=price)
        at[name] += 1
    return {name: WIDTHS[now] for name, now in at.items()}


def shapes_of(network: Network, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    """How wide the steps of each output of a layer should be relative to its others', ``[outputs]`` by the weights'
    names: such that what they do to the heads is the same. Layers of one scale for all outputs are left out.

    Args:
        network: with quantizers.
        pictures: letterboxed, u8 BGR ``(H, W, 3)``.
    """
    plain = in_floating_point(network)
    layers = {
        layer.name: layer for layer in PairGuard(network).layers
        if layer.quantizer.scale.numel() > 1 and layer.order != "outputs"
    }  # fmt: skip
    names = [name.removesuffix(".weight") for name in layers]
    influence = channel_influence(plain, names, picture_tensors(pictures[:ENOUGH_PICTURES]))
    shapes = {}
    for name, layer in layers.items():
        harms = influence[name.removesuffix(".weight")] * layer.least().flatten().square()
        shape = harms.clamp(min=1e-12 * float(harms.max()) + 1e-30).rsqrt()
        shapes[name] = (shape / shape.log().mean().exp()).clamp(1 / UNLIKE, UNLIKE)
    return shapes


def widths_at(shapes: Shapes, name: str, width: float) -> float | list[float]:
    """The widths of a layer's outputs when that of the layer is ``width``; none is below 1."""
    if width == 1 or name not in shapes:
        return width
    widths: list[float] = (width * shapes[name]).clamp(1.0, MOST).tolist()
    return widths


def zipped_sizes(network: Network, shapes: Shapes = MappingProxyType({})) -> dict[str, list[int]]:
    """Bytes of each layer's weights as they are stored, zipped, at each of :data:`WIDTHS`, by the weights' names."""
    return {
        layer.name: [_zipped(steps_of(layer, widths_at(shapes, layer.name, width))[0]) for width in WIDTHS]
        for layer in PairGuard(network).layers
    }


def _zipped(steps: Tensor) -> int:
    return len(zlib.compress(steps.to(torch.int8).numpy().tobytes()))


@torch.no_grad()
def harms_of(
    network: Network,
    pictures: Sequence[NDArray[np.uint8]],
    card: Card,
    tell: Callable[[int], None] = lambda done: None,
    shapes: Shapes = MappingProxyType({}),
) -> dict[str, float]:
    """What rounding one layer's weights does to the heads, by the weights' names: the square of their error.

    It is measured in floating point, so that nothing else is rounded, with steps :data:`PROBE` times as wide, rounded
    as they will be.

    Args:
        network: with quantizers; it is left as it is.
        pictures: letterboxed, u8 BGR ``(H, W, 3)``; the heads are compared in the first of them.
        card: what the heads are.
        tell: called with the number of layers that are measured.
        shapes: of :func:`shapes_of`.
    """
    plain = in_floating_point(network)
    parameters = dict(plain.named_parameters())
    x = torch.cat(picture_tensors(pictures[:ENOUGH_PICTURES])).contiguous(memory_format=torch.channels_last)
    expected = heads_of(plain, x)
    harms: dict[str, float] = {}
    for layer, rounded in rounded_layers(network, lambda name: widths_at(shapes, name, PROBE), pictures, tell):
        weight, bias = parameters[layer.name], parameters.get(bias_of(layer.name))
        kept = [(one, one.clone()) for one in (weight, bias) if one is not None]
        rounded.put(weight, bias)
        harms[layer.name] = (head_error(card, expected, heads_of(plain, x)).total / PROBE) ** 2
        for one, before in kept:
            one.copy_(before)
    return harms
