"""A trainable network of a few layers with random weights: every kind of block that matters, in milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovyolo.export.checkpoint.own_format import record_of
from ovyolo.train.network import Network

NAMES = ("open", "short")
ANCHORS = [[[6, 8], [12, 9]], [[20, 16], [30, 34]]]
STRIDES = (8, 16)


class Maker:
    """Collects descriptions and random tensors."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, np.ndarray] = {}

    def conv2d(self, path: str, c1: int, c2: int, k: int, s: int = 1, p: int | None = None, bias: bool = False) -> Any:
        spread = 1.6 / np.sqrt(c1 * k * k)
        self.tensors[f"{path}.weight"] = self.rng.normal(0, spread, (c2, c1, k, k)).astype(np.float32)
        if bias:
            self.tensors[f"{path}.bias"] = self.rng.normal(-1, 1, c2).astype(np.float32)
        numbers = {"kernel_size": k, "stride": s, "padding": k // 2 if p is None else p, "dilation": 1, "groups": 1}
        return part("Conv2d", {**numbers, "padding_mode": "zeros"})

    def conv(self, path: str, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> Any:
        inner = self.conv2d(f"{path}.conv", c1, c2, k, s, p)
        for name, low, high in (("weight", 0.7, 1.3), ("bias", -0.3, 0.3), ("running_mean", -0.2, 0.2),
                                ("running_var", 0.6, 1.6)):  # fmt: skip
            self.tensors[f"{path}.bn.{name}"] = self.rng.uniform(low, high, c2).astype(np.float32)
        norm = part("BatchNorm2d", {"eps": 1e-3, "momentum": 0.03})
        return part("Conv", {}, {"conv": inner, "bn": norm, "act": part("SiLU")})

    def c3(self, path: str, c1: int, c2: int) -> Any:
        half = c2 // 2
        inner = {"cv1": self.conv(f"{path}.m.0.cv1", half, half), "cv2": self.conv(f"{path}.m.0.cv2", half, half, 3)}
        parts = {"cv1": self.conv(f"{path}.cv1", c1, half), "cv2": self.conv(f"{path}.cv2", c1, half)}
        parts["cv3"] = self.conv(f"{path}.cv3", 2 * half, c2)
        parts["m"] = part("Sequential", {}, {"0": part("Bottleneck", {"add": True}, inner)})
        return part("C3", {}, parts)

    def sppf(self, path: str, c: int) -> Any:
        parts = {"cv1": self.conv(f"{path}.cv1", c, c // 2), "cv2": self.conv(f"{path}.cv2", c * 2, c)}
        return part("SPPF", {}, {**parts, "m": part("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2})})

    def focus(self, path: str, c: int) -> Any:
        return part("Focus", {}, {"conv": self.conv(f"{path}.conv", 12, c, 3)})


def part(kind: str, attributes: dict[str, Any] | None = None, parts: dict[str, Any] | None = None) -> Any:
    return {"class": kind, "attributes": attributes or {}, "parts": parts or {}}


def tiny_network(seed: int = 0, *, focus: bool = False, width: int = 8, names: tuple[str, ...] = NAMES) -> Network:
    """Two levels (strides 8 and 16), two anchors, about 12 000 weights; in evaluation mode."""
    m, w = Maker(seed), width
    layers = [
        m.focus("model.0", w) if focus else m.conv("model.0", 3, w, 6, 2, 2),
        m.conv("model.1", w, w, 3, 2),
        m.c3("model.2", w, 2 * w),
        m.conv("model.3", 2 * w, 2 * w, 3, 2),
        m.conv("model.4", 2 * w, 2 * w, 3, 2),
        m.sppf("model.5", 2 * w),
        part("Upsample", {"scale_factor": 2.0, "mode": "nearest"}),
        part("Concat", {"d": 1}),
        m.c3("model.8", 4 * w, 2 * w),
    ]
    outputs = len(ANCHORS[0]) * (5 + len(names))
    heads = {str(i): m.conv2d(f"model.9.m.{i}", 2 * w, outputs, 1, bias=True) for i in range(2)}
    m.tensors["model.9.anchors"] = np.array(ANCHORS, np.float32) / np.array(STRIDES, np.float32).reshape(-1, 1, 1)
    detect = {"nc": len(names), "na": 2, "nl": 2, "no": 5 + len(names), "f": [8, 5], "stride": list(STRIDES)}
    layers.append(part("Detect", detect, {"m": part("ModuleList", {}, heads)}))
    layers[7]["attributes"]["f"] = [-1, 3]
    for index, layer in enumerate(layers):
        layer["attributes"].setdefault("f", -1)
        layer["attributes"]["i"] = index
    numbered = part("Sequential", {}, {str(i): layer for i, layer in enumerate(layers)})
    root = part("DetectionModel", {}, {"model": numbered})
    return Network(record_of(root, m.tensors), names, STRIDES).eval()


def tiny_pictures(count: int, side: int = 64, seed: int = 0) -> list[np.ndarray]:
    """u8 BGR pictures of soft blobs and noise, each colour different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    found = []
    for _ in range(count):
        picture = rng.normal(rng.uniform(0, 220, 3), 12, (side, side, 3))
        for _ in range(5):
            centre, radius, colour = rng.uniform(0, side, 2), rng.uniform(2, 9), rng.uniform(-80, 150, 3)
            near = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2)
            picture += near[..., None] * colour
        found.append(picture.clip(0, 255).astype(np.uint8))
    return found
