"""Boxes for every picture of a data set as one table, and COCO-format predictions to and from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.detections import Detections
from ovyolo.errors import DataError, DimensionError

__all__ = ["ID_SCHEMES", "Predictions", "read_predictions", "write_predictions"]

ID_SCHEMES = ("dataset", "zero-based", "one-based", "coco91")
# the numbers that COCO's 2017 annotations leave out of 1..90
COCO91_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO91 = tuple(number for number in range(1, 91) if number not in COCO91_GAPS)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Boxes for the pictures of a data set, a row each.

    Args:
        image: int64 ``(n,)``: index of the picture in the data set's ``items``, ascending.
        xywh: float64 ``(n, 4)``: left, top, width, height in pixels of the picture (COCO's form).
        score: float64 ``(n,)``.
        class_id: int64 ``(n,)``: index into the data set's ``names``.
        made: how they came about: model, device, conf, iou, max_det, imgsz, or the file they were read from.
        notes: sentences that whoever reads the scores should know.
        failed: pictures that could not be read while predicting, by index, and why.
    """

    image: NDArray[np.int64]
    xywh: NDArray[np.float64]
    score: NDArray[np.float64]
    class_id: NDArray[np.int64]
    made: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)

    @property
    def xyxy(self) -> NDArray[np.float64]:
        """float64 ``(n, 4)``: left, top, right, bottom in pixels."""
        return np.concatenate([self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]], axis=1)

    @classmethod
    def from_detections(cls, found: Sequence[Detections], **made: Any) -> Predictions:
        """The boxes of one :class:`~ovyolo.Detections` a picture, in the order of the data set.

        Example:
            >>> a = Detections.from_arrays([[1, 2, 4, 8]], [0.5], [0])
            >>> Predictions.from_detections([a, a]).image.tolist()
            [0, 1]
        """
        image = np.repeat(np.arange(len(found)), [len(one) for one in found])
        xyxy = np.concatenate([np.zeros((0, 4)), *(one.xyxy for one in found)]).astype(np.float64)
        return cls(
            image=image.astype(np.int64),
            xywh=np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1),
            score=np.concatenate([np.zeros(0), *(one.confidence for one in found)]).astype(np.float64),
            class_id=np.concatenate([np.zeros(0, np.int64), *(one.class_id for one in found)]).astype(np.int64),
            made=made,
        )

    def take(self, rows: NDArray[Any]) -> Predictions:
        """Only these rows: an index array in ascending order, or a mask."""
        return replace(
            self, image=self.image[rows], xywh=self.xywh[rows], score=self.score[rows], class_id=self.class_id[rows]
        )

    def classes_as(self, mapping: NDArray[np.int64]) -> Predictions:
        """With class ``i`` renumbered ``mapping[i]``; those that become -1 are dropped."""
        moved = replace(self, class_id=mapping[self.class_id])
        return moved.take(moved.class_id >= 0)

    def without_failed(self, dataset: DataSet) -> tuple[DataSet, Predictions]:
        """The data set and the predictions without the pictures that could not be read."""
        if not self.failed:
            return dataset, self
        good = [i for i in range(len(dataset)) if i not in self.failed]
        renumber = np.full(len(dataset), -1, np.int64)
        renumber[good] = np.arange(len(good))
        return dataset.subset(good), replace(self, image=renumber[self.image], failed={})


