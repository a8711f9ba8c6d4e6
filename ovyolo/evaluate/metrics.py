"""COCO's metrics (Lin et al., "Microsoft COCO", 2014), computed by faster-coco-eval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.errors import DataError, DimensionError, OvyoloError
from ovyolo.evaluate.matching import FALSE, Curves, Matches, confidence_curves, confusion_matrix, match
from ovyolo.evaluate.predictions import Predictions
from ovyolo.evaluate.scores import ClassScores, Detail, Scores

__all__ = ["coco_evaluation", "evaluator", "score"]

FIGURES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
SURE = 0.25
MOST_BOXES = 100
_truths: WeakKeyDictionary[DataSet, tuple[Any, NDArray[np.int64]]] = WeakKeyDictionary()


def score(
    dataset: DataSet,
    predictions: Predictions,
    *,
    at_conf: float | None = None,
    match_iou: float = 0.5,
    detail: bool = True,
) -> Scores:
    """Judge predictions by COCO's rules.

    Args:
        dataset: the truth. What is prepared of it is kept, so that judging again is faster.
        predictions: boxes for its pictures.
        at_conf: the confidence for precision, recall, F1 and the confusion matrix; by default where the mean F1 over
            classes is highest.
        match_iou: from which IoU a box has found an object, for the same.
        detail: work out precision, recall, F1 and the confusion matrix; without it only COCO's figures, by class, too.

    Raises:
        OvyoloError: faster-coco-eval is not installed.
        DataError: the data set has no pictures.
        DimensionError: an argument is out of range.

    Example:
        >>> from ovyolo.evaluate import read_predictions, score
        >>> from ovyolo.dataset import load_dataset
        >>> data = load_dataset("data.yaml")  # doctest: +SKIP
        >>> score(data, read_predictions("other-tool.json", data)).ap50  # doctest: +SKIP
        0.523
    """
    if at_conf is not None and not 0 <= at_conf <= 1:
        raise DimensionError(f"at_conf is {at_conf}; it takes a number from 0 to 1")
    if not 0 < match_iou <= 1:
        raise DimensionError(f"match_iou is {match_iou}; it takes a number above 0, to 1")
    if not len(dataset):
        raise DataError(f"{dataset} has no pictures to judge by")
    evaluation = coco_evaluation(dataset, predictions)
    common: dict[str, Any] = {
        name: math.nan if value < 0 else float(value)
        for name, value in zip(FIGURES, evaluation.stats, strict=False)
    }  # fmt: skip
    # [IoU, recall, class, size, boxes]; -1 where a class has no objects
    precision = evaluation.eval["precision"][:, :, :, 0, -1].astype(np.float64)
    precision[precision < 0] = math.nan
    made = {"data": str(dataset), **predictions.made}
    notes = [*dataset.notes, *predictions.notes]
    common |= {"pictures": len(dataset), "objects": dataset.objects, "boxes": len(predictions), "made": made}
    if crowded := sum(
        np.bincount(item.class_id[~item.crowd], minlength=1).max() > MOST_BOXES for item in dataset.items
    ):
        notes.append(
            f"{crowded} picture(s) have more than {MOST_BOXES} objects of a class, and COCO's figures count no more "
            "boxes than that a class and picture: AP cannot reach 1"
        )
    if not dataset.objects:
        notes.append("no object is labelled in these pictures, so that nothing can be found: AP is not known")
    if not detail:
        classes = _classes(dataset, precision, None)
        return Scores(**common, classes=classes, notes=tuple(notes))

    matches = match(dataset, predictions, match_iou)
    curves = confidence_curves(matches, predictions, len(dataset.names))
    # a chosen confidence is counted exactly, not at the nearest step
    step = curves.best() if at_conf is None else 0
    confidence = float(curves.grid[step]) if at_conf is None else at_conf
    point = _at(curves, step) if at_conf is None else _at_exactly(matches, predictions, curves, at_conf)
    matrix, taken_by, right = confusion_matrix(matches, predictions, len(dataset.names), confidence)
    notes += _doubts(matches, predictions)
    present = point.objects > 0
    hits = int(point.hits[present].sum())
    return Scores(
        **common,
        confidence=confidence,
        confidence_chosen=at_conf is not None,
        match_iou=match_iou,
        precision=_mean(point.precision[present, 0]),
        recall=_mean(point.recall[present, 0]),
        f1=_mean(point.f1[present, 0]),
        hits=hits,
        false=int(point.boxes.sum()) - hits,
        missed=int(point.objects.sum()) - hits,
        classes=_classes(dataset, precision, point),
        notes=tuple(notes),
        detail=Detail(matches, curves, precision[0], matrix, taken_by, right),
    )


def evaluator() -> Any:
    """faster-coco-eval.

    Raises:
        OvyoloError: it is not installed; says how to install it.
    """
    try:
        return import_module("faster_coco_eval")
    except ImportError as error:
        raise OvyoloError(
            f"judging needs faster-coco-eval ({error}): install it with `pip install 'ovyolo[val]'`"
        ) from error


def _silent(*_: object) -> None:
    """Takes the place of the evaluator's prints."""


