"""Everything that decides what a training becomes, as one value that is written beside it and read back on resuming."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ovyolo.errors import TrainingError, require
from ovyolo.train.augment import Augment
from ovyolo.train.loss import LossSettings

__all__ = ["TrainSettings", "rates"]

OPTIMIZERS = ("sgd", "adamw")
ANCHORS = ("auto", "keep", "fit")
ACTIVATIONS = ("keep", "hardswish", "relu")
LEVELS = ("keep", "p2-p5", "p2-p4")
PRECISIONS = ("auto", "f32", "bf16", "f16")
KICK = 10.0  # of biases that begin at random


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Args:
        epochs: passes over the training pictures.
        batch: pictures a step, on each device.
        imgsz: ``(height, width)`` of the input in pixels.
        lr: learning rate after the warm-up; it falls along half a cosine wave.
        final_lr: what share of ``lr`` is left at the end.
        momentum: of SGD; beta1 of AdamW.
        weight_decay: of convolution weights; biases, norms and quantizer ranges have none.
        warmup: epochs over which rates and momentum reach their values; at most a fifth of the training.
        warmup_bias: what multiple of the rate biases begin the warm-up with; 0: at none, as weights do. Those of a new
            head have far to go, but a network that has learned already loses much of it to such a kick. None: 10 where
            anything begins at random, otherwise 0.
        optimizer: ``"sgd"`` (Nesterov) or ``"adamw"``.
        clip: the norm of the gradient is cut to this.
        accumulate: steps whose gradients are added up before the weights change.
        patience: stop after so many epochs without a better score; 0 never stops.
        ema_decay, ema_tau: see :class:`~ovyolo.train.averaging.WeightAverage`. Without a tau, a fifth of the training's
            steps, at most 2000: however short it is, some 150 steps are averaged at its end.
        freeze_norm: keep the statistics of batch norms.
        close_mosaic: the last epochs go without mosaics, so that the network ends on pictures as they are.
        validate_every: epochs between two validations; the last one is always followed by one.
        anchors: ``"auto"`` fits them to the objects where they reach less than 98 % of them, ``"fit"`` always,
            ``"keep"`` never.
        activation: put in the place of dearer activations before the training: ``"hardswish"`` or ``"relu"``, see
            :func:`~ovyolo.train.activation.with_activation`; ``"keep"`` leaves them.
        levels: ``"p2-p5"`` or ``"p2-p4"`` also finds objects on cells of 4 pixels, see
            :func:`~ovyolo.train.finer.with_finer_level`; ``"keep"`` leaves the levels as they are.
        seed: of weights, order and augmentation.
        precision: what convolutions compute in: ``"f32"``, ``"bf16"``, ``"f16"`` (GPUs only), or ``"auto"``: bf16
            where the processor has instructions for it. Weights and the loss are always FP32.
        workers: threads that prepare pictures.
        loss: weights of its parts.
        augment: how pictures are varied.

    Raises:
        DimensionError: an argument is out of range.
    """

    epochs: int = 100
    batch: int = 16
    imgsz: tuple[int, int] = (640, 640)
    lr: float = 0.01
    final_lr: float = 0.01
    momentum: float = 0.937
    weight_decay: float = 5e-4
    warmup: float = 3.0
    warmup_bias: float | None = None
    optimizer: str = "sgd"
    clip: float = 10.0
    accumulate: int = 1
    patience: int = 50
    ema_decay: float = 0.9999
    ema_tau: float | None = None
    freeze_norm: bool = False
    close_mosaic: int = 0
    validate_every: int = 1
    anchors: str = "auto"
    activation: str = "keep"
    levels: str = "keep"
    seed: int = 0
    precision: str = "auto"
    workers: int = 2
    loss: LossSettings = field(default_factory=LossSettings)
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "validate_every", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number from 1")
        for name in ("patience", "seed", "close_mosaic"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a whole number from 0")
        for name in ("lr", "clip"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a number above 0")
        for name in ("final_lr", "momentum", "ema_decay"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")
        for name in ("weight_decay", "warmup", "warmup_bias"):
            if getattr(self, name) is not None:
                require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a number from 0")
        choices = {
            "optimizer": OPTIMIZERS, "precision": PRECISIONS, "anchors": ANCHORS, "activation": ACTIVATIONS,
            "levels": LEVELS,
        }  # fmt: skip
        for name, known in choices.items():
            require(getattr(self, name) in known, name, repr(getattr(self, name)), f"one of {', '.join(known)}")
        require(min(self.imgsz) >= 1, "imgsz", self.imgsz, "a size in pixels")

    def to_json(self) -> str:
        """As text that :meth:`from_json` reads."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainSettings:
        """Read what :meth:`to_json` wrote.

        Raises:
            TrainingError: it is something else.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            return cls(**{
                **data, "imgsz": tuple(data["imgsz"]), "loss": LossSettings(**data["loss"]),
                "augment": Augment(**data["augment"]),
            })  # fmt: skip
        except (ValueError, TypeError, KeyError) as error:
            raise TrainingError(f"the settings of the training are not what this ovyolo writes ({error!r})") from error


def rates(settings: TrainSettings, step: int, steps_per_epoch: int) -> tuple[float, float, float]:
    """Learning rate, learning rate of biases, and momentum at a step counted from 0: a function of the step alone, so
    that a resumed training goes on as if nothing had happened.

    Half a cosine wave from 1 to ``final_lr`` (arXiv:1608.03983), after a linear warm-up in which biases come from
    ``warmup_bias`` times the rate instead.
    """
    total = settings.epochs * steps_per_epoch
    warm = min(settings.warmup * steps_per_epoch, total / 5)
    share = settings.final_lr + (1 - settings.final_lr) * (1 + math.cos(math.pi * step / total)) / 2
    rate = settings.lr * share
    if step >= warm:
        return rate, rate, settings.momentum
    done = step / warm
    momentum = settings.momentum * (0.85 + 0.15 * done)
    kick = KICK if settings.warmup_bias is None else settings.warmup_bias
    return rate * done, rate * (kick + (1 - kick) * done), momentum
