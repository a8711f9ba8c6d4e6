"""``compress``: channels go, the network recovers, quantizers are trained in, and every step is measured."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovyolo.compress.calibration import choose_calibration
from ovyolo.compress.channels import (
    Target,
    amounts_of,
    apply_plan,
    channel_scores,
    find_groups,
    plan_pruning,
    profile_network,
    recalibrate,
    schedule,
)  # fmt: skip
from ovyolo.compress.channels.speedup import measured_ratio
from ovyolo.compress.journal import Journal, dataset_hash
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
from ovyolo.compress.qat.quantizers import PairGuard, is_quantized
from ovyolo.compress.qat.sparsify import MagnitudeSchedule, is_sparse, sparsify
from ovyolo.compress.qat.state import load_trained, save_trained
from ovyolo.compress.qat.to_ir import trained_ir
from ovyolo.compress.recipe import Recipe
from ovyolo.compress.speed import float_form, int8_form, plan_to_measured_speed
from ovyolo.compress.tuning import Tuning, trainable
from ovyolo.errors import DataError
from ovyolo.evaluate.predictions import write_text
from ovyolo.io.output import make_folder
from ovyolo.train.api import load_splits
from ovyolo.train.augment import Augment
from ovyolo.train.data import TrainingPictures
from ovyolo.train.fusing import fuse_batch_norms
from ovyolo.train.loop import Figures, as_input
from ovyolo.train.loss import DetectionLoss
from ovyolo.train.network import Network, load_network, save_network
from ovyolo.train.settings import TrainSettings
from ovyolo.train.team import Team, joined
from ovyolo.train.validate import Validation

__all__ = ["Compression", "Steps"]

RANKING_BATCHES = 8
FEW_PICTURES = 4


@dataclass(frozen=True)
class Steps:
    """The networks of a compression by step, and what was measured of each."""

    networks: dict[str, Network]
    measured: dict[str, Figures]


class TrainedValidation(Validation):
    """Judges networks with quantizers and masks by the IR that they become."""

    def __call__(self, network: nn.Module) -> Figures:
        """Figures in points of AP."""
        assert isinstance(network, Network)
        model, _ = trained_ir(network, self.imgsz)
        return self.judge.score(self.judge.predict(model))


class Compression:
    """One compression in one folder: each step is a file, and one that is there is not done again.

    Args:
        source: the checkpoint.
        data: a ``data.yaml``.
        folder: for the steps.
        recipe: what to do.
        imgsz: ``(height, width)`` of the input in pixels.
        device: where PyTorch computes.
        augment: of the trainings.
        precision: of the trainings.
    """

    def __init__(
        self,
        source: Path,
        data: Path,
        folder: Path,
        recipe: Recipe,
        imgsz: tuple[int, int],
        *,
        device: str = "auto",
        augment: Augment | None = None,
        precision: str = "auto",
        workers: int = 2,
        skip_bad: bool = False,
        quiet: bool = True,
    ) -> None:
        self.recipe, self.imgsz, self.folder, self.quiet = recipe, imgsz, make_folder(folder), quiet
        self.device = device
        training, validation = load_splits(data, skip_bad=skip_bad)
        self.training, self.validation = training, validation
        self.dense = load_network(source).eval()
        if self.dense.names != training.names:
            raise DataError(
                f"{data} has the classes {_some(training.names)}, but {source} was trained for "
                f"{_some(self.dense.names)}: compress with the data that it was trained with"
            )
        self.data, self.source, self.skip_bad = data, source, skip_bad
        settings = TrainSettings(
            batch=recipe.batch, imgsz=imgsz, seed=recipe.seed, patience=0, warmup=0.5, close_mosaic=2, anchors="keep", ema_tau=200.0,
            augment=augment or Augment(), precision=precision, workers=workers,
        )  # fmt: skip
        self.settings = settings
        inputs = {
            "recipe": json.loads(recipe.to_json()), "imgsz": list(imgsz), "settings": json.loads(settings.to_json()),
            "model": hashlib.sha256(source.read_bytes()).hexdigest(),
            "train": dataset_hash(training), "val": dataset_hash(validation),
        }  # fmt: skip
        self.journal = Journal(self.folder / "steps.json", inputs)
        if not self.journal.measured and any(self.folder.glob("*.pt")):
            raise DataError(
                f"{self.folder} holds steps of another compression (another model, recipe or data): name another "
                "folder with --work, or delete it"
            )

    def say(self, text: str) -> None:
        """A line on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def run(self) -> Steps:
        """Do what is left to do.

        Raises:
            TargetError: the recipe's target cannot be reached; says how near it came.
            OvyoloError: as :func:`~ovyolo.train.api.train`.
        """
        torch.manual_seed(self.recipe.seed)
        self.journal.write()
        with joined(self.device) as team:
            return self._run(team)

    def _run(self, team: Team) -> Steps:
        recipe = self.recipe
        self.judge = Validation(self.validation, self.dense, self.imgsz, skip_bad=self.skip_bad)
        self.judge_trained = TrainedValidation(self.validation, self.dense, self.imgsz, skip_bad=self.skip_bad)
        pictures = TrainingPictures(self.training, self.imgsz, self.settings.augment, recipe.seed)
        self.pictures = pictures
        self.tuning = Tuning(
            pictures, self.settings, self._as_teacher(self.dense, team), recipe.distill, team, self.quiet
        )
        measured: dict[str, Figures] = {}
        measured["original"] = self.journal.measure("original", lambda: self.judge(self.dense.to("cpu")))
        self.dense.to(team.device)
        self.say(f"the original: {_told(measured['original'])}")
        networks = {"original": self.dense}
        if recipe.baseline and recipe.epochs:
            networks["trained on"] = self._step("trained on", self._baseline, measured)
            if measured["trained on"]["ap"] > measured["original"]["ap"]:  # who knows more teaches better
                self.tuning.teacher = self._as_teacher(networks["trained on"], team)
        network = self.dense
        if recipe.prune_target():
            network = networks["pruned"] = self._step("pruned", lambda: self._prune(team), measured)
        if recipe.recover_epochs and (self._is_smaller(network) or not recipe.prune_target()):
            before = network
            network = networks["recovered"] = self._step("recovered", lambda: self._recover(before), measured)
        if recipe.sparsity:
            dense = network
            network = networks["sparse"] = self._step("sparse", lambda: self._sparsify(dense), measured)
        if recipe.quantize:
            smooth = network
            network = networks["INT8"] = self._step("INT8", lambda: self._quantize(smooth), measured)
            if recipe.qat_epochs:
                loose = network
                network = networks["INT8 trained"] = self._step(
                    "INT8 trained", lambda: self._train_quantized(loose), measured
                )
        return Steps({name: one.to("cpu").eval() for name, one in networks.items()}, measured)

    def _step(self, name: str, work: Callable[[], Network], measured: dict[str, Figures]) -> Network:
        """The network of a step: from its file, or made now."""
        path = self.folder / f"{name.replace(' ', '-')}.pt"
        if name in self.journal and path.is_file():
            measured[name] = self.journal.measured[name]
            self.say(f"{name}: done before: {_told(measured[name])}")
            return load_trained(path)[0]
        network = work().to("cpu", memory_format=torch.contiguous_format).eval()
        plain = not is_quantized(network) and not is_sparse(network)
        save_network(network, path) if plain else save_trained(network, path)
        measured[name] = self.journal.keep(name, (self.judge if plain else self.judge_trained)(network))
        self.say(f"{name}: {_told(measured[name])}")
        return network

    def _is_smaller(self, network: Network) -> bool:
        """Whether channels are gone: a network that lost nothing has nothing to recover from."""
        return sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in self.dense.parameters())

    def _as_teacher(self, network: Network, team: Team) -> Network:
        """A copy that only tells what it sees."""
        copied = copy.deepcopy(network).eval().requires_grad_(False)
        return copied.to(team.device, memory_format=torch.channels_last)

    def _fresh(self, network: Network) -> Network:
        """A copy that may be trained."""
        return trainable(copy.deepcopy(network))

    def _baseline(self) -> Network:
        labels_alone = replace(self.tuning, teacher=None)
        return labels_alone.run(
            self._fresh(self.dense), self.folder / "baseline", title="original, epoch", epochs=self.recipe.epochs,
            lr=self.recipe.lr, judge=self.judge,
        )[0]  # fmt: skip

    def _prune(self, team: Team) -> Network:
        """Channels go, in steps."""
        recipe = self.recipe
        target = recipe.prune_target()
        assert target is not None
        profile = profile_network(self.dense.to("cpu"), self.imgsz)
        write_text(self.folder / "profile.json", json.dumps(profile.to_dict()))
        before = amounts_of(self.dense, self.imgsz, profile)
        kind, value = target
        dense_ir = float_form(self.imgsz)(self.dense)
        form = float_form(self.imgsz)
        by_channels = value
        if kind == "speedup" and recipe.quantize:
            few = [self.pictures.varied(None).sample(0, i)[0] for i in range(min(FEW_PICTURES, len(self.pictures)))]
            form = int8_form(self.imgsz, few, recipe.keep_float)
            gain = self.journal.measure(
                "INT8 alone, times faster",
                lambda: measured_ratio({"first": dense_ir, "second": form(self.dense)}).value,
            )
            self.say(f"INT8 alone is {gain:.2f} times faster")
            by_channels = max(1.0, value / gain)
        network = self._fresh(self.dense)
        steps = recipe.prune_steps if by_channels > 1.005 else 1
        for number in range(1, steps + 1):
            last = number == steps
            scores = None
            if by_channels > 1.005 or kind != "speedup":
                scores = self._scores(network, team)
            options: dict[str, Any] = {"scores": scores, "before": before, "criterion": recipe.criterion}
            if kind == "speedup" and last:
                plan, found = plan_to_measured_speed(
                    network, dense_ir, value, by_channels, form, profile, self.say, **options
                )
                self.journal.keep("measured when planned, times faster", found)
            else:
                whole = Target(speedup=by_channels) if kind == "speedup" else recipe.channel_target(kind, value)
                step = list(schedule(whole, steps))[number - 1]
                plan = plan_pruning(network, step, self.imgsz, profile=profile, **options)
            if plan is None:
                self.say("no channels need to go")
                break
            write_text(self.folder / f"plan-{number}.json", plan.to_json())
            network = apply_plan(network, plan)
            network = recalibrate(network, self._inputs(RANKING_BATCHES))
            if recipe.prune_epochs and not last:
                network, _ = self.tuning.run(
                    self._fresh(network), self.folder / f"prune-{number}", title=f"pruning {number}/{steps}, epoch",
                    epochs=recipe.prune_epochs, lr=recipe.lr, judge=self.judge,
                )  # fmt: skip
        return network

    def _scores(self, network: Network, team: Team) -> Any:
        """What each channel is worth."""
        labels = DetectionLoss(
            network.anchors_in_pixels().cpu(), network.strides, len(network.names), self.imgsz, self.settings.loss
        )

        def loss_of(network: Network, batch: Any) -> torch.Tensor:
            x, targets = batch
            return labels(network(x), targets).total

        network = network.to(team.device)
        batches = []
        if self.recipe.criterion == "taylor":
            plain = self.pictures.varied(None).batches(0, self.recipe.batch, self.settings.workers)
            for _, batch in zip(range(RANKING_BATCHES), plain, strict=False):
                batches.append((as_input(batch.pictures, team.device), torch.from_numpy(batch.targets).to(team.device)))
        found = channel_scores(
            network,
            find_groups(network),
            self.recipe.criterion,  # type: ignore[arg-type]
            batches=batches,
            loss_of=loss_of,
        )
        network.to("cpu")
        return found

    def _inputs(self, count: int) -> Any:
        """Training pictures without augmentation, in batches."""
        plain = self.pictures.varied(None).batches(0, self.recipe.batch, self.settings.workers)
        for _, batch in zip(range(count), plain, strict=False):
            yield as_input(batch.pictures, torch.device("cpu"))

    def _recover(self, network: Network) -> Network:
        return self.tuning.run(
            self._fresh(network), self.folder / "recover", title="recovering, epoch",
            epochs=self.recipe.recover_epochs, lr=self.recipe.lr, judge=self.judge,
        )[0]  # fmt: skip

    def _sparsify(self, network: Network) -> Network:
        recipe = self.recipe
        # without batch norms: zeros are then what is stored, and the converter keeps the layers' names
        sparse = sparsify(self._fresh(fuse_batch_norms(network)), 0.0, how=recipe.sparsify)
        if not recipe.sparsify_epochs:
            return sparsify(sparse, recipe.sparsity, how=recipe.sparsify)
        rise = MagnitudeSchedule(sparse, recipe.sparsity, max(1, recipe.sparsify_epochs - 1), how=recipe.sparsify)
        return self.tuning.run(
            sparse, self.folder / "sparsify", title="zeros, epoch", epochs=recipe.sparsify_epochs, lr=recipe.lr / 2,
            judge=self.judge_trained, save=_save_trained, before_epoch=rise.step,
            best_after=recipe.sparsify_epochs - 1, channels_last=False,
        )[0]  # fmt: skip

    def _quantize(self, network: Network) -> Network:
        calibration, _ = choose_calibration(
            self.validation, self.imgsz, data=self.data, count=self.recipe.calibration, skip_bad=self.skip_bad
        )
        return insert_quantizers(
            fuse_batch_norms(network) if not is_sparse(network) else network,
            picture_tensors(calibration.pictures), ignored=self.recipe.keep_float,
        )  # fmt: skip

    def _train_quantized(self, network: Network) -> Network:
        student = self._fresh(network)
        guard = PairGuard(student)

        def judge(module: nn.Module) -> Figures:
            PairGuard(module)()  # an average of weights that cannot overflow may
            return self.judge_trained(module)

        trained, _ = self.tuning.run(
            student, self.folder / "qat", title="INT8, epoch", epochs=self.recipe.qat_epochs, lr=self.recipe.qat_lr,
            precision="f32", judge=judge, save=_save_trained, after_step=guard, freeze_norm=True,
        )  # fmt: skip
        PairGuard(trained)()
        return trained


def _save_trained(network: nn.Module, path: Path, figures: Figures) -> None:
    assert isinstance(network, Network)
    save_trained(network, path, figures=json.dumps(figures))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") + f" ({len(names)})"


def _told(figures: Figures) -> str:
    shown = {"AP": "ap", "AP50": "ap50", "small": "ap_small"}
    return ", ".join(f"{label} {figures[key]:.2f}" for label, key in shown.items() if figures.get(key) is not None)
