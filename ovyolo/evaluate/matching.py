"""Which box found which object, at one overlap: the ground for precision, recall, confusion and lists of errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.evaluate.predictions import Predictions

__all__ = ["Curves", "Matches", "confidence_curves", "confusion_matrix", "match"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEPS = 1000

FALSE, IGNORED = -1, -2


@dataclass(frozen=True, eq=False)
class Matches:
    """Boxes and objects paired as COCO pairs them, class by class, best score first, at one overlap.

    Objects are counted through the whole data set, in the order of its items; so are boxes, as in ``predictions``.

    Args:
        iou: a box finds an object when their IoU is at least this.
        found: int64 ``(boxes,)``: the object that the box found, -1 when it is false, -2 when it lies in a crowd.
        score_of: float64 ``(objects,)``: the score of the box that found the object, -1 when none did.
        object_image, object_class, object_area, object_crowd: ``(objects,)``.
        object_xyxy: float64 ``(objects, 4)`` in pixels.
        class_blind: float64 ``(boxes,)``: the largest IoU with an object of whatever class.
    """

    iou: float
    found: Ints
    score_of: Floats
    object_image: Ints
    object_class: Ints
    object_area: Floats
    object_crowd: NDArray[np.bool_]
    object_xyxy: Floats
    class_blind: Floats


@dataclass(frozen=True, eq=False)
class Curves:
    """Counts at each confidence threshold ``grid[k]``, for each class: ``(classes, thresholds)``.

    Args:
        grid: float64 ``(thresholds,)``: 0 to 1.
        objects: int64 ``(classes,)``: how many there are to be found.
        boxes: boxes at or above the threshold, those in crowds left out.
        hits: boxes of these that found an object.
    """

    grid: Floats
    objects: Ints
    boxes: Ints
    hits: Ints

    @property
    def precision(self) -> Floats:
        """Hits of boxes; NaN where there are no boxes."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.hits / np.where(self.boxes > 0, self.boxes, np.nan))

    @property
    def recall(self) -> Floats:
        """Hits of objects; NaN for a class without objects."""
        return np.asarray(self.hits / np.where(self.objects > 0, self.objects, np.nan)[:, None])

    @property
    def f1(self) -> Floats:
        """The harmonic mean of both, 2·hits / (boxes + objects); NaN for a class without objects."""
        return np.asarray(2 * self.hits / np.where(self.objects > 0, self.objects + self.boxes.T, np.nan).T)

    def best(self) -> int:
        """The index of the threshold with the highest mean F1 over the classes that have objects."""
        present = self.objects > 0
        return int(np.argmax(self.f1[present].mean(axis=0))) if present.any() else 0


