"""Anchors against a data set: how well its objects' shapes are reached, and anchors that reach them better.

YOLOv5 learns an object from an anchor when neither side differs by more than a factor of 4; an object that no anchor
reaches is never learned. Shapes are compared by the worse of the two sides' ratios, and so are they clustered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.errors import DataError, DimensionError
from ovyolo.export.api import as_imgsz
from ovyolo.letterbox import Letterbox
from ovyolo.train.geometry import LEAST_SIDE

__all__ = ["ENOUGH_RECALL", "RATIO", "AnchorReport", "Levels", "check_anchors", "fit_anchors", "object_shapes"]

RATIO = 4.0
"""The largest ratio between a side of an object and one of an anchor with which they match."""

Shapes = NDArray[np.float64]
Levels = tuple[tuple[tuple[float, float], ...], ...]
"""Anchors as ``(width, height)`` in pixels of the network's input, by level, finest first."""

ROUNDS = 60  # of k-means; it mostly settles within 20
STARTS = 4  # of k-means, of which the best goes on
MOST_SHAPES = 10_000  # for fitting: more change nothing but the time

ENOUGH_RECALL = 0.98
"""Of the objects; below it anchors are worth fitting anew."""


@dataclass(frozen=True)
class AnchorReport:
    """How anchors fit the objects of a data set.

    Args:
        objects: how many there are (crowds left out).
        tiny: how many of them have a side below 2 pixels at this input size: augmentation drops such boxes.
        recall: best possible recall: which part of the objects some anchor matches, from 0 to 1.
        per_object: how many anchors match an object, on average.
        mean_ratio: the mean over all objects of the best anchor's ratio, the smaller side over the larger, from 0 to 1.
        fitness: the same with objects that nothing matches counting 0; what fitting raises.
    """

    objects: int
    tiny: int
    recall: float
    per_object: float
    mean_ratio: float
    fitness: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"anchors reach {self.recall:.2%} of {self.objects} objects, {self.per_object:.1f} anchors each, "
            f"best ratio {self.mean_ratio:.2f}"
        )


def object_shapes(dataset: DataSet, imgsz: int | Sequence[int]) -> Shapes:
    """``(n, 2)``: width and height of each object in pixels of the letterboxed picture."""
    size = as_imgsz(imgsz)
    sides = [
        (item.boxes[:, 2:] - item.boxes[:, :2])[~item.crowd] * Letterbox(item.size, size).gain for item in dataset.items
    ]
    return np.concatenate([np.empty((0, 2)), *sides])


def check_anchors(dataset: DataSet, anchors: Sequence[Any], imgsz: int | Sequence[int]) -> AnchorReport:
    """Measure anchors against a data set's objects as they are, without augmentation.

    Args:
        dataset: labelled pictures.
        anchors: ``(width, height)`` pairs in pixels, by level as a card has them, or in one list.
        imgsz: the network's input size in pixels, one number or ``(height, width)``.

    Raises:
        DataError: the data set has no objects.
        DimensionError: the anchors are no pairs of numbers above 0.

    Example:
        >>> from ovyolo.dataset import load_dataset
        >>> from ovyolo.train.anchors import check_anchors
        >>> data = load_dataset("data.yaml", "train")  # doctest: +SKIP
        >>> print(check_anchors(data, [[(10, 13), (16, 30), (33, 23)]], 640))  # doctest: +SKIP
        anchors reach 93.40% of 5219 objects, 2.1 anchors each, best ratio 0.61
    """
    return _report(_shapes_of(dataset, imgsz), _pairs(anchors))


def fit_anchors(
    dataset: DataSet,
    imgsz: int | Sequence[int],
    levels: int = 3,
    per_level: int = 3,
    *,
    start: Sequence[Any] | None = None,
    seed: int = 0,
    generations: int = 1000,
) -> Levels:
    """Anchors for a data set's objects: k-means by ratio, then small random changes that are kept when they help.

    The same arguments give the same anchors. Objects with a side below 2 pixels do not count, where there are others.

    Args:
        dataset, imgsz: as :func:`check_anchors`.
        levels: of the network's head.
        per_level: anchors of each level.
        start: anchors that are at hand: they take part, and what comes out is never less fit than they are.
        seed: of all chance.
        generations: how many changes are tried.

    Returns:
        Anchors sorted by area, the smallest at the finest level, in pixels with one decimal.

    Raises:
        DataError: the data set has no objects.
        DimensionError: an argument is out of range.
    """
    if levels < 1 or per_level < 1 or generations < 0:
        raise DimensionError(
            f"anchors for {levels} levels with {per_level} each, {generations} generations: the first two take whole "
            "numbers from 1, the last from 0"
        )
    count = levels * per_level
    given = None if start is None else _pairs(start)
    if given is not None and len(given) != count:
        raise DimensionError(f"{len(given)} anchors to start from, but {levels} levels of {per_level} are wanted")
    rng = np.random.default_rng(seed)
    shapes = _shapes_of(dataset, imgsz)
    large = shapes[shapes.min(axis=1) >= LEAST_SIDE]
    shapes = large if len(large) else shapes
    logs = np.log(shapes if len(shapes) <= MOST_SHAPES else shapes[rng.choice(len(shapes), MOST_SHAPES, replace=False)])
    candidates = [_k_means(rng, logs, count) for _ in range(STARTS)]
    if given is not None:
        candidates.append(np.log(given))
    fitted = np.exp(_evolved(rng, logs, max(candidates, key=lambda centres: _fitness(logs, centres)), generations))
    best = np.maximum(np.round(fitted, 1), 0.1)
    if given is not None and _fitness(np.log(shapes), np.log(given)) >= _fitness(np.log(shapes), np.log(best)):
        best = given
    rows = [(float(w), float(h)) for w, h in best[np.argsort(best.prod(axis=1), kind="stable")]]
    return tuple(tuple(rows[i : i + per_level]) for i in range(0, count, per_level))


