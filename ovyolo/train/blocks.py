"""The layers of YOLOv5 as PyTorch modules, each built from the record of one layer.

Names of parts and tensors are those of the checkpoints. What a layer computes is what :mod:`ovyolo.export.layers`
emits for it, in the form that trains: batch norms are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovyolo.errors import UnsupportedModelError
from ovyolo.export.checkpoint import Record, attr, children, class_name, tensor
from ovyolo.export.layers import conv_arguments, pair, pool_arguments, required
from ovyolo.train.attention import TransformerBlock

__all__ = ["Block", "ChannelScale", "build_layer", "load_tensors"]

Maker = Callable[[Record, str], nn.Module]


class Block(nn.Module):
    """A layer made of parts: every part of the record becomes a submodule of the same name."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        for key, part in children(record).items():
            self.add_module(key, build_layer(part, f"{name}.{key}"))
        missing = [key for key in self.needs() if key not in self._modules]
        if missing:
            raise UnsupportedModelError(
                f"layer {name} ({record.module}.{record.qualname}) has no part {missing[0]!r}: "
                "it is not the layer known by that name"
            )

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        """The parts without which the layer cannot compute."""
        return ()


class ConvBlock(Block):
    """Conv, DWConv: convolution, batch norm, activation."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("conv",)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if "bn" in self._modules:
            x = self.bn(x)
        return self.act(x) if "act" in self._modules else x


class FReLU(ConvBlock):
    """FReLU (arXiv:2007.11824)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.maximum(x, self.bn(y) if "bn" in self._modules else y)


class Bottleneck(Block):
    """Bottleneck, CrossConv: two convolutions, and the input added when the layer says so."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__(record, name)
        self.add = bool(attr(record, "add", False))

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("cv1", "cv2")

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(Block):
    """C3 and its kin, and BottleneckCSP (arXiv:1911.11929), told apart by their parts."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("cv1", "cv2", "cv3", "m")

    def forward(self, x: Tensor) -> Tensor:
        deep = self.m(self.cv1(x))
        if "cv4" not in self._modules:
            return self.cv3(torch.cat([deep, self.cv2(x)], 1))
        joined = self.bn(torch.cat([self.cv3(deep), self.cv2(x)], 1))
        return self.cv4(self.act(joined) if "act" in self._modules else joined)


class GhostConv(Block):
    """GhostConv (arXiv:1911.11907)."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("cv1", "cv2")

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat([y, self.cv2(y)], 1)


class GhostBottleneck(Block):
    """Ghost convolutions beside a shortcut."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("conv", "shortcut")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class Spp(Block):
    """SPP: spatial pyramid pooling, each pool on the same input."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("cv1", "cv2", "m")

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class Sppf(Spp):
    """SPPF: the same as three equal pools in a row."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))


class Focus(Block):
    """Focus: four interleaved half-size pictures as channels, then a convolution."""

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("conv",)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.conv(torch.cat(corners, 1))


class Upsample(nn.Module):
    """torch.nn.Upsample, nearest or bilinear."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        self.mode = str(attr(record, "mode", "nearest"))
        if self.mode not in ("nearest", "bilinear") or attr(record, "align_corners", None):
            raise UnsupportedModelError(f"layer {name} upsamples by {self.mode!r} (align_corners), which is not known")
        size, factor = attr(record, "size", None), attr(record, "scale_factor", None)
        self.size = None if size is None else pair(size)
        factors = factor if isinstance(factor, (tuple, list)) else (factor, factor)
        self.factors = None if size is not None else (float(factors[0]), float(factors[-1]))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, self.size, self.factors, self.mode, recompute_scale_factor=False)


class Contract(nn.Module):
    """Each patch into channels, all channels of one position together; Expand is the reverse."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        self.gain = int(attr(record, "gain", 2))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        g = self.gain
        return x.view(n, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4).reshape(n, c * g * g, h // g, w // g)


class Expand(Contract):
    """Channels back into patches."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        g = self.gain
        return x.view(n, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // g**2, h * g, w * g)


class Concat(nn.Module):
    """Maps joined along a dimension."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        self.d = int(attr(record, "d", 1))

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class ChannelScale(nn.Module):
    """Each channel times a number that training leaves alone (:mod:`ovyolo.compress.qat.balance`)."""

    factors: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors.view(1, -1, 1, 1)


def load_tensors(module: nn.Module, record: Record) -> nn.Module:
    """Copy the record's own tensors into the module's parameters and buffers of the same names."""
    with torch.no_grad():
        for key, target in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            stored = tensor(record, key)
            if stored is not None:
                target.copy_(torch.from_numpy(np.array(stored)).reshape(target.shape))
    return module


def _conv(record: Record, name: str) -> nn.Module:
    weight = required(record, "weight", name)
    arguments = conv_arguments(record, name)
    made = nn.Conv2d(
        weight.shape[1] * arguments["groups"], weight.shape[0], tuple(weight.shape[2:]),
        bias=tensor(record, "bias") is not None, **arguments,
    )  # fmt: skip
    return load_tensors(made, record)


def _conv_transpose(record: Record, name: str) -> nn.Module:
    weight = required(record, "weight", name)
    arguments: dict[str, Any] = {key: pair(attr(record, key, default)) for key, default in
                                 (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))}  # fmt: skip
    groups = int(attr(record, "groups", 1))
    made = nn.ConvTranspose2d(
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), groups=groups,
        bias=tensor(record, "bias") is not None, **arguments,
    )  # fmt: skip
    return load_tensors(made, record)


