"""Training within a compression: the same loop, drawn towards what the uncompressed network says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovyolo.compress.qat.quantizers import keep_bytes_exact
from ovyolo.train.blocks import ChannelScale
from ovyolo.train.data import TrainingPictures
from ovyolo.train.distill import feature_loss, head_loss, tapped
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
        features: how much the maps inside it count.
        team: where to compute.
        quiet: no progress.
        labels: how much the labels count, where there is a teacher.
    """

    pictures: TrainingPictures
    settings: TrainSettings
    teacher: Network | None
    distill: float
    features: float
    team: Team
    quiet: bool
    labels: float = 1.0

    def loss(
        self, network: Network, seen: Sequence[Tensor] = (), told: Sequence[Tensor] = ()
    ) -> Callable[[list[Tensor], Tensor, Tensor], LossParts]:
        """The loss of a step: labels, and the teacher's heads and maps.

        Args:
            network: what is trained.
            seen, told: hold the maps of the network and of the teacher after each has looked at a batch.
        """
        settings = self.settings
        labels = DetectionLoss(
            network.anchors_in_pixels().cpu(), network.strides, len(network.names), settings.imgsz, settings.loss
        )
        teacher, strides = self.teacher, network.strides
        precision = precision_for(self.team.device, settings.precision)
        if teacher is None or not (self.distill or self.features):
            return lambda heads, targets, x: labels(heads, targets)

        def both(heads: list[Tensor], targets: Tensor, x: Tensor) -> LossParts:
            parts = labels(heads, targets)
            with torch.no_grad(), autocast(x.device, precision):
                taught = dict(zip(teacher.strides, teacher(x), strict=True))
            drawn = self.distill * head_loss(
                heads, [taught[stride] for stride in strides], anchors=network.head.na, objectness=0.5
            )
            # maps that lost channels have nothing in the teacher that they should be equal to
            pairs = [(ours, theirs) for ours, theirs in zip(seen, told, strict=True) if ours.shape == theirs.shape]
            if pairs:
                drawn = drawn + self.features * feature_loss([one for one, _ in pairs], [other for _, other in pairs])
            return parts._replace(total=self.labels * parts.total + drawn * len(x))

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
        names = maps_of(module, self.teacher) if self.features and self.teacher is not None else []
        # not before the trainer has copied the module for its average, whose maps nobody asks for
        with tapped(module, names) as seen, tapped(self.teacher or module, names) as told:
            trainer.loss = self.loss(module, seen, told)
            outcome = trainer.run()
        best = trainer.average.module
        assert isinstance(best, Network)
        return trainable(best).to("cpu"), outcome


def maps_of(student: Network, teacher: Network) -> list[str]:
    """Layers whose maps are compared: blocks of several convolutions that both have, not the heads; what is multiplied
    for the sake of 8 bits is other numbers than the teacher's."""
    blocks = []
    for index, pair in enumerate(zip(list(student.model)[:-1], list(teacher.model)[:-1], strict=True)):
        convolutions = [sum(isinstance(part, nn.Conv2d) for part in layer.modules()) for layer in pair]
        scaled = any(isinstance(part, ChannelScale) for layer in pair for part in layer.modules())
        if min(convolutions) > 1 and not scaled:
            blocks.append(f"model.{index}")
    return blocks


def trainable(network: Network) -> Network:
    """The same network, whose weights may change: flags and counters of quantizers may not."""
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    keep_bytes_exact(network)
    return network


def fresh(network: Network) -> Network:
    """A copy that may be trained."""
    return trainable(copy.deepcopy(network))
