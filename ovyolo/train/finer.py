"""A trained network that also looks at cells of 4 pixels: objects of a few pixels are lost on cells of 8.

The neck goes one step further up than YOLOv5's does (arXiv:1803.01534), to the backbone's maps of stride 4, and down
again from there. Everything that the network had keeps its weights; what is new begins at random, and has to be
trained.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from ovyolo.errors import DimensionError, UnsupportedModelError
from ovyolo.export.checkpoint.own_format import record_of
from ovyolo.train.described import Tensors, c3, conv, described, detect
from ovyolo.train.distill import tapped
from ovyolo.train.network import Network
from ovyolo.train.settings import LEVELS

__all__ = ["with_finer_level"]

FINE, TOP, READ, HEAD = 2, 17, [17, 20, 23], 24
MERGES = {12: [-1, 6], 16: [-1, 4], 19: [-1, 14], 22: [-1, 10]}
# where the layers are that were there before: those of the way down come after what is new
MOVED = {**{index: index for index in range(18)}, 18: 25, 19: 26, 20: 27, 21: 28, 22: 29, 23: 30}
READ_NOW = [21, 24, 27, 30]
STRIDES = (4, 8, 16, 32)


def with_finer_level(network: Network, levels: str = "p2-p5", seed: int = 0) -> Network:
    """A copy of ``network`` that finds objects on cells of 4 pixels, too.

    The anchors of the new level are half as large as those of the finest that there was; training fits them
    (``anchors="auto"``) where they miss objects.

    Args:
        network: of YOLOv5's layout with levels of strides 8, 16 and 32, of any generation, width and depth.
        levels: ``"p2-p5"``, or ``"p2-p4"``, which drops the level of stride 32 and what is computed for it alone.
        seed: of the weights that are new.

    Raises:
        DimensionError: ``levels`` is neither.
        UnsupportedModelError: the network is of another layout, or has such a level.

    Example:
        >>> import torch
        >>> from ovyolo.train.architecture import new_network
        >>> from ovyolo.train.finer import with_finer_level
        >>> finer = with_finer_level(new_network("n", ["scratch"]), "p2-p4")
        >>> [head.shape[2] for head in finer(torch.zeros(1, 3, 64, 64))], finer.strides
        ([16, 8, 4], (4, 8, 16))
    """
    if levels not in LEVELS[1:]:
        raise DimensionError(f"levels is {levels!r}; it takes one of {', '.join(LEVELS[1:])}")
    count = 4 if levels == "p2-p5" else 3
    fine, top = _channels(network)
    rng = np.random.default_rng(seed)
    old, tensors = network.description["parts"]["model"]["parts"], _moved(network)
    parts = {str(new): copy.deepcopy(old[str(before)]) for before, new in MOVED.items()}
    repeats = max(1, len(old[str(TOP)]["parts"].get("m", {}).get("parts", {})))
    fresh: Tensors = {}
    added = {
        18: conv(fresh, rng, "model.18", top, fine),
        19: described("Upsample", {"scale_factor": 2.0, "mode": "nearest"}),
        20: described("Concat", {"d": 1, "f": [-1, FINE]}),
        21: c3(fresh, rng, "model.21", 2 * fine, fine, repeats, False),
        22: conv(fresh, rng, "model.22", fine, fine, 3, 2),
        23: described("Concat", {"d": 1, "f": [-1, 18]}),
        24: c3(fresh, rng, "model.24", 2 * fine, top, repeats, False),
    }
    for layer in added.values():
        _activate(layer, _activation(old[str(TOP)]))
    parts |= {str(index): {**layer, "attributes": {"f": -1, **layer["attributes"]}} for index, layer in added.items()}
    parts = {str(index): parts[str(index)] for index in range(READ_NOW[count - 1] + 1)}
    tensors = {key: value for key, value in tensors.items() if key.split(".")[1] in parts}
    head = f"model.{len(parts)}"
    anchors = network.anchors_in_pixels().cpu().numpy()
    reads = [fine, *(one.in_channels for one in network.head.m)][:count]
    parts[str(len(parts))] = detect(
        reads, len(network.names), np.concatenate([anchors[:1] / 2, anchors])[:count].tolist(), fresh, rng, head,
        strides=STRIDES[:count], reads=READ_NOW[:count],
    )  # fmt: skip
    for level, convolution in enumerate(network.head.m[: count - 1], start=1):
        for leaf, value in convolution.state_dict().items():
            fresh[f"{head}.m.{level}.{leaf}"] = value.cpu().numpy().copy()
    root = copy.deepcopy(network.description)
    root["parts"]["model"]["parts"] = parts
    finer = Network(record_of(root, tensors | fresh), network.names, STRIDES[:count])
    return finer.to(next(network.parameters()).device).train(network.training)


def _channels(network: Network) -> tuple[int, int]:
    """Of the backbone's maps of stride 4, and of the maps behind the finest head; the layout is checked on the way."""
    sources = dict(enumerate(network.model.sources))
    usual = len(sources) == HEAD + 1 and sources[HEAD] == READ and all(sources[i] == f for i, f in MERGES.items())
    if not usual or network.strides != STRIDES[1:]:
        raise UnsupportedModelError(
            f"a level of stride 4 is added to networks of YOLOv5's layout with levels of strides 8, 16 and 32; this "
            f"one has {len(sources)} layers and levels of strides {', '.join(map(str, network.strides))}"
        )
    probe = copy.deepcopy(network).float().cpu().eval()
    with tapped(probe, [f"model.{FINE}", f"model.{TOP}"]) as outputs, torch.no_grad():
        probe(torch.zeros(1, 3, 64, 64))
    fine, top = outputs
    if fine.shape[2] != 16:
        raise UnsupportedModelError(f"layer {FINE} is not of stride 4: no level can be added to this network")
    return fine.shape[1], top.shape[1]


def _moved(network: Network) -> Tensors:
    """What the layers before the head hold, by the names that they will have."""
    moved: Tensors = {}
    for name, value in network.tensors().items():
        _, index, leaf = name.split(".", 2)
        if int(index) in MOVED:
            moved[f"model.{MOVED[int(index)]}.{leaf}"] = value.detach().cpu().numpy().copy()
    return moved


def _activation(layer: dict[str, Any]) -> dict[str, Any] | None:
    """The first activation function within a layer."""
    for name, part in layer["parts"].items():
        found = part if name == "act" else _activation(part)
        if found is not None:
            return found
    return None


def _activate(layer: dict[str, Any], activation: dict[str, Any] | None) -> None:
    """Give all parts of a new layer the activation function of its neighbours."""
    for name, part in layer["parts"].items():
        if name == "act" and activation is not None:
            layer["parts"][name] = copy.deepcopy(activation)
        else:
            _activate(part, activation)