def match(dataset: DataSet, predictions: Predictions, iou: float = 0.5) -> Matches:
    """Pair boxes with objects: in each picture and class, by descending score, each box with the object it overlaps
    most of those still free, if the IoU is at least ``iou``; boxes in a crowd of their class are ignored."""
    items = dataset.items
    counts = np.array([len(item) for item in items], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    empty = np.zeros((0, 4))
    object_xyxy = np.concatenate([empty, *(item.boxes for item in items)])
    object_class = np.concatenate([np.zeros(0, np.int64), *(item.class_id for item in items)]).astype(np.int64)
    object_crowd = np.concatenate([np.zeros(0, np.bool_), *(item.crowd for item in items)])
    object_area = np.concatenate([np.zeros(0), *(item.area for item in items)])
    found = np.full(len(predictions), FALSE, np.int64)
    class_blind = np.zeros(len(predictions))
    score_of = np.full(len(object_class), -1.0)
    bounds = np.searchsorted(predictions.image, np.arange(len(items) + 1))
    xyxy = predictions.xyxy
    for image in range(len(items)):
        low, high, first, last = bounds[image], bounds[image + 1], starts[image], starts[image + 1]
        if low == high or first == last:
            continue
        crowd = object_crowd[first:last]
        overlap = overlaps(xyxy[low:high], object_xyxy[first:last], crowd)
        class_blind[low:high] = np.where(crowd, 0, overlap).max(axis=1)
        overlap[predictions.class_id[low:high, None] != object_class[first:last]] = 0
        overlap[overlap < iou] = 0
        free = ~crowd
        scores = predictions.score[low:high]
        candidates = np.flatnonzero(overlap.any(axis=1))
        for box in candidates[np.argsort(-scores[candidates], kind="stable")]:
            row = overlap[box] * free
            best = int(np.argmax(row))
            if row[best] > 0:
                free[best] = False
                found[low + box] = first + best
                score_of[first + best] = scores[box]
            elif (overlap[box] * crowd).any():
                found[low + box] = IGNORED
    return Matches(
        iou=iou,
        found=found,
        score_of=score_of,
        object_image=np.repeat(np.arange(len(items)), counts).astype(np.int64),
        object_class=object_class,
        object_area=object_area,
        object_crowd=object_crowd,
        object_xyxy=object_xyxy,
        class_blind=class_blind,
    )


def overlaps(boxes: Floats, objects: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """IoU of each box with each object, ``(boxes, objects)``; with a crowd: the part of the box that lies in it."""
    top_left = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    both = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    object_area = (objects[:, 2:] - objects[:, :2]).prod(axis=1)[None]
    whole = np.where(crowd[None], box_area, box_area + object_area - both)
    return np.asarray(np.divide(both, whole, out=np.zeros_like(both), where=whole > 0))


def confidence_curves(matches: Matches, predictions: Predictions, classes: int) -> Curves:
    """Count boxes and hits of each class at thresholds 0, 1/1000, … 1."""
    grid = np.arange(STEPS + 1) / STEPS
    boxes = np.zeros((classes, STEPS + 1), np.int64)
    hits = np.zeros((classes, STEPS + 1), np.int64)
    # the last threshold that the score still reaches
    step = np.clip(np.searchsorted(grid, predictions.score, side="right") - 1, 0, STEPS)
    counted = (matches.found != IGNORED) & (predictions.score >= 0)
    np.add.at(boxes, (predictions.class_id[counted], step[counted]), 1)
    hit = counted & (matches.found >= 0)
    np.add.at(hits, (predictions.class_id[hit], step[hit]), 1)
    objects = np.bincount(matches.object_class[~matches.object_crowd], minlength=classes)
    boxes, hits = (np.cumsum(table[:, ::-1], axis=1)[:, ::-1] for table in (boxes, hits))
    return Curves(grid, objects.astype(np.int64), boxes, hits)


def confusion_matrix(
    matches: Matches, predictions: Predictions, classes: int, confidence: float
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """What objects of each class were taken for, by the boxes at or above ``confidence``.

    An object that a box of its own class found is right. Objects and boxes left over are then paired across classes,
    largest IoU first: wrong class. What is left after that is missed, or false.

    Returns:
        int64 ``(classes + 1, classes + 1)``, row: true class, column: predicted class, the last of each: background;
        int64 ``(objects,)``: the box that took the object for another class, -1 when there is none;
        bool ``(objects,)``: whether it was found, rightly classed.
    """
    shown = predictions.score >= confidence
    right = matches.score_of >= confidence
    right &= matches.score_of >= 0
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(matrix, (matches.object_class[right], matches.object_class[right]), 1)
    taken_by = np.full(len(matches.object_class), -1, np.int64)
    open_boxes = np.flatnonzero(shown & (matches.found == FALSE))
    open_objects = np.flatnonzero(~right & ~matches.object_crowd)
    near = open_boxes[matches.class_blind[open_boxes] >= matches.iou]
    xyxy = predictions.xyxy
    used = np.zeros(len(predictions), np.bool_)
    for image in np.intersect1d(predictions.image[near], matches.object_image[open_objects]):
        boxes = near[predictions.image[near] == image]
        objects = open_objects[matches.object_image[open_objects] == image]
        overlap = overlaps(xyxy[boxes], matches.object_xyxy[objects], np.zeros(len(objects), np.bool_))
        while overlap.size and overlap.max() >= matches.iou:
            box, thing = np.unravel_index(int(np.argmax(overlap)), overlap.shape)
            taken_by[objects[thing]] = boxes[box]
            used[boxes[box]] = True
            overlap[box, :] = overlap[:, thing] = -1
    wrong = np.flatnonzero(taken_by >= 0)
    np.add.at(matrix, (matches.object_class[wrong], predictions.class_id[taken_by[wrong]]), 1)
    missed = open_objects[taken_by[open_objects] < 0]
    np.add.at(matrix[:, classes], matches.object_class[missed], 1)
    np.add.at(matrix[classes], predictions.class_id[open_boxes[~used[open_boxes]]], 1)
    return matrix, taken_by, right
