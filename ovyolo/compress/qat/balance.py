"""The maps that the last convolutions read, made fit for 8 bits: small channels become larger.

Steps that reach the few channels which are several times as large as the others are coarse for these, and what the
heads say suffers more from that than from all else that 8 bits do. So each channel is multiplied by a number of its own
before it is rounded, and whatever reads it has that number divided out of its weights, as in SmoothQuant
(arXiv:2211.10438): a network that computes the same. OpenVINO multiplies while it rounds, so nothing gets slower.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ovyolo.compress.channels.apply import part_of
from ovyolo.compress.channels.trace import Channels, Convolution, Trace
from ovyolo.compress.channels.walk import trace
from ovyolo.compress.qat.quantizers import least_scales
from ovyolo.train import blocks
from ovyolo.train.described import described
from ovyolo.train.distill import tapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ovyolo.train.network import Network

__all__ = ["balance_heads", "scales_of"]

MOST = 16.0  # times: 4 bits more for a channel are enough, and what pictures of tomorrow hold should not be cut off
POWERS = torch.linspace(0, 1, 9).tolist()  # 0: channels stay as they are; 1: all become equally large
STEPS, WEIGHT_STEPS = 255, 127
# what a channel may pass before it is read: a multiple comes out as the same multiple
LINEAR = (
    blocks.Concat, blocks.Upsample, nn.MaxPool2d, nn.AvgPool2d, nn.Identity, nn.Dropout, nn.ZeroPad2d,
)  # fmt: skip


@dataclass(frozen=True)
class _Map:
    """What one block gives, and who reads it."""

    block: str
    readers: list[tuple[str, list[int], list[int]]]
    """Convolutions, which channels each reads, and at which of its inputs."""


@dataclass(frozen=True)
class _Channels:
    """What the channels of a map hold: ``[C]`` each."""

    low: Tensor
    high: Tensor
    squares: Tensor
    count: int

    @classmethod
    def of(cls, output: Tensor) -> _Channels:
        axes = (0, 2, 3)
        count = output.numel() // output.shape[1]
        return cls(output.amin(axes), output.amax(axes), output.double().square().sum(axes).to(output.dtype), count)

    def and_then(self, other: _Channels) -> _Channels:
        return _Channels(
            torch.minimum(self.low, other.low), torch.maximum(self.high, other.high),
            self.squares + other.squares, self.count + other.count,
        )  # fmt: skip


def balance_heads(
    network: Network,
    pictures: Sequence[Tensor],
    ignored: Sequence[str] = (),
    tell: Callable[[int], None] = lambda done: None,
) -> Network:
    """A copy of ``network`` in which small channels of each map that a last convolution reads are larger: by so much as
    makes least of what rounding the map and rounding the weights that read it do together.

    The copy is in evaluation mode. A map stays as it is where other things than convolutions read it, or several layers
    make it by adding.

    Args:
        network: any that trains, with masks or without; it has no quantizers yet.
        pictures: what ranges are measured on, f32 RGB ``[N, 3, H, W]`` from 0 to 1.
        ignored: layers that will not be quantized (``"model.24"``): what only those of the last convolutions read that
            are among them stays as it is.
        tell: called with the number of pictures looked at.

    Example:
        >>> import torch
        >>> from ovyolo.compress.qat.balance import balance_heads, scales_of
        >>> from ovyolo.train.architecture import new_network
        >>> picture = torch.rand(1, 3, 64, 64)
        >>> network = new_network("n", ["scratch"]).eval()
        >>> balanced = balance_heads(network, [picture])
        >>> scales_of(balanced)
        ['model.17.cv3.act.1', 'model.20.cv3.act.1', 'model.23.cv3.act.1']
        >>> all(torch.allclose(a, b, atol=1e-4) for a, b in zip(network(picture), balanced(picture)))
        True
    """
    balanced = copy.deepcopy(network).eval()
    maps = _maps(balanced, ignored)
    if not maps:
        return balanced
    for one in maps:  # whoever was balanced before begins anew
        act: Any = balanced.get_submodule(f"{one.block}.act")
        if _is_scaled(act):
            _multiply(balanced, one, 1 / act[-1].factors)
    for one, channels in zip(maps, _looked_at(balanced, [one.block for one in maps], pictures, tell), strict=True):
        factors = _factors(balanced, one, channels)
        if bool((factors != 1).any()):
            _multiply(balanced, one, factors)
    return balanced


def scales_of(network: Network) -> list[str]:
    """The parts of ``network`` that multiply channels so."""
    return [name for name, part in network.named_modules() if isinstance(part, blocks.ChannelScale)]


def _maps(network: Network, ignored: Sequence[str]) -> list[_Map]:
    found = trace(network)
    parts = dict(network.named_modules())
    last = f"model.{len(network.model) - 1}"
    maps: dict[str, _Map] = {}
    for level in range(len(network.strides)):
        head = f"{last}.m.{level}"
        if any(f"{head}.".startswith(f"{name}.") for name in ignored):
            continue
        channels = found.slots[head, "in"]
        made = _map(found, parts, channels)
        if made is not None:
            maps.setdefault(made.block, made)
    return list(maps.values())


def _map(found: Trace, parts: dict[str, nn.Module], channels: Channels) -> _Map | None:
    """The map of ``channels``; None if they cannot each be multiplied by a number."""
    number_of = {found.root(channel): number for number, channel in enumerate(channels)}
    if len(number_of) < len(channels) or any(root in found.fixed for root in number_of):
        return None
    block = ""
    readers: list[tuple[str, list[int], list[int]]] = []
    for (name, kind), slot in found.slots.items():
        here = [
            (number_of[root], position)
            for position, root in enumerate(found.root(channel) for channel in slot) if root in number_of
        ]  # fmt: skip
        if not here:
            continue
        owner = name.rpartition(".")[0]
        if kind == "out":
            if block or here != [(number, number) for number in range(len(channels))] or len(slot) != len(channels):
                return None  # several layers make it
            block = owner
        elif kind == "in":
            if found.convolutions[name].groups > 1:
                return None
            readers.append((name, [number for number, _ in here], [position for _, position in here]))
        elif owner.removesuffix(".act") != block and name in parts and not isinstance(parts[name], LINEAR):
            return None
    if not isinstance(parts.get(block), blocks.ConvBlock) or "act" not in parts[block]._modules:
        return None
    return _Map(block, readers)


@torch.no_grad()
def _looked_at(
    network: Network, names: Sequence[str], pictures: Sequence[Tensor], tell: Callable[[int], None]
) -> list[_Channels]:
    """What the named parts' outputs hold."""
    device = next(network.parameters()).device
    seen: list[_Channels] = []
    with tapped(network, names) as outputs:
        for done, picture in enumerate(pictures, 1):
            network(picture.to(device))
            here = [_Channels.of(output) for output in outputs]
            seen = [a.and_then(b) for a, b in zip(seen, here, strict=True)] if seen else here
            tell(done)
    return seen


