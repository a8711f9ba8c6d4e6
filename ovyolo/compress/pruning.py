"""How channels go in a compression: towards a measured speed or a share, in rounds with training between."""

from __future__ import annotations

import json
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

import torch

from ovyolo.compress.channels import (
    Target,
    amounts_of,
    apply_plan,
    channel_scores,
    find_groups,
    plan_for_speedup,
    plan_pruning,
    profile_network,
    recalibrate,
    schedule,
)  # fmt: skip
from ovyolo.compress.channels.speedup import measured_ratio
from ovyolo.compress.lineup import COMPILATIONS
from ovyolo.compress.speed import Form, float_form, int8_form
from ovyolo.compress.tuning import fresh
from ovyolo.evaluate.predictions import write_text
from ovyolo.train.activation import activations_of
from ovyolo.train.loop import as_input
from ovyolo.train.loss import DetectionLoss
from ovyolo.train.network import Network
from ovyolo.train.team import Team

if TYPE_CHECKING:
    from ovyolo.compress.pipeline import Compression

__all__ = ["BETWEEN", "PLANNED", "inputs_of", "is_enough", "prune_channels", "reached"]

BETWEEN = "epochs between rounds of pruning"
PLANNED = "measured when planned, times faster"
RANKING_BATCHES = 8
FEW_PICTURES = 4
TOLERANCE = 0.02  # of a speed: it is not measured more finely


def prune_channels(run: Compression, unpruned: Network, team: Team) -> Network:
    """A smaller network than ``unpruned``: channels go, in steps; speed is against ``run.dense``.

    Raises:
        TargetError: the recipe's target cannot be reached; says how near it came.
    """
    recipe = run.recipe
    target = recipe.prune_target()
    assert target is not None
    kind, value = target
    already = reached(run, unpruned.to("cpu"))
    if is_enough(run, unpruned):
        run.say("no channels need to go")
        if kind == "speedup":
            run.journal.keep(PLANNED, already)
        return unpruned
    profile = profile_network(unpruned, run.imgsz)
    write_text(run.folder / "profile.json", json.dumps(profile.to_dict()))
    before = amounts_of(unpruned, run.imgsz, profile) if kind == "speedup" else amounts_of(run.dense, run.imgsz)
    dense_ir, form = float_form(run.imgsz)(run.dense), _form_of(run)
    by_channels = value / already if kind == "speedup" else value
    network = fresh(unpruned)
    trained = 0
    steps = recipe.prune_steps
    for number in range(1, steps + 1):
        last = number == steps
        options: dict[str, Any] = {
            "scores": _scores(run, network, team),
            "before": before,
            "criterion": recipe.criterion,
            "weigh": recipe.weigh,
        }
        if kind == "speedup" and last:
            found = plan_for_speedup(
                network, value, run.imgsz, profile, begin=by_channels, tolerance=TOLERANCE, say=run.say,
                measure=lambda _, smaller, __: measured_ratio({"first": dense_ir, "second": form(smaller)}), **options,
            )  # fmt: skip
            plan = found.plan
            run.journal.keep(PLANNED, found.measured.value)
        else:
            whole = Target(speedup=by_channels) if kind == "speedup" else recipe.channel_target(kind, value)
            step = list(schedule(whole, steps))[number - 1]
            plan = plan_pruning(network, step, run.imgsz, profile=profile, **options)
        if plan is None:
            run.say("no channels need to go")
            break
        write_text(run.folder / f"plan-{number}.json", plan.to_json())
        network = apply_plan(network, plan)
        network = recalibrate(network, inputs_of(run))
        if recipe.prune_epochs and not last:
            network, _ = run.tuning.run(
                fresh(network), run.folder / f"prune-{number}", title=f"pruning {number}/{steps}, epoch",
                epochs=recipe.prune_epochs, lr=recipe.lr, judge=run.judge,
            )  # fmt: skip
            trained += recipe.prune_epochs
    run.journal.keep(BETWEEN, trained)
    return network


def is_enough(run: Compression, network: Network) -> bool:
    """Whether ``network`` meets the recipe's target; speeds are compared no finer than they can be measured."""
    target = run.recipe.prune_target()
    assert target is not None
    return reached(run, network) >= target[1] * (1 - TOLERANCE if target[0] == "speedup" else 1)


def reached(run: Compression, network: Network) -> float:
    """How near ``network`` is to the recipe's target, in its own terms; measured once for networks of one size."""
    target = run.recipe.prune_target()
    assert target is not None
    kind, value = target
    params = sum(one.numel() for one in network.parameters())

    def measure() -> float:
        if kind != "speedup":
            amounts = amounts_of(run.dense, run.imgsz), amounts_of(network, run.imgsz)
            return run.recipe.channel_target(kind, value).reached(*amounts)
        both = {"first": float_form(run.imgsz)(run.dense), "second": _form_of(run)(network)}
        # who looks for the least that is enough finds what was lucky, where only one compilation is measured
        return geometric_mean(measured_ratio(both).value for _ in range(COMPILATIONS))

    kinds = " and ".join(f"{count} {kind}" for kind, count in sorted(activations_of(network).items()))
    name = f"with {params} parameters and {kinds or 'no activations'}"
    known = name in run.journal
    found = float(run.journal.measure(name, measure))
    if not known:
        told = f"it is {found:.2f} times faster" if kind == "speedup" else f"{found:.0%} of the {kind} are gone"
        run.say(f"{name} {told}")
    return found


def _form_of(run: Compression) -> Form:
    """What networks of this run become."""
    if not run.recipe.quantize:
        return float_form(run.imgsz)
    few = [run.pictures.varied(None).sample(0, i)[0] for i in range(min(FEW_PICTURES, len(run.pictures)))]
    return int8_form(run.imgsz, few, run.recipe.keep_float)


def _scores(run: Compression, network: Network, team: Team) -> Any:
    """What each channel is worth."""
    labels = DetectionLoss(
        network.anchors_in_pixels().cpu(), network.strides, len(network.names), run.imgsz, run.settings.loss
    )

    def loss_of(network: Network, batch: Any) -> torch.Tensor:
        x, targets = batch
        return labels(network(x), targets).total

    network = network.to(team.device)
    batches = []
    if run.recipe.criterion == "taylor":
        plain = run.pictures.varied(None).batches(0, run.recipe.batch, run.settings.workers)
        for _, batch in zip(range(RANKING_BATCHES), plain, strict=False):
            batches.append((as_input(batch.pictures, team.device), torch.from_numpy(batch.targets).to(team.device)))
    found = channel_scores(
        network,
        find_groups(network),
        run.recipe.criterion,  # type: ignore[arg-type]
        batches=batches,
        loss_of=loss_of,
    )
    network.to("cpu")
    return found


def inputs_of(run: Compression, count: int = RANKING_BATCHES) -> Any:
    """Some training pictures, in batches, varied as in training: batch norms are to know what the weights were fitted
    to. Measured on the pictures as they are they cost a network that was trained on mosaics 7 points of AP."""
    varied = run.pictures.batches(0, run.recipe.batch, run.settings.workers)
    for _, batch in zip(range(count), varied, strict=False):
        yield as_input(batch.pictures, torch.device("cpu"))
