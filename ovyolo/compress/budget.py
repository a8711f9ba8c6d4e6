"""The search for the cheapest network that loses no more AP than is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovyolo.errors import OvyoloError

__all__ = ["Budget", "BudgetError", "Trial", "search_prefix"]

# beyond this share of the network's work in floating point little is left of INT8's speed
MOST_FLOAT = 0.6


class BudgetError(OvyoloError):
    """No network lost as little as was allowed; the original was kept."""


@dataclass(frozen=True)
class Trial:
    """A network that was measured.

    Args:
        what: in words.
        figures: from :func:`~ovyolo.evaluate.judge.figures_of`.
        drop: of AP against the original, in points; less than 0 where it rose.
        fits: whether it is within the budget.
        float_layers: the layers that were put back to floating point.
    """

    what: str
    figures: dict[str, Any]
    drop: float
    fits: bool
    float_layers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: value for name, value in self.figures.items() if name != "classes"}
        return {
            "what": self.what, "drop": round(self.drop, 3), "fits": self.fits, **figures,
            "float_layers": list(self.float_layers),
        }  # fmt: skip


@dataclass
class Budget:
    """What may be lost.

    Args:
        before: the original's figures.
        max_drop: points of AP; None allows anything. With 0, no class may lose anything either: AP on a validation set
            rises and falls by chance, and a network that gains on one class what it loses on another is not unchanged.
        trials: what has been measured.

    Example:
        >>> budget = Budget({"ap": 34.0, "classes": {}}, 0.5)
        >>> budget.judge("INT8", {"ap": 33.6, "classes": {}}).fits
        True
        >>> budget.judge("other", {"ap": 33.4, "classes": {}}).fits
        False
    """

    before: dict[str, Any]
    max_drop: float | None
    trials: list[Trial] = field(default_factory=list)

    def judge(self, what: str, figures: dict[str, Any], float_layers: Sequence[str] = ()) -> Trial:
        """Record a measured network."""
        drop = math.nan if figures["ap"] is None or self.before["ap"] is None else self.before["ap"] - figures["ap"]
        trial = Trial(what, figures, drop, self._fits(figures, drop), tuple(float_layers))
        self.trials.append(trial)
        return trial

    def _fits(self, figures: dict[str, Any], drop: float) -> bool:
        if self.max_drop is None:
            return True
        if not drop <= self.max_drop + 1e-9:
            return False
        if self.max_drop > 0:
            return True
        classes = figures["classes"]
        return all((classes.get(name) or 0) >= (ap or 0) for name, ap in self.before["classes"].items())

    def summary(self) -> str:
        """All trials in one sentence."""
        return "; ".join(f"{trial.what}: AP {trial.figures['ap']:.2f}, drop {trial.drop:.2f}" for trial in self.trials)


def search_prefix(costs: Sequence[float], attempt: Callable[[int], bool], most: float = MOST_FLOAT) -> int | None:
    """The shortest prefix of a ranking that succeeds, as far as few attempts can tell: lengths 1, 2, 4, … until one
    does, then bisection between the last that failed and the first that did not.

    Args:
        costs: of the ranked things, as shares.
        attempt: tries the first ``n``.
        most: prefixes that cost more are not tried.

    Returns:
        The length; None when none succeeds.

    Example:
        >>> search_prefix([0.01] * 40, lambda n: n >= 11)
        11
        >>> search_prefix([0.01] * 40, lambda n: False) is None
        True
        >>> search_prefix([0.5, 0.5], lambda n: n >= 2) is None  # too dear
        True
    """
    longest, spent = 0, 0.0
    for cost in costs:
        spent += cost
        if spent > most:
            break
        longest += 1
    failed, length = 0, 1
    while True:
        length = min(length, longest)
        if length <= failed:
            return None
        if attempt(length):
            break
        failed, length = length, 2 * length
    best = length
    while best - failed > 1:
        middle = (best + failed) // 2
        if attempt(middle):
            best = middle
        else:
            failed = middle
    return best
