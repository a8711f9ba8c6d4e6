"""Cheaper activation functions in a compression: everywhere, or in as few places as make it as fast as was asked.

What a place is worth in time is how many numbers come through it, and in any detector most do in the first layers. What
it costs in accuracy has to be learned again. So they are changed from the first layers on, until what is measured is
fast enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovyolo.compress.channels import recalibrate
from ovyolo.compress.pruning import inputs_of, reached
from ovyolo.train.activation import dearer_activations, with_activation
from ovyolo.train.network import Network

if TYPE_CHECKING:
    from ovyolo.compress.pipeline import Compression

__all__ = ["activation_goes", "with_cheaper_activations"]


def activation_goes(run: Compression, network: Network) -> bool:
    """Whether a cheaper activation function is to be put in."""
    if run.recipe.activation == "keep" or not dearer_activations(network, _cheaper(run)):
        return False
    speedup = _speedup(run)
    return speedup is None or reached(run, network) < speedup


def with_cheaper_activations(run: Compression, network: Network) -> Network:
    """``network`` with another activation function, and batch norms that know it; as few of them as reach the speed
    that ``run`` asks for, if that is what its recipe wants."""
    activation = _cheaper(run)
    places = dearer_activations(network, activation)
    speedup = _speedup(run)
    count = len(places)
    if speedup is not None and reached(run, with_activation(network, activation)) >= speedup:
        least = 1
        while least < count:
            middle = (least + count) // 2
            fast = reached(run, with_activation(network, activation, places[:middle])) >= speedup
            least, count = (least, middle) if fast else (middle + 1, count)
        run.say(f"{activation} in {count} of {len(places)} places is enough")
    return recalibrate(with_activation(network, activation, places[:count]), inputs_of(run))


def _cheaper(run: Compression) -> str:
    return "hardswish" if run.recipe.activation == "auto" else run.recipe.activation


def _speedup(run: Compression) -> float | None:
    """The speed that decides how many change; None where all do."""
    target = run.recipe.prune_target()
    if run.recipe.activation != "auto" or target is None or target[0] != "speedup":
        return None
    return target[1]
