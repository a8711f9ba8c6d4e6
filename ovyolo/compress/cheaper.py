"""Cheaper activation functions in a compression: everywhere, or in as few places as make it as fast as was asked.

What a place is worth in time is how many numbers come through it. What it does to the heads is measured, one place at a
time, and for what it is worth differs a thousandfold: those go first that do least, until the whole is fast enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.compress.channels import recalibrate
from ovyolo.compress.forms import form_of
from ovyolo.compress.head_error import ENOUGH_PICTURES, head_error
from ovyolo.compress.pruning import inputs_of, is_enough
from ovyolo.compress.qat.heads import heads_of
from ovyolo.compress.qat.insert import picture_tensors
from ovyolo.compress.stages import Stages
from ovyolo.train.activation import dearer_activations, with_activation
from ovyolo.train.network import Network

if TYPE_CHECKING:
    from ovyolo.compress.pipeline import Compression

__all__ = ["activation_goes", "activation_harms", "with_cheaper_activations"]

HARMS = "what other activations do to the heads"


def activation_goes(run: Compression, network: Network) -> bool:
    """Whether a cheaper activation function is to be put in."""
    if run.recipe.activation == "keep" or not dearer_activations(network, _cheaper(run)):
        return False
    return not _speed_decides(run) or not is_enough(run, network)


def with_cheaper_activations(run: Compression, network: Network) -> Network:
    """``network`` with another activation function, and batch norms that know it; as few of them as reach the speed
    that ``run`` asks for, if that is what its recipe wants."""
    activation = _cheaper(run)
    worth = dearer_activations(network, activation)
    places = list(worth)
    count = len(places)
    if _speed_decides(run) and is_enough(run, with_activation(network, activation)):
        harms = run.journal.measure(HARMS, lambda: _harms(run, network, places))
        places.sort(key=lambda place: harms[place] / worth[place])
        least = 1
        while least < count:
            middle = (least + count) // 2
            fast = is_enough(run, with_activation(network, activation, places[:middle]))
            least, count = (least, middle) if fast else (middle + 1, count)
        run.say(f"{activation} in {count} of {len(places)} places is enough")
    return recalibrate(with_activation(network, activation, places[:count]), inputs_of(run))


def activation_harms(
    network: Network,
    activation: str,
    places: Sequence[str],
    pictures: Sequence[NDArray[np.uint8]],
    card: Card,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """What another activation function in each of ``places`` alone does to the heads: the square of their error.

    Args:
        network: as it was trained.
        activation: as :func:`~ovyolo.train.activation.with_activation` takes it.
        places: such as ``"model.0.act"``.
        pictures: letterboxed, u8 BGR ``(H, W, 3)``.
        card: what the heads are.
        tell: called with the number of places that are measured.
    """
    x = torch.cat(picture_tensors(pictures)).contiguous(memory_format=torch.channels_last)

    def heads(changed: Sequence[str]) -> list[list[NDArray[np.float32]]]:
        copied = with_activation(network, activation, changed)
        return heads_of(copied.to(memory_format=torch.channels_last), x)

    expected = heads(())
    harms: dict[str, float] = {}
    for done, place in enumerate(places, 1):
        harms[place] = head_error(card, expected, heads([place])).total ** 2
        tell(done)
    return harms


def _harms(run: Compression, network: Network, places: Sequence[str]) -> dict[str, float]:
    pictures = run.pictures_to_calibrate()[:ENOUGH_PICTURES]
    _, card = form_of(network, run.imgsz)
    with Stages(run.quiet).stage("what other activations do", len(places), "place") as tell:
        return activation_harms(network, _cheaper(run), places, pictures, card, tell)


def _cheaper(run: Compression) -> str:
    return "hardswish" if run.recipe.activation == "auto" else run.recipe.activation


def _speed_decides(run: Compression) -> bool:
    """Whether it is by speed that as many change as have to, and no more."""
    target = run.recipe.prune_target()
    return run.recipe.activation == "auto" and target is not None and target[0] == "speedup"