def _norm(record: Record, name: str) -> nn.Module:
    count = len(required(record, "running_mean", name))
    momentum = attr(record, "momentum", 0.03)
    made = nn.BatchNorm2d(count, eps=float(attr(record, "eps", 1e-5)), momentum=momentum)
    return load_tensors(made, record)


def _scale(record: Record, name: str) -> nn.Module:
    return load_tensors(ChannelScale(len(required(record, "factors", name))), record)


def _pool(record: Record, name: str) -> nn.Module:
    return nn.MaxPool2d(*pool_arguments(record, name))


def _sequence(record: Record, name: str) -> nn.Module:
    return nn.Sequential(*(build_layer(part, f"{name}.{key}") for key, part in children(record).items()))


def _pad(record: Record, name: str) -> nn.Module:
    return nn.ZeroPad2d(tuple(int(v) for v in attr(record, "padding", (0, 0, 0, 0))))


def _transformer(record: Record, name: str) -> nn.Module:
    convolution = children(record).get("conv")
    return TransformerBlock(record, name, None if convolution is None else build_layer(convolution, f"{name}.conv"))


LAYERS: dict[str, Maker] = {
    "Conv": ConvBlock,
    "DWConv": ConvBlock,
    "Conv2d": _conv,
    "ConvTranspose2d": _conv_transpose,
    "DWConvTranspose2d": _conv_transpose,
    "BatchNorm2d": _norm,
    "ChannelScale": _scale,
    "Bottleneck": Bottleneck,
    "CrossConv": Bottleneck,
    "BottleneckCSP": C3,
    "C3": C3,
    "C3x": C3,
    "C3TR": C3,
    "C3SPP": C3,
    "C3Ghost": C3,
    "GhostConv": GhostConv,
    "GhostBottleneck": GhostBottleneck,
    "Focus": Focus,
    "SPP": Spp,
    "SPPF": Sppf,
    "MaxPool2d": _pool,
    "TransformerBlock": _transformer,
    "Upsample": Upsample,
    "Sequential": _sequence,
    "ModuleList": _sequence,
    "FReLU": FReLU,
    "ZeroPad2d": _pad,
    "Concat": Concat,
    "Contract": Contract,
    "Expand": Expand,
    "Identity": lambda record, name: nn.Identity(),
    "Dropout": lambda record, name: nn.Dropout(float(attr(record, "p", 0.5))),
    "SiLU": lambda record, name: nn.SiLU(),
    "Swish": lambda record, name: nn.SiLU(),
    "MemoryEfficientSwish": lambda record, name: nn.SiLU(),
    "Hardswish": lambda record, name: nn.Hardswish(),
    "Mish": lambda record, name: nn.Mish(),
    "MemoryEfficientMish": lambda record, name: nn.Mish(),
    "ReLU": lambda record, name: nn.ReLU(),
    "ReLU6": lambda record, name: nn.ReLU6(),
    "LeakyReLU": lambda record, name: nn.LeakyReLU(float(attr(record, "negative_slope", 0.01))),
    "Sigmoid": lambda record, name: nn.Sigmoid(),
    "Tanh": lambda record, name: nn.Tanh(),
}


def build_layer(record: Record, name: str) -> nn.Module:
    """The trainable module for one layer's record, with its weights.

    Raises:
        UnsupportedModelError: names a class that is not known, or parts that do not fit.
    """
    maker = LAYERS.get(class_name(record))
    if maker is None:
        raise UnsupportedModelError(
            f"layer {name} is of the unknown class {record.module}.{record.qualname}: it cannot be trained here"
        )
    return maker(record, name)
