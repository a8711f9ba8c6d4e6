"""Which groups lose how many units: by worth and cost from one ranking, or every group the same share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ovyolo.compress.channels.criteria import Scores
from ovyolo.compress.channels.groups import Group, Groups
from ovyolo.compress.channels.shrinking import Amounts, Shrinking
from ovyolo.compress.channels.target import Target
from ovyolo.errors import DimensionError, TargetError

__all__ = ["MOST", "ROUND_TO", "Chooser"]

ROUND_TO, MOST = 8, 0.8


class Chooser:
    """Decides how many units of each group go; those that are worth least go first.

    Args:
        groups, scores, shrinking: of one network.
        round_to: what is left of a group is a multiple of so many channels.
        limits: the most that may go, as a share, of all groups or by group.

    Raises:
        DimensionError: an argument is out of range.
    """

    def __init__(
        self, groups: Groups, scores: Scores, shrinking: Shrinking, round_to: int, limits: Mapping[str, float] | float
    ) -> None:
        if round_to < 1:
            raise DimensionError(f"round_to is {round_to}; it takes a whole number from 1")
        self.shrinking, self.prunable = shrinking, groups.prunable()
        for name, group in self.prunable.items():
            if name not in scores or tuple(scores[name].shape) != (group.size,):
                raise DimensionError(f"scores lack the group {name!r} or are not one number a unit: find them anew")
        self.order = {name: scores[name].argsort(stable=True).tolist() for name in self.prunable}
        self.sums = {name: [0.0, *scores[name].sort(stable=True).values.cumsum(0).tolist()] for name in self.prunable}
        shares = limits if isinstance(limits, Mapping) else dict.fromkeys(self.prunable, limits)
        for name, share in shares.items():
            if name not in groups.groups:
                raise DimensionError(f"limits name the group {name!r}, which the network does not have")
            if not 0 <= share <= 1:
                raise DimensionError(f"the limit of {name} is {share:g}; it takes a share from 0 to 1")
        places = {name: {where for where, _ in group.members} for name, group in self.prunable.items()}
        self.neighbours = {a: [b for b in places if places[a] & places[b]] for a in places}
        self.stages = {name: _stages(group, round_to, shares.get(name, MOST)) for name, group in self.prunable.items()}

    def best(self, name: str, count: int) -> list[int]:
        """The units that are worth most."""
        order = self.order[name]
        return sorted(order[len(order) - count :])

    def globally(self, target: Target, dense: Amounts, weigh: str) -> dict[str, int]:
        """Take, block by block, what costs most for what it is worth."""
        gone = dict.fromkeys(self.prunable, 0)
        places = dict.fromkeys(self.prunable, 0)
        now = self.shrinking.amounts(gone)
        rates: dict[str, float] = {}
        while target.reached(dense, now) < target.value:
            for name, stages in self.stages.items():
                if name not in rates and places[name] < len(stages):
                    count = stages[places[name]]
                    after = self.shrinking.amounts({**gone, name: count})
                    worth = self.sums[name][count] - self.sums[name][gone[name]]
                    rates[name] = (getattr(now, weigh) - getattr(after, weigh)) / max(worth, 1e-12)
            if not rates:
                raise _missed(target, target.reached(dense, now))
            best = max(rates, key=lambda name: rates[name])
            gone[best] = self.stages[best][places[best]]
            places[best] += 1
            now = self.shrinking.amounts(gone)
            for name in self.neighbours[best]:  # what a block saves depends on the other sides of its layers only
                rates.pop(name, None)
        return gone

    def uniformly(self, target: Target, dense: Amounts) -> dict[str, int]:
        """The same share of every group, the least that reaches the target."""

        def of(share: float) -> dict[str, int]:
            return {
                name: min((0, *stages), key=lambda count: (abs(count - share * self.prunable[name].size), count))
                for name, stages in self.stages.items()
            }

        def reached(share: float) -> float:
            return target.reached(dense, self.shrinking.amounts(of(share)))

        if reached(1.0) < target.value:
            raise _missed(target, reached(1.0))
        shares = [step / 400 for step in range(401)]
        low, high = 0, len(shares) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(shares[middle]) >= target.value else (middle + 1, high)
        return of(shares[high])


def _stages(group: Group, round_to: int, most: float) -> list[int]:
    """How many units may be gone, ascending: what is left is a multiple of what kernels like."""
    step = round_to // math.gcd(round_to, group.width)
    least = max(1, math.ceil(group.size * (1 - most) - 1e-9))
    lefts = [left for left in range(step * ((group.size - 1) // step), 0, -step) if left >= least]
    return [group.size - left for left in lefts]


def _missed(target: Target, reached: float) -> TargetError:
    near = f"{reached:.2f} times" if target.kind == "speedup" else f"{100 * reached:.1f} %"
    return TargetError(
        f"the target {target} cannot be reached: {near} is the most that the limits, the protected layers and the "
        "rounding leave; ask for less, raise limits, protect fewer layers, or round to fewer channels"
    )
