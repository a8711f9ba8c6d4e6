"""``evaluate``: a model and a data set in, scores out; and its two halves."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.core import shared_core
from ovyolo.dataset import DataSet, Problem, load_dataset
from ovyolo.errors import DataError, DimensionError, OvyoloWarning
from ovyolo.evaluate.inference import SLOTS, Pictures, predict, predict_rect
from ovyolo.evaluate.metrics import evaluator, score
from ovyolo.evaluate.predictions import Predictions
from ovyolo.evaluate.scores import Scores
from ovyolo.evaluate.sizes import SizeEdges, score_by_size
from ovyolo.evaluate.tiled import predict_tiled
from ovyolo.tiling import TileSettings

__all__ = ["Judged", "class_mapping", "evaluate", "predict_dataset"]


class Judged(NamedTuple):
    """Predictions, and the data set that they are for: without the pictures that could not be read."""

    dataset: DataSet
    predictions: Predictions


def class_mapping(card: Card, dataset: DataSet, model: str = "the model") -> tuple[NDArray[np.int64] | None, str]:
    """How the model's classes become the data set's: index by index, None where they are the same; and what to say.

    By place where there are as many. By name where both have the same names in another order, and where a COCO JSON
    has some of the model's classes only (-1 marks those that it has not).

    Raises:
        DataError: the numbers of classes differ.
    """
    ours, theirs = card.names, dataset.names
    if ours == theirs:
        return None, ""
    unique = len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
    fewer = len(theirs) < len(ours)
    if unique and set(theirs) <= set(ours) and (not fewer or dataset.coco):
        place = {name: index for index, name in enumerate(theirs)}
        mapping = np.array([place.get(name, -1) for name in ours], np.int64)
        said = f"; boxes of the {len(ours) - len(theirs)} other classes of {model} do not count" if fewer else ""
        return mapping, f"classes were matched by name, not by number{said}"
    if len(ours) != len(theirs):
        raise DataError(
            f"{dataset.source} has {len(theirs)} classes ({_some(theirs)}), but {model} tells {len(ours)} apart "
            f"({_some(ours)}): use the data.yaml that it was trained with"
        )
    first = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    return None, (
        f"class names differ, classes were matched by number: class {first} is {ours[first]!r} in {model} "
        f"and {theirs[first]!r} in the data set"
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def predict_dataset(
    model: str | Path,
    dataset: DataSet,
    *,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    imgsz: int | tuple[int, ...] | None = None,
    device: str = "CPU",
    rect: bool = False,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    skip_bad: bool = False,
    quiet: bool = True,
    **tiles: Any,
) -> Judged:
    """Run a model file over a data set; arguments as for :func:`evaluate`.

    Raises:
        DimensionError: an argument is out of range, or ``rect`` was asked for with tiles.
        DataError: the classes of the two do not fit together, or (with ``skip_bad``) no picture could be read.
        OvyoloError: as :func:`predict`.
    """

    from ovyolo.detector import model_file
    from ovyolo.devices import open_device
    from ovyolo.runtime import read_model

    path, cache = Path(model), Path(cache_dir) if cache_dir is not None else None
    if rect and tiles:
        raise DimensionError("rect is for pictures as a whole: leave it out with tiles")
    settings = TileSettings(**tiles) if tiles else None
    if rect:
        side = _rect_side(path, imgsz)
        card = read_model(model_file(path, side, cache), shared_core())[1]
        mapping, note = class_mapping(card, dataset, path.name)
        predictions = predict_rect(
            path, card, dataset, imgsz=side, device=device, precision=precision, threads=threads, cache_dir=cache,
            skip_bad=skip_bad, quiet=quiet, conf=conf, iou=iou, max_det=max_det,
        )  # fmt: skip
    else:
        session, card = open_device(
            model_file(path, imgsz, cache), device, precision=precision, slots=SLOTS, threads=threads, cache_dir=cache
        )
        with closing(session):
            mapping, note = class_mapping(card, dataset, path.name)
            if settings is None:
                predictions = predict(
                    session, card, Pictures(dataset, card.imgsz), conf=conf, iou=iou, max_det=max_det,
                    skip_bad=skip_bad, quiet=quiet,
                )  # fmt: skip
            else:
                predictions = predict_tiled(
                    session, card, dataset, settings, conf=conf, iou=iou, max_det=max_det,
                    skip_bad=skip_bad, quiet=quiet,
                )  # fmt: skip
    if mapping is not None:
        predictions = predictions.classes_as(mapping)
    failed = [Problem(dataset.items[index].path, why) for index, why in predictions.failed.items()]
    left, predictions = predictions.without_failed(dataset)
    if failed:
        left = replace(left, problems=(*left.problems, *failed)).checked(skip_bad=True)
    made = {"model": path.name, **predictions.made, "precision": card.precision}
    made |= {"computed in": precision} if precision else {}
    return Judged(left, replace(predictions, made=made, notes=(*predictions.notes, *([note] if note else []))))


def _rect_side(model: Path, imgsz: int | tuple[int, ...] | None) -> int:
    """The length of the longer side for ``rect``.

    Raises:
        DimensionError: ``imgsz`` is not one number, or the model has a fixed input size.
    """
    if model.suffix.lower() not in (".pt", ".pth"):
        raise DimensionError(
            f"the input size of {model} is fixed: --rect needs the .pt checkpoint that it was made from"
        )
    sides = {imgsz} if isinstance(imgsz, int) else set(imgsz or (640,))
    if len(sides) != 1:
        raise DimensionError(f"imgsz is {imgsz}: with --rect it takes one number, the length of the longer side")
    return sides.pop()


def evaluate(
    model: str | Path,
    data: str | Path | DataSet,
    *,
    split: str = "val",
    images: str | Path | None = None,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    imgsz: int | tuple[int, ...] | None = None,
    device: str = "CPU",
    rect: bool = False,
    precision: str | None = None,
    at_conf: float | None = None,
    match_iou: float = 0.5,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    skip_bad: bool = False,
    quiet: bool = True,
    sizes: SizeEdges | None = None,
    **tiles: Any,
) -> Scores:
    """Measure a model on a labelled data set by COCO's metrics.

    The defaults are the setting at which YOLO models are compared: square letterbox, confidence 0.001, IoU 0.6, every
    class above the threshold makes a box, at most 300 boxes a picture. Predictions that were made elsewhere are
    judged with :func:`~ovyolo.evaluate.read_predictions` and :func:`~ovyolo.evaluate.score`.

    Args:
        model: an ``.xml`` that ovyolo made, or a ``.pt`` or ``.onnx``, which is exported to a cache first.
        data: a ``data.yaml``, a COCO ``.json``, or a data set read before.
        split: which part of a ``data.yaml``.
        images: the folder of a COCO JSON's pictures; by default it is looked for.
        conf: boxes need more confidence than this, 0 to 1.
        iou: of two boxes of a class that overlap by more than this, the better one stays, 0 to 1.
        max_det: at most so many boxes a picture.
        imgsz: input size for a model that is exported first.
        device: where to compute, as OpenVINO names it.
        precision: what to compute in: ``"f32"``, ``"bf16"`` or ``"f16"``; by default 32 bits on a CPU.
        rect: give each picture the smallest input that holds it, a model a shape; needs a ``.pt``.
        at_conf: the confidence for precision, recall, F1 and the confusion matrix; by default where mean F1 is highest.
        match_iou: the IoU from which a box has found an object, for the same.
        threads: CPU threads; by default OpenVINO decides.
        cache_dir: keep compiled and exported models here.
        skip_bad: go on without pictures and labels that cannot be used; a warning says how many.
        quiet: no progress bar.
        sizes: buckets of object size to be judged by themselves.
        tiles: ``tile``, and with it ``overlap``, ``full`` and so on: cut pictures into tiles; see
            :class:`~ovyolo.tiling.TileSettings`.

    Raises:
        DataError: files of the data set cannot be used (how many, and the first ten), or its classes are not those
            of the model.
        OvyoloError: the model cannot be read or run, or an argument is out of range.

    Example:
        >>> from ovyolo.evaluate import evaluate
        >>> scores = evaluate("best.xml", "data.yaml")  # doctest: +SKIP
        >>> scores.ap50, scores.classes[0].name  # doctest: +SKIP
        (0.523, 'person')
        >>> print(scores.table())  # doctest: +SKIP
    """
    evaluator()
    dataset = data if isinstance(data, DataSet) else load_dataset(data, split, images=images)
    dataset.checked(skip_bad)
    judged = predict_dataset(
        model, dataset, conf=conf, iou=iou, max_det=max_det, imgsz=imgsz, device=device, rect=rect,
        precision=precision, threads=threads, cache_dir=cache_dir, skip_bad=skip_bad, quiet=quiet, **tiles,
    )  # fmt: skip
    if problems := judged.dataset.problems:
        warnings.warn(
            f"{len(problems)} file(s) of {dataset} were left out; the first is {problems[0]}",
            OvyoloWarning,
            stacklevel=2,
        )
    scores = score(*judged, at_conf=at_conf, match_iou=match_iou)
    return scores if sizes is None else score_by_size(scores, *judged, sizes)
