"""``train``: a data set and a checkpoint (or a size) in, a trained checkpoint out."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovyolo.dataset import DataSet, load_dataset
from ovyolo.errors import CheckpointError, DataError, DimensionError, TrainingError
from ovyolo.io.output import make_folder, replacing
from ovyolo.train.activation import with_activation
from ovyolo.train.anchors import ENOUGH_RECALL, check_anchors, fit_anchors
from ovyolo.train.architecture import ARCHITECTURES, new_network, with_anchors, with_classes
from ovyolo.train.data import TrainingPictures
from ovyolo.train.finer import with_finer_level
from ovyolo.train.loop import Figures, Outcome, Trainer
from ovyolo.train.loss import DetectionLoss
from ovyolo.train.network import Network, load_network, save_network
from ovyolo.train.settings import TrainSettings
from ovyolo.train.team import Team, joined
from ovyolo.train.validate import Validation

__all__ = ["TrainResult", "detection_step", "load_splits", "resume", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a training left.

    Args:
        folder: where everything lies.
        best, last: checkpoints of averaged weights, of the best and of the last epoch.
        figures: of the best epoch, in points of AP.
        outcome: every epoch's figures.
    """

    folder: Path
    best: Path
    last: Path
    figures: Figures
    outcome: Outcome


def load_splits(data: str | Path, *, skip_bad: bool = False) -> tuple[DataSet, DataSet]:
    """The training and validation pictures that a ``data.yaml`` names, checked.

    Raises:
        DataError: a split is missing, empty or without objects, or files have problems.
    """
    if Path(data).suffix.lower() == ".json":
        raise DataError(f"{data} is one split: write a data.yaml whose train and val name the two COCO .json files")
    training = load_dataset(data, "train").checked(skip_bad)
    validation = load_dataset(data, "val").checked(skip_bad)
    for dataset in (training, validation):
        if not dataset.objects:
            raise DataError(f"{dataset} has no labelled objects: there is nothing to learn or to find")
    return training, validation


def begin_network(model: str | Path, names: tuple[str, ...], seed: int, say: Any) -> tuple[Network, bool]:
    """The network to train: a checkpoint's, with a head for these classes, or a new one; and whether it has learned all
    that it is to tell apart."""
    if str(model) in ARCHITECTURES:
        return new_network(str(model), names, seed=seed), False
    path = Path(model)
    if path.suffix.lower() not in (".pt", ".pth"):
        raise CheckpointError(
            f"{model} cannot be trained: give a .pt checkpoint, or one of {', '.join(ARCHITECTURES)} to begin anew"
        )
    network = load_network(path)
    if network.names == names:
        return network, True
    known = sum(name in network.names for name in names)
    say(f"{path} knows other classes: {known} of {len(names)} are kept by name, the others begin at random")
    return with_classes(network, names, seed), False


def suit_anchors(network: Network, dataset: DataSet, settings: TrainSettings, say: Any) -> Network:
    """Fit the network's anchors to the data set where ``settings.anchors`` asks for it, in place."""
    if settings.anchors == "keep":
        return network
    now = network.anchors_in_pixels().tolist()
    report = check_anchors(dataset, now, settings.imgsz)
    say(str(report))
    if settings.anchors == "auto" and report.recall >= ENOUGH_RECALL:
        return network
    fitted = fit_anchors(dataset, settings.imgsz, len(now), len(now[0]), start=now, seed=settings.seed)
    say(f"fitted anew: {check_anchors(dataset, fitted, settings.imgsz)}")
    return with_anchors(network, fitted)


def detection_step(network: Network, settings: TrainSettings) -> Any:
    """The loss of a step, as :class:`~ovyolo.train.loop.Trainer` calls it."""
    loss = DetectionLoss(
        network.anchors_in_pixels().cpu(), network.strides, len(network.names), settings.imgsz, settings.loss
    )
    return lambda heads, targets, x: loss(heads, targets)


