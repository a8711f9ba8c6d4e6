"""What a changed model finds that it did not find before, and what it does not find any more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.evaluate.matching import FALSE, Matches, match
from ovyolo.evaluate.predictions import Predictions
from ovyolo.report.pictures import Mark, MarkedPicture, marked, object_box

__all__ = ["Changes", "compare_found"]

CONF, IOU = 0.25, 0.5
LONGEST_SIDE = 640


@dataclass(frozen=True)
class Changes:
    """Objects by who found them, at one confidence and one overlap; crowds left out.

    Args:
        conf, iou: a box of the object's class with at least this confidence overlaps it by at least this IoU.
        lost: found before only.
        gained: found after only.
        kept: found by both.
        missed: found by neither.
        false_before, false_after: boxes of at least ``conf`` that found no object of their class.
        classes: by name: lost, gained.
    """

    conf: float
    iou: float
    lost: int
    gained: int
    kept: int
    missed: int
    false_before: int
    false_after: int
    classes: dict[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare_found(
    dataset: DataSet, before: Predictions, after: Predictions, *, conf: float = CONF, iou: float = IOU, most: int = 8
) -> tuple[Changes, list[MarkedPicture]]:
    """Count the objects that were lost and gained, and show them.

    Args:
        dataset: the truth.
        before, after: boxes for its pictures.
        conf, iou: see :class:`Changes`; by default what ``detect`` shows, and half an overlap.
        most: pictures to show at most, those with the most objects lost and gained first; each at most 640 pixels long.

    Returns:
        The counts, and the pictures with marks ``lost``, ``gained`` and ``kept``.

    Example:
        >>> changes, pictures = compare_found(data, fp32, int8)  # doctest: +SKIP
        >>> changes.lost, changes.gained  # doctest: +SKIP
        (3, 1)
    """
    old, new = match(dataset, before, iou), match(dataset, after, iou)
    real = ~old.object_crowd
    did, does = old.score_of >= conf, new.score_of >= conf
    kinds = {"kept": real & did & does, "gained": real & ~did & does, "lost": real & did & ~does}
    names, nc = dataset.names, len(dataset.names)
    lost, gained = (np.bincount(old.object_class[kinds[kind]], minlength=nc).tolist() for kind in ("lost", "gained"))
    changes = Changes(
        conf, iou, sum(lost), sum(gained), int(kinds["kept"].sum()), int((real & ~did & ~does).sum()),
        _false(old, before, conf), _false(new, after, conf),
        {name: (lost[i], gained[i]) for i, name in enumerate(names)},
    )  # fmt: skip
    changed = np.bincount(old.object_image[kinds["lost"] | kinds["gained"]], minlength=len(dataset))
    pictures = []
    for index in np.argsort(-changed, kind="stable")[:most].tolist():
        if changed[index]:
            shown = marked(dataset, index, _marks(index, kinds, dataset, old, new), LONGEST_SIDE)
            pictures += [] if shown is None else [shown]
    return changes, pictures


def _false(matches: Matches, predictions: Predictions, conf: float) -> int:
    return int(((matches.found == FALSE) & (predictions.score >= conf)).sum())


def _marks(index: int, kinds: dict[str, NDArray[np.bool_]], dataset: DataSet, old: Matches, new: Matches) -> list[Mark]:
    marks = []
    for kind, which in kinds.items():
        for one in np.flatnonzero(which & (old.object_image == index)).tolist():
            confidences = " → ".join("–" if m.score_of[one] < 0 else f"{m.score_of[one]:.2f}" for m in (old, new))
            label = f"{dataset.names[old.object_class[one]]} {confidences}"
            x, y, width, height = object_box(old, one)
            marks.append(Mark(kind, label, round(x, 1), round(y, 1), round(width, 1), round(height, 1)))
    return marks
