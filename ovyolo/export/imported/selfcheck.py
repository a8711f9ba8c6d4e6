"""The exporter checks itself: a file and the model made from it, on the same pictures, by numbers and by boxes.

The kernels that will decode the model are used for the boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import ExportError
from ovyolo.export.imported.heads import Anchors, decode_heads, disagreement, row_strides
from ovyolo.export.imported.levels import Levels

__all__ = ["check_halved", "check_heads", "check_kept_rows", "picture"]

Array = NDArray[Any]
TOLERANCE = 5e-3  # of a stride for centres, of themselves for sizes and probabilities
# In an INT8 network a number on the edge between two steps falls either way, and takes others with it. That it is cut
# and decoded rightly was seen before, without the network; a wrong input shows even so.
QUANTIZED_TOLERANCE = 0.05
QUANTIZED_OUTLIERS = 0.1  # share of boxes that may differ more
QUANTIZED_MISSING = 0.3
BOXES = 100
IOU = 0.45
MISSING = 0.05  # share of boxes without a partner: rounding decides which of two overlapping boxes is left, and so on


def picture(imgsz: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """A u8 BGR picture of ``imgsz`` with shades, rectangles and noise, different in each channel."""
    rng = np.random.default_rng(seed)
    height, width = imgsz
    y, x = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)[None]
    image = 127 + 100 * np.stack([np.sin(6 * x + 2 * y), np.cos(5 * y - x), np.sin(9 * x * y + 1)], axis=-1)
    for _ in range(24):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        rows, columns = int(rng.integers(4, max(5, height // 2))), int(rng.integers(4, max(5, width // 2)))
        image[top : top + rows, left : left + columns] = rng.integers(0, 256, 3)
    return np.clip(image + 12 * rng.standard_normal(image.shape, np.float32), 0, 255).astype(np.uint8)


def check_heads(rows: Array, heads: list[Array], levels: Levels, anchors: Anchors, *, quantized: bool = False) -> None:
    """Compare the file's decoded ``rows`` ``[R, 5+nc]`` with the cut model's raw ``heads``.

    Raises:
        ExportError: any number differs by more than 0.005 strides (centres) or 0.5 % (sizes, probabilities), or the
            boxes that are left after non-maximum suppression are not the same. For INT8 files the bounds are wider.
    """
    from ovyolo._nms import decode_nms, decode_nms_rows

    wrong = _difference(decode_heads(heads, levels, anchors), rows, row_strides(levels), quantized)
    if wrong:
        raise ExportError(
            f"the model that was cut out of it computes other {wrong} than it does: export the .pt itself"
        )
    num_classes = levels.width - 5
    conf = _threshold(rows)
    kept = decode_nms(
        [np.ascontiguousarray(head, np.float32) for head in heads],
        np.array(anchors, np.float32),
        np.array(levels.strides, np.float32),
        num_classes,
        conf=conf,
        iou=IOU,
    )
    expected = decode_nms_rows(np.ascontiguousarray(rows[None], np.float32), num_classes, conf=conf, iou=IOU)
    missing = _unmatched(kept, expected) + _unmatched(expected, kept)
    if missing > (QUANTIZED_MISSING if quantized else MISSING) * (len(expected[1]) + len(kept[1])):
        raise ExportError(
            f"it finds {len(expected[1])} boxes on a test picture and the model that was cut out of it {len(kept[1])}, "
            f"and {missing} of them have no partner on the other side: export the .pt itself"
        )


def check_kept_rows(rows: Array, made: Array, *, quantized: bool = False) -> None:
    """Compare the file's decoded ``rows`` with those of the ``made`` model, which decodes by itself.

    Raises:
        ExportError: they differ.
    """
    wrong = _difference(made, rows, np.full((len(rows), 1), 8.0), quantized)
    if wrong:
        raise ExportError(f"the model made from it computes other {wrong} than it does: export the .pt itself")


def _difference(rows: Array, expected: Array, strides: Array, quantized: bool) -> str:
    if quantized:
        return disagreement(rows, expected, strides, QUANTIZED_TOLERANCE, allowed=QUANTIZED_OUTLIERS)
    return disagreement(rows, expected, strides, TOLERANCE)


def check_halved(rows: Array, halved: Array) -> None:
    """Compare the numbers of a file that takes and returns FP16 with those of the same graph in FP32.

    Raises:
        ExportError: they differ by more than FP16 explains: 0.02 strides (of 8 pixels), or 2 %, and its rounding.
    """
    wrong = disagreement(rows, halved, np.full((len(rows), 1), 8.0), 4 * TOLERANCE, rounding=2.0**-10)
    if wrong:
        raise ExportError(f"in FP32 it computes other {wrong} than in FP16: export the .pt itself")


def _threshold(rows: Array) -> float:
    """A confidence in the middle of a gap that about ``BOXES`` boxes pass."""
    scores = np.sort((rows[:, 4:5] * rows[:, 5:]).max(axis=1))[::-1]
    last = min(BOXES, len(scores) - 1)
    return float((scores[last - 1] + scores[last]) / 2) if last else 0.0


def _unmatched(boxes: Any, others: Any) -> int:
    """How many of ``boxes`` have no partner of the same class, score and place among ``others``.

    Of boxes that overlap and score alike, rounding decides which one is left: either is a partner of the other.
    """
    xyxy, score, kind = (np.asarray(part) for part in boxes[:3])
    other_xyxy, other_score, other_kind = (np.asarray(part) for part in others[:3])
    if not len(score) or not len(other_score):
        return len(score)
    low = np.maximum(xyxy[:, None, :2], other_xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], other_xyxy[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (xyxy, other_xyxy))
    union = area[:, None] + other_area[None] - overlap
    difference = np.abs(score[:, None] - other_score[None])
    same = (overlap >= 0.98 * union) & (difference <= 1e-3 + 0.02 * score[:, None])
    same |= (overlap >= 0.4 * union) & (difference <= 1e-4)
    same &= kind[:, None] == other_kind[None]
    return int((~same.any(axis=1)).sum())
