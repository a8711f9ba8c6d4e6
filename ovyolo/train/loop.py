"""The training loop: steps, averages, validations, and a state from which it goes on after whatever stopped it."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovyolo.errors import TrainingError
from ovyolo.progress import progress
from ovyolo.train.averaging import WeightAverage
from ovyolo.train.data import TrainingPictures
from ovyolo.train.log import Log
from ovyolo.train.loss import LossParts
from ovyolo.train.optimizer import make_optimizer, set_rates
from ovyolo.train.settings import TrainSettings, rates
from ovyolo.train.state import load_state, save_state
from ovyolo.train.team import Team, autocast, precision_for

__all__ = ["Outcome", "Trainer", "as_input", "fitness"]

LONGEST_TAU = 2000.0  # of the average of weights, in steps
SAVE_EVERY = 300.0  # seconds of an epoch after which it is saved in between
Figures = dict[str, Any]


@dataclass
class Outcome:
    """What a training came to: figures of validations in points of AP, by epoch."""

    best_epoch: int = 0
    best: Figures = field(default_factory=dict)
    history: list[Figures] = field(default_factory=list)
    stopped: str = ""


def as_input(pictures: Any, device: torch.device) -> Tensor:
    """u8 BGR ``(n, h, w, 3)`` as the f32 RGB ``(n, 3, h, w)`` from 0 to 1 that networks take."""
    x = torch.from_numpy(pictures).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return x.flip(1).float().div_(255).contiguous(memory_format=torch.channels_last)


def fitness(figures: Figures) -> float:
    """By what the best epoch is chosen: AP, and a little AP50, which varies less from epoch to epoch."""
    ap, ap50 = figures.get("ap"), figures.get("ap50")
    return -1.0 if ap is None else 0.9 * ap + 0.1 * (ap50 or 0.0)


class Trainer:
    """Trains any module that gives raw heads: a network, a pruned one, one with quantizers.

    Args:
        module: what is trained, on its device.
        pictures: what it is trained on.
        loss: of the raw heads, the targets and the input of a step.
        settings: how.
        folder: where ``state.pt`` and the log go.
        judge: figures in points (``ap``, ``ap50``, …) of the averaged module.
        save: writes the averaged module to a file, with figures.
        before_epoch: called with the number of epochs done, such as to choose which weights are masked.
        after_step: called whenever the weights have changed, such as to keep them within limits.
        best_after: epochs before the best is looked for, such as while more and more weights become zero.
        channels_last: lay weights out so that convolutions are fast; NNCF cannot choose masks of such weights.
        title: what the epochs are called in progress.
        team: where to compute.
        quiet: no progress.

    After each epoch ``last.pt`` is the newest average and ``best.pt`` the best one by :func:`fitness`.
    """

    def __init__(
        self,
        module: nn.Module,
        pictures: TrainingPictures,
        loss: Callable[[list[Tensor], Tensor, Tensor], LossParts],
        settings: TrainSettings,
        folder: Path,
        *,
        judge: Callable[[nn.Module], Figures],
        save: Callable[[nn.Module, Path, Figures], object],
        before_epoch: Callable[[int], object] = lambda done: None,
        after_step: Callable[[], object] = lambda: None,
        best_after: int = 0,
        channels_last: bool = True,
        title: str = "epoch",
        team: Team | None = None,
        quiet: bool = True,
    ) -> None:
        self.team = team or Team(torch.device("cpu"))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.module = module.to(self.team.device, memory_format=layout)
        self.pictures, self.loss, self.settings, self.folder = pictures, loss, settings, folder
        self._judge, self._save, self._title = judge, save, title
        self._before_epoch, self._after_step, self._best_after = before_epoch, after_step, best_after
        self.quiet = quiet or self.team.rank > 0
        self._steps = pictures.batch_count(settings.batch, self.team.world)
        tau = settings.ema_tau or min(LONGEST_TAU, max(1.0, settings.epochs * self._steps / settings.accumulate / 5))
        self.average = WeightAverage(self.module, settings.ema_decay, tau)
        self.optimizer = make_optimizer(self.module, settings)
        self.outcome = Outcome()
        self._precision = precision_for(self.team.device, settings.precision)
        self._scaler = torch.amp.GradScaler(enabled=self._precision is torch.float16)
        self._wrapped = self.team.wrap(self.module)
        self._epoch = self._step = 0
        self._best_state: dict[str, Tensor] = {}
        self._sums = [0.0, 0.0, 0.0]
        self._log = Log(folder) if self.team.rank == 0 else None

    @property
    def state_path(self) -> Path:
        """From which the training can go on."""
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Go on from the state in the folder, if there is one.

        Raises:
            TrainingError: it is damaged, or of another network or other settings.
        """
        state = load_state(self.state_path, self.settings)
        if state is None:
            return False
        try:
            self.module.load_state_dict(state["module"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            told = json.loads(state["told"])
            self.outcome = Outcome(**told["outcome"])
            self._epoch, self._step, self._sums = told["epoch"], told["step"], told["sums"]
            self._best_state = state["best"]
            torch.set_rng_state(state["rng"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"{self.state_path} is of another network or another ovyolo: train again in a new folder"
            ) from error
        self._write_networks()
        return True

    def run(self) -> Outcome:
        """Train to the end; the averaged module of the best epoch is then in :attr:`average`.

        Raises:
            TrainingError: the loss is no number any more (the state of the last good epoch stays), or memory ran out.
            OvyoloError: a picture cannot be read, or a file cannot be written.
        """
        if not self._epoch and not self._step:
            self._save_state()
        while self._epoch < self.settings.epochs and not self.outcome.stopped:
            began = time.perf_counter()
            self._train_epoch()
            self._check_weights()
            self._epoch += 1
            self._step = 0
            figures = self._finish_epoch(time.perf_counter() - began)
            self._sums = [0.0, 0.0, 0.0]
            late = self.settings.patience and self._epoch - self.outcome.best_epoch >= self.settings.patience
            if self.team.agree(bool(late)):
                self.outcome.stopped = f"no better score in {self.settings.patience} epochs"
            if self.team.rank == 0:
                self._save_state()
                self._write_networks()
                self._say(figures)
        if self._best_state:
            self.average.module.load_state_dict(self._best_state)
        if self._log:
            self._log.close(self.outcome.history)
        return self.outcome

    def _train_epoch(self) -> None:
        settings, device = self.settings, self.team.device
        self._before_epoch(self._epoch)
        self.module.train()
        if settings.freeze_norm:
            for one in self.module.modules():
                if isinstance(one, nn.BatchNorm2d):
                    one.eval()
        pictures = self.pictures
        if self._epoch >= settings.epochs - settings.close_mosaic and pictures.augment is not None:
            pictures = pictures.varied(replace(pictures.augment, mosaic=0.0))
        batches = pictures.batches(
            self._epoch, settings.batch, settings.workers, self.team.rank, self.team.world, self._step
        )
        saved = time.monotonic()
        title = f"{self._title} {self._epoch + 1}/{settings.epochs}"
        with closing(batches):
            bar = progress(batches, total=self._steps - self._step, unit="step", quiet=self.quiet, title=title)
            try:
                for batch in bar:
                    self._train_step(as_input(batch.pictures, device), torch.from_numpy(batch.targets).to(device))
                    self._step += 1
                    between = self._step % settings.accumulate == 0 and self._step < self._steps
                    if between and self.team.rank == 0 and time.monotonic() - saved > SAVE_EVERY:
                        self._check_weights()
                        self._save_state()
                        saved = time.monotonic()
            except (RuntimeError, MemoryError) as error:
                if (explained := self._explained(error)) is None:
                    raise
                raise explained from error

    def _train_step(self, x: Tensor, targets: Tensor) -> None:
        settings = self.settings
        overall = self._epoch * self._steps + self._step
        set_rates(self.optimizer, *rates(settings, overall, self._steps))
        with autocast(self.team.device, self._precision):
            heads = self._wrapped(x)
        parts = self.loss(heads, targets, x)
        numbers = [float(part.detach()) for part in parts]
        if not math.isfinite(sum(numbers)):
            raise self._diverged(f"the loss is {numbers[0]}", self._step + 1)
        # summed over the batch, as the rates expect it, but averaged over the processes by DDP
        self._scaler.scale(parts.total * self.team.world / settings.accumulate).backward()
        self._sums = [total + part for total, part in zip(self._sums, numbers[1:], strict=True)]
        last = self._step + 1 == self._steps
        if (self._step + 1) % settings.accumulate and not last:
            return
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), settings.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._after_step()
        self.average.update(self.module)

    def _finish_epoch(self, seconds: float) -> Figures:
        """Measure the average, and keep it if it is the best."""
        done, settings = self._epoch, self.settings
        names = ("box", "obj", "cls")
        lr = rates(settings, done * self._steps - 1, self._steps)[0]
        figures: Figures = {"epoch": done, "lr": lr, "seconds": round(seconds, 2)}
        figures |= {name: total / self._steps for name, total in zip(names, self._sums, strict=True)}
        if self.team.rank == 0 and (done % settings.validate_every == 0 or done == settings.epochs):
            measured = self._judge(self.average.module)
            figures |= {key: value for key, value in measured.items() if not isinstance(value, dict)}
            better = not self.outcome.best or fitness(measured) > fitness(self.outcome.best)
            if better and done > min(self._best_after, settings.epochs - 1):
                self.outcome.best, self.outcome.best_epoch = measured, done
                self._best_state = {k: v.clone() for k, v in self.average.module.state_dict().items()}
        self.outcome.history.append(figures)
        if self._log:
            self._log.write(figures)
        return figures

    def _check_weights(self) -> None:
        """Weights can be lost in the very step before they would be saved, without the loss having shown it."""
        for name, value in self.module.state_dict().items():
            if value.dtype.is_floating_point and not bool(torch.isfinite(value).all()):
                raise self._diverged(f"{name} is no number any more", self._step)

    def _diverged(self, what: str, step: int) -> TrainingError:
        return TrainingError(
            f"{what} at step {step} of epoch {self._epoch + 1}; {self.folder} keeps what was good before: lower lr "
            f"(now {self.settings.lr}), or look for wrong labels"
        )

    def _save_state(self) -> None:
        told = {
            "epoch": self._epoch, "step": self._step, "sums": self._sums, "outcome": vars(self.outcome),
        }  # fmt: skip
        save_state(self.state_path, self.settings, {
            "module": self.module.state_dict(), "average": self.average.state_dict(), "best": self._best_state,
            "optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict(), "told": json.dumps(told),
            "rng": torch.get_rng_state(),
        })  # fmt: skip

    def _write_networks(self) -> None:
        """``last.pt`` and ``best.pt``, again after a resume: a kill may have come between them and the state."""
        if self.team.rank or not self.outcome.history:
            return
        self._save(self.average.module, self.folder / "last.pt", self.outcome.history[-1])
        if self._best_state:
            today = {key: value.clone() for key, value in self.average.module.state_dict().items()}
            self.average.module.load_state_dict(self._best_state)
            self._save(self.average.module, self.folder / "best.pt", self.outcome.best)
            self.average.module.load_state_dict(today)

    def _say(self, figures: Figures) -> None:
        if self.quiet:
            return
        shown = [f"{self._title} {figures['epoch']}/{self.settings.epochs}", f"lr {figures['lr']:.4g}"]
        shown += [f"{name} {figures[name]:.4f}" for name in ("box", "obj", "cls")]
        for label, key in (("AP", "ap"), ("AP50", "ap50")):
            if figures.get(key) is not None:
                shown.append(f"{label} {figures[key]:.2f}")
        left = (self.settings.epochs - self._epoch) * figures["seconds"]
        shown.append(f"{figures['seconds']:.0f} s, {left / 60:.0f} min left")
        print("  ".join(shown), file=sys.stderr, flush=True)

    def _explained(self, error: Exception) -> TrainingError | None:
        """What to tell the user of a failure inside a step; None where it is not one that users can mend."""
        text = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            smaller = max(1, self.settings.batch // 2)
            return TrainingError(f"memory ran out at batch {self.settings.batch}: try --batch {smaller}")
        return None
