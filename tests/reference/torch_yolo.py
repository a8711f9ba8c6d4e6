"""YOLOv5's layers in PyTorch, written from the papers and the shape of real checkpoints, for tests only.

Models built here are pickled under the module names that real checkpoints use (``models.common``, ``models.yolo``), so
that the reader and the graph builder see what a user would bring, and PyTorch says what the graph must compute.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn


def _same(kernel: Any) -> Any:
    return [k // 2 for k in kernel] if isinstance(kernel, (tuple, list)) else kernel // 2


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, _same(k) if p is None else p, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU() if act is True else act if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        if hasattr(self, "bn"):
            x = self.bn(x)
        return self.act(x)


class DWConv(Conv):
    def __init__(self, c1, c2, k=1, s=1, act=True):
        super().__init__(c1, c2, k, s, g=torch.gcd(torch.tensor(c1), torch.tensor(c2)).item(), act=act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    def __init__(self, c1, c2, k=1, s=1, p1=0, p2=0):
        super().__init__(c1, c2, k, s, p1, p2, groups=torch.gcd(torch.tensor(c1), torch.tensor(c2)).item())


class Bottleneck(nn.Module):
    def __init__(self, c1, c2, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden, c2, 3, 1, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class BottleneckCSP(nn.Module):
    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.LeakyReLU(0.1)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x):
        joined = torch.cat([self.cv3(self.m(self.cv1(x))), self.cv2(x)], 1)
        return self.cv4(self.act(self.bn(joined)))


class CrossConv(nn.Module):
    def __init__(self, c1, c2, k=3, s=1, g=1, e=1.0, shortcut=False):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2

    forward = Bottleneck.forward


class GhostConv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, g=1, act=True):
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k, s, None, g, act=act)
        self.cv2 = Conv(hidden, hidden, 5, 1, None, hidden, act=act)

    def forward(self, x):
        y = self.cv1(x)
        return torch.cat([y, self.cv2(y)], 1)


class GhostBottleneck(nn.Module):
    def __init__(self, c1, c2, k=3, s=1):
        super().__init__()
        hidden = c2 // 2
        middle = DWConv(hidden, hidden, k, s, act=False) if s == 2 else nn.Identity()
        self.conv = nn.Sequential(GhostConv(c1, hidden, 1, 1), middle, GhostConv(hidden, c2, 1, 1, act=False))
        short = (DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False)) if s == 2 else ()
        self.shortcut = nn.Sequential(*short) if short else nn.Identity()

    def forward(self, x):
        return self.conv(x) + self.shortcut(x)


class SPP(nn.Module):
    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2, 1, 1)
        self.cv2 = Conv(c1 // 2 * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList([nn.MaxPool2d(kernel_size=x, stride=1, padding=x // 2) for x in k])

    def forward(self, x):
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(m(x) for m in self.m)], 1))


class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2, 1, 1)
        self.cv2 = Conv(c1 // 2 * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x):
        a = self.cv1(x)
        b = self.m(a)
        c = self.m(b)
        return self.cv2(torch.cat([a, b, c, self.m(c)], 1))


class TransformerLayer(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=c, num_heads=heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x):
        x = self.ma(self.q(x), self.k(x), self.v(x))[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    def __init__(self, c1, c2, heads, layers):
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, heads) for _ in range(layers)))
        self.c2 = c2

    def forward(self, x):
        if self.conv is not None:
            x = self.conv(x)
        n, c, h, w = x.shape
        sequence = x.flatten(2).permute(2, 0, 1)
        out = self.tr(sequence + self.linear(sequence))
        return out.permute(1, 2, 0).reshape(n, c, h, w)


class C3(nn.Module):
    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m = self.inner(hidden, n, shortcut, g)

    def inner(self, hidden, n, shortcut, g):
        return nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x):
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class C3x(C3):
    def inner(self, hidden, n, shortcut, g):
        return nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut) for _ in range(n)))


class C3TR(C3):
    def inner(self, hidden, n, shortcut, g):
        return TransformerBlock(hidden, hidden, 4, n)


class C3SPP(C3):
    def inner(self, hidden, n, shortcut, g):
        return SPP(hidden, hidden, (5, 9, 13))


class C3Ghost(C3):
    def inner(self, hidden, n, shortcut, g):
        return nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(n)))


class Focus(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True):
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act)

    def forward(self, x):
        corners = [x[..., row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.conv(torch.cat(corners, 1))


class Contract(nn.Module):
    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        n, c, h, w = x.shape
        s = self.gain
        x = x.view(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).contiguous()
        return x.view(n, c * s * s, h // s, w // s)


class Expand(nn.Module):
    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        n, c, h, w = x.shape
        s = self.gain
        x = x.view(n, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2).contiguous()
        return x.view(n, c // s**2, h * s, w * s)


class Concat(nn.Module):
    def __init__(self, dimension=1):
        super().__init__()
        self.d = dimension

    def forward(self, x):
        return torch.cat(x, self.d)


class FReLU(nn.Module):
    def __init__(self, c1, k=3):
        super().__init__()
        self.conv = nn.Conv2d(c1, c1, k, 1, 1, groups=c1, bias=False)
        self.bn = nn.BatchNorm2d(c1)

    def forward(self, x):
        return torch.max(x, self.bn(self.conv(x)))


class Detect(nn.Module):
    def __init__(self, nc, anchors, channels):
        super().__init__()
        self.nc, self.no, self.nl, self.na = nc, nc + 5, len(anchors), len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in channels)
        self.inplace = True

    def forward(self, x):
        return [conv(one) for conv, one in zip(self.m, x, strict=True)]


class Model(nn.Module):
    """``rows`` are ``(from, module)``; the last module is a Detect."""

    def __init__(self, rows: Sequence[tuple[Any, nn.Module]], names: Any) -> None:
        super().__init__()
        for index, (source, module) in enumerate(rows):
            module.i, module.f = index, source
            module.type = f"{type(module).__module__}.{type(module).__qualname__}"
        self.model = nn.Sequential(*(module for _, module in rows))
        self.names = names

    def forward(self, x):
        outputs: list[Any] = []
        for module in self.model:
            wanted = module.f if isinstance(module.f, list) else [module.f]
            given = [x if j == -1 else outputs[j] for j in wanted]
            x = module(given if isinstance(module.f, list) else given[0])
            outputs.append(x)
        return x


def _install() -> None:
    """Make the classes importable, and pickled, under the names of real checkpoints."""
    common, yolo, experimental = (ModuleType(f"models.{name}") for name in ("common", "yolo", "experimental"))
    package = ModuleType("models")
    for cls in list(globals().values()):
        if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__ == __name__:
            room = yolo if cls in (Detect, Model) else experimental if cls is CrossConv else common
            cls.__module__ = room.__name__
            setattr(room, cls.__name__, cls)
    for module in (package, common, yolo, experimental):
        sys.modules.setdefault(module.__name__, module)


_install()


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that make every layer matter, without overflow."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return model.eval()
