"""New networks: YOLOv5's n to x from random weights, and a trained network that gets another head.

The layout is that of release 6 (a 6x6 stem, C3 blocks, SPPF, a path-aggregation neck; arXiv:1911.11929,
arXiv:1803.01534), written as a table; depth and width are scaled as in arXiv:1911.09070.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ovyolo.errors import DimensionError
from ovyolo.export.checkpoint.own_format import record_of
from ovyolo.train.described import c3, class_prior, conv, described, detect, sppf
from ovyolo.train.network import Network

__all__ = ["ARCHITECTURES", "new_network", "with_anchors", "with_classes"]

# depth and width multiples
ARCHITECTURES = {"n": (1 / 3, 0.25), "s": (1 / 3, 0.5), "m": (2 / 3, 0.75), "l": (1.0, 1.0), "x": (4 / 3, 1.25)}
STRIDES = (8, 16, 32)
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
# (reads, class, channels, repeats or kernel, stride or shortcut)
LAYOUT: tuple[tuple[Any, ...], ...] = (
    (-1, "Conv", 64, 6, 2),
    (-1, "Conv", 128, 3, 2),
    (-1, "C3", 128, 3, True),
    (-1, "Conv", 256, 3, 2),
    (-1, "C3", 256, 6, True),
    (-1, "Conv", 512, 3, 2),
    (-1, "C3", 512, 9, True),
    (-1, "Conv", 1024, 3, 2),
    (-1, "C3", 1024, 3, True),
    (-1, "SPPF", 1024, 5, None),
    (-1, "Conv", 512, 1, 1),
    (-1, "Upsample", None, None, None),
    ([-1, 6], "Concat", None, None, None),
    (-1, "C3", 512, 3, False),
    (-1, "Conv", 256, 1, 1),
    (-1, "Upsample", None, None, None),
    ([-1, 4], "Concat", None, None, None),
    (-1, "C3", 256, 3, False),
    (-1, "Conv", 256, 3, 2),
    ([-1, 14], "Concat", None, None, None),
    (-1, "C3", 512, 3, False),
    (-1, "Conv", 512, 3, 2),
    ([-1, 10], "Concat", None, None, None),
    (-1, "C3", 1024, 3, False),
)
LEVELS = [17, 20, 23]


def new_network(
    architecture: str,
    names: Sequence[str],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    seed: int = 0,
) -> Network:
    """A network with random weights.

    Args:
        architecture: ``"n"``, ``"s"``, ``"m"``, ``"l"`` or ``"x"``.
        names: class names.
        anchors: ``[level][anchor] = (width, height)`` in input pixels, three levels, finest first.
        seed: of the weights.

    Raises:
        DimensionError: there is no such architecture, or an argument is of the wrong size.

    Example:
        >>> from ovyolo.train.architecture import new_network
        >>> network = new_network("n", ["scratch", "dent"])
        >>> sum(p.numel() for p in network.parameters())
        1766623
    """
    if architecture not in ARCHITECTURES:
        raise DimensionError(f"the architecture is {architecture!r}; it takes one of {', '.join(ARCHITECTURES)}")
    if not names:
        raise DimensionError("a network needs at least one class name")
    if len(anchors) != len(STRIDES) or len({len(level) for level in anchors}) != 1 or not anchors[0]:
        raise DimensionError(f"anchors take {len(STRIDES)} levels of equally many (width, height)")
    tensors: dict[str, Any] = {}
    rng = np.random.default_rng(seed)
    layers = _layers(*ARCHITECTURES[architecture], tensors, rng)
    channels = [layers[i][1] for i in LEVELS]
    parts = {str(i): layer for i, (layer, _) in enumerate(layers)}
    parts[str(len(layers))] = detect(
        channels, len(names), anchors, tensors, rng, f"model.{len(layers)}", strides=STRIDES, reads=LEVELS
    )  # fmt: skip
    root = described("DetectionModel", parts={"model": described("Sequential", parts=parts)})
    return Network(record_of(root, tensors), names, STRIDES)


def with_classes(network: Network, names: Sequence[str], seed: int = 0) -> Network:
    """The network with a head for other classes; everything else, and how boxes are found, is kept.

    A class that the old head knew by the same name keeps its weights; the others begin at random.
    """
    old, names = network.head, tuple(names)
    if not names:
        raise DimensionError("a network needs at least one class name")
    if names == network.names:
        return network
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in network.tensors().items()}
    place = {name: index for index, name in enumerate(network.names)}
    index = len(network.model) - 1
    for level, convolution in enumerate(old.m):
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        weight = convolution.weight.detach().cpu().reshape(old.na, 5 + old.nc, -1)
        bias = convolution.bias.detach().cpu().reshape(old.na, 5 + old.nc)
        new_weight = torch.empty(old.na, 5 + len(names), weight.shape[2])
        new_weight.normal_(0, 0.01, generator=generator)
        new_bias = torch.full((old.na, 5 + len(names)), class_prior(len(names)))
        new_weight[:, :5], new_bias[:, :5] = weight[:, :5], bias[:, :5]
        for i, name in enumerate(names):
            if name in place:
                new_weight[:, 5 + i], new_bias[:, 5 + i] = weight[:, 5 + place[name]], bias[:, 5 + place[name]]
        prefix = f"model.{index}.m.{level}"
        tensors[f"{prefix}.weight"] = new_weight.reshape(-1, *convolution.weight.shape[1:]).numpy()
        tensors[f"{prefix}.bias"] = new_bias.reshape(-1).numpy()
    record = record_of(network.description, tensors)
    head = record.state["_modules"]["model"].state["_modules"][str(index)]  # type: ignore[index]
    head.state.update(nc=len(names), no=5 + len(names))
    return Network(record, names, network.strides)


def with_anchors(network: Network, anchors: Sequence[Sequence[Sequence[float]]]) -> Network:
    """The same network, in place, with other anchors, given in input pixels."""
    new = np.array(anchors, np.float32)
    if new.shape != tuple(network.head.anchors.shape):
        raise DimensionError(f"the head takes anchors of the form {tuple(network.head.anchors.shape)}")
    network.head.anchors.copy_(torch.from_numpy(new) / torch.tensor(network.strides).view(-1, 1, 1))
    return network


def _layers(depth: float, width: float, tensors: dict[str, Any], rng: np.random.Generator) -> list[tuple[Any, int]]:
    """Every layer but the head, and how many channels it gives."""
    made: list[tuple[Any, int]] = []
    for index, (source, kind, channels, number, extra) in enumerate(LAYOUT):
        path = f"model.{index}"
        before = 3 if index == 0 else made[-1][1]
        out = before if channels is None else math.ceil(channels * width / 8) * 8
        if kind == "Conv":
            layer = conv(tensors, rng, path, before, out, number, extra)
        elif kind == "C3":
            layer = c3(tensors, rng, path, before, out, max(1, round(number * depth)), extra)
        elif kind == "SPPF":
            layer = sppf(tensors, rng, path, before, out, number)
        elif kind == "Concat":
            out = sum(made[j][1] for j in source)
            layer = described("Concat", {"d": 1})
        else:
            layer = described("Upsample", {"scale_factor": 2.0, "mode": "nearest"})
        layer["attributes"]["f"] = source
        made.append((layer, out))
    return made