def _truth(dataset: DataSet) -> tuple[Any, NDArray[np.int64]]:
    """The data set as faster-coco-eval takes it, kept as long as the data set lives; and each picture's number in it.

    Pictures are numbered in the order of their ids, so that equal scores are ranked as COCO's own tools rank them.
    """
    if dataset in _truths:
        return _truths[dataset]
    ids = [item.image_id for item in dataset.items]
    order = np.argsort(np.array(ids)) if all(isinstance(one, int) for one in ids) else np.arange(len(ids))
    number = np.empty(len(ids), np.int64)
    number[order] = np.arange(1, len(ids) + 1)
    annotations: list[dict[str, Any]] = []
    for picture, item in zip(number.tolist(), dataset.items, strict=True):
        xywh = np.concatenate([item.boxes[:, :2], item.boxes[:, 2:] - item.boxes[:, :2]], axis=1).tolist()
        for box, class_id, crowd, area in zip(
            xywh, item.class_id.tolist(), item.crowd.tolist(), item.area.tolist(), strict=True
        ):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": picture, "category_id": class_id, "bbox": box, "area": area,
                 "iscrowd": int(crowd)}
            )  # fmt: skip
    truth = evaluator().COCO(
        {
            "images": [
                {"id": picture, "height": item.size[0], "width": item.size[1]}
                for picture, item in zip(number.tolist(), dataset.items, strict=True)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.names)],
            "annotations": annotations,
        },
        print_function=_silent,
    )
    _truths[dataset] = truth, number
    return truth, number


def coco_evaluation(
    dataset: DataSet,
    predictions: Predictions,
    *,
    area_scale: NDArray[np.float64] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> Any:
    """Run COCO's evaluation; returns the evaluator with ``eval``, and ``stats`` where ``ranges`` are COCO's.

    Args:
        dataset: the truth.
        predictions: boxes for its pictures.
        area_scale: for each picture a factor for the areas of its boxes, where those of its labels have one.
        ranges: of areas, to be judged after the range of all; by default COCO's small, medium and large.
    """
    library = evaluator()
    truth, number = _truth(dataset)
    area = predictions.xywh[:, 2] * predictions.xywh[:, 3]
    if area_scale is not None:
        area = area * area_scale[predictions.image]
    found = library.COCO(print_function=_silent)
    found.dataset = {
        "images": truth.dataset["images"],
        "categories": truth.dataset["categories"],
        "annotations": [
            {"id": row, "image_id": picture, "category_id": class_id, "bbox": box, "score": confidence, "area": size,
             "iscrowd": 0}
            for row, (picture, class_id, box, confidence, size) in enumerate(
                zip(
                    number[predictions.image].tolist(), predictions.class_id.tolist(), predictions.xywh.tolist(),
                    predictions.score.tolist(), area.tolist(), strict=True,
                ),
                1,
            )
        ],
    }  # fmt: skip
    found.createIndex()
    evaluation = library.COCOeval_faster(truth, found, iouType="bbox", print_function=_silent)
    if ranges is not None:
        evaluation.params.areaRng = [[0.0, 1e10], *map(list, ranges)]
        evaluation.params.areaRngLbl = ["all", *map(str, range(len(ranges)))]
    evaluation.evaluate()
    evaluation.accumulate()
    if ranges is None:
        evaluation.summarize()
    return evaluation


def _at(curves: Curves, step: int) -> Curves:
    """The curves' counts at one threshold."""
    one = slice(step, step + 1)
    return Curves(curves.grid[one], curves.objects, curves.boxes[:, one], curves.hits[:, one])


def _at_exactly(matches: Matches, predictions: Predictions, curves: Curves, confidence: float) -> Curves:
    """Counts at a threshold that need not be on the grid."""
    classes = len(curves.objects)
    shown = (predictions.score >= confidence) & (matches.found >= FALSE)
    boxes = np.bincount(predictions.class_id[shown], minlength=classes)
    hits = np.bincount(predictions.class_id[shown & (matches.found >= 0)], minlength=classes)
    return Curves(np.array([confidence]), curves.objects, boxes[:, None], hits[:, None])


def _classes(dataset: DataSet, precision: NDArray[np.float64], point: Curves | None) -> tuple[ClassScores, ...]:
    """The figures of each class."""
    count = len(dataset.names)
    labels = [item.class_id[~item.crowd] for item in dataset.items]
    objects = np.bincount(np.concatenate([np.zeros(0, np.int32), *labels]), minlength=count).tolist()
    pictures = np.bincount(np.concatenate([np.zeros(0, np.int32), *map(np.unique, labels)]), minlength=count).tolist()
    ap, ap50 = precision.mean(axis=(0, 1)).tolist(), precision[0].mean(axis=0).tolist()
    unknown = [math.nan] * count
    if point is None:
        p = r = f1 = unknown
    else:
        p, r, f1 = (values[:, 0].tolist() for values in (point.precision, point.recall, point.f1))
    return tuple(map(ClassScores, dataset.names, pictures, objects, ap, ap50, p, r, f1))


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is known."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _doubts(matches: Matches, predictions: Predictions) -> list[str]:
    """Signs that numbers mean something else than was assumed: of classes, or of pictures."""
    sure = predictions.score >= SURE
    if sure.sum() < 50 or len(matches.object_class) < 50:
        return []
    on_object = sure & (matches.class_blind >= matches.iou)
    right = sure & (matches.found >= 0)
    share = f"at confidence {SURE:g}"
    if on_object.sum() < 0.05 * sure.sum():
        return [
            f"CAUTION: {share} only {on_object.sum()} of {sure.sum()} boxes lie on any object: "
            "the predictions may be of other pictures, or their coordinates of another size"
        ]
    if right.sum() < 0.3 * on_object.sum():
        return [
            f"CAUTION: {share} {on_object.sum()} boxes lie on an object, but only {right.sum()} name its class: "
            "the class numbers of model or predictions may not be those of the data set"
        ]
    return []