def _factors(network: Network, one: _Map, channels: _Channels) -> Tensor:
    """Factors from 1 to :data:`MOST` that make small channels larger, so much that the readers' results err least."""
    size = torch.maximum(channels.high, -channels.low)
    largest = size.max().clamp(min=1e-12)
    wholly = largest / size.clamp(min=largest / MOST)
    return min((wholly**power for power in POWERS), key=lambda factors: _error(network, one, channels, factors))


@torch.no_grad()
def _error(network: Network, one: _Map, channels: _Channels, factors: Tensor) -> float:
    """What rounding, of a map times ``factors`` and of the weights that read it, adds to the readers' results on
    average: squares, relative to theirs."""
    step = ((channels.high * factors).max().clamp(min=0) - (channels.low * factors).min().clamp(max=0)) / STEPS
    rounding = (step / factors).square() / 12
    squares = channels.squares / channels.count
    total = 0.0
    for name, read, positions in one.readers:
        weight = _inputs(network, name)[:, positions]
        at = factors[read].view(1, -1, 1, 1)
        steps = least_scales(weight / at) / WEIGHT_STEPS
        powers = weight.square().sum((2, 3))
        of_map = (powers * rounding[read]).sum(1)
        of_weights = steps.square() / 12 * (squares[read] * factors[read].square()).sum() * weight[0, 0].numel()
        total += float((of_map + of_weights).mean() / (powers * squares[read]).sum(1).mean().clamp(min=1e-12))
    return total


@torch.no_grad()
def _multiply(network: Network, one: _Map, factors: Tensor) -> None:
    """Multiply what a block gives, in the network and in its description, and divide what reads it."""
    owner = network.get_submodule(one.block)
    act: Any = owner.get_submodule("act")
    if not _is_scaled(act):
        act = owner.act = nn.Sequential(act, blocks.ChannelScale(len(factors)).to(factors.device))
        parts = part_of(network.description, one.block)["parts"]
        parts["act"] = described("Sequential", parts={"0": parts["act"], "1": described("ChannelScale")})
    act[-1].factors.mul_(factors)
    for name, read, positions in one.readers:
        _inputs(network, name)[:, positions] /= factors[read].view(1, -1, 1, 1)


def _is_scaled(act: nn.Module) -> bool:
    return isinstance(act, nn.Sequential) and isinstance(act[-1], blocks.ChannelScale)


def _inputs(network: Network, name: str) -> Tensor:
    """A view of a convolution's weights whose second axis is that of the inputs."""
    convolution = network.get_submodule(name)
    assert isinstance(convolution, Convolution)
    weight = convolution.weight
    return weight.transpose(0, 1) if isinstance(convolution, nn.ConvTranspose2d) else weight
