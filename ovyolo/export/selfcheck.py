"""The exporter checks itself: a file and the model made from it, on the same pictures, by numbers and by boxes.

The kernels that will decode the model are used for the boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import ExportError
from ovyolo.export.heads import Anchors, Levels, decode_heads, disagreement, row_strides

__all__ = ["check_heads", "check_kept_rows", "picture"]

Array = NDArray[Any]
TOLERANCE = 5e-3  # of a stride for centres, of themselves for sizes and probabilities
QUANTIZED_OUTLIERS = 0.01  # share of boxes that may differ more: roundings of INT8 networks fall either way
BOXES = 100
IOU = 0.45


def picture(imgsz: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """A u8 BGR picture of ``imgsz`` with shades, rectangles and noise, different in each channel."""
    rng = np.random.default_rng(seed)
    height, width = imgsz
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    image = 127 + 100 * np.stack([np.sin(6 * x + 2 * y), np.cos(5 * y - x), np.sin(9 * x * y + 1)], axis=-1)
    for _ in range(24):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        rows, columns = int(rng.integers(4, max(5, height // 2))), int(rng.integers(4, max(5, width // 2)))
        image[top : top + rows, left : left + columns] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def check_heads(rows: Array, heads: list[Array], levels: Levels, anchors: Anchors, *, quantized: bool = False) -> None:
    """Compare the file's decoded ``rows`` ``[R, 5+nc]`` with the cut model's raw ``heads``.

    Raises:
        ExportError: any number differs by more than 0.005 strides (centres) or 0.5 % (sizes, probabilities), or the
            boxes that are left after non-maximum suppression are not the same.
    """
    from ovyolo._nms import decode_nms, decode_nms_rows

    allowed = QUANTIZED_OUTLIERS if quantized else 0.0
    wrong = disagreement(decode_heads(heads, levels, anchors), rows, row_strides(levels), TOLERANCE, allowed)
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
    if missing > 0.02 * max(1, len(expected[1])) * (5 if quantized else 1):
        raise ExportError(
            f"{missing} of the {len(expected[1])} boxes that it finds on a test picture are not found by the model "
            "that was cut out of it: export the .pt itself"
        )


def check_kept_rows(rows: Array, made: Array, *, quantized: bool = False) -> None:
    """Compare the file's decoded ``rows`` with those of the ``made`` model, which decodes by itself.

    Raises:
        ExportError: they differ.
    """
    wrong = disagreement(made, rows, np.full((len(rows), 1), 8.0), TOLERANCE, QUANTIZED_OUTLIERS if quantized else 0.0)
    if wrong:
        raise ExportError(f"the model made from it computes other {wrong} than it does: export the .pt itself")


def _threshold(rows: Array) -> float:
    """A confidence in the middle of a gap that about ``BOXES`` boxes pass."""
    scores = np.sort((rows[:, 4:5] * rows[:, 5:]).max(axis=1))[::-1]
    last = min(BOXES, len(scores) - 1)
    return float((scores[last - 1] + scores[last]) / 2) if last else 0.0


def _unmatched(boxes: Any, others: Any) -> int:
    """How many of ``boxes`` have no partner of the same class, score and place among ``others``."""
    xyxy, score, kind = (np.asarray(part) for part in boxes[:3])
    other_xyxy, other_score, other_kind = (np.asarray(part) for part in others[:3])
    if not len(score) or not len(other_score):
        return len(score)
    low = np.maximum(xyxy[:, None, :2], other_xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], other_xyxy[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (xyxy, other_xyxy))
    union = area[:, None] + other_area[None] - overlap
    same = (overlap >= 0.98 * union) & (kind[:, None] == other_kind[None])
    same &= np.abs(score[:, None] - other_score[None]) <= 1e-3 + 0.02 * score[:, None]
    return int((~same.any(axis=1)).sum())
