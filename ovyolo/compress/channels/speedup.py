"""A plan whose speed was measured, not only predicted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovyolo.bench.turns import Ratio, take_turns
from ovyolo.compress.channels.apply import apply_plan
from ovyolo.compress.channels.plan import Plan, plan_pruning
from ovyolo.compress.channels.profile import Profile
from ovyolo.compress.channels.target import Target
from ovyolo.errors import TargetError
from ovyolo.evaluate.judge import compile_session
from ovyolo.runtime import OpenVINOSession
from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["Measured", "measured_ratio", "measured_speedup", "plan_for_speedup", "timer"]

Measure = Callable[[Network, Network, tuple[int, int]], Ratio]
TOLERANCE, TRIES, ROUNDS = 0.03, 5, 40
NOTHING_GOES = 1.005  # times faster


@dataclass(frozen=True)
class Measured:
    """A plan, the network that it makes, what the profile said of its speed and what was measured.

    Where nothing needs to go there is no plan, and the network is the one that was given.
    """

    plan: Plan | None
    network: Network
    predicted: float
    measured: Ratio


def measured_speedup(dense: Network, smaller: Network, imgsz: tuple[int, int], rounds: int = ROUNDS) -> Ratio:
    """How many times faster ``smaller`` is than ``dense``, both exported in memory and run in turn on the CPU in FP32.

    Args:
        dense, smaller: any two networks.
        imgsz: ``(height, width)`` of the picture in pixels.
        rounds: of which medians are taken.

    Raises:
        UnsupportedModelError, DimensionError: as :func:`~ovyolo.export.graph.build_model`.
    """
    from ovyolo.export.graph import build_model

    both = (("dense", dense), ("smaller", smaller))
    return measured_ratio({name: build_model(network.checkpoint(Path(name)), imgsz) for name, network in both}, rounds)


def measured_ratio(models: Mapping[str, tuple[openvino.Model, Card]], rounds: int = ROUNDS) -> Ratio:
    """How many times faster the second of two models is than the first, in turn on the CPU, on one random picture."""
    first, second = models
    picture = np.random.default_rng(0).integers(0, 256, (*models[first][1].imgsz, 3), np.uint8)
    with ExitStack() as stack:
        timers = {}
        for name, (model, card) in models.items():
            session = stack.enter_context(closing(compile_session(model, card)))
            session.input(0)[0] = picture
            timers[name] = timer(session)
        return take_turns(timers, range(rounds), warm_up=3).ratio(first, second, "ms")


def timer(session: OpenVINOSession) -> Callable[[], dict[str, float]]:
    """A competitor for :func:`~ovyolo.bench.turns.take_turns`: one inference of what lies in the session's input."""

    def once() -> dict[str, float]:
        start = time.perf_counter()
        session.submit(0)
        session.wait(0)
        return {"ms": 1000 * (time.perf_counter() - start)}

    return once


def plan_for_speedup(
    network: Network,
    speedup: float,
    imgsz: tuple[int, int],
    profile: Profile,
    *,
    begin: float | None = None,
    tolerance: float = TOLERANCE,
    tries: int = TRIES,
    measure: Measure = measured_speedup,
    dense: Network | None = None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Measured:
    """Plan for a speedup, build the network, measure it, and ask for more or less until the measurement is right.

    Args:
        network: to prune.
        speedup: how many times faster than ``dense`` it is to be, above 1.
        imgsz: ``(height, width)`` in pixels.
        profile: of ``dense``.
        begin: what is asked of the channels alone at first, where other things make the network faster, too; by default
            all of ``speedup``.
        tolerance: the share by which the measured speed may fall short. It may exceed the target by more where blocks
            are coarse.
        tries: how many plans are measured at most.
        measure: by default :func:`measured_speedup`.
        dense: what speed is compared with; by default ``network``.
        say: told what each try came to.
        options: for :func:`~ovyolo.compress.channels.plan.plan_pruning`; give ``scores``, so that they are not found
            again for every try, and, with ``dense``, ``before``.

    Raises:
        TargetError: no plan came near enough; says how near.
        DimensionError: as :func:`~ovyolo.compress.channels.plan.plan_pruning`.
    """
    asked = speedup if begin is None else begin
    least = speedup * (1 - tolerance)
    best: Measured | None = None

    def worth(found: Measured) -> tuple[bool, float]:
        return found.measured.value >= least, -abs(found.measured.value - speedup)

    for _ in range(max(1, tries)):
        plan, smaller = None, network
        if asked > NOTHING_GOES:
            try:
                plan = plan_pruning(network, Target(speedup=asked), imgsz, profile=profile, **options)
            except TargetError:
                if best is None:
                    raise
                break
            smaller = apply_plan(network, plan)
        found = Measured(plan, smaller, plan.reached if plan else 1.0, measure(dense or network, smaller, imgsz))
        value = found.measured.value
        say(f"{asked:.2f} times by channels alone makes {value:.2f} times in all (asked: {speedup:g})")
        if best is None or worth(found) > worth(best):
            best = found
        if least <= value <= speedup * (1 + tolerance):
            break
        corrected = max(1.0, asked * speedup / value)
        if abs(corrected - asked) < 1e-3:
            break
        asked = corrected
    assert best is not None
    if best.measured.value < least:
        raise TargetError(
            f"the target {speedup:g} times faster cannot be reached: {best.measured.value:.2f} times was measured "
            f"({best.predicted:.2f} predicted of channels alone); ask for less, raise limits, or protect fewer layers"
        )
    return best
