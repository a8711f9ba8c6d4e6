"""Which channels go: the least worth for what they cost, until a target is reached. A plan is data, not a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ovyolo.compress.channels.choose import MOST, ROUND_TO, Chooser
from ovyolo.compress.channels.costs import costs_of
from ovyolo.compress.channels.criteria import Criterion, Loss, Scores, channel_scores
from ovyolo.compress.channels.groups import PROTECTED, find_groups
from ovyolo.compress.channels.profile import Profile
from ovyolo.compress.channels.shrinking import Amounts, Shrinking
from ovyolo.compress.channels.target import Target
from ovyolo.errors import DimensionError, reason_of
from ovyolo.train.network import Network

__all__ = ["Plan", "amounts_of", "plan_pruning"]

Weigh = Literal["auto", "ms", "macs", "params"]


@dataclass(frozen=True)
class Plan:
    """Which units of which groups stay.

    Args:
        keep: by group, the units that stay, ascending; groups that stay whole are not in it.
        sizes: by group, how many units it had.
        kept: groups of which nothing may go, and why.
        target, reached: what was asked, and what the plan comes to by count (or, for a speedup, by the profile).
        criterion: by which units were ranked.
        before, after: amounts of the whole network; ``before`` is what the target is measured against.
    """

    keep: dict[str, list[int]]
    sizes: dict[str, int]
    kept: dict[str, str]
    target: dict[str, float]
    reached: float
    criterion: str
    before: dict[str, float]
    after: dict[str, float]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What :meth:`to_json` gave.

        Raises:
            DimensionError: it is not one.
        """
        try:
            plan = cls(**json.loads(text))
            for name, units in plan.keep.items():
                size = plan.sizes[name]
                whole = all(type(unit) is int for unit in units) and type(size) is int
                if not whole or not units or sorted(set(units)) != units or units[0] < 0 or units[-1] >= size:
                    raise ValueError(f"the units of {name} are not ascending numbers from 0 to {size}")
            return plan
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise DimensionError(f"this is no stored plan ({reason_of(error)}): make it again") from error

    def counts(self) -> dict[str, tuple[int, int]]:
        """By group that loses something, units before and after."""
        return {name: (self.sizes[name], len(units)) for name, units in self.keep.items()}


def amounts_of(network: Network, imgsz: tuple[int, int], profile: Profile | None = None) -> Amounts:
    """What a network costs now: the ``before`` of plans for later steps.

    Raises:
        DimensionError: ``imgsz`` does not fit the network.
    """
    return Shrinking(find_groups(network, protect=0), costs_of(network, imgsz), profile).amounts({})


def plan_pruning(
    network: Network,
    target: Target,
    imgsz: tuple[int, int],
    *,
    criterion: Criterion = "taylor",
    batches: Iterable[Any] = (),
    loss_of: Loss | None = None,
    scores: Scores | None = None,
    profile: Profile | None = None,
    before: Amounts | None = None,
    ranking: Literal["global", "uniform"] = "global",
    weigh: Weigh = "auto",
    round_to: int = ROUND_TO,
    limits: Mapping[str, float] | float = MOST,
    protect: int | Sequence[str] = PROTECTED,
    tell: Callable[[int], None] = lambda done: None,
) -> Plan:
    """Decide which channels go; the network is left as it is.

    Args:
        network: any that trains, pruned before or not.
        target: how much is to go. The plan takes as much or up to one block of ``round_to`` channels more.
        imgsz: ``(height, width)`` in pixels for which multiplications are counted.
        criterion, batches, loss_of: by what units are ranked, see
            :func:`~ovyolo.compress.channels.criteria.channel_scores`.
        scores: what that gave before, instead of ``batches`` and ``loss_of``.
        profile: what layers take on the device; needed for a speedup. The unpruned network's will do.
        before: what the target is measured against: in later steps :func:`amounts_of` the network before the first.
            By default what ``network`` costs now.
        ranking: ``"global"``: those blocks go first that are worth least for what they cost; ``"uniform"``: every group
            loses the same share.
        weigh: what a block costs in that: ``"ms"``, ``"macs"`` or ``"params"``; ``"auto"`` is ``"ms"`` with a profile
            and ``"macs"`` without.
        round_to: what is left of a group is a multiple of so many channels, which CPU kernels handle at once.
        limits: the most that may go, as a share, of each group, or by group (0.8 for groups that are not named).
        protect: layers that keep their outputs, see :func:`~ovyolo.compress.channels.groups.find_groups`.
        tell: called with the number of batches done.

    Raises:
        TargetError: the target cannot be reached; says how near it came.
        DimensionError: an argument is out of range, or missing.

    Example:
        >>> from ovyolo.train.network import load_network
        >>> network = load_network("yolov5n.pt")  # doctest: +SKIP
        >>> plan = plan_pruning(network, Target(macs=0.5), (640, 640), criterion="l1")  # doctest: +SKIP
        >>> plan.counts()["model.3"]  # doctest: +SKIP
        (64, 40)
    """
    if target.kind == "speedup" and profile is None:
        raise DimensionError("the target speedup needs a profile of the network: give profile")
    groups = find_groups(network, protect=protect)
    shrinking = Shrinking(groups, costs_of(network, imgsz), profile)
    dense, now = before or shrinking.amounts({}), shrinking.amounts({})
    if weigh == "auto":
        weigh = "macs" if now.ms is None else "ms"
    if weigh not in ("macs", "params", "ms") or getattr(now, weigh) is None:
        raise DimensionError(f"weigh is {weigh!r}; it takes 'auto', 'macs', 'params' or, with a profile, 'ms'")
    if ranking not in ("global", "uniform"):
        raise DimensionError(f"ranking is {ranking!r}; it takes 'global' or 'uniform'")
    if scores is None:
        scores = channel_scores(network, groups, criterion, batches=batches, loss_of=loss_of, tell=tell)
    chooser = Chooser(groups, scores, shrinking, round_to, limits)
    gone = chooser.globally(target, dense, weigh) if ranking == "global" else chooser.uniformly(target, dense)
    after = shrinking.amounts(gone)
    return Plan(
        keep={name: chooser.best(name, groups.groups[name].size - count) for name, count in gone.items() if count},
        sizes={name: group.size for name, group in groups.groups.items()},
        kept=groups.kept(),
        target={target.kind: target.value},
        reached=round(target.reached(dense, after), 6),
        criterion=criterion,
        before=dense.to_dict(),
        after=after.to_dict(),
    )