def write_predictions(path: str | Path, dataset: DataSet, predictions: Predictions) -> Path:
    """Write COCO-format predictions: a JSON list of ``image_id``, ``category_id``, ``bbox``, ``score``.

    ``image_id`` and ``category_id`` are the data set's own: those of its COCO JSON, or the number that is a picture's
    file name (else the name itself) and the class number.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    ids = [item.image_id for item in dataset.items]
    rows = [
        {"image_id": ids[image], "category_id": dataset.category_ids[class_id], "bbox": box, "score": score}
        for image, class_id, box, score in zip(
            predictions.image.tolist(), predictions.class_id.tolist(), predictions.xywh.round(4).tolist(),
            predictions.score.round(6).tolist(), strict=True,
        )
    ]  # fmt: skip
    write_text(path, json.dumps(rows, ensure_ascii=False))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be written ({reason}): name another file") from error


def read_predictions(
    path: str | Path, dataset: DataSet, *, ids: str = "dataset", skip_bad: bool = False
) -> Predictions:
    """Read COCO-format predictions of any tool for the pictures of ``dataset``.

    Nothing is guessed: a class or picture number that the chosen scheme does not have is an error that names the
    schemes that would fit.

    Args:
        path: a JSON list of objects with ``image_id`` (the data set's number, or the picture's file name with or
            without suffix), ``category_id``, ``bbox`` as left, top, width, height in pixels, and ``score``.
        dataset: what they are for.
        ids: what ``category_id`` counts: ``dataset`` the data set's own numbers, ``zero-based`` or ``one-based`` the
            place of the class in its list of names, ``coco91`` COCO's numbers with gaps for its 80 classes.
        skip_bad: leave out predictions for pictures that the data set does not have.

    Raises:
        DataError: the file is missing, malformed, or not for this data set.
    """
    path = Path(path)
    if ids not in ID_SCHEMES:
        raise DimensionError(f"ids is {ids!r}; it takes one of {', '.join(ID_SCHEMES)}")
    rows = _load(path)
    class_id = _classes(np.array([row["category_id"] for row in rows], np.int64), dataset, ids, path)
    image, unknown = _pictures([row["image_id"] for row in rows], dataset)
    notes = [_scheme_note(class_id, dataset, ids)] if len(rows) else []
    if unknown.any():
        first = rows[int(np.argmax(unknown))]["image_id"]
        what = f"{int(unknown.sum())} of the {len(rows)} predictions are for pictures that {dataset} does not have"
        if not skip_bad:
            raise DataError(
                f"{path}: {what} (the first is image_id {first!r}): check that it belongs to this data set and split, "
                "or leave them out with --skip-bad"
            )
        notes.append(f"{what} and were left out")
    predictions = Predictions(
        image=image,
        xywh=np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        score=np.array([row["score"] for row in rows], np.float64),
        class_id=class_id,
        made={"predictions": path.name},
        notes=tuple(notes),
    )
    # stable, so that equal scores stay in the file's order, as other evaluators take them
    return predictions.take(np.argsort(image, kind="stable")[int(unknown.sum()) :])


def _load(path: Path) -> list[dict[str, Any]]:
    """The rows of the file, each checked."""
    if not path.is_file():
        raise DataError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give a .json of predictions")
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): is it whole?") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no predictions: it must be a list of image_id, category_id, bbox, score")
    for index, row in enumerate(rows):
        if problem := _row_problem(row):
            raise DataError(f"{path}: prediction {index} {problem}")
    return rows


def _row_problem(row: Any) -> str:
    """What is wrong with a prediction; empty when nothing is."""
    if not isinstance(row, dict):
        return f"is {str(row)[:60]}, not an object with image_id, category_id, bbox and score"
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in row:
            return f"has no {key}"
    image, category, box, score = row["image_id"], row["category_id"], row["bbox"], row["score"]
    if type(image) not in (int, str) or type(category) is not int or not -(2**62) < category < 2**62:
        return f"has image_id {str(image)[:40]!r} and category_id {str(category)[:40]!r}; numbers are needed"
    if not isinstance(box, list) or len(box) != 4 or any(type(v) not in (int, float) for v in box):
        return f"has the bbox {str(box)[:60]}; it takes [left, top, width, height]"
    # a difference of finite numbers is 0 or finite; of others it is NaN
    if type(score) not in (int, float) or any(v - v != 0 for v in (*box, score)):
        return "holds a number that is not finite"
    if box[2] < 0 or box[3] < 0:
        return f"has the bbox {box}: width and height cannot be negative (is it left, top, right, bottom?)"
    return ""


def _numbers(dataset: DataSet, ids: str) -> tuple[int, ...] | None:
    """What the scheme calls the data set's classes, in their order; None where it does not apply."""
    if ids == "coco91":
        return COCO91 if len(dataset.names) == len(COCO91) else None
    counted = tuple(range(len(dataset.names)))
    return {"dataset": dataset.category_ids, "zero-based": counted, "one-based": tuple(i + 1 for i in counted)}[ids]


def _classes(categories: NDArray[np.int64], dataset: DataSet, ids: str, path: Path) -> NDArray[np.int64]:
    """Category numbers as class indices."""
    numbers = _numbers(dataset, ids)
    if numbers is None:
        raise DataError(f"coco91 numbers COCO's 80 classes, but {dataset} has {len(dataset.names)}")
    unknown = ~np.isin(categories, numbers)
    if unknown.any():
        used = set(categories.tolist())
        others = [other for other in ID_SCHEMES if other != ids and used <= set(_numbers(dataset, other) or ())]
        hint = f"; its numbers would fit --category-ids {' or '.join(others)}" if others else ""
        raise DataError(
            f"{path}: category_id {categories[np.argmax(unknown)]} is none of the classes of {dataset}, which are "
            f"{_range_of(numbers)} in the scheme {ids!r}{hint}"
        )
    order = np.argsort(numbers)
    return np.asarray(order[np.searchsorted(np.array(numbers)[order], categories)], np.int64)


def _scheme_note(class_id: NDArray[np.int64], dataset: DataSet, ids: str) -> str:
    """How category numbers were read, and a warning where the numbers themselves speak for another scheme."""
    numbers = _numbers(dataset, ids) or ()
    used = {numbers[i] for i in np.unique(class_id).tolist()}
    note = f"category_id read as {ids}: {_range_of(numbers)}, of which {len(used)} occur"
    # with this many classes seen, that just these never occur is hardly chance
    if numbers == tuple(range(80)) and len(used) >= 20 and used.isdisjoint((0, *COCO91_GAPS)):
        note += "; CAUTION: the numbers that COCO's scheme of 91 leaves out do not occur: is it --category-ids coco91?"
    return note


def _range_of(numbers: Sequence[int]) -> str:
    """``0 to 79``; with gaps ``1 to 90 with gaps``."""
    gaps = " with gaps" if max(numbers) - min(numbers) + 1 != len(numbers) else ""
    return f"{min(numbers)} to {max(numbers)}{gaps}"


def _pictures(ids: list[int | str], dataset: DataSet) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Image ids as indices of pictures (-1 where there is none), and where there is none.

    The data set's own ids come first; a text may also be a file name, with or without suffix, if only one
    picture has it.
    """
    names: dict[int | str, int] = {}
    for index, item in enumerate(dataset.items):
        for name in {str(item.image_id), item.path.name, item.path.stem}:
            names[name] = -1 if name in names else index
    names.update({item.image_id: index for index, item in enumerate(dataset.items)})
    image = np.array([names.get(one, -1) for one in ids], np.int64)
    return image, image < 0
