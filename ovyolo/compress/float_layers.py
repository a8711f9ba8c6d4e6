"""Which layers stay in floating point where all others compute in 8 bits.

The last convolutions say where boxes are. They read maps in which a few channels are several times as large as the
others, so that steps that reach the large ones are coarse for the rest: most of what 8 bits cost in accuracy is lost
here. With few classes these convolutions are small, and in floating point they take a few percent of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovyolo.compress.channels.costs import costs_of

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["float_layers"]

AUTO, HEADS = "auto", "heads"
SMALL = 0.02  # share of the multiplications; measured: 0.011 take 4 % of the time of a network in 8 bits


def float_layers(network: Network, keep_float: Sequence[str], imgsz: tuple[int, int]) -> tuple[str, ...]:
    """The names of the layers that stay in floating point.

    Args:
        network: any that trains.
        keep_float: layers (``"model.24"``), ``"heads"`` for the last convolutions, or ``"auto"`` for these where they
            take at most a fiftieth of the multiplications.
        imgsz: ``(height, width)`` of the input in pixels.

    Example:
        >>> from ovyolo.compress.float_layers import float_layers
        >>> from ovyolo.train.architecture import new_network
        >>> float_layers(new_network("n", ["scratch"]), ["auto", "model.0"], (64, 64))
        ('model.24', 'model.0')
        >>> float_layers(new_network("n", [f"class {i}" for i in range(80)]), ["auto", "model.0"], (64, 64))
        ('model.0',)
    """
    heads = f"model.{len(network.model) - 1}"
    names: list[str] = []
    for name in keep_float:
        if name == AUTO:
            costs = costs_of(network, imgsz)
            own = sum(layer.macs for layer in costs.layers if layer.module.startswith(f"{heads}."))
            if own > SMALL * costs.macs:
                continue
        names.append(heads if name in (AUTO, HEADS) else name)
    return tuple(dict.fromkeys(names))
