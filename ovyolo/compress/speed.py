"""How fast a network will be once it is compressed: what counts is its form, not its weights, so it is known before any
training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.channels import Plan, Profile, Target, apply_plan, plan_pruning
from ovyolo.compress.channels.speedup import measured_ratio
from ovyolo.compress.float_layers import float_layers
from ovyolo.errors import TargetError
from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["Form", "float_form", "int8_form", "plan_to_measured_speed"]

Form = Callable[[Network], "tuple[openvino.Model, Card]"]
"""From a network to what will run."""
TRIES, TOLERANCE = 5, 0.02


def float_form(imgsz: tuple[int, int]) -> Form:
    """Networks that stay in floating point."""
    from ovyolo.export.graph import build_model

    return lambda network: build_model(network.checkpoint(Path("network.pt")), imgsz)


def int8_form(imgsz: tuple[int, int], pictures: Sequence[NDArray[np.uint8]], keep_float: Sequence[str] = ()) -> Form:
    """Networks that will get quantizers; the few ``pictures`` only give them some range."""
    from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
    from ovyolo.compress.qat.to_ir import trained_ir
    from ovyolo.train.fusing import fuse_batch_norms

    def form(network: Network) -> tuple[openvino.Model, Card]:
        ignored = float_layers(network, keep_float, imgsz)
        quantized = insert_quantizers(fuse_batch_norms(network), picture_tensors(pictures), ignored=ignored)
        return trained_ir(quantized, imgsz)

    return form


def plan_to_measured_speed(
    network: Network,
    dense: tuple[openvino.Model, Card],
    speedup: float,
    begin: float,
    form: Form,
    profile: Profile,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> tuple[Plan | None, float]:
    """The plan with the fewest channels removed whose result is ``speedup`` times faster than ``dense`` when measured.

    Args:
        network: to prune, pruned before or not.
        dense: the original as it runs.
        speedup: of everything together.
        begin: the speedup by channels alone that is tried first.
        form: what the pruned network becomes, such as INT8.
        profile: of the original.
        options: for :func:`~ovyolo.compress.channels.plan_pruning`; give ``scores`` and ``before``.

    Returns:
        The plan, None where nothing needs to go, and the speed that was measured.

    Raises:
        TargetError: it cannot be reached; says how near it came.
    """
    best: tuple[Plan | None, float] | None = None
    nearest = 0.0
    asked = begin
    for _ in range(TRIES):
        plan, smaller = None, network
        if asked > 1.005:
            try:
                plan = plan_pruning(
                    network, Target(speedup=asked), (profile.imgsz[0], profile.imgsz[1]), profile=profile, **options
                )
            except TargetError:
                if best is None and not nearest:
                    raise
                break
            smaller = apply_plan(network, plan)
        found = measured_ratio({"first": dense, "second": form(smaller)}).value
        nearest = max(nearest, found)
        say(f"{asked:.2f} times by channels alone makes {found:.2f} times in all (asked: {speedup:g})")
        if found >= speedup * (1 - TOLERANCE):
            if best is None or found < best[1]:
                best = plan, found
            if found <= speedup * (1 + 2 * TOLERANCE) or plan is None:
                break
        following = max(1.0, asked * speedup / found)
        if abs(following - asked) < 0.01:
            break
        asked = following
    if best is None:
        raise TargetError(
            f"the target {speedup:g} times faster cannot be reached: {nearest:.2f} times was measured at most; ask for "
            "less, or give a recipe with fewer layers in keep_float"
        )
    return best