def _shapes_of(dataset: DataSet, imgsz: int | Sequence[int]) -> Shapes:
    shapes = object_shapes(dataset, imgsz)
    shapes = shapes[shapes.min(axis=1) > 0]
    if not len(shapes):
        raise DataError(f"{dataset} has no objects to fit anchors to: are its label files where they belong?")
    return shapes


def _pairs(anchors: Sequence[Any]) -> Shapes:
    """Anchors of all levels in one ``(n, 2)``."""
    try:
        flat = [np.asarray(level, np.float64).reshape(-1, 2) for level in anchors]
        pairs = np.concatenate(flat)
    except (TypeError, ValueError):
        raise DimensionError(f"the anchors {str(anchors)[:80]} are no (width, height) pairs in pixels") from None
    if not np.isfinite(pairs).all() or (pairs <= 0).any():
        raise DimensionError(f"the anchors {str(anchors)[:80]} must be finite and more than 0")
    return pairs


def _distances(logs: Shapes, anchors: Shapes) -> Shapes:
    """``(anchors, objects)``: the logarithm of the ratio of the side that differs more; 0 is the same shape."""
    widths, heights = np.ascontiguousarray(logs.T)
    distances: Shapes = np.maximum(np.abs(anchors[:, :1] - widths), np.abs(anchors[:, 1:] - heights))
    return distances


def _fitness(logs: Shapes, anchors: Shapes) -> float:
    nearest = _distances(logs, anchors).min(axis=0)
    return float((np.exp(-nearest) * (nearest < np.log(RATIO))).mean())


def _report(shapes: Shapes, anchors: Shapes) -> AnchorReport:
    distances = _distances(np.log(shapes), np.log(anchors))
    nearest = distances.min(axis=0)
    return AnchorReport(
        objects=len(shapes),
        tiny=int((shapes.min(axis=1) < LEAST_SIDE).sum()),
        recall=float((nearest < np.log(RATIO)).mean()),
        per_object=float((distances < np.log(RATIO)).sum(axis=0).mean()),
        mean_ratio=float(np.exp(-nearest).mean()),
        fitness=_fitness(np.log(shapes), np.log(anchors)),
    )


def _k_means(rng: np.random.Generator, logs: Shapes, count: int) -> Shapes:
    """Centres of clusters of ``log(width), log(height)``, by the larger of the two distances.

    The first centres are drawn far apart (k-means++, Arthur and Vassilvitskii, 2007). Where there are fewer different
    shapes than centres, the others lie around them.
    """
    centres = logs[rng.integers(len(logs), size=1)]
    while len(centres) < count:
        apart = _distances(logs, centres).min(axis=0) ** 2
        total = apart.sum()
        if total > 0:
            new = logs[rng.choice(len(logs), p=apart / total)]
        else:
            new = logs[rng.integers(len(logs))] + rng.normal(0, 0.3, 2)
        centres = np.concatenate([centres, new[None]])
    nearest = np.full(len(logs), -1)
    for _ in range(ROUNDS):
        before, nearest = nearest, _distances(logs, centres).argmin(axis=0)
        if np.array_equal(before, nearest):
            break
        counts = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, logs[:, axis], count) for axis in (0, 1)], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return centres


def _evolved(rng: np.random.Generator, logs: Shapes, anchors: Shapes, generations: int) -> Shapes:
    """Random changes of some sides by some percent, each kept when the fitness rises."""
    best, reached = anchors, _fitness(logs, anchors)
    for _ in range(generations):
        tried = best + np.where(rng.random(best.shape) < 0.3, rng.normal(0, 0.1, best.shape), 0.0)
        fitness = _fitness(logs, tried)
        if fitness > reached:
            best, reached = tried, fitness
    return best
