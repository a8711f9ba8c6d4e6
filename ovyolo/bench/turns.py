"""Measurements taken in turn, A B A B …: the only thing from which a ratio can be had.

A machine's speed wanders by more than most models differ. Taken in turn, all of them see the same weather; two numbers
of different runs do not, so nothing here divides them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError

__all__ = ["FEW_ROUNDS", "Ratio", "Turns", "take_turns"]

RESAMPLES = 1000
FEW_ROUNDS = 10  # below it there is no telling of tails or intervals, only of extremes


@dataclass(frozen=True)
class Ratio:
    """How many times the median of ``first`` is that of ``second``, with bounds.

    They are those of its 95 % interval, or with fewer than 10 rounds the least and greatest ratio of a round.
    """

    first: str
    second: str
    part: str
    value: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.first} / {self.second}, {self.part}: {self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Turns:
    """Samples of several competitors that :func:`take_turns` measured round by round; not to be made otherwise."""

    def __init__(self, samples: Mapping[str, Mapping[str, NDArray[np.float64]]], *, _from_take_turns: bool = False):
        if not _from_take_turns:
            raise DimensionError("Turns come from take_turns() only: a ratio needs things that were measured in turn")
        self._samples = samples

    @property
    def names(self) -> tuple[str, ...]:
        """Who took part, in the order of a round."""
        return tuple(self._samples)

    @property
    def parts(self) -> tuple[str, ...]:
        """What was measured of each."""
        return tuple(next(iter(self._samples.values())))

    @property
    def rounds(self) -> int:
        """Samples of each."""
        return len(self.samples(self.names[0], self.parts[0]))

    def samples(self, name: str, part: str) -> NDArray[np.float64]:
        """The measurements of ``part``, one a round.

        Raises:
            DimensionError: ``name`` was not measured in this run, or ``part`` not at all.
        """
        if name not in self._samples:
            raise DimensionError(
                f"{name!r} was not measured in turn with {', '.join(self.names)}, so it has no ratio to them: "
                "give all models to one run"
            )
        if part not in self._samples[name]:
            raise DimensionError(f"{part!r} was not measured; there are {', '.join(self._samples[name])}")
        return self._samples[name][part]

    def ratio(self, first: str, second: str, part: str) -> Ratio:
        """The ratio of medians, and its 95 % interval from a circular block bootstrap over rounds.

        Whole rounds are drawn, so that what slowed both in a round stays paired, and in blocks of neighbouring rounds
        (about √rounds long; Politis and Romano, 1992), because a machine is slow for a while, not for a moment.
        With fewer than 10 rounds the bounds are the smallest and largest ratio of a round.

        Raises:
            DimensionError: one of them was not in this run.
        """
        a, b = self.samples(first, part), self.samples(second, part)
        rounds = len(a)
        if rounds < FEW_ROUNDS:
            each = a / b
            low, high = each.min(), each.max()
        else:
            block = max(1, round(rounds**0.5))
            rng = np.random.default_rng(0)
            starts = rng.integers(rounds, size=(RESAMPLES, -(-rounds // block), 1))
            drawn = ((starts + np.arange(block)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]
            low, high = np.percentile(np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1), (2.5, 97.5))
        value = float(np.median(a) / np.median(b))
        return Ratio(first, second, part, value, float(low), float(high), rounds)


def take_turns(
    competitors: Mapping[str, Callable[[], Mapping[str, float]]], rounds: Iterable[int], *, warm_up: int = 0
) -> Turns:
    """Call every competitor once a round and keep what each returns.

    Args:
        competitors: by name, a function that measures once and returns positive numbers by part, always the same parts.
        rounds: an iterable with one item a round; it may end when time is up.
        warm_up: rounds before it that are not kept.

    Raises:
        DimensionError: there is no competitor, or no round was taken.

    Example:
        >>> turns = take_turns({"a": lambda: {"ms": 4.0}, "b": lambda: {"ms": 2.0}}, range(5))
        >>> print(turns.ratio("a", "b", "ms"))
        a / b, ms: 2.000 (2.000 to 2.000)
    """
    for _ in range(warm_up):
        for measure in competitors.values():
            measure()
    kept: dict[str, list[Mapping[str, float]]] = {name: [] for name in competitors}
    for _ in rounds:
        for name, measure in competitors.items():
            kept[name].append(measure())
    if not any(kept.values()):
        raise DimensionError("nothing was measured: it takes a competitor and a round")
    return Turns(
        {name: {part: np.array([one[part] for one in taken]) for part in taken[0]} for name, taken in kept.items()},
        _from_take_turns=True,
    )
