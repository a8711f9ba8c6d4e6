"""How far a network's raw heads are from those of the original, weighted by what matters: boxes near objects.

AP on few pictures jumps when one box of a rare class changes places. The mean change of confidences and boxes does not
jump, needs no labels, and can be measured on the calibration pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card

__all__ = ["ENOUGH_PICTURES", "HeadError", "head_error"]

Array = NDArray[Any]
ENOUGH_PICTURES = 8  # to tell which of many changes do most
LEAST = 0.02  # cells below this objectness in both networks are background
FLAT = 30.0


@dataclass(frozen=True)
class HeadError:
    """Mean changes of the boxes near objects, weighted by their confidence.

    Args:
        confidence: relative change of the class confidences, 0 to 1.
        box: 1 - IoU of the boxes, 0 to 1.
    """

    confidence: float
    box: float

    @property
    def total(self) -> float:
        """One number to rank by: a hundredth of IoU weighs as much as two hundredths of the confidence, by which a
        box loses its place about as often."""
        return float(np.hypot(self.confidence / 2, self.box))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -FLAT, FLAT))))


def head_error(card: Card, expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> HeadError:
    """Compare the outputs of two networks for the same pictures.

    Args:
        card: what both are.
        expected, found: outputs in the card's order, a list a picture.

    Example:
        >>> from ovyolo.card import Head
        >>> card = Card(("spot",), (8, 8), Head("anchors", ("head0",), (8,), (((8.0, 8.0),),)))
        >>> heads = [[np.zeros((1, 6, 1, 1), np.float32)]]
        >>> head_error(card, heads, heads)
        HeadError(confidence=0.0, box=0.0)
    """
    weight = confidence = box = 0.0
    for one, other in zip(expected, found, strict=True):
        for a, b in _cells(card, one, other):
            if not len(a):
                continue
            scores_a, scores_b = a[:, 4:5] * a[:, 5:], b[:, 4:5] * b[:, 5:]
            weights = np.maximum(scores_a.max(axis=1), scores_b.max(axis=1)) + 1e-9
            confidence += float(np.abs(scores_a - scores_b).max(axis=1).sum())
            box += float((weights * (1 - _iou(a[:, :4], b[:, :4]))).sum())
            weight += float(weights.sum())
    return HeadError(confidence / weight, box / weight) if weight else HeadError(0.0, 0.0)


def _cells(card: Card, one: Sequence[Array], other: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Decoded rows (centre, size, objectness, classes) of the cells that show an object in either."""
    if card.head.kind == "rows":
        a, b = one[0][0], other[0][0]
        near = (a[:, 4] > LEAST) | (b[:, 4] > LEAST)
        return [(a[near].astype(np.float64), b[near].astype(np.float64))]
    pairs = []
    width = 5 + card.num_classes
    for level, (raw_a, raw_b) in enumerate(zip(one, other, strict=True)):
        anchors = np.array(card.head.anchors[level])
        a, b = (raw[0].reshape(len(anchors), width, -1) for raw in (raw_a, raw_b))
        least = np.log(LEAST / (1 - LEAST))
        anchor, cell = np.nonzero((a[:, 4] > least) | (b[:, 4] > least))
        decoded = []
        for raw in (a, b):
            rows = _sigmoid(raw[anchor, :, cell].astype(np.float64))
            # the cell's own place is the same in both and left out
            rows[:, :2] = rows[:, :2] * 2 * card.head.strides[level]
            rows[:, 2:4] = (rows[:, 2:4] * 2) ** 2 * anchors[anchor]
            decoded.append(rows)
        pairs.append((decoded[0], decoded[1]))
    return pairs


def _iou(a: Array, b: Array) -> Array:
    """IoU row by row of boxes given by centre and size."""
    low = np.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    high = np.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    overlap = np.clip(high - low, 0, None).prod(axis=1)
    union = a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - overlap
    return np.asarray(overlap / np.maximum(union, 1e-12))