def train(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    settings: TrainSettings | None = None,
    *,
    device: str = "auto",
    cache: str = "ram",
    skip_bad: bool = False,
    quiet: bool = True,
    **changes: Any,
) -> TrainResult:
    """Train a detector.

    Args:
        model: a YOLOv5 ``.pt`` or one of ours to go on from, or ``"n"``, ``"s"``, ``"m"``, ``"l"`` or ``"x"`` for
            random weights. A head for other classes is made anew.
        data: a ``data.yaml`` with ``train`` and ``val``.
        output: the folder to write; it must not hold another training.
        settings: how to train; ``changes`` are single settings by name, such as ``epochs=30``.
        device: where PyTorch computes: ``"cpu"``, ``"cuda"``, or ``"auto"``.
        cache: where letterboxed pictures are kept: ``"ram"``, ``"disk"`` or ``"none"``.
        skip_bad: go on without files of the data set that cannot be used.
        quiet: no progress.

    Returns:
        Where ``best.pt`` and ``last.pt`` lie, and what they scored.

    Raises:
        OvyoloError: the checkpoint or the data cannot be used, or the training cannot go on; says why.

    Example:
        >>> from ovyolo.train import train
        >>> result = train("yolov5n.pt", "data.yaml", "runs/boards", epochs=30)  # doctest: +SKIP
        >>> result.best, result.figures["ap50"]  # doctest: +SKIP
        (PosixPath('runs/boards/best.pt'), 93.1)
    """
    chosen = replace(settings or TrainSettings(), **changes)
    folder = Path(output)
    if (folder / "state.pt").exists():
        raise TrainingError(f"{folder} holds a training already: resume it with --resume {folder}, or name another")
    request = {"model": str(model), "data": str(Path(data).absolute()), "skip_bad": skip_bad, "cache": cache}
    if str(model) not in ARCHITECTURES:
        request["model"] = str(Path(model).absolute())
    with joined(device) as team:
        return _train(request, folder, chosen, team, quiet)


def resume(folder: str | Path, *, device: str = "auto", quiet: bool = True) -> TrainResult:
    """Go on with a training that was stopped, to the end that it would have come to.

    Raises:
        TrainingError: there is none in ``folder``, or its state is damaged.
        OvyoloError: as :func:`train`.
    """
    folder = Path(folder)
    try:
        request = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        settings = TrainSettings.from_json(json.dumps(request.pop("settings")))
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{folder} holds no training that could be resumed: {folder / 'training.json'}") from error
    with joined(device) as team:
        return _train(request, folder, settings, team, quiet)


def _train(request: dict[str, Any], folder: Path, settings: TrainSettings, team: Team, quiet: bool) -> TrainResult:
    def say(text: str) -> None:
        if not quiet and team.rank == 0:
            print(text, file=sys.stderr, flush=True)

    import torch

    torch.manual_seed(settings.seed)
    training, validation = load_splits(request["data"], skip_bad=request["skip_bad"])
    if training.names != validation.names:
        raise DataError(f"{request['data']}: its train and val splits name different classes")
    network, learned = begin_network(request["model"], training.names, settings.seed, say)
    if settings.warmup_bias is None and learned and settings.levels == "keep":
        settings = replace(settings, warmup_bias=0.0)
    if settings.levels != "keep":
        network = with_finer_level(network, settings.levels, settings.seed)
    if settings.activation != "keep":
        network = with_activation(network, settings.activation)
    largest = max(network.strides)
    if any(side % largest for side in settings.imgsz):
        raise DimensionError(f"imgsz {settings.imgsz} is not a multiple of the network's largest stride {largest}")
    suit_anchors(network, training, settings, say)
    make_folder(folder)
    if team.rank == 0:
        with replacing(folder / "training.json") as part:
            told = {**request, "settings": json.loads(settings.to_json())}
            part.write_text(json.dumps(told, indent=1), encoding="utf-8")
    judge = Validation(validation, network, settings.imgsz, skip_bad=request["skip_bad"])
    trainer = Trainer(
        network,
        TrainingPictures(training, settings.imgsz, settings.augment, settings.seed, request["cache"]),
        detection_step(network, settings),
        settings,
        folder,
        judge=judge,
        save=lambda module, path, figures: save_network(module, path, figures=json.dumps(figures)),
        team=team,
        quiet=quiet,
    )  # fmt: skip
    if trainer.resume():
        say(f"going on from {trainer.state_path}: {len(trainer.outcome.history)} of {settings.epochs} epochs are done")
    say(f"{len(training)} pictures to train on, {len(validation)} to validate with, on {team.device}")
    outcome = trainer.run()
    return TrainResult(folder, folder / "best.pt", folder / "last.pt", outcome.best, outcome)
