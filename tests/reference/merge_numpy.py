"""The plain NumPy twin of the merging kernels of ``ovyolo._nms``: every box against every box, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TOUCHING = 2.0


def overlaps(box: Floats, boxes: Floats, metric: str = "iou") -> Floats:
    """Overlap of one box with each of ``(n, 4)``; 0 where either has no area."""
    corner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = np.where((corner > 0).all(axis=1), corner[:, 0] * corner[:, 1], 0.0)
    first, second = np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    whole = np.minimum(first, second) if metric == "ios" else first + second - both
    return np.divide(both, whole, out=np.zeros_like(both), where=both > 0)


def merge(
    xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    *,
    threshold: float,
    how: str = "nms",
    metric: str = "iou",
    agnostic: bool = False,
    sigma: float = 0.5,
    least: float = 0.001,
) -> tuple[Any, Any, Any, Any]:
    """As ``ovyolo._nms.merge``, without its checks."""
    n = len(xyxy)
    classes = np.zeros(n, np.int32) if class_ids is None or agnostic else class_ids
    usable = np.isfinite(xyxy).all(axis=1) & np.isfinite(scores)
    if how in ("wbf", "soft"):
        usable &= scores > 0
    places = np.flatnonzero(usable)
    order = places[np.lexsort((places, classes[places], -scores[places]))]
    boxes = xyxy.astype(np.float64)
    kept, score, made, group = [], [], [], np.full(n, -1, np.int64)
    if how == "soft":
        left, now = list(order), {i: float(scores[i]) for i in order}
        while left:
            # the best; of equals the one that came first
            top = max(left, key=lambda i: now[i])
            if now[top] < least:
                break
            left.remove(top)
            group[top] = len(kept)
            kept.append(top), score.append(now[top]), made.append(boxes[top])
            rivals = [i for i in left if classes[i] == classes[top]]
            for i, overlap in zip(rivals, overlaps(boxes[top], boxes[rivals].reshape(-1, 4), metric), strict=True):
                if sigma > 0:
                    now[i] *= float(np.exp(-overlap * overlap / sigma))
                elif overlap > threshold:
                    now[i] *= 1 - overlap
    else:
        original: list[Floats] = []
        sums: list[Floats] = []
        for i in order:
            rivals = [k for k in range(len(kept)) if classes[kept[k]] == classes[i]]
            found = overlaps(boxes[i], np.array([original[k] for k in rivals]).reshape(-1, 4), metric)
            matching = [k for k, overlap in zip(rivals, found, strict=True) if overlap > threshold]
            weighted = np.array([*(float(scores[i]) * boxes[i]), scores[i], 1.0])
            if not matching:
                group[i] = len(kept)
                kept.append(i), score.append(float(scores[i])), made.append(boxes[i].copy())
                original.append(boxes[i]), sums.append(weighted)
                continue
            owner = rivals[int(np.argmax(found))] if how == "wbf" else matching[0]
            group[i] = owner
            if how == "nmm" and overlaps(boxes[i], made[owner][None], metric)[0] > threshold:
                made[owner][:2] = np.minimum(made[owner][:2], boxes[i][:2])
                made[owner][2:] = np.maximum(made[owner][2:], boxes[i][2:])
            if how == "wbf":
                sums[owner] = sums[owner] + weighted
                made[owner] = sums[owner][:4] / sums[owner][4]
                score[owner] = sums[owner][4] / sums[owner][5]
                original[owner] = made[owner].astype(np.float32).astype(np.float64)
    confidence = np.array(score).astype(np.float32)
    first = classes[np.array(kept, np.int64)] if kept else np.zeros(0)
    best = np.lexsort((np.arange(len(kept)), first, -confidence))
    rank = np.full(len(kept) + 1, -1, np.int64)
    rank[best] = np.arange(len(kept))
    return (
        np.array(made, np.float64).reshape(-1, 4)[best].astype(np.float32), confidence[best],
        np.array(kept, np.int64)[best], rank[group],
    )  # fmt: skip


def cut_by(box: Floats, tile: Floats) -> Floats:
    """The part of a box that lies in a tile; corners may be swapped where there is none."""
    return np.concatenate([np.maximum(box[:2], tile[:2]), np.minimum(box[2:], tile[2:])])


def matched(
    xyxy: NDArray[np.float32],
    others: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    other_classes: NDArray[np.int32] | None = None,
    *,
    threshold: float,
    metric: str = "iou",
    within: Floats | None = None,
    slack: Floats | None = None,
    scores: NDArray[np.float32] | None = None,
    other_scores: NDArray[np.float32] | None = None,
) -> NDArray[np.bool_]:
    """As ``ovyolo._nms.matched``, without its checks."""
    result = np.zeros(len(xyxy), np.bool_)
    for i, box in enumerate(xyxy.astype(np.float64)):
        for j, other in enumerate(others.astype(np.float64)):
            if class_ids is not None and other_classes is not None and class_ids[i] != other_classes[j]:
                continue
            if scores is not None and other_scores is not None and not other_scores[j] >= scores[i]:
                continue
            if not (np.isfinite(box).all() and np.isfinite(other).all() and (other[2:] > other[:2]).all()):
                continue
            seen = other if within is None else cut_by(other, within[i])
            if slack is not None:
                if overlaps(box, seen[None])[0] <= threshold / 2:
                    continue
                reach = np.minimum(slack[j], np.tile(box[2:] - box[:2], 2) / 2)
                bent = np.clip(box, other - reach, other + reach)
                seen = bent if within is None else cut_by(bent, within[i])
            result[i] |= overlaps(box, seen[None], metric)[0] > threshold
    return result


def _share(a: Floats, b: Floats, axis: int) -> float:
    both = min(a[2 + axis], b[2 + axis]) - max(a[axis], b[axis])
    whole = max(a[2 + axis], b[2 + axis]) - min(a[axis], b[axis])
    return both / whole if both > 0 and whole > 0 else 0.0


def agreement(a: Floats, b: Floats, first: Floats, second: Floats) -> float:
    """How much two tiles see the same where both look."""
    shared = cut_by(first, second)
    narrow = shared[2:] - shared[:2] <= TOUCHING
    if narrow.all():
        return 0.0
    if narrow.any():
        return _share(a, b, 1 if narrow[0] else 0)
    return float(overlaps(cut_by(a, shared), cut_by(b, shared)[None])[0])


def join_fragments(
    xyxy: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    tile_ids: NDArray[np.int32],
    tiles: Floats,
    *,
    threshold: float,
    agnostic: bool = False,
) -> NDArray[np.int32]:
    """As ``ovyolo._nms.join_fragments``, without its checks."""
    n, boxes = len(xyxy), xyxy.astype(np.float64)
    area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    pairs = []
    for j in range(n):
        for i in range(j):
            apart = np.maximum(boxes[i][:2], boxes[j][:2]) - np.minimum(boxes[i][2:], boxes[j][2:])
            if tile_ids[i] == tile_ids[j] or (class_ids[i] != class_ids[j] and not agnostic) or not area[i]:
                continue
            value = agreement(boxes[i], boxes[j], tiles[tile_ids[i]], tiles[tile_ids[j]])
            if (apart <= TOUCHING).all() and value > threshold:
                pairs.append((-value, i, j))
    members = {i: [i] for i in range(n)}
    root = np.arange(n, dtype=np.int32)
    for _, i, j in sorted(pairs):
        a, b = sorted((int(root[i]), int(root[j])))
        if a == b:
            continue
        together = members[a] + members[b]
        hull = np.concatenate([boxes[together, :2].min(axis=0), boxes[together, 2:].max(axis=0)])
        seen = [overlaps(cut_by(hull, tiles[tile_ids[k]]), boxes[k][None])[0] for k in together]
        if min(seen) > threshold:
            members[a] = together
            root[members.pop(b)] = a
    return root
