"""One box for each object, of what tiles saw of it.

A tile sees a *fragment* of an object that its border cuts, when there is more picture behind that border. Fragments
are not rivals of whole boxes: they are explained by one, or by the box that they form together, or left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovyolo._nms import join_fragments, matched, merge
from ovyolo.detections import Detections
from ovyolo.tiling.plan import Plan

__all__ = ["View", "merge_views"]

# a side lies on the border when it ends within so many pixels of the network's input, or so much of the box's side; and
# a box may be so far off, at the scale at which it was found, when it is to explain a fragment
NEAR_PIXELS, NEAR_SHARE = 2.0, 0.02
# a box takes the place of a fragment, or of the shrunk picture's box, that is more confident, up to a point: among
# boxes of no confidence there is one for everything
LEAST_SHARE = 0.25
# what fits in a tile is the tiles' to find: there the shrunk picture's box goes when it shares so much of the smaller
# of both with one of theirs
SECOND_OPINION = 0.5

Boxes = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class View:
    """What the network found in one tile, or in the whole region.

    Args:
        box: x1, y1, x2, y2 of what it saw, in pixels of the picture.
        found: boxes in pixels of what it saw.
        gain: pixels of the network's input a pixel of the picture.
        tile: False for the whole region.
    """

    box: tuple[int, int, int, int]
    found: Detections
    gain: float = 1.0
    tile: bool = True


def merge_views(
    views: Sequence[View], plan: Plan, *, iou: float, agnostic: bool = False, how: str = "nms", max_det: int = 300
) -> Detections:
    """Merge what was found in tiles (and in the whole region, if that was looked at) into boxes of the picture.

    Whole boxes are merged by ``how``; of two that overlap by more than ``iou``, also when the one is first cut by the
    tile that the other was seen in, the better stays. A fragment goes when a whole box, cut by its tile, overlaps it by
    more than ``iou``. Fragments of neighbouring tiles that agree where both tiles look become one box, with the
    score of the best.

    Args:
        views: at least one.
        plan: where the tiles lie.
        iou: 0 to 1; the one threshold for all of this.
        agnostic: classes do not count.
        how: ``"nms"``, ``"nmm"``, ``"wbf"`` or ``"soft"``; see :func:`ovyolo._nms.merge`.
        max_det: at most so many boxes.

    Returns:
        Detections in pixels of the picture, best first.
    """
    first = views[0].found
    counts = [len(view.found) for view in views]
    view_of = np.repeat(np.arange(len(views)), counts)
    boxes = np.array([view.box for view in views], np.float64)
    offset = np.concatenate([boxes[:, :2], boxes[:, :2]], axis=1)[view_of]
    xyxy = (np.concatenate([view.found.xyxy for view in views]) + offset).astype(np.float32)
    score = np.concatenate([view.found.confidence for view in views])
    class_id = np.concatenate([view.found.class_id for view in views])
    group = np.zeros_like(class_id) if agnostic else class_id
    from_tile = np.array([view.tile for view in views])[view_of]
    tile = boxes[view_of]
    near = np.array([NEAR_PIXELS / view.gain for view in views])[view_of]
    fragment = from_tile & _is_cut(xyxy, tile, plan.region, near)

    whole = ~fragment
    second = np.flatnonzero(whole & ~from_tile & plan.holds(xyxy))
    good = whole & from_tile
    whole[second] = ~matched(
        xyxy[second], xyxy[good], group[second], group[good], threshold=SECOND_OPINION, metric="ios",
        scores=_least(score[second]), other_scores=score[good],
    )  # fmt: skip
    made, made_score, made_from = _merged_wholes(np.flatnonzero(whole), xyxy, score, group, tile, iou, how)
    made_group = group[made_from]

    left = np.flatnonzero(fragment)
    explained = matched(
        xyxy[left], made, group[left], made_group, threshold=iou, within=tile[left], slack=near[made_from],
        scores=_least(score[left]), other_scores=made_score,
    )  # fmt: skip
    left = left[~explained]
    pieces, pieces_score, pieces_from = _joined(left, xyxy, score, group, view_of, boxes, near, iou)
    rival = matched(
        pieces, made, group[pieces_from], made_group, threshold=iou,
        scores=_least(pieces_score), other_scores=made_score,
    )  # fmt: skip
    pieces, pieces_score, pieces_from = pieces[~rival], pieces_score[~rival], pieces_from[~rival]

    xyxy = np.concatenate([made, pieces])
    score = np.concatenate([made_score, pieces_score])
    class_id = class_id[np.concatenate([made_from, pieces_from])]
    order = np.argsort(-score, kind="stable")
    order = order[plan.wanted(xyxy[order])]
    truncated = len(order) > max_det or any(view.found.truncated for view in views)
    order = order[:max_det]
    return Detections(
        xyxy[order], score[order], class_id[order], first.names, plan.size, truncated,
        sum(view.found.nonfinite for view in views), first.device,
    )  # fmt: skip


def _is_cut(
    xyxy: Boxes, tile: NDArray[np.float64], region: tuple[int, int, int, int], near: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which boxes end at a border of their tile behind which the region goes on."""
    cut = np.zeros(len(xyxy), np.bool_)
    for axis in (0, 1):
        reach = np.maximum(near, NEAR_SHARE * (xyxy[:, 2 + axis] - xyxy[:, axis]))
        cut |= (xyxy[:, axis] <= tile[:, axis] + reach) & (tile[:, axis] > region[axis])
        cut |= (xyxy[:, 2 + axis] >= tile[:, 2 + axis] - reach) & (tile[:, 2 + axis] < region[2 + axis])
    return cut


