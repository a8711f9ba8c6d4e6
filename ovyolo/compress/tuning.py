"""Training within a compression: the same loop, drawn towards what the uncompressed network says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovyolo.compress.qat.quantizers import keep_bytes_exact
from ovyolo.train.data import TrainingPictures
from ovyolo.train.distill import head_loss
from ovyolo.train.loop import Figures, Outcome, Trainer
from ovyolo.train.loss import DetectionLoss, LossParts
from ovyolo.train.network import Network, save_network
from ovyolo.train.settings import TrainSettings
from ovyolo.train.team import Team, autocast, precision_for

__all__ = ["Tuning", "fresh", "trainable"]


@dataclass
class Tuning:
    """What all trainings of a compression share.

    Args:
        pictures: to train on.
        settings: how; epochs and rate are each training's own.
        teacher: the uncompressed network, in evaluation mode; None for labels alone.
        distill: how much its heads count.
        team: where to compute.
        quiet: no progress.
    """

    pictures: TrainingPictures
    settings: TrainSettings
    teacher: Network | None
    distill: float
    team: Team
    quiet: bool

    def loss(self, network: Network) -> Callable[[list[Tensor], Tensor, Tensor], LossParts]:
        """The loss of a step: labels, and the teacher's heads."""
        settings = self.settings
        labels = DetectionLoss(
            network.anchors_in_pixels().cpu(), network.strides, len(network.names), settings.imgsz, settings.loss
        )
        teacher, weight, strides = self.teacher, self.distill, network.strides
        precision = precision_for(self.team.device, settings.precision)
        if teacher is None or not weight:
            return lambda heads, targets, x: labels(heads, targets)

        def both(heads: list[Tensor], targets: Tensor, x: Tensor) -> LossParts:
            parts = labels(heads, targets)
            with torch.no_grad(), autocast(x.device, precision):
                told = dict(zip(teacher.strides, teacher(x), strict=True))
            drawn = head_loss(heads, [told[stride] for stride in strides], anchors=network.head.na, objectness=0.5)
            return parts._replace(total=parts.total + weight * drawn * len(x))

        return both

    def run(
        self,
        module: Network,
        folder: Path,
        *,
        title: str,
        epochs: int,
        lr: float,
        judge: Callable[[nn.Module], Figures],
        precision: str | None = None,
        freeze_norm: bool = False,
        save: Callable[[nn.Module, Path, Figures], object] | None = None,
        **more: Any,
    ) -> tuple[Network, Outcome]:
        """Train ``module``, going on from what lies in ``folder``; returns the best average and its history."""
        settings = replace(
            self.settings, epochs=epochs, lr=lr, precision=precision or self.settings.precision, freeze_norm=freeze_norm
        )
        trainer = Trainer(
            module,
            self.pictures,
            self.loss(module),
            settings,
            folder,
            judge=judge,
            save=save or (lambda network, path, figures: save_network(network, path, figures=json.dumps(figures))),
            title=title,
            team=self.team,
            quiet=self.quiet,
            **more,
        )  # fmt: skip
        trainer.resume()
        outcome = trainer.run()
        best = trainer.average.module
        assert isinstance(best, Network)
        return trainable(best).to("cpu"), outcome


def trainable(network: Network) -> Network:
    """The same network, whose weights may change: flags and counters of quantizers may not."""
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    keep_bytes_exact(network)
    return network


def fresh(network: Network) -> Network:
    """A copy that may be trained."""
    return trainable(copy.deepcopy(network))
