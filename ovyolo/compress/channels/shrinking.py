"""What a network will cost when so many units of each group are gone, without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ovyolo.compress.channels.costs import Costs
from ovyolo.compress.channels.groups import Groups, layer_of
from ovyolo.compress.channels.profile import Profile
from ovyolo.compress.channels.trace import Slot

__all__ = ["Amounts", "Shrinking"]


@dataclass(frozen=True)
class Amounts:
    """What a network costs for one picture: multiplications, parameters, channels, and milliseconds as far as a
    profile says."""

    macs: float
    params: float
    channels: float
    ms: float | None = None

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        whole: dict[str, float] = {
            "macs": round(self.macs),
            "params": round(self.params),
            "channels": round(self.channels),
        }
        return whole if self.ms is None else {**whole, "ms": round(self.ms, 4)}


class Shrinking:
    """Costs of a network as its groups lose units.

    Args:
        groups, costs: of the network as it is.
        profile: what its layers take on the device; that of the network before it was pruned will do.
    """

    def __init__(self, groups: Groups, costs: Costs, profile: Profile | None = None) -> None:
        self._groups, self._costs, self._profile = groups, costs, profile
        self._rows = {row.module: row for row in costs.layers}
        self._share: dict[Slot, list[tuple[str, int]]] = {}
        for name, group in groups.groups.items():
            for slot, units in group.members.items():
                self._share.setdefault(slot, []).append((name, len(units[0])))
        self._operations = {slot[0]: slot for slot in groups.slot_sizes if slot[1] == "map"}
        self._operations.update((layer_of(name), (name, "out")) for name in groups.convolutions)

    def size(self, slot: Slot, gone: Mapping[str, int]) -> int:
        """How many channels a use has."""
        return self._groups.slot_sizes[slot] - sum(
            gone.get(group, 0) * each for group, each in self._share.get(slot, ())
        )

    def amounts(self, gone: Mapping[str, int]) -> Amounts:
        """What is left when ``gone`` units of each group have been removed."""
        macs, params, channels = float(self._costs.macs), float(self._costs.params), float(self._costs.channels)
        now: dict[str, tuple[float, float]] = {}
        for module, convolution in self._groups.convolutions.items():
            row = self._rows[module]
            inputs, outputs = self.size((module, "in"), gone), self.size((module, "out"), gone)
            a, b, groups = convolution.in_channels, convolution.out_channels, convolution.groups
            left = (inputs / a) * (outputs / b)
            if groups > 1 and min(a, b) == groups:  # depthwise: its groups go with its channels
                left = outputs / b
            own, weights = sum(p.numel() for p in convolution.parameters()), convolution.weight.numel()
            macs -= row.macs * (1 - left)
            params -= weights * (1 - left) + (own - weights) * (1 - outputs / b)
            channels -= b - outputs
            now[row.name] = row.macs * left, row.read * inputs / a + row.written * outputs / b
        for slot, size in self._groups.slot_sizes.items():
            if slot[1] == "norm":
                params -= 2 * (size - self.size(slot, gone))
        if self._profile is None:
            return Amounts(macs, params, channels)
        sizes = {name: self.size(slot, gone) for name, slot in self._operations.items()}
        return Amounts(macs, params, channels, self._profile.predict(now, sizes))
