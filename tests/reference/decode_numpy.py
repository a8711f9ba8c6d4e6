"""The plain NumPy twin of ``ovyolo._nms``, written from the definitions, one candidate at a time where that is clearer.

Sigmoids and products are float64, scores and boxes are rounded to float32 once, IoU is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], bool, int]


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Of float64 logits, infinities included."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32 areas of ``(n, 4)`` corners; 0 for boxes whose corners are swapped."""
    with np.errstate(over="ignore"):
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        return np.where((width > 0) & (height > 0), width * height, np.float32(0)).astype(np.float32)


def overlaps(box: NDArray[np.float32], boxes: NDArray[np.float32], iou: float) -> NDArray[np.bool_]:
    """Which of ``boxes`` have IoU above ``iou`` with ``box``; boxes without area have none."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.maximum(np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]), np.float32(0))
        height = np.maximum(np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]), np.float32(0))
        inter = width * height
        union = (areas(box[None])[0] + areas(boxes)) - inter
        return inter > np.float32(iou) * union


def greedy(
    boxes: NDArray[np.float32], groups: NDArray[np.int32], iou: float, max_det: int
) -> tuple[NDArray[np.int64], bool]:
    """Greedy NMS of boxes that are already sorted; ``groups`` says who may suppress whom. Kept indices, cut short?"""
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        if len(kept) == max_det:
            return np.array(kept, np.int64), True
        kept.append(i)
        alive[i + 1 :] &= ~((groups[i + 1 :] == groups[i]) & overlaps(boxes[i], boxes[i + 1 :], iou))
    return np.array(kept, np.int64), False


def finish(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int32],
    cells: NDArray[np.int64],
    nonfinite: int,
    *,
    iou: float,
    max_det: int,
    agnostic: bool,
    max_nms: int,
    transform: tuple[float, ...] | None,
) -> Boxes:
    """Sorts candidates, suppresses, and maps what is kept to source pixels."""
    order = np.lexsort((cells, classes, -scores))
    truncated = len(order) > max_nms
    order = order[:max_nms]
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    kept, cut = greedy(boxes, np.zeros_like(classes) if agnostic else classes, iou, max_det)
    xyxy = boxes[kept]
    if transform is not None:
        gain_x, gain_y, pad_x, pad_y, width, height = transform
        pads, gains, most = (np.array(v * 2, np.float64) for v in ((pad_x, pad_y), (gain_x, gain_y), (width, height)))
        xyxy = np.clip((xyxy.astype(np.float64) - pads) / gains, 0, most).astype(np.float32)
    return xyxy, scores[kept], classes[kept], truncated or cut, nonfinite


def decode_nms(
    heads: Sequence[NDArray[np.float32]],
    anchors: Any,
    strides: Any,
    num_classes: int,
    *,
    conf: float,
    iou: float,
    max_det: int = 300,
    multi_label: bool = False,
    agnostic: bool = False,
    class_mask: NDArray[Any] | None = None,
    max_nms: int = 30000,
    transform: tuple[float, ...] | None = None,
) -> Boxes:
    """As ``ovyolo._nms.decode_nms``, without its checks."""
    least = np.float32(conf)
    wanted = np.ones(num_classes, bool) if class_mask is None else np.asarray(class_mask, bool)
    found: list[tuple[NDArray[np.float32], np.float32, int, int]] = []
    nonfinite, cell = 0, -1
    for level, head in enumerate(heads):
        na = len(anchors[level])
        height, width = head.shape[-2:]
        planes = head.reshape(na, 5 + num_classes, height, width)
        for a in range(na):
            for y in range(height):
                for x in range(width):
                    cell += 1
                    logits = planes[a, :, y, x]
                    if np.isnan(logits[4]):
                        nonfinite += 1
                        continue
                    objectness = sigmoid(logits[4])
                    if not np.float32(objectness) > least:
                        continue
                    classes = logits[5:]
                    examined = classes[wanted] if multi_label else classes
                    if np.isnan(logits[:4]).any() or np.isnan(examined).any():
                        nonfinite += 1
                        continue
                    scores = (objectness * sigmoid(classes)).astype(np.float32)
                    labels = range(num_classes) if multi_label else [int(np.argmax(classes))]
                    s = sigmoid(logits[:4])
                    centre = (2 * s[:2] - 0.5 + (x, y)) * strides[level]
                    size = (2 * s[2:]) ** 2 * np.asarray(anchors[level][a], np.float64)
                    box = np.concatenate([centre - 0.5 * size, centre + 0.5 * size]).astype(np.float32)
                    found += [(box, scores[k], k, cell) for k in labels if scores[k] > least and wanted[k]]
    return finish(
        np.array([f[0] for f in found], np.float32).reshape(-1, 4),
        np.array([f[1] for f in found], np.float32),
        np.array([f[2] for f in found], np.int32),
        np.array([f[3] for f in found], np.int64),
        nonfinite,
        iou=iou,
        max_det=max_det,
        agnostic=agnostic,
        max_nms=max_nms,
        transform=transform,
    )


def decode_nms_rows(
    rows: NDArray[np.float32],
    num_classes: int,
    *,
    conf: float,
    iou: float,
    max_det: int = 300,
    multi_label: bool = False,
    agnostic: bool = False,
    class_mask: NDArray[Any] | None = None,
    max_nms: int = 30000,
    transform: tuple[float, ...] | None = None,
    objectness: bool = True,
) -> Boxes:
    """As ``ovyolo._nms.decode_nms_rows``, without its checks."""
    least, largest = np.float32(conf), np.finfo(np.float32).max
    wanted = np.ones(num_classes, bool) if class_mask is None else np.asarray(class_mask, bool)
    found: list[tuple[NDArray[np.float32], np.float32, int, int]] = []
    nonfinite = 0
    for cell, row in enumerate(rows.reshape(-1, rows.shape[-1])):
        obj = row[4] if objectness else np.float32(1)
        if objectness and not obj > least:
            nonfinite += int(np.isnan(obj))
            continue
        classes = row[-num_classes:]
        cx, cy, w, h = row[:4].astype(np.float64)
        with np.errstate(invalid="ignore"):
            corners = np.array([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h])
        examined = classes[wanted] if multi_label else classes
        sound = np.isfinite(obj) and w >= 0 and h >= 0 and (np.abs(corners) <= largest).all()
        if not (sound and np.isfinite(examined).all()):
            nonfinite += 1
            continue
        labels = [k for k in range(num_classes) if wanted[k]] if multi_label else [int(np.argmax(classes))]
        for k in labels:
            score = np.float32(min(float(obj) * float(classes[k]), float(largest)))
            if wanted[k] and score > least:
                found.append((corners.astype(np.float32), score, k, cell))
    return finish(
        np.array([f[0] for f in found], np.float32).reshape(-1, 4),
        np.array([f[1] for f in found], np.float32),
        np.array([f[2] for f in found], np.int32),
        np.array([f[3] for f in found], np.int64),
        nonfinite,
        iou=iou,
        max_det=max_det,
        agnostic=agnostic,
        max_nms=max_nms,
        transform=transform,
    )


def nms(
    xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    *,
    iou: float,
    max_det: int | None = None,
    agnostic: bool = False,
) -> NDArray[np.int64]:
    """As ``ovyolo._nms.nms``, without its checks."""
    classes = np.zeros(len(xyxy), np.int32) if class_ids is None else class_ids
    usable = np.flatnonzero(np.isfinite(xyxy).all(axis=1) & ~np.isnan(scores))
    order = usable[np.lexsort((usable, classes[usable], -scores[usable]))]
    groups = np.zeros(len(order), np.int32) if agnostic else classes[order]
    kept, _ = greedy(xyxy[order], groups, iou, len(xyxy) if max_det is None else max_det)
    return order[kept]
