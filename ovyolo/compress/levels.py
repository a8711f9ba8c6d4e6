"""A trained network without its coarsest levels: objects that are never large need no wide cells to be found.

Feature pyramids (arXiv:1612.03144) find objects on maps of several strides. A level whose head finds nothing that the
others do not find as well can go, and what was computed for it alone goes with it: half of the parameters of a YOLOv5
and more are those of its coarsest maps.

Layers that are gone leave an ``Identity`` in their place, so that all others keep their numbers and names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ovyolo.compress.channels.apply import part_of, slice_convolution
from ovyolo.compress.channels.walk import trace
from ovyolo.dataset import DataSet
from ovyolo.errors import DimensionError, UnsupportedModelError, reason_of
from ovyolo.evaluate.matching import Matches, match
from ovyolo.evaluate.predictions import Predictions
from ovyolo.export.checkpoint.own_format import record_of
from ovyolo.train.distill import tapped
from ovyolo.train.network import Network

__all__ = ["idle_levels", "layer_strides", "without_coarse_maps", "without_levels"]

LEAST_FOUND = 50
CONF, IOU = 0.25, 0.5  # what `detect` shows, and half an overlap
SIZES, SIZE_NAMES = (32**2, 96**2), ("small", "medium", "large")
CANNOT = "cannot do without maps of wider cells than the heads have"
Sources = list[list[int]]
"""For each layer, the layers that it reads; -1 is the picture."""


def without_levels(network: Network, count: int) -> Network:
    """A copy of ``network`` in evaluation mode without its ``count`` coarsest levels; what the others say is the same.

    Args:
        network: any that trains.
        count: how many levels go; one has to stay.

    Raises:
        DimensionError: there are not so many.

    Example:
        >>> import torch
        >>> from ovyolo.train.architecture import new_network
        >>> from ovyolo.compress.levels import without_levels
        >>> network = new_network("n", ["scratch"])
        >>> [head.shape[2] for head in without_levels(network, 1)(torch.zeros(1, 3, 64, 64))]
        [8, 4]
    """
    levels = len(network.strides)
    if not 0 <= count < levels:
        raise DimensionError(f"{count} levels cannot go: the network has {levels}, and one has to stay")
    stay = sorted(sorted(range(levels), key=lambda level: network.strides[level])[: levels - count])
    description, tensors = copy.deepcopy(network.description), dict(network.tensors())
    index = len(network.model) - 1
    head, name = _layers(description)[str(index)], f"model.{index}"
    convolutions = {key: value for key, value in tensors.items() if key.startswith(f"{name}.m.")}
    for key in convolutions:
        del tensors[key]
    for new, old in enumerate(stay):
        for leaf in ("weight", "bias"):
            if f"{name}.m.{old}.{leaf}" in convolutions:
                tensors[f"{name}.m.{new}.{leaf}"] = convolutions[f"{name}.m.{old}.{leaf}"]
    tensors[f"{name}.anchors"] = tensors[f"{name}.anchors"][stay]
    inner = head["parts"]["m"]["parts"]
    head["parts"]["m"]["parts"] = {str(new): inner[str(old)] for new, old in enumerate(stay)}
    sources = _sources(network)
    sources[index] = [sources[index][level] for level in stay]
    head["attributes"].update(nl=len(stay), f=sources[index])
    return _rebuilt(network, description, tensors, sources, [network.strides[level] for level in stay])


def without_coarse_maps(network: Network) -> Network:
    """A copy of ``network`` in evaluation mode in which nothing is computed on cells wider than those of its coarsest
    level, and what read such maps does without them. It has to be trained on.

    Raises:
        UnsupportedModelError: a layer cannot do without.

    Example:
        >>> from ovyolo.train.architecture import new_network
        >>> from ovyolo.compress.levels import without_coarse_maps, without_levels
        >>> smaller = without_coarse_maps(without_levels(new_network("n", ["scratch"]), 1))
        >>> sum(p.numel() for p in smaller.parameters())
        510596
    """
    sources, strides = _sources(network), layer_strides(network)
    gone: set[int] = set()
    for index, read in enumerate(sources):
        if strides.get(index, 0) > max(network.strides) or (index and gone.issuperset(read)):
            gone.add(index)
    found = trace(network)
    made_by = {name: int(name.split(".")[1]) for name, _ in found.slots}
    lost = {
        found.root(channel)
        for (name, kind), channels in found.slots.items() if kind == "out" and made_by[name] in gone
        for channel in channels
    }  # fmt: skip
    description, tensors = copy.deepcopy(network.description), dict(network.tensors())
    for (name, kind), channels in found.slots.items():
        left = [position for position, channel in enumerate(channels) if found.root(channel) not in lost]
        if made_by[name] in gone or len(left) == len(channels) or kind == "map":
            continue
        if kind != "in" or found.convolutions[name].groups > 1 or not left:
            raise UnsupportedModelError(f"the layer {name} {CANNOT}")
        slice_convolution(
            name, found.convolutions[name], {(name, kind): left}, tensors, part_of(description, name)
        )  # fmt: skip
    for index, read in enumerate(sources):
        if index in gone:
            continue
        sources[index] = [j for j in read if j not in gone]
        if len(sources[index]) < len(read) and len(sources[index]) == 1:  # nothing is left to put together
            _layers(description)[str(index)] = _identity(sources[index][0])
        else:
            _layers(description)[str(index)]["attributes"]["f"] = _as_written(sources[index], index, len(read) > 1)
    smaller = _rebuilt(network, description, tensors, sources, network.strides)
    try:
        layer_strides(smaller)
    except RuntimeError as error:  # a layer of a kind whose channels are not followed
        raise UnsupportedModelError(f"a layer {CANNOT}: {reason_of(error)}") from error
    return smaller


def idle_levels(
    network: Network,
    dataset: DataSet,
    find: Callable[[Network], Predictions],
    most_lost: float = 0.005,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """How many of the coarsest levels find nothing that the others do not find as well.

    A level is idle if the network loses, without it, at most the share ``most_lost`` of the objects that it finds, of
    the small, the medium and the large ones (COCO's sizes) alike: by default of fewer than 200 objects of a size, none.
    How well boxes fit does not count: that is learned again. A network that hardly finds anything says nothing about
    its levels, and ``dataset`` nothing about sizes that it does not show.

    Args:
        network: any that trains.
        dataset: the truth.
        find: what a network finds in it.
        most_lost: see above, 0 to 1.
        say: told what was seen.
    """

    def found_by(one: Network) -> Matches:
        return match(dataset, find(one), IOU)

    whole = found_by(network)
    did = (whole.score_of >= CONF) & ~whole.object_crowd
    if did.sum() < LEAST_FOUND:
        return 0
    size = np.digitize(whole.object_area, SIZES)
    for count in range(1, len(network.strides)):
        does = found_by(without_levels(network, count)).score_of >= CONF
        before = np.bincount(size[did], minlength=3)
        lost = np.bincount(size[did & ~does], minlength=3) - np.bincount(size[does & ~did], minlength=3)
        idle = bool((lost <= most_lost * before).all())
        stride = sorted(network.strides)[-count]
        told = ", ".join(f"{a} of {b} {name}" for a, b, name in zip(lost, before, SIZE_NAMES, strict=True))
        say(f"without the level of stride {stride} it loses {told} objects: the level {'can go' if idle else 'stays'}")
        if not idle:
            return count - 1
    return len(network.strides) - 1


def layer_strides(network: Network) -> dict[int, int]:
    """Input pixels a cell of each numbered layer's output, the head's left out."""
    size = 2 * network.probe_side
    probe = copy.deepcopy(network).float().cpu().eval()
    with tapped(probe, [f"model.{index}" for index in range(len(probe.model) - 1)]) as outputs, torch.no_grad():
        probe(torch.zeros(1, 3, size, size))
    return {index: size // output.shape[2] for index, output in enumerate(outputs)}


def _rebuilt(
    network: Network, description: dict[str, Any], tensors: dict[str, Any], sources: Sources, strides: Any
) -> Network:
    """The network of ``description``, with nothing in place of layers that nobody reads."""
    layers = _layers(description)
    alive, pending = set(), [len(sources) - 1]
    while pending:
        index = pending.pop()
        if index >= 0 and index not in alive:
            alive.add(index)
            pending.extend(sources[index])
    for index in range(len(sources)):
        if index not in alive:
            layers[str(index)] = _identity(-1)
    # the tensors of what is no longer there
    tensors = {key: value for key, value in tensors.items() if layers[key.split(".")[1]]["class"] != "Identity"}
    arrays = {key: value.detach().cpu().numpy().copy() for key, value in tensors.items()}
    smaller = Network(record_of(description, arrays), network.names, strides)
    return smaller.to(next(network.parameters()).device).eval()


def _sources(network: Network) -> Sources:
    return [
        [index + j if j < 0 else j for j in (read if isinstance(read, list) else [read])]
        for index, read in enumerate(network.model.sources)
    ]


def _as_written(read: list[int], index: int, several: bool) -> int | list[int]:
    """As checkpoints have it: -1 is the layer before."""
    written = [-1 if j == index - 1 else j for j in read]
    return written if several else written[0]


def _layers(description: dict[str, Any]) -> dict[str, Any]:
    return description["parts"]["model"]["parts"]


def _identity(source: int) -> dict[str, Any]:
    return {"class": "Identity", "attributes": {"f": source}, "parts": {}}
