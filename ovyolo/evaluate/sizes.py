"""Accuracy by object size, in buckets of the user's choosing: a size is the square root of an area."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovyolo.dataset import DataSet
from ovyolo.errors import DimensionError
from ovyolo.evaluate.metrics import coco_evaluation
from ovyolo.evaluate.predictions import Predictions
from ovyolo.evaluate.scores import Scores, SizeScores

__all__ = ["SizeEdges", "score_by_size"]

# of a relative area: faster-coco-eval's ranges end at 1e5 squared
WHOLE = 1e9


@dataclass(frozen=True)
class SizeEdges:
    """Where buckets of object size begin and end.

    Args:
        edges: ascending, above 0: pixels of the picture, or shares of the square root of the picture's area.
        relative: shares, not pixels.

    Raises:
        DimensionError: the edges do not ascend, or are out of range.

    Example:
        >>> SizeEdges.parse("16, 32, 96").labels
        ('below 16', '16–32', '32–96', 'from 96')
        >>> SizeEdges.parse("1%,5%").labels
        ('below 1 %', '1–5 %', 'from 5 %')
    """

    edges: tuple[float, ...]
    relative: bool = False

    def __post_init__(self) -> None:
        steps = (0.0, *self.edges, 1.0 if self.relative else 1e5)
        if not self.edges or any(not a < b for a, b in itertools.pairwise(steps)):
            most = "below 100 %" if self.relative else "below 100,000 pixels"
            raise DimensionError(f"sizes are {self.edges}; they take ascending numbers above 0 and {most}")

    @classmethod
    def parse(cls, text: str) -> SizeEdges:
        """Read ``16,32,96`` (pixels) or ``1%,5%`` (of the square root of the picture's area)."""
        parts = [part.strip() for part in text.split(",")]
        relative = [part.endswith("%") for part in parts]
        try:
            numbers = tuple(float(part.rstrip("% ")) for part in parts)
        except ValueError:
            numbers = ()
        if not numbers or any(relative) != all(relative):
            raise DimensionError(f"sizes {text!r} cannot be read: give pixels (16,32,96) or shares (1%,5%)")
        return cls(tuple(n / 100 for n in numbers) if relative[0] else numbers, relative[0])

    @property
    def labels(self) -> tuple[str, ...]:
        """What the buckets are called."""
        names = [f"{100 * edge:g}" if self.relative else f"{edge:g}" for edge in self.edges]
        between = [f"{a}–{b}" for a, b in itertools.pairwise(names)]
        unit = " %" if self.relative else ""
        return tuple(f"{name}{unit}" for name in (f"below {names[0]}", *between, f"from {names[-1]}"))


def score_by_size(scores: Scores, dataset: DataSet, predictions: Predictions, sizes: SizeEdges) -> Scores:
    """Add accuracy by object size to scores.

    Args:
        scores: of these predictions; with their detail, recall by size is known, too.
        dataset: the truth.
        predictions: what was judged.
        sizes: the buckets.

    Returns:
        ``scores`` with its ``sizes``.

    Raises:
        OvyoloError: faster-coco-eval is not installed.
    """
    scale = np.ones(len(dataset))
    if sizes.relative:
        scale = np.array([WHOLE / (item.size[0] * item.size[1]) for item in dataset.items])
    scaled = replace(
        dataset,
        items=tuple(replace(item, area=item.area * by) for item, by in zip(dataset.items, scale.tolist(), strict=True)),
    )
    unit = WHOLE if sizes.relative else 1.0
    limits = [0.0, *(edge * edge * unit for edge in sizes.edges), 1e10]
    ranges = list(itertools.pairwise(limits))
    evaluation = coco_evaluation(scaled, predictions, area_scale=scale, ranges=ranges)
    # [IoU, recall, class, size, boxes]; -1 where a class has no objects of the size
    precision = evaluation.eval["precision"][:, :, :, 1:, -1].astype(np.float64)
    made = []
    real = [item.area[~item.crowd] for item in scaled.items]
    areas = np.concatenate([np.zeros(0), *real])
    for number, (low, high) in enumerate(ranges):
        one = precision[:, :, :, number]
        counted = (areas >= low) & (areas < high)
        made.append(
            SizeScores(
                sizes.labels[number], int(counted.sum()), _mean(one), _mean(one[0]),
                *_recalls(scores, scaled, low, high),
            )
        )  # fmt: skip
    return replace(scores, sizes=tuple(made))


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _recalls(scores: Scores, scaled: DataSet, low: float, high: float) -> tuple[float, float]:
    """Of the objects of a size, those found at the working confidence, and at any."""
    if scores.detail is None:
        return math.nan, math.nan
    matches = scores.detail.matches
    areas: Sequence[np.ndarray] = [np.zeros(0), *(item.area for item in scaled.items)]
    area = np.concatenate(areas)
    chosen = ~matches.object_crowd & (area >= low) & (area < high)
    if not chosen.any():
        return math.nan, math.nan
    found = matches.score_of[chosen]
    return float(((found >= 0) & (found >= scores.confidence)).mean()), float((found >= 0).mean())
