"""What a detector scored: figures, as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.evaluate.matching import Curves, Matches

__all__ = ["ClassScores", "Detail", "Scores", "SizeScores"]

FEW_CLASSES = 20


@dataclass(frozen=True)
class ClassScores:
    """One class: its labels, its COCO figures, and what happens at the working confidence.

    ``ap``, ``ap50``, ``recall`` and ``f1`` are NaN for a class without objects, ``precision`` for one without boxes.
    """

    name: str
    pictures: int
    objects: int
    ap: float
    ap50: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class SizeScores:
    """Objects of one size: how many, AP, AP at IoU 0.50, and recall at the working confidence and at any.

    Figures are NaN where there are no objects of the size; recall also where the scores came without detail.
    """

    label: str
    objects: int
    ap: float
    ap50: float
    recall: float
    recall_any: float


@dataclass(frozen=True, eq=False)
class Detail:
    """What the report draws; not part of :meth:`Scores.to_dict`.

    Args:
        matches: boxes paired with objects.
        curves: counts at each confidence.
        precision_at_recall: float64 ``(101, classes)``: interpolated precision at recall 0, 0.01, … 1, at IoU 0.50;
            NaN for a class without objects.
        confusion: see :func:`ovyolo.evaluate.matching.confusion_matrix`.
        taken_by: the same.
        right: the same.
    """

    matches: Matches
    curves: Curves
    precision_at_recall: NDArray[np.float64]
    confusion: NDArray[np.int64]
    taken_by: NDArray[np.int64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """COCO's twelve figures, and what happens at one confidence.

    Figures run from 0 to 1. One that cannot be known, such as AP of small objects where there are none, is NaN (null in
    JSON). Small, medium and large are COCO's: below 32², below 96², and above, by the label's area.

    Args:
        ap: mean over classes and over IoU 0.50, 0.55, … 0.95 of average precision, at most 100 boxes a class and
            picture.
        ap50, ap75: at IoU 0.50 and 0.75 alone.
        ap_small, ap_medium, ap_large: of objects of that size.
        ar1, ar10, ar100: mean recall with at most 1, 10, 100 boxes a class and picture.
        ar_small, ar_medium, ar_large: ``ar100`` of objects of that size.
        pictures, objects, boxes: how many were judged.
        confidence: the working point: boxes with at least this confidence count for what follows.
        confidence_chosen: whether the caller chose it; else it is where the mean F1 is highest.
        match_iou: the IoU from which a box has found an object, for what follows.
        precision, recall, f1: means over classes (classes without objects left out; for precision without boxes, too).
        hits, false, missed: counts over all classes: objects found, boxes too many (wrong class included), objects
            missed.
        classes: the same by class.
        sizes: figures by object size, where they were asked for.
        made: model, device, settings, data set.
        notes: sentences that the reader of the figures should know.
        detail: for reports; None when it was not asked for.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    pictures: int
    objects: int
    boxes: int
    confidence: float = math.nan
    confidence_chosen: bool = False
    match_iou: float = 0.5
    precision: float = math.nan
    recall: float = math.nan
    f1: float = math.nan
    hits: int = 0
    false: int = 0
    missed: int = 0
    classes: tuple[ClassScores, ...] = ()
    sizes: tuple[SizeScores, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    detail: Detail | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and mappings; NaN becomes None."""
        plain = {key: _plain(value) for key, value in vars(self).items() if key not in ("detail", "classes", "sizes")}
        for name in ("classes", "sizes"):
            plain[name] = [{key: _plain(value) for key, value in vars(one).items()} for one in getattr(self, name)]
        if self.detail is not None:
            plain["confusion"] = self.detail.confusion.tolist()
        return plain

    def for_card(self) -> dict[str, Any]:
        """The figures that a model's card carries, and what they were measured on."""
        keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100", "pictures", "objects")
        settings = ("data", "device", "imgsz", "conf", "iou", "max_det")
        figures = {key: _plain(getattr(self, key)) for key in keys}
        return {**figures, **{key: self.made[key] for key in settings if key in self.made}}

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    def table(self, per_class: bool | None = None) -> str:
        """The figures as text; ``per_class`` adds a line for each class, by default when there are at most 20."""
        made = self.made
        what = [str(made[key]) for key in ("model", "predictions") if key in made]
        settings = [
            f"{key.replace('_', '-')} {made[key]}" for key in ("imgsz", "conf", "iou", "max_det") if key in made
        ]
        where = [f"on {made['device']}"] if made.get("device") else []
        lines = [
            f"{made.get('data', 'data set')}: {self.pictures} pictures, {self.objects} objects, "
            f"{len(self.classes)} classes",
            " ".join([*what, *where]) + (f" ({', '.join(settings)})" if settings else ""),
            "",
            _figures(AP=self.ap, AP50=self.ap50, AP75=self.ap75, **self._by_size("ap")),
            _figures(AR100=self.ar100, AR10=self.ar10, AR1=self.ar1, **self._by_size("ar")),
        ]
        if not math.isnan(self.confidence):
            why = "as asked" if self.confidence_chosen else "where mean F1 is highest"
            lines += [
                "",
                f"at confidence {self.confidence:.3f} ({why}) and IoU {self.match_iou:g}: precision "
                f"{_digits(self.precision)}, recall {_digits(self.recall)}, F1 {_digits(self.f1)}; "
                f"{self.hits} found, {self.missed} missed, {self.false} false",
            ]
        if self.sizes:
            lines += ["", *self._size_lines()]
        if self.classes and (per_class or (per_class is None and len(self.classes) <= FEW_CLASSES)):
            lines += ["", *self._class_lines()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _by_size(self, kind: str) -> dict[str, float]:
        return {size: getattr(self, f"{kind}_{size}") for size in ("small", "medium", "large")}

    def _size_lines(self) -> list[str]:
        width = max(11, *(len(one.label) for one in self.sizes))
        lines = [f"{'object size':<{width}} objects     AP   AP50 recall  at any confidence"]
        lines += [
            f"{one.label:<{width}} {one.objects:>7} {_digits(one.ap, 6)}{_digits(one.ap50, 7)}{_digits(one.recall, 7)}"
            f"{_digits(one.recall_any, 7)}"
            for one in self.sizes
        ]
        return lines

    def _class_lines(self) -> list[str]:
        width = min(28, max(5, *(len(one.name) for one in self.classes)))
        lines = [f"{'class':<{width}} pictures objects     AP   AP50      P      R     F1"]
        lines += [
            f"{one.name[:width]:<{width}} {one.pictures:>8} {one.objects:>7} {_digits(one.ap, 6)}{_digits(one.ap50, 7)}"
            f"{_digits(one.precision, 7)}{_digits(one.recall, 7)}{_digits(one.f1, 7)}"
            for one in self.classes
        ]
        return lines


def _figures(**figures: float) -> str:
    """Names and figures in columns."""
    return "   ".join(
        f"{name:<{width}} {_digits(value, 5)}"
        for (name, value), width in zip(figures.items(), (5, 4, 4, 5, 6, 5), strict=True)
    )


def _digits(value: float, width: int = 0) -> str:
    """Three decimals; a dash for what is not known."""
    return f"{'–' if math.isnan(value) else f'{value:.3f}':>{width}}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return list(value) if isinstance(value, tuple) else value
