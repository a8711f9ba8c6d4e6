"""How much smaller or faster a network is to become."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ovyolo.compress.channels.shrinking import Amounts
from ovyolo.errors import DimensionError

__all__ = ["Target", "schedule"]


@dataclass(frozen=True)
class Target:
    """How much is to go; one of the four.

    Args:
        channels, macs, params: the share that goes, above 0 and below 1, of the channels that convolutions give (the
            head's left out), of the multiplications, or of the parameters.
        speedup: how many times faster, above 1; needs a profile.

    Raises:
        DimensionError: none or several are given, or one is out of range.

    Example:
        >>> str(Target(macs=0.5)), str(Target(speedup=2))
        ('50 % fewer macs', '2 times faster')
    """

    channels: float | None = None
    macs: float | None = None
    params: float | None = None
    speedup: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if len(given) != 1:
            raise DimensionError(
                f"a target is one of channels, macs, params or speedup; {', '.join(given) or 'none'} is given"
            )
        low, high = (1, math.inf) if self.kind == "speedup" else (0, 1)
        if not low < self.value < high:
            limits = "above 1" if self.kind == "speedup" else "above 0 and below 1"
            raise DimensionError(f"{self.kind} is {self.value:g}; it takes a number {limits}")

    @property
    def kind(self) -> str:
        """Which of the four."""
        return next(name for name, value in asdict(self).items() if value is not None)

    @property
    def value(self) -> float:
        """Its number."""
        return float(getattr(self, self.kind))

    def reached(self, before: Amounts, after: Amounts) -> float:
        """The number that ``after`` has reached."""
        if self.kind == "speedup":
            if before.ms is None or after.ms is None:
                raise DimensionError("the target speedup needs a profile of the network: give profile")
            return before.ms / after.ms
        return 1 - float(getattr(after, self.kind)) / float(getattr(before, self.kind))

    def __str__(self) -> str:
        if self.kind == "speedup":
            return f"{self.value:g} times faster"
        return f"{100 * self.value:g} % fewer {self.kind}"


def schedule(target: Target, steps: int) -> Iterator[Target]:
    """Targets on the way to ``target``, the last of which it is; each step leaves the same share of what was left.

    All of them are measured against the network before the first step: give its amounts to each plan as ``before``.

    Raises:
        DimensionError: ``steps`` is below 1.

    Example:
        >>> [str(step) for step in schedule(Target(speedup=4), 2)]
        ['2 times faster', '4 times faster']
    """
    if steps < 1:
        raise DimensionError(f"steps is {steps}; it takes a whole number from 1")
    for step in range(1, steps):
        share = step / steps
        if target.kind == "speedup":
            yield Target(speedup=target.value**share)
        else:
            yield Target(**{target.kind: 1 - (1 - target.value) ** share})
    yield target
