"""Tiles over canvases with objects at random: each object once, none invented, however it lies to the seams."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from reference.merge_numpy import cut_by, overlaps
from reference.seeing_session import CARD, LEAST, MOST, SIDE, SeeingSession, Seer, place_picture

from ovyolo import Detections
from ovyolo.tiling import Plan, Tiler, TileSettings

IOU = 0.45


def drawn(
    rng: np.random.Generator, height: int, width: int, largest: float
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Objects of two classes, small ones the most; those of one class may touch, but hardly cover each other."""
    boxes: list[NDArray[np.float64]] = []
    kinds: list[int] = []
    for _ in range(int(rng.integers(1, 40))):
        size = np.minimum(np.exp(rng.uniform(np.log(LEAST + 1), np.log(largest), 2)), (width, height))
        corner = rng.uniform(0, (width - size[0], height - size[1]))
        box, kind = np.concatenate([corner, corner + size]), int(rng.integers(0, 2))
        others = np.array([b for b, k in zip(boxes, kinds, strict=True) if k == kind]).reshape(-1, 4)
        if (overlaps(box, others, "ios") < 0.1).all():
            boxes.append(box)
            kinds.append(kind)
    return np.array(boxes).reshape(-1, 4), np.array(kinds, np.int32)


def run(seed: int, full: bool, noise: float, overlap: float | None = None) -> tuple[Detections, Seer, Plan]:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(SIDE, 400, 2))
    overlap = float(rng.choice([0.125, 0.2, 0.25, 0.5])) if overlap is None else overlap
    seer = Seer(*drawn(rng, height, width, 150.0), noise, rng)
    tiler = Tiler(CARD, TileSettings(SIDE, overlap, full), seer, iou=IOU, agnostic=False, max_det=1000)
    session = SeeingSession(int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    found = tiler(place_picture(height, width), session)
    session.close()
    assert session.most <= session.slots
    return found, seer, tiler.plan((height, width))


def shown_whole(box: NDArray[np.float64], plan: Plan) -> bool:
    """Whether some tile holds the whole object, and it is not too small for the network."""
    tiles = plan.tiles.astype(np.float64)
    inside = (tiles[:, :2] <= box[:2]).all(axis=1) & (tiles[:, 2:] >= box[2:]).all(axis=1)
    return bool(inside.any() and (box[2:] - box[:2] >= LEAST).all())


def can_be_joined(box: NDArray[np.float64], plan: Plan) -> bool:
    """Whether each tile that the object reaches into sees enough of it to say so."""
    parts = [cut_by(box, tile) for tile in plan.tiles.astype(np.float64)]
    sizes = [part[2:] - part[:2] for part in parts if (part[2:] > part[:2]).all()]
    return all((size >= LEAST).all() and (size <= MOST).all() for size in sizes)


def check(seed: int, full: bool, noise: float = 0.0, overlap: float | None = None) -> None:
    found, seer, plan = run(seed, full, noise, overlap)
    what = f"seed {seed}, full {full}, noise {noise}"
    boxes = found.xyxy.astype(np.float64)
    exact = 0.9 if noise == 0 else 0.6
    gain = min(SIDE / plan.size[0], SIDE / plan.size[1])
    for box, kind in zip(seer.objects, seer.classes, strict=True):
        same = boxes[found.class_id == kind]
        iou = overlaps(box, same)
        clear = LEAST if noise == 0 else 3 * LEAST  # an uncertain box of few pixels may be anything
        seen_shrunk = full and plan.full and ((box[2:] - box[:2]) * gain >= clear).all()
        if shown_whole(box, plan) or can_be_joined(box, plan) or seen_shrunk:
            assert (iou > exact).sum() == 1, f"{what}: {box} of class {kind} is there {(iou > exact).sum()} times"
            if shown_whole(box, plan) or can_be_joined(box, plan):
                # nothing else says the same: neither a piece of it, nor it with something else
                pieces = overlaps(box, same, "ios") > 0.6
                if noise and full:  # slivers that are thinner than the shrunk picture is sure of may stay
                    pieces &= (same[:, 2:] - same[:, :2]).min(axis=1) > 2 / gain
                other = [overlaps(one, seer.objects[seer.classes == kind]).max() for one in same[pieces]]
                assert min(other, default=1.0) > exact, (
                    f"{what}: {box} of class {kind} is there again as {same[pieces]}"
                )
    for one, kind in zip(boxes, found.class_id, strict=True):
        truth = seer.objects[seer.classes == kind]
        inside = [overlaps(one, np.array([cut_by(t, tile) for tile in plan.tiles.astype(float)])).max() for t in truth]
        whole = overlaps(one, truth).max()
        # a fragment that could not be joined is of a real object; nothing else may differ from one
        assert max(whole, *inside) > 0.6 * exact or _part_of(one, truth), f"{what}: {one} of class {kind} is nothing"


def _part_of(one: NDArray[np.float64], truth: NDArray[np.float64]) -> bool:
    area = np.prod(one[2:] - one[:2])
    return any(np.prod(np.clip(cut_by(t, one)[2:] - cut_by(t, one)[:2], 0, None)) > 0.9 * area for t in truth)


@pytest.mark.parametrize("full", [False, True])
def test_each_object_once(full: bool) -> None:
    for seed in range(60):
        check(seed, full)


def test_each_object_once_where_tiles_only_touch() -> None:
    for seed in range(30):
        check(seed, False, overlap=0.0)


def test_each_object_once_of_an_uncertain_network() -> None:
    for seed in range(60):
        check(seed, seed % 2 == 0, noise=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_each_object_once_for_thousands_of_seeds(noise: float) -> None:
    for seed in range(1000, 3000):
        check(seed, seed % 2 == 0, noise)
