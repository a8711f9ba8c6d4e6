"""A speed and a ``max_drop`` together: what is tried until both hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ovyolo.compress.pipeline import Compression, Steps
from ovyolo.compress.recipe import Recipe
from ovyolo.errors import TargetError

__all__ = ["MOST_TRIES", "Found", "drop_of", "search", "table_of", "tries_of"]

MOST_TRIES = 3
BEFORE_CUTS = ("original", "trained on", "levels", "activation")
BEFORE_RECOVERY = (*BEFORE_CUTS, "coarse maps", "pruned")


@dataclass(frozen=True)
class Found:
    """A compression that lost no more than was allowed.

    Args:
        run: which.
        steps: its networks and figures.
        tried: what was tried, it last: ``name``, ``ap``, ``drop`` in points, ``speedup`` as planned or None.
    """

    run: Compression
    steps: Steps
    tried: list[dict[str, Any]]


def tries_of(recipe: Recipe, cut: bool = True) -> list[tuple[str, Recipe, tuple[str, ...]]]:
    """What is tried in turn: a name, the recipe, and the steps that are the first one's. At most :data:`MOST_TRIES`.

    First what was asked for. Then what costs accuracy and need not be for the speed: no zeros, and the coarse maps stay
    where they were ``cut``. Then recovering twice as long on top of that. All keep to the speed that was asked for.

    Example:
        >>> [name for name, _, _ in tries_of(Recipe(sparsity=0.6, recover_epochs=9))]
        ['as asked', 'no zeros, coarse maps stay', 'recovering 18 epochs']
    """
    tries: list[tuple[str, Recipe, tuple[str, ...]]] = [("as asked", recipe, ())]
    shared: tuple[str, ...] = BEFORE_RECOVERY
    milder = []
    if recipe.sparsity:
        recipe = replace(recipe, sparsity=0.0)
        milder.append("no zeros")
    if cut:
        recipe = replace(recipe, levels="heads")
        milder.append("coarse maps stay")
        shared = BEFORE_CUTS
    if milder:
        tries.append((", ".join(milder), recipe, shared))
    if recipe.recover_epochs:
        recipe = replace(recipe, recover_epochs=2 * recipe.recover_epochs)
        tries.append((f"recovering {recipe.recover_epochs} epochs", recipe, shared))
    return tries


def search(first: Compression) -> Found:
    """Run ``first``; while more than its recipe's ``max_drop`` is lost, go on with what :func:`tries_of` names.

    The first that fits is the result: the others would take hours more and give no more speed. Each has a folder of
    its own within the first one's, and like everything there it is not done again. The baseline is trained once, as
    long as the first recipe says.

    Raises:
        TargetError: none fits, or the speed cannot be reached; says how near it came.
        OvyoloError: as :meth:`Compression.run`.
    """
    allowed = first.recipe.max_drop
    tried: list[dict[str, Any]] = []
    tries = tries_of(first.recipe)[:1]
    for number, (name, recipe, shared) in enumerate(tries, 1):
        if name.startswith("recovering") and number > 1 and not tried[0]["recovered"]:
            break  # nothing was lost that could be recovered
        run = first if number == 1 else first.again(f"try-{number}", recipe, shared)
        if number > 1:
            first.say(f"try {number}: {name}")
        try:
            steps = run.run()
        except TargetError as error:
            if number == 1:
                raise
            first.say(f"  {error}")  # a milder recipe may not be as fast
            continue
        if number == 1:
            tries += tries_of(first.recipe, "coarse maps" in steps.networks)[1:]
        last = list(steps.networks)[-1]
        recovered = not steps.networks.keys().isdisjoint(("recovered", "sparse"))
        tried.append({
            "name": name, "ap": steps.measured[last]["ap"], "drop": drop_of(steps),
            "speedup": run.planned_speedup or first.planned_speedup, "recovered": recovered,
        })  # fmt: skip
        if allowed is None or tried[-1]["drop"] <= allowed:
            return Found(run, steps, tried)
    for line in table_of(tried):
        first.say(line)
    lost = ", ".join(f"{one['drop']:.2f} points ({one['name']})" for one in tried)
    nearest = min(one["drop"] for one in tried)
    raise TargetError(
        f"no model within max_drop {allowed:g} was found{_speed(first)}: lost were {lost}; nothing was written: allow "
        f"{nearest:.2f} (no step is done again then), ask for less speed, or train longer (recover_epochs, qat_epochs)"
    )


def drop_of(steps: Steps) -> float:
    """Points of AP that the last step lost against the better of the original and that trained on for as long."""
    last = list(steps.networks)[-1]
    return round(float(steps.measured[reference_of(steps)]["ap"] - steps.measured[last]["ap"]), 3) + 0.0  # never -0


def reference_of(steps: Steps) -> str:
    """The step that others are compared with: the original, or trained on for as long where that is better."""
    known = [step for step in ("original", "trained on") if step in steps.measured]
    return max(known, key=lambda step: float(steps.measured[step]["ap"]))


def table_of(tried: Sequence[dict[str, Any]]) -> list[str]:
    """The tries as lines."""
    lines = [f"  {'tried':<24}{'AP':>8}{'lost':>8}{'faster':>9}"]
    for one in tried:
        speed = "–" if one["speedup"] is None else f"{one['speedup']:.2f}x"
        lines.append(f"  {one['name']:<24}{one['ap']:>8.2f}{one['drop']:>8.2f}{speed:>9}")
    return lines


def _speed(run: Compression) -> str:
    target = run.recipe.prune_target()
    if target is None:
        return ""
    kind, value = target
    return f" at {value:g} times the speed" if kind == "speedup" else f" with {value:.0%} of the {kind} gone"
