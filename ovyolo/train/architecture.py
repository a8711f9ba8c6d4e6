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
    parts = {str(i): described for i, (described, _) in enumerate(layers)}
    parts[str(len(layers))] = _head(channels, len(names), anchors, tensors, rng, f"model.{len(layers)}")
    root = _described("DetectionModel", parts={"model": _described("Sequential", parts=parts)})
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
        new_bias = torch.full((old.na, 5 + len(names)), _class_prior(len(names)))
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


def _class_prior(count: int) -> float:
    """The logit of a class that is as likely as 0.6 classes in all would make it."""
    return math.log(0.6 / (count - 0.6)) if count > 1 else 0.0


def _object_prior(stride: int) -> float:
    """The logit of a cell's objectness when a picture of 640 pixels holds 8 objects (arXiv:1708.02002, 3.3)."""
    return math.log(8 / (640 / stride) ** 2)


def _described(kind: str, attributes: dict[str, Any] | None = None, parts: dict[str, Any] | None = None) -> Any:
    return {"class": kind, "attributes": attributes or {}, "parts": parts or {}}


def _conv2d(
    tensors: dict[str, Any], rng: np.random.Generator, path: str, shape: tuple[int, int, int], stride: int, pad: int
) -> Any:
    """A convolution without bias; weights uniform within 1/sqrt(fan in), as PyTorch begins."""
    out, channels, kernel = shape
    bound = 1 / math.sqrt(channels * kernel * kernel)
    tensors[f"{path}.weight"] = rng.uniform(-bound, bound, (out, channels, kernel, kernel)).astype(np.float32)
    numbers = {"kernel_size": kernel, "stride": stride, "padding": pad, "dilation": 1, "groups": 1}
    return _described("Conv2d", {**numbers, "padding_mode": "zeros"})


def _conv(
    tensors: dict[str, Any], rng: np.random.Generator, path: str, c1: int, c2: int, kernel: int = 1, stride: int = 1
) -> Any:
    pad = 2 if kernel == 6 else kernel // 2
    inner = _conv2d(tensors, rng, f"{path}.conv", (c2, c1, kernel), stride, pad)
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        tensors[f"{path}.bn.{name}"] = np.full(c2, value, np.float32)
    norm = _described("BatchNorm2d", {"eps": 1e-3, "momentum": 0.03})
    return _described("Conv", parts={"conv": inner, "bn": norm, "act": _described("SiLU")})


def _c3(
    tensors: dict[str, Any], rng: np.random.Generator, path: str, c1: int, c2: int, repeats: int, shortcut: bool
) -> Any:
    half = c2 // 2
    inner = {}
    for i in range(repeats):
        here = f"{path}.m.{i}"
        parts = {
            "cv1": _conv(tensors, rng, f"{here}.cv1", half, half),
            "cv2": _conv(tensors, rng, f"{here}.cv2", half, half, 3),
        }
        inner[str(i)] = _described("Bottleneck", {"add": shortcut}, parts)
    parts = {
        "cv1": _conv(tensors, rng, f"{path}.cv1", c1, half),
        "cv2": _conv(tensors, rng, f"{path}.cv2", c1, half),
        "cv3": _conv(tensors, rng, f"{path}.cv3", 2 * half, c2),
        "m": _described("Sequential", parts=inner),
    }
    return _described("C3", parts=parts)


def _sppf(tensors: dict[str, Any], rng: np.random.Generator, path: str, c1: int, c2: int, kernel: int) -> Any:
    pool = _described("MaxPool2d", {"kernel_size": kernel, "stride": 1, "padding": kernel // 2})
    parts = {
        "cv1": _conv(tensors, rng, f"{path}.cv1", c1, c1 // 2),
        "cv2": _conv(tensors, rng, f"{path}.cv2", c1 // 2 * 4, c2),
        "m": pool,
    }
    return _described("SPPF", parts=parts)


def _layers(depth: float, width: float, tensors: dict[str, Any], rng: np.random.Generator) -> list[tuple[Any, int]]:
    """Every layer but the head, and how many channels it gives."""
    made: list[tuple[Any, int]] = []
    for index, (source, kind, channels, number, extra) in enumerate(LAYOUT):
        path = f"model.{index}"
        before = 3 if index == 0 else made[-1][1]
        out = before if channels is None else math.ceil(channels * width / 8) * 8
        if kind == "Conv":
            described = _conv(tensors, rng, path, before, out, number, extra)
        elif kind == "C3":
            described = _c3(tensors, rng, path, before, out, max(1, round(number * depth)), extra)
        elif kind == "SPPF":
            described = _sppf(tensors, rng, path, before, out, number)
        elif kind == "Concat":
            out = sum(made[j][1] for j in source)
            described = _described("Concat", {"d": 1})
        else:
            described = _described("Upsample", {"scale_factor": 2.0, "mode": "nearest"})
        described["attributes"]["f"] = source
        made.append((described, out))
    return made


def _head(
    channels: list[int],
    classes: int,
    anchors: Sequence[Sequence[Sequence[float]]],
    tensors: dict[str, Any],
    rng: np.random.Generator,
    path: str,
) -> Any:
    count, outputs = len(anchors[0]), 5 + classes
    inner = {}
    for level, (c1, stride) in enumerate(zip(channels, STRIDES, strict=True)):
        inner[str(level)] = _conv2d(tensors, rng, f"{path}.m.{level}", (count * outputs, c1, 1), 1, 0)
        bias = np.zeros((count, outputs), np.float32)
        bias[:, 4], bias[:, 5:] = _object_prior(stride), _class_prior(classes)
        tensors[f"{path}.m.{level}.bias"] = bias.reshape(-1)
    strides = np.array(STRIDES, np.float32).reshape(-1, 1, 1)
    tensors[f"{path}.anchors"] = np.array(anchors, np.float32) / strides
    attributes = {"nc": classes, "na": count, "nl": len(STRIDES), "no": outputs, "f": LEVELS, "stride": list(STRIDES)}
    return _described("Detect", attributes, {"m": _described("ModuleList", parts=inner)})
