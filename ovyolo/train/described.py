"""Layers as a network's description has them, and their first weights by the names that checkpoints use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Tensors", "c3", "class_prior", "conv", "conv2d", "described", "detect", "sppf"]

Tensors = dict[str, Any]


def class_prior(count: int) -> float:
    """The logit of a class that is as likely as 0.6 classes in all would make it."""
    return math.log(0.6 / (count - 0.6)) if count > 1 else 0.0


def _object_prior(stride: int) -> float:
    """The logit of a cell's objectness when a picture of 640 pixels holds 8 objects (arXiv:1708.02002, 3.3)."""
    return math.log(8 / (640 / stride) ** 2)


def described(kind: str, attributes: dict[str, Any] | None = None, parts: dict[str, Any] | None = None) -> Any:
    """A layer of one class, its plain attributes and its parts by name."""
    return {"class": kind, "attributes": attributes or {}, "parts": parts or {}}


def conv2d(
    tensors: Tensors, rng: np.random.Generator, path: str, shape: tuple[int, int, int], stride: int, pad: int
) -> Any:
    """A convolution without bias; weights uniform within 1/sqrt(fan in), as PyTorch begins."""
    out, channels, kernel = shape
    bound = 1 / math.sqrt(channels * kernel * kernel)
    tensors[f"{path}.weight"] = rng.uniform(-bound, bound, (out, channels, kernel, kernel)).astype(np.float32)
    numbers = {"kernel_size": kernel, "stride": stride, "padding": pad, "dilation": 1, "groups": 1}
    return described("Conv2d", {**numbers, "padding_mode": "zeros"})


def conv(
    tensors: Tensors, rng: np.random.Generator, path: str, c1: int, c2: int, kernel: int = 1, stride: int = 1
) -> Any:
    """Convolution, batch norm, SiLU."""
    pad = 2 if kernel == 6 else kernel // 2
    inner = conv2d(tensors, rng, f"{path}.conv", (c2, c1, kernel), stride, pad)
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        tensors[f"{path}.bn.{name}"] = np.full(c2, value, np.float32)
    norm = described("BatchNorm2d", {"eps": 1e-3, "momentum": 0.03})
    return described("Conv", parts={"conv": inner, "bn": norm, "act": described("SiLU")})


def c3(tensors: Tensors, rng: np.random.Generator, path: str, c1: int, c2: int, repeats: int, shortcut: bool) -> Any:
    """Bottlenecks, and a way past them all (a cross-stage partial block with three convolutions)."""
    half = c2 // 2
    inner = {}
    for i in range(repeats):
        here = f"{path}.m.{i}"
        parts = {
            "cv1": conv(tensors, rng, f"{here}.cv1", half, half),
            "cv2": conv(tensors, rng, f"{here}.cv2", half, half, 3),
        }
        inner[str(i)] = described("Bottleneck", {"add": shortcut}, parts)
    parts = {
        "cv1": conv(tensors, rng, f"{path}.cv1", c1, half),
        "cv2": conv(tensors, rng, f"{path}.cv2", c1, half),
        "cv3": conv(tensors, rng, f"{path}.cv3", 2 * half, c2),
        "m": described("Sequential", parts=inner),
    }
    return described("C3", parts=parts)


def sppf(tensors: Tensors, rng: np.random.Generator, path: str, c1: int, c2: int, kernel: int) -> Any:
    """Pools one behind the other, all put together."""
    pool = described("MaxPool2d", {"kernel_size": kernel, "stride": 1, "padding": kernel // 2})
    parts = {
        "cv1": conv(tensors, rng, f"{path}.cv1", c1, c1 // 2),
        "cv2": conv(tensors, rng, f"{path}.cv2", c1 // 2 * 4, c2),
        "m": pool,
    }
    return described("SPPF", parts=parts)


def detect(
    channels: Sequence[int],
    classes: int,
    anchors: Sequence[Sequence[Sequence[float]]],
    tensors: Tensors,
    rng: np.random.Generator,
    path: str,
    *,
    strides: Sequence[int],
    reads: Sequence[int],
) -> Any:
    """The head: a convolution a level, that reads the layers ``reads`` of so many ``channels``; anchors in pixels."""
    count, outputs = len(anchors[0]), 5 + classes
    inner = {}
    for level, (c1, stride) in enumerate(zip(channels, strides, strict=True)):
        inner[str(level)] = conv2d(tensors, rng, f"{path}.m.{level}", (count * outputs, c1, 1), 1, 0)
        bias = np.zeros((count, outputs), np.float32)
        bias[:, 4], bias[:, 5:] = _object_prior(stride), class_prior(classes)
        tensors[f"{path}.m.{level}.bias"] = bias.reshape(-1)
    tensors[f"{path}.anchors"] = np.array(anchors, np.float32) / np.array(strides, np.float32).reshape(-1, 1, 1)
    attributes = {
        "nc": classes, "na": count, "nl": len(strides), "no": outputs, "f": list(reads), "stride": list(strides),
    }  # fmt: skip
    return described("Detect", attributes, {"m": described("ModuleList", parts=inner)})
