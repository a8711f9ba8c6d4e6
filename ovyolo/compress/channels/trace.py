"""Which channel of one layer is which channel of another.

Every channel of every map gets a number. What turns out to be one, such as two that are added, can only be removed
together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from ovyolo.errors import UnsupportedModelError

__all__ = ["Channels", "Convolution", "Slot", "Trace"]

Slot = tuple[str, str]
"""A module's name and what of it a channel is: ``"out"``, ``"in"``, ``"norm"``, ``"scale"``; or ``"map"`` of what has
no weights, with the name that the emitted graph has for it."""
Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d
Channels = list[int]


@dataclass
class Trace:
    """Channels by number, which of them are one, and where each is used.

    Args:
        slots: for each use, the numbers by position.
        convolutions, norms: the modules by name.
        parent: a forest; its roots are the channels that differ.
        fixed: channels that must stay, and why; by root once the walk is over.
    """

    slots: dict[Slot, Channels]
    convolutions: dict[str, Convolution]
    norms: dict[str, nn.BatchNorm2d]
    parent: list[int]
    fixed: dict[int, str]

    def new(self, count: int) -> Channels:
        """Channels that nobody knows yet."""
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return list(range(first, first + count))

    def root(self, channel: int) -> int:
        """The number that stands for all that ``channel`` is one with."""
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def unite(self, channels: Iterable[int]) -> None:
        """Say that these are one."""
        first, *others = (self.root(channel) for channel in channels)
        for other in others:
            self.parent[self.root(other)] = self.root(first)

    def unite_each(self, a: Channels, b: Channels, name: str) -> Channels:
        """Element by element, as an addition does."""
        if len(a) != len(b):
            raise UnsupportedModelError(f"layer {name} adds maps of {len(a)} and {len(b)} channels")
        for pair in zip(a, b, strict=True):
            self.unite(pair)
        return a

    def see(self, name: str, channels: Channels) -> Channels:
        """Remember that an operation without weights handles these."""
        self.slots[name, "map"] = channels
        return channels

    def fix(self, channels: Channels, why: str) -> Channels:
        """Say that these must stay."""
        for channel in channels:
            self.fixed.setdefault(channel, why)
        return channels
