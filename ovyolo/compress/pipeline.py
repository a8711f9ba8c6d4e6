"""``compress``: channels go, the network recovers, quantizers are trained in, and every step is measured."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ovyolo.compress.calibration import Calibration, choose_calibration
from ovyolo.compress.cheaper import activation_goes, with_cheaper_activations
from ovyolo.compress.forms import StepValidation
from ovyolo.compress.journal import Journal, dataset_hash
from ovyolo.compress.levels import idle_levels, without_coarse_maps, without_levels
from ovyolo.compress.pruning import BETWEEN, PLANNED, is_enough, prune_channels
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
from ovyolo.compress.qat.quantizers import PairGuard, is_quantized
from ovyolo.compress.qat.refit import refit_heads
from ovyolo.compress.qat.sparsify import MagnitudeSchedule, baked, is_sparse, sparsify
from ovyolo.compress.qat.state import load_trained, save_trained
from ovyolo.compress.recipe import Recipe
from ovyolo.compress.smaller import WIDER, with_wider_steps
from ovyolo.compress.stages import Stages
from ovyolo.compress.tuning import Tuning, fresh
from ovyolo.errors import DataError, TrainingError, UnsupportedModelError
from ovyolo.evaluate.predictions import Predictions
from ovyolo.export.portable import save_ir
from ovyolo.export.provenance import provenance
from ovyolo.io.output import make_folder
from ovyolo.train.activation import activations_of
from ovyolo.train.api import load_splits
from ovyolo.train.augment import Augment
from ovyolo.train.data import TrainingPictures
from ovyolo.train.fusing import fuse_batch_norms
from ovyolo.train.loop import Figures, Outcome, fitness
from ovyolo.train.network import Network, load_network, save_network
from ovyolo.train.settings import TrainSettings
from ovyolo.train.team import Team, joined, world_size

__all__ = ["Compression", "Steps"]

IDLE = "levels that find nothing of their own"
ZEROS_RISE = 0.6  # share of a recovery in which more and more weights become zero


@dataclass(frozen=True)
class Steps:
    """The networks of a compression by step, and what was measured of each."""

    networks: dict[str, Network]
    measured: dict[str, Figures]


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
        if world_size() > 1:  # each process would measure, decide and write for itself
            raise TrainingError(
                "compress runs in one process, because it decides by what it measures: start it without torchrun"
            )
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
        self.data, self.skip_bad = data, skip_bad
        self.made = provenance(source)
        settings = TrainSettings(
            batch=recipe.batch, imgsz=imgsz, seed=recipe.seed, patience=0, warmup=0.5, warmup_bias=0.0,
            close_mosaic=0, anchors="keep", augment=augment or Augment(), precision=precision,
            workers=workers,
        )  # fmt: skip
        self.settings = settings
        self.inputs = {
            "imgsz": list(imgsz), "settings": json.loads(settings.to_json()),
            "model": self.made["sha256"],
            "train": dataset_hash(training), "val": dataset_hash(validation),
        }  # fmt: skip
        self.judge = StepValidation(validation, self.dense, imgsz, skip_bad=skip_bad)
        self.pictures = TrainingPictures(training, imgsz, settings.augment, recipe.seed)
        self._shared: dict[str, Compression] = {}
        self._found: dict[str, Predictions] = {}
        self._calibration: dict[int, Calibration] = {}
        self._open_journal()

    def _open_journal(self) -> None:
        # what is allowed to be lost changes no step
        recipe = json.loads(replace(self.recipe, max_drop=None).to_json())
        self.journal = Journal(self.folder / "steps.json", {"recipe": recipe, **self.inputs})
        if not self.journal.measured and any(self.folder.glob("*.pt")):
            raise DataError(
                f"{self.folder} holds steps of another compression (another model, recipe or data): name another "
                "folder with --work, or delete it"
            )

    def again(self, name: str, recipe: Recipe, shared: Iterable[str]) -> Compression:
        """The same with another recipe, in a folder ``name`` within this one's; the steps named in ``shared`` must come
        out alike, and are taken from here."""
        other = copy.copy(self)
        other.recipe, other.folder = recipe, make_folder(self.folder / name)
        other._found = {}
        other._shared = {step: self._shared.get(step, self) for step in shared}
        other._open_journal()
        return other

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
        self.tuning = Tuning(
            self.pictures, self.settings, self._as_teacher(self.dense, team), recipe.distill, recipe.features, team,
            self.quiet,
        )  # fmt: skip
        measured: dict[str, Figures] = {}
        home = self._shared.get("original", self)
        measured["original"] = home.journal.measure("original", lambda: self._judged("original", self.dense.to("cpu")))
        self.dense.to(team.device)
        self.say(f"the original: {_told(measured['original'])}")
        networks = {"original": self.dense}
        if recipe.baseline and recipe.epochs:
            networks["trained on"] = self._step("trained on", self._baseline, measured)
            if measured["trained on"]["ap"] > measured["original"]["ap"]:  # who knows more teaches better
                self.tuning.teacher = self._as_teacher(networks["trained on"], team)
        at = "original"

        def step(name: str, work: Callable[[Network], Network]) -> None:
            nonlocal at
            before, at = networks[at], name
            networks[name] = self._step(name, lambda: work(before), measured)

        gone = self._idle_levels()
        if gone:
            step("levels", lambda network: without_levels(network.to("cpu"), gone))
        if activation_goes(self, networks[at]):
            step("activation", lambda network: with_cheaper_activations(self, network))
        if gone and self._coarse_maps_go(networks[at]):
            step("coarse maps", without_coarse_maps)
        if recipe.prune_target():
            step("pruned", lambda network: prune_channels(self, network, team))
        if recipe.sparsity:
            step("sparse", self._sparsify)
        elif recipe.recover_epochs and (self._is_changed(networks[at]) or not recipe.prune_target()):
            begin = measured[at]
            step("recovered", lambda network: self._recover(network, begin))
        if recipe.quantize:
            floating = baked(networks[at]).eval()  # a copy that says what the quantized one should say
            step("INT8", lambda network: self._refit(self._quantize(network), floating))
            if recipe.size is not None:
                step("wider steps", lambda network: self._refit(with_wider_steps(self, network), floating))
            if recipe.qat_epochs:
                untrained = measured[at]
                step("INT8 trained", lambda network: self._train_quantized(network, untrained, floating))
        return Steps({name: one.to("cpu").eval() for name, one in networks.items()}, measured)

    def _step(self, name: str, work: Callable[[], Network], measured: dict[str, Figures]) -> Network:
        """The network of a step: from its file, or made now."""
        home = self._shared.get(name, self)
        path = home.path_of(name)
        if name in home.journal and path.is_file():
            measured[name] = home.journal.measured[name]
            self.say(f"{name}: done before: {_told(measured[name])}")
            return load_trained(path)[0]
        network = work().to("cpu", memory_format=torch.contiguous_format).eval()
        plain = not is_quantized(network) and not is_sparse(network)
        save_network(network, path) if plain else save_trained(network, path)
        measured[name] = home.journal.keep(name, self._judged(name, network))
        self.say(f"{name}: {_told(measured[name])}")
        return network

    def _judged(self, step: str, network: Network) -> Figures:
        return self.judge.figures(network, self._look(step, network))

    def _look(self, step: str, network: Network) -> Predictions:
        """Write a step's IR, and remember what it finds in the validation pictures."""
        model, card, found = self.judge.look(network)
        save_ir(model, replace(card, made={**self.made, "step": step}), self._ir_path(step))
        self._shared.get(step, self)._found[step] = found
        return found

    def _ir_path(self, step: str) -> Path:
        return self.path_of(step).parent / "steps" / self.path_of(step).with_suffix(".xml").name

    def path_of(self, step: str) -> Path:
        """The checkpoint of a step."""
        return self._shared.get(step, self).folder / f"{step.replace(' ', '-')}.pt"

    def ir_of(self, step: str, network: Network) -> Path:
        """The IR of a step, whose network is ``network``: it may have been deleted since."""
        path = self._ir_path(step)
        if not (path.is_file() and path.with_suffix(".bin").is_file()):
            self._look(step, network)
        return path

    def found(self, step: str, network: Network) -> Predictions:
        """What the network of a step finds in the validation pictures."""
        known = self._shared.get(step, self)._found.get(step)
        return self._look(step, network) if known is None else known

    @property
    def planned_speedup(self) -> float | None:
        """How many times faster the planned network was; None where no speed was asked for."""
        found = self.journal.measured.get(PLANNED)
        return None if found is None else float(found)

    def _is_changed(self, network: Network) -> bool:
        """Whether channels are gone or activations are others: what lost nothing has nothing to recover from."""
        smaller = sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in self.dense.parameters())
        return smaller or activations_of(network) != activations_of(self.dense)

    def _as_teacher(self, network: Network, team: Team) -> Network:
        """A copy that only tells what it sees."""
        copied = copy.deepcopy(network).eval().requires_grad_(False)
        return copied.to(team.device, memory_format=torch.channels_last)

    def _baseline(self) -> Network:
        labels_alone = replace(self.tuning, teacher=None)
        return labels_alone.run(
            fresh(self.dense), self.folder / "baseline", title="original, epoch", epochs=self.recipe.epochs,
            lr=self.recipe.lr, judge=self.judge,
        )[0]  # fmt: skip

    def _idle_levels(self) -> int:
        """How many of the coarsest levels are to go."""
        if self.recipe.levels == "keep":
            return 0
        home = self._shared.get("levels", self)
        return int(home.journal.measure(
            IDLE,
            lambda: idle_levels(
                self.dense.to("cpu"), self.validation, self.judge.boxes, self.recipe.idle, self.say
            ),
        ))  # fmt: skip

    def _coarse_maps_go(self, network: Network) -> bool:
        """Whether what is computed on the cells of levels that are gone goes, too: before channels have to."""
        target = self.recipe.prune_target()
        if self.recipe.levels == "heads" or not self.recipe.recover_epochs:
            return False
        if self.recipe.levels == "auto":
            if target is None or is_enough(self, network):
                return False
            try:
                without_coarse_maps(network)
            except UnsupportedModelError as error:
                self.say(f"{error}: they stay")
                return False
        return True

    def _recover(self, network: Network, before: Figures) -> Network:
        trained, outcome = self.tuning.run(
            fresh(network), self.folder / "recover", title="recovering, epoch",
            epochs=self._recovery(), lr=self.recipe.lr, judge=self.judge,
        )  # fmt: skip
        return self._better(network, before, trained, outcome)

    def _better(self, network: Network, before: Figures, trained: Network, outcome: Outcome) -> Network:
        """What a training made of ``network``, or that itself where no epoch was as good."""
        if fitness(outcome.best) >= fitness(before):
            return trained
        self.say(f"no epoch was better than what was trained ({_told(before)}): it stays as it was")
        return network

    def _recovery(self) -> int:
        """Epochs of recovering: all that the baseline was trained for and pruning and quantizers do not take."""
        taken = self._shared.get("pruned", self).journal.measured.get(BETWEEN, 0)
        return self.recipe.recover_epochs + self.recipe.pruning_epochs - int(taken)

    def _sparsify(self, network: Network) -> Network:
        """Recovers while weights become zero: most of the training is left for what remains."""
        recipe = self.recipe
        if recipe.recover_epochs:
            sparse = sparsify(fresh(network), 0.0, how=recipe.sparsify)
            epochs = self._recovery()
            rise = max(1, round(ZEROS_RISE * epochs))
            schedule = MagnitudeSchedule(sparse, recipe.sparsity, rise, how=recipe.sparsify)
            sparse, _ = self.tuning.run(
                sparse, self.folder / "sparsify", title="zeros, epoch", epochs=epochs, lr=recipe.lr,
                judge=self.judge, save=_save_trained, before_epoch=schedule.step, best_after=rise,
                channels_last=False,
            )  # fmt: skip
            network = baked(sparse)
        # without batch norms: zeros are then what is stored, and the converter keeps the layers' names
        return sparsify(fuse_batch_norms(network), recipe.sparsity, how=recipe.sparsify)

    def pictures_to_calibrate(self) -> Sequence[NDArray[np.uint8]]:
        """Letterboxed training pictures, u8 BGR ``(H, W, 3)``, by which ranges are set and what changes do is
        judged."""
        calibration = self._calibration.get(self.recipe.calibration)
        if calibration is None:
            calibration, _ = choose_calibration(
                self.validation, self.imgsz, data=self.data, count=self.recipe.calibration, skip_bad=self.skip_bad
            )
            self._calibration[self.recipe.calibration] = calibration
        return calibration.pictures

    def _quantize(self, network: Network) -> Network:
        return insert_quantizers(
            fuse_batch_norms(network) if not is_sparse(network) else network,
            picture_tensors(self.pictures_to_calibrate()),
            ignored=self.recipe.keep_float,
        )  # fmt: skip

    def _refit(self, network: Network, floating: Network) -> Network:
        """Fits the last convolutions of ``network`` to what ``floating`` says."""
        pictures = self.pictures_to_calibrate()
        floating.to(next(network.parameters()).device)
        with Stages(self.quiet).stage("fitting the heads", len(pictures), "picture") as tell:
            refit_heads(network, floating, picture_tensors(pictures), self.journal.measured.get(WIDER), tell)
        return network

    def _train_quantized(self, network: Network, before: Figures, floating: Network) -> Network:
        """Taught by what it was in floating point: rounding is all that there is to make up for."""
        teacher = self._as_teacher(floating, self.tuning.team)
        tuning = replace(self.tuning, teacher=teacher, labels=0.0, distill=1.0, features=1.0)
        student = fresh(network)
        widths = self.journal.measured.get(WIDER)
        guard = PairGuard(student, widths)

        def judge(module: nn.Module) -> Figures:
            assert isinstance(module, Network)
            PairGuard(module, widths)()  # an average of weights that cannot overflow may
            return self.judge(module)

        trained, outcome = tuning.run(
            student, self.folder / "qat", title="INT8, epoch", epochs=self.recipe.qat_epochs, lr=self.recipe.qat_lr,
            precision="f32", judge=judge, save=_save_trained, after_step=guard, freeze_norm=True,
        )  # fmt: skip
        PairGuard(trained, widths)()
        return self._better(network, before, trained, outcome)


def _save_trained(network: nn.Module, path: Path, figures: Figures) -> None:
    assert isinstance(network, Network)
    save_trained(network, path, figures=json.dumps(figures))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") + f" ({len(names)})"


def _told(figures: Figures) -> str:
    shown = {"AP": "ap", "AP50": "ap50", "small": "ap_small"}
    return ", ".join(f"{label} {figures[key]:.2f}" for label, key in shown.items() if figures.get(key) is not None)
