"""A walk through the blocks of a network that says which of their channels are one.

A convolution makes new channels; a concatenation puts lists of them one after the other; an addition unites them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ovyolo.compress.channels.trace import Channels, Trace
from ovyolo.errors import UnsupportedModelError
from ovyolo.train import blocks
from ovyolo.train.attention import TransformerBlock
from ovyolo.train.network import Detect, Network

__all__ = ["trace"]

Walk = Callable[[Trace, Any, Channels, str], Channels]

CHANNELWISE = (
    nn.MaxPool2d, nn.AvgPool2d, nn.Identity, nn.Dropout, nn.ZeroPad2d, nn.SiLU, nn.Hardswish, nn.Mish, nn.ReLU,
    nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, blocks.Upsample,
)  # fmt: skip


def trace(network: Network) -> Trace:
    """Walk through ``network``.

    A layer that is not known keeps its inputs and outputs; it is named in :attr:`Trace.fixed`.

    Raises:
        UnsupportedModelError: maps do not fit together, or a layer that is not known does not say how many channels it
            gives.
    """
    found = Trace({}, {}, {}, [], {})
    outputs: list[Channels] = []
    previous = found.fix(found.new(3), "the picture")
    layers = list(network.model)
    for index, (layer, source) in enumerate(zip(layers, network.model.sources, strict=True)):
        name = f"model.{index}"
        wanted = source if isinstance(source, list) else [source]
        given = [previous if j == -1 else outputs[index + j if j < 0 else j] for j in wanted]
        if isinstance(layer, Detect):
            heads = layer.get_submodule("m").children()
            for level, (convolution, channels) in enumerate(zip(heads, given, strict=True)):
                found.fix(walk(found, convolution, channels, f"{name}.m.{level}"), f"{name}: what the head says")
        elif isinstance(layer, blocks.Concat):
            previous = _concat(found, layer, given, name)
        else:
            previous = walk(found, layer, given[0], name)
        outputs.append(previous)
    found.fixed = {found.root(channel): why for channel, why in reversed(found.fixed.items())}
    return found


def walk(found: Trace, module: nn.Module, x: Channels, name: str) -> Channels:
    """The channels that ``module`` gives for ``x``."""
    if type(module) in CHANNELWISE:
        return found.see(name, x)
    for kinds, step in WALKS:
        if type(module) in kinds:
            return step(found, module, x, name)
    return _unknown(found, module, x, name)


def _concat(found: Trace, layer: blocks.Concat, given: list[Channels], name: str) -> Channels:
    if layer.d in (1, -3):
        return found.see(name, [channel for channels in given for channel in channels])
    first, *others = given
    for other in others:
        found.unite_each(first, other, name)
    return found.see(name, first)


def _unknown(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    why = f"{name}: {type(module).__name__} is not known"
    found.fix(x, why)
    count = getattr(module, "out_channels", None)
    if not isinstance(count, int):
        raise UnsupportedModelError(f"{why} and does not say its out_channels, so no channels can be told apart behind")
    return found.fix(found.new(count), why)


def _convolution(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    if module.in_channels != len(x):
        raise UnsupportedModelError(f"layer {name} expects {module.in_channels} input channels, gets {len(x)}")
    out, groups = found.new(module.out_channels), module.groups
    found.convolutions[name] = module
    found.slots[name, "in"], found.slots[name, "out"] = x, out
    if groups > 1:
        inputs, outputs = len(x) // groups, len(out) // groups
        if min(inputs, outputs) == 1:  # depthwise: a group goes or stays as a whole
            for g in range(groups):
                found.unite([*x[g * inputs : (g + 1) * inputs], *out[g * outputs : (g + 1) * outputs]])
        else:  # every group loses the same positions, so that they stay equally large
            for channels, size in ((x, inputs), (out, outputs)):
                for position in range(size):
                    found.unite(channels[position::size])
    return out


def _norm(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    found.norms[name] = module
    found.slots[name, "norm"] = x
    return x


def _scale(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    found.slots[name, "scale"] = x
    return x


def _chain(*parts: str) -> Walk:
    """Those of the named parts that there are, one after the other."""

    def step(found: Trace, module: Any, x: Channels, name: str) -> Channels:
        for part in parts:
            if part in module._modules:
                x = walk(found, module.get_submodule(part), x, f"{name}.{part}")
        return x

    return step


def _sequence(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    for key, part in module.named_children():
        x = walk(found, part, x, f"{name}.{key}")
    return x


def _frelu(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    return found.see(f"{name}.max", found.unite_each(x, _chain("conv", "bn")(found, module, x, name), name))


def _bottleneck(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    y = _chain("cv1", "cv2")(found, module, x, name)
    return found.see(f"{name}.add", found.unite_each(x, y, name)) if module.add else y


def _c3(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    if "cv4" not in module._modules:
        joined = _chain("cv1", "m")(found, module, x, name) + _chain("cv2")(found, module, x, name)
        return _chain("cv3")(found, module, found.see(f"{name}.concat", joined), name)
    joined = _chain("cv1", "m", "cv3")(found, module, x, name) + _chain("cv2")(found, module, x, name)
    return _chain("bn", "act", "cv4")(found, module, found.see(f"{name}.concat", joined), name)


def _ghost(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    y = _chain("cv1")(found, module, x, name)
    return found.see(f"{name}.concat", y + _chain("cv2")(found, module, y, name))


def _ghost_bottleneck(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    a, b = (_chain(part)(found, module, x, name) for part in ("conv", "shortcut"))
    return found.see(f"{name}.add", found.unite_each(a, b, name))


def _spp(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    x = _chain("cv1")(found, module, x, name)
    count = 4 if isinstance(module, blocks.Sppf) else 1 + len(module.m)
    for pool in range(count - 1):
        found.see(f"{name}.m.{pool}", x)
    return _chain("cv2")(found, module, found.see(f"{name}.concat", x * count), name)


def _focus(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    return _chain("conv")(found, module, x * 4, name)


def _contract(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    return found.see(name, x * module.gain**2)


def _expand(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    count = len(x) // module.gain**2
    for position in range(count):
        found.unite(x[position::count])
    return found.see(name, x[:count])


def _transformer(found: Trace, module: Any, x: Channels, name: str) -> Channels:
    why = f"{name}: attention mixes its channels"
    if module.conv is not None:
        x = walk(found, module.conv, x, f"{name}.conv")
    found.fix(x, why)
    return found.fix(found.new(len(x)), why)


WALKS: tuple[tuple[tuple[type[nn.Module], ...], Walk], ...] = (
    ((nn.Conv2d, nn.ConvTranspose2d), _convolution),
    ((nn.BatchNorm2d,), _norm),
    ((blocks.ChannelScale,), _scale),
    ((nn.Sequential,), _sequence),
    ((blocks.ConvBlock,), _chain("conv", "bn", "act")),
    ((blocks.FReLU,), _frelu),
    ((blocks.Bottleneck,), _bottleneck),
    ((blocks.C3,), _c3),
    ((blocks.GhostConv,), _ghost),
    ((blocks.GhostBottleneck,), _ghost_bottleneck),
    ((blocks.Spp, blocks.Sppf), _spp),
    ((blocks.Focus,), _focus),
    ((blocks.Contract,), _contract),
    ((blocks.Expand,), _expand),
    ((TransformerBlock,), _transformer),
)