def _least(score: Boxes) -> Boxes:
    """The confidence that whatever takes the place of a box of this confidence needs."""
    return np.asarray(LEAST_SHARE * score, np.float32)


def _merged_wholes(
    rows: NDArray[np.int64], xyxy: Boxes, score: Boxes, group: NDArray[np.int32], tile: NDArray[np.float64],
    iou: float, how: str,
) -> tuple[Boxes, Boxes, NDArray[np.int64]]:  # fmt: skip
    """Whole boxes, merged: boxes, scores, and the row that each is mainly of."""
    made, made_score, index, _ = merge(xyxy[rows], score[rows], group[rows], threshold=iou, how=how)
    source = rows[index]
    if how == "soft":  # what overlaps has paid for it
        return made, made_score, source
    part = matched(
        made, made, group[source], group[source], threshold=iou, within=tile[source],
        scores=np.nextafter(made_score, np.float32(np.inf)), other_scores=made_score,
    )  # fmt: skip
    return made[~part], made_score[~part], source[~part]


def _joined(
    rows: NDArray[np.int64], xyxy: Boxes, score: Boxes, group: NDArray[np.int32], view_of: NDArray[np.int64],
    tiles: NDArray[np.float64], near: NDArray[np.float64], iou: float,
) -> tuple[Boxes, Boxes, NDArray[np.int64]]:  # fmt: skip
    """Fragments that no whole box explains, joined: boxes, scores, and the row of the best fragment of each."""
    root = join_fragments(xyxy[rows], group[rows], view_of[rows].astype(np.int32), tiles, threshold=iou)
    names, piece_of = np.unique(root, return_inverse=True)
    corners = np.full((len(names), 4), np.inf, np.float32)
    np.minimum.at(corners[:, :2], piece_of, xyxy[rows, :2])
    np.minimum.at(corners[:, 2:], piece_of, -xyxy[rows, 2:])
    corners[:, 2:] *= -1
    best = np.zeros(len(names), np.int64)
    for place in np.argsort(score[rows], kind="stable"):  # the best comes last
        best[piece_of[place]] = rows[place]
    joined = np.bincount(piece_of, minlength=len(names)) > 1
    # a fragment that did not join, but that joined ones explain
    lone = np.flatnonzero(~joined)
    explained = matched(
        corners[lone], corners[joined], group[best[lone]], group[best[joined]], threshold=iou,
        within=tiles[view_of[best[lone]]], slack=near[best[joined]],
        scores=_least(score[best[lone]]), other_scores=score[best[joined]],
    )  # fmt: skip
    stays = np.ones(len(names), np.bool_)
    stays[lone[explained]] = False
    corners, best = corners[stays], best[stays]
    made, made_score, index, _ = merge(corners, score[best], group[best], threshold=iou)
    return made, made_score, best[index]
