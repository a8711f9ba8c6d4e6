"""Pictures for a page, each a JPEG with its boxes beside it as numbers; and those with the most errors."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ovyolo.dataset import DataSet
from ovyolo.errors import ImageError
from ovyolo.evaluate.matching import Matches
from ovyolo.evaluate.predictions import Predictions
from ovyolo.evaluate.scores import Detail, Scores

__all__ = ["Mark", "MarkedPicture", "marked", "object_box", "worst_pictures"]

LONGEST_SIDE = 800
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Mark:
    """A box on a picture, in its pixels; ``kind`` is ``right``, ``missed``, ``false``, ``wrong``, ``lost``, ``gained``
    or ``kept``."""

    kind: str
    label: str
    x: float
    y: float
    width: float
    height: float

    @property
    def plain(self) -> bool:
        """Whether nothing is wrong with it, so that it is drawn thin and without its label."""
        return self.kind in ("right", "kept")


@dataclass(frozen=True)
class MarkedPicture:
    """A picture for a page.

    Args:
        name: its file name.
        data: the JPEG as a ``data:`` address.
        width, height: of the source picture in pixels, in which the marks are.
        marks: boxes, those that say most last, on top.
    """

    name: str
    data: str
    width: int
    height: int
    marks: tuple[Mark, ...]

    def count(self, kind: str) -> int:
        """How many marks are of a kind."""
        return sum(mark.kind == kind for mark in self.marks)

    @property
    def labelled(self) -> int:
        """How many marks have their label beside them."""
        return sum(not mark.plain for mark in self.marks)


def worst_pictures(
    dataset: DataSet, predictions: Predictions, scores: Scores, detail: Detail, most: int
) -> list[MarkedPicture]:
    """The ``most`` pictures with the most missed, false and wrongly classed boxes at the working confidence."""
    matches = detail.matches
    count = len(dataset)
    wrong = detail.taken_by >= 0
    missed = ~detail.right & ~wrong & ~matches.object_crowd
    false = (predictions.score >= scores.confidence) & (matches.found == -1)
    false[detail.taken_by[wrong]] = False
    errors = np.bincount(matches.object_image[missed | wrong], minlength=count)
    errors += np.bincount(predictions.image[false], minlength=count)
    order = np.argsort(-errors, kind="stable")
    chosen = [int(i) for i in order[:most] if errors[i]]
    pictures = []
    for index in chosen:
        objects = np.flatnonzero(matches.object_image == index).tolist()
        boxes = np.flatnonzero(predictions.image == index).tolist()
        marks = [
            *_marks("right", [o for o in objects if detail.right[o]], dataset, predictions, detail),
            *_marks("missed", [o for o in objects if missed[o]], dataset, predictions, detail),
            *_marks("wrong", [o for o in objects if wrong[o]], dataset, predictions, detail),
            *_marks("false", [b for b in boxes if false[b]], dataset, predictions, detail),
        ]
        if (picture := marked(dataset, index, marks)) is not None:
            pictures.append(picture)
    return pictures


def marked(
    dataset: DataSet, index: int, marks: Iterable[Mark], longest_side: int = LONGEST_SIDE
) -> MarkedPicture | None:
    """Picture ``index`` with ``marks``, shrunk to ``longest_side``; None when it cannot be read any more."""
    if (data := _jpeg(dataset, index, longest_side)) is None:
        return None
    height, width = dataset.items[index].size
    return MarkedPicture(dataset.items[index].path.name, data, width, height, tuple(marks))


def _marks(kind: str, indices: Iterable[int], dataset: DataSet, predictions: Predictions, detail: Detail) -> list[Mark]:
    """Boxes of a kind: for false ones the predictions, else the labelled objects."""
    marks = []
    for index in indices:
        if kind == "false":
            x, y, width, height = predictions.xywh[index].tolist()
            label = f"{dataset.names[predictions.class_id[index]]} {predictions.score[index]:.2f}"
        else:
            x, y, width, height = object_box(detail.matches, index)
            label = dataset.names[detail.matches.object_class[index]]
            if kind == "wrong":
                box = detail.taken_by[index]
                label += f" → {dataset.names[predictions.class_id[box]]} {predictions.score[box]:.2f}"
        marks.append(Mark(kind, label, round(x, 1), round(y, 1), round(width, 1), round(height, 1)))
    return marks


def object_box(matches: Matches, index: int) -> tuple[float, float, float, float]:
    """A labelled object's left, top, width and height."""
    left, top, right, bottom = matches.object_xyxy[index].tolist()
    return left, top, right - left, bottom - top


def _jpeg(dataset: DataSet, index: int, longest_side: int) -> str | None:
    """The picture as a ``data:`` address, shrunk to what a report can show; None when it cannot be read any more."""
    import cv2

    from ovyolo.io.images import read_image

    try:
        image = read_image(dataset.items[index].path)
    except ImageError:
        return None
    scale = longest_side / max(image.shape[:2])
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}" if done else None
