"""Augmentation: boxes follow the pixels, nothing happens that was not asked for, and chance can be repeated."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo.errors import DimensionError
from ovyolo.letterbox import PAD_VALUE
from ovyolo.train.augment import Augment, augmented, padded
from ovyolo.train.blend import copy_paste, hsv_jitter, mixup
from ovyolo.train.geometry import LEAST_SIDE, Picture, clipped, flip, linear, move_boxes, visible, warp
from ovyolo.train.mosaic import canvas_of_four

SIZE = (96, 128)
QUICK = settings(deadline=None, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)

# full or no light in each channel, so that a threshold tells them apart even where edges are blended
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]
STILL = Augment.off()


def one_object(size: tuple[int, int], box: tuple[int, int, int, int], kind: int) -> Picture:
    """A black picture with a rectangle in the colour of class ``kind``."""
    image = np.zeros((*size, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = COLOURS[kind]
    return Picture(image, np.array([box], np.float32), np.array([kind], np.int64))


def coloured(image: np.ndarray, kind: int) -> np.ndarray:
    """Where the picture has the colour of class ``kind``."""
    mask: np.ndarray = ((image > 127) == (np.array(COLOURS[kind]) > 127)).all(axis=2)
    return mask


def around(mask: np.ndarray) -> list[int]:
    """The box around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@st.composite
def objects(draw: st.DrawFn, kind: int, size: tuple[int, int] = SIZE) -> Picture:
    """A picture that fits into ``size``, touching it in one direction, with one object of at least 8 pixels a side."""
    height, width = size
    if draw(st.booleans()):
        height = draw(st.integers(24, height))
    else:
        width = draw(st.integers(24, width))
    w, h = draw(st.integers(8, width)), draw(st.integers(8, height))
    x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
    return one_object((height, width), (x, y, x + w, y + h), kind)


four_objects = st.tuples(*(objects(kind) for kind in range(4)))


def made(pictures: Any, chosen: Augment, seed: int, size: tuple[int, int] = SIZE) -> Picture:
    """A sample of which the ``i``-th source picture is ``pictures[i]``, whichever is asked for."""
    turn = iter(pictures)
    return augmented(np.random.default_rng(seed), chosen, lambda index: next(turn), 0, len(pictures), size)


def check_inside(picture: Picture, size: tuple[int, int]) -> None:
    assert picture.image.shape == (*size, 3) and picture.image.dtype == np.uint8
    assert picture.boxes.dtype == np.float32 and picture.class_id.dtype == np.int64
    assert picture.boxes.shape == (len(picture.class_id), 4)
    assert (picture.boxes >= 0).all() and (picture.boxes[:, [2, 3]] <= size[::-1]).all()
    assert (picture.boxes[:, 2:] - picture.boxes[:, :2] > 0).all()


# ------------------------------------------------------------------------------------------------------- pixels


@QUICK
@given(four_objects, SEEDS, st.floats(0, 0.9), st.floats(0, 0.4), st.sampled_from([0.0, 6.0]))
def test_boxes_of_mosaics_follow_the_pixels(
    pictures: tuple[Picture, ...], seed: int, scale: float, translate: float, small: float
) -> None:
    chosen = replace(STILL, mosaic=1.0, scale=scale, translate=translate, fliplr=0.5, flipud=0.5, small=small)
    picture = made(pictures, chosen, seed)
    check_inside(picture, SIZE)
    assert len(set(picture.class_id.tolist())) == len(picture.class_id)
    for kind, box in zip(picture.class_id, picture.boxes, strict=True):
        np.testing.assert_allclose(around(coloured(picture.image, int(kind))), box, atol=1.01)


@QUICK
@given(four_objects, SEEDS)
def test_only_what_is_hardly_seen_loses_its_box(pictures: tuple[Picture, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    canvas, share = canvas_of_four(rng, pictures, SIZE)
    x, y = rng.integers(0, SIZE[::-1])
    window = 2 * SIZE[0] - int(y), 2 * SIZE[1] - int(x)  # both the canvas' and the window's edges cut
    seen = warp(canvas, np.array([[1.0, 0, -x], [0, 1.0, -y]]), window, share=share, min_visible=0.3)
    for kind, picture in enumerate(pictures):
        mask = coloured(seen.image, kind)
        part = mask.sum() / coloured(picture.image, kind).sum()
        sides = [mask.any(axis=0).sum(), mask.any(axis=1).sum()]
        assert (kind in seen.class_id) == (part >= 0.3 and min(sides) >= LEAST_SIDE)


@QUICK
@given(objects(0), SEEDS, st.floats(0, 90), st.floats(0, 15))
def test_turned_boxes_hold_the_turned_pixels(picture: Picture, seed: int, degrees: float, shear: float) -> None:
    moved = made([picture], replace(STILL, degrees=degrees, shear=shear, scale=0.2, min_visible=0.0), seed)
    check_inside(moved, SIZE)
    mask = coloured(moved.image, 0)
    if len(moved.boxes) and mask.any():
        low, high = moved.boxes[0, :2], moved.boxes[0, 2:]
        found = np.array(around(mask))
        assert (found[:2] >= low - 1).all() and (found[2:] <= high + 1).all()


@QUICK
@given(four_objects, SEEDS, st.floats(0, 0.9), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 6.0]))
def test_sharp_samples_keep_their_pixels(
    pictures: tuple[Picture, ...], seed: int, scale: float, mosaic: float, small: float
) -> None:
    chosen = replace(
        STILL, mosaic=mosaic, scale=scale, translate=0.3, degrees=20.0, shear=5.0, small=small, fliplr=0.5, sharp=1.0
    )
    picture = made(pictures, chosen, seed)
    check_inside(picture, SIZE)
    known = {(0, 0, 0), (PAD_VALUE,) * 3, *COLOURS}
    assert {tuple(pixel) for pixel in np.unique(picture.image.reshape(-1, 3), axis=0).tolist()} <= known
    for kind, box in zip(picture.class_id, picture.boxes, strict=True):
        assert around(coloured(picture.image, int(kind))) == box.tolist()


def test_some_samples_are_sharp_and_others_not() -> None:
    pictures = [one_object(SIZE, (20, 20, 80, 70), kind) for kind in range(4)]

    def share(sharp: float) -> float:
        chosen = replace(STILL, mosaic=1.0, scale=0.5, sharp=sharp)
        return float(np.mean([len(np.unique(made(pictures, chosen, seed).image)) <= 3 for seed in range(60)]))

    assert share(0.0) < 0.05 and 0.3 < share(0.5) < 0.7 and share(1.0) == 1.0


def test_turned_boxes_are_tight() -> None:
    picture = padded(one_object((96, 96), (28, 38, 68, 58), 2), (96, 96))
    turn = linear(1.0, 30.0)
    matrix = np.concatenate([turn, (48 - turn @ [48, 48])[:, None]], axis=1)
    moved = warp(picture, matrix, (96, 96))
    wide = 40 * math.cos(math.pi / 6) + 20 * math.sin(math.pi / 6)
    high = 40 * math.sin(math.pi / 6) + 20 * math.cos(math.pi / 6)
    expected = [48 - wide / 2, 48 - high / 2, 48 + wide / 2, 48 + high / 2]
    np.testing.assert_allclose(moved.boxes[0], expected, atol=1e-4)
    np.testing.assert_allclose(around(coloured(moved.image, 2)), expected, atol=1.5)
    # counter-clockwise as it is seen: the right end rises
    ends = coloured(moved.image, 2)
    assert np.flatnonzero(ends[:, 62:66].any(axis=1)).mean() < 48 < np.flatnonzero(ends[:, 30:34].any(axis=1)).mean()


@QUICK
@given(objects(1), SEEDS)
def test_a_move_by_whole_pixels_changes_none(picture: Picture, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-20, 20, 2)
    noisy = Picture(rng.integers(0, 256, (*SIZE, 3), np.uint8), picture.boxes, picture.class_id)
    moved = warp(noisy, np.array([[1.0, 0, x], [0, 1.0, y]]), SIZE, min_visible=0)
    rolled = np.full((*SIZE, 3), 114, np.uint8)
    h, w = SIZE[0] - abs(y), SIZE[1] - abs(x)
    rolled[max(y, 0) : max(y, 0) + h, max(x, 0) : max(x, 0) + w] = noisy.image[
        max(-y, 0) : max(-y, 0) + h, max(-x, 0) : max(-x, 0) + w
    ]
    np.testing.assert_array_equal(moved.image, rolled)


# ---------------------------------------------------------------------------------------------- nothing, and again


@QUICK
@given(objects(3), SEEDS)
def test_no_augmentation_is_identity(picture: Picture, seed: int) -> None:
    assert not STILL.active
    same = made([picture], STILL, seed)
    expected = padded(picture, SIZE)
    for one, other in zip(same, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@QUICK
@given(objects(3), st.booleans())
def test_flipping_twice_is_identity(picture: Picture, sideways: bool) -> None:
    once = flip(picture, sideways=sideways)
    np.testing.assert_allclose(around(coloured(once.image, 3)), once.boxes[0])
    for one, other in zip(flip(once, sideways=sideways), picture, strict=True):
        np.testing.assert_array_equal(one, other)


FULL = Augment(degrees=5, shear=3, mixup=0.5, copy_paste=0.5, flipud=0.3)


@QUICK
@given(st.tuples(*(objects(i % 6) for i in range(8))), SEEDS)
def test_the_same_seed_gives_the_same_sample(pictures: tuple[Picture, ...], seed: int) -> None:
    before = [picture.image.copy() for picture in pictures]
    first, second = made(pictures, FULL, seed), made(pictures, FULL, seed)
    check_inside(first, SIZE)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    for picture, image in zip(pictures, before, strict=True):
        np.testing.assert_array_equal(picture.image, image)


def test_other_seeds_give_other_samples() -> None:
    pictures = [one_object(SIZE, (10, 10, 60, 60), i % 6) for i in range(8)]
    samples = [made(pictures, FULL, seed).image for seed in range(8)]
    assert len({sample.tobytes() for sample in samples}) == 8


def test_pictures_without_objects() -> None:
    empty = Picture(np.zeros((*SIZE, 3), np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    for seed in range(5):
        check_inside(made([empty] * 8, FULL, seed), SIZE)


# ----------------------------------------------------------------------------------------------------- small objects


def test_small_objects_are_neither_shrunk_away_nor_cut() -> None:
    pictures = [one_object(SIZE, (40 + 10 * kind, 30, 50 + 10 * kind, 40), kind) for kind in range(4)]
    wild = replace(STILL, mosaic=1.0, scale=0.9, translate=0.1)
    plain, careful = [], []
    for seed in range(60):
        plain.append(made(pictures, wild, seed))
        careful.append(made(pictures, replace(wild, small=8.0), seed))
    for picture in careful:
        sides = picture.boxes[:, 2:] - picture.boxes[:, :2]
        assert len(sides) and sides.min(axis=1).max() >= 7.99  # one at least is there, whole
    assert sum(not len(p.boxes) or (p.boxes[:, 2:] - p.boxes[:, :2]).max() < 7 for p in plain) > 10  # without it


def test_large_objects_do_not_notice() -> None:
    pictures = [one_object(SIZE, (20, 20, 80, 70), kind) for kind in range(4)]
    for seed in range(10):
        one, other = made(pictures, Augment(small=8.0), seed), made(pictures, Augment(small=0.0), seed)
        np.testing.assert_array_equal(one.image, other.image)


def scattered(rng: np.random.Generator, count: int, side: int) -> Picture:
    image = rng.integers(0, 60, (*SIZE, 3)).astype(np.uint8)
    boxes = []
    for kind in range(count):
        x, y = 4 + 28 * kind, int(rng.integers(4, SIZE[0] - side - 4))
        image[y : y + side, x : x + side] = COLOURS[kind]
        boxes.append([x, y, x + side, y + side])
    return Picture(image, np.array(boxes, np.float32), np.arange(count))


@QUICK
@given(SEEDS)
def test_copies_of_small_objects_stand_where_nothing_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = scattered(rng, 4, 10)
    pasted = copy_paste(rng, picture, 1.0)
    check_inside(pasted, SIZE)
    np.testing.assert_array_equal(pasted.boxes[:4], picture.boxes)
    assert len(pasted.boxes) > 4
    for index, (box, kind) in enumerate(zip(pasted.boxes, pasted.class_id, strict=True)):
        x1, y1, x2, y2 = box.astype(int)
        assert (pasted.image[y1:y2, x1:x2] == COLOURS[kind]).all()
        for other in pasted.boxes[:index]:
            assert not (other[0] < x2 and other[2] > x1 and other[1] < y2 and other[3] > y1)
    outside = np.ones(SIZE, bool)
    for box in pasted.boxes[4:].astype(int):
        outside[max(0, box[1] - 4) : box[3] + 4, max(0, box[0] - 4) : box[2] + 4] = False
    np.testing.assert_array_equal(pasted.image[outside], picture.image[outside])


def test_what_is_not_pasted() -> None:
    rng = np.random.default_rng(0)
    large = one_object(SIZE, (5, 5, 40, 40), 0)
    assert copy_paste(rng, large, 1.0).image is large.image
    full = Picture(np.zeros((*SIZE, 3), np.uint8), np.array([[0, 0, 128, 96], [3, 3, 9, 9]], np.float32), np.arange(2))
    assert len(copy_paste(rng, full, 1.0).boxes) == 2
    close = Picture(full.image, np.array([[30, 30, 40, 40], [40, 30, 50, 40]], np.float32), np.arange(2))
    assert len(copy_paste(rng, close, 1.0).boxes) == 2
    picture = scattered(rng, 4, 10)
    assert len(copy_paste(rng, picture, 0.0).boxes) == 4


# --------------------------------------------------------------------------------------------------- colour and mixing


@QUICK
@given(SEEDS, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_grey_stays_grey(seed: int, hue: float, saturation: float, value: float) -> None:
    rng = np.random.default_rng(seed)
    grey = np.repeat(rng.integers(0, 256, (4, 5, 1), np.uint8), 3, axis=2)
    jittered = hsv_jitter(rng, grey, hue, saturation, value)
    assert (jittered == jittered[:, :, :1]).all()
    assert (jittered <= np.minimum(255, np.ceil(grey * (1.0 + value)) + 1)).all()
    assert (jittered >= np.floor(grey * (1.0 - value)) - 1).all()


def test_colour_changes_as_far_as_was_said() -> None:
    red = np.full((1, 1, 3), (40, 40, 200), np.uint8)
    rng = np.random.default_rng(3)
    assert hsv_jitter(rng, red, 0, 0, 0) is red
    turned = np.array([hsv_jitter(rng, red, 0.1, 0, 0)[0, 0] for _ in range(100)], int)
    assert (turned.max(axis=1) == 200).all() and (
        turned[:, 2] == 200
    ).all()  # at most 18 of 180 steps from red: red leads
    assert (turned[:, 0] > 45).any() and (turned[:, 1] > 45).any()  # to either side
    light = np.array([hsv_jitter(rng, red, 0, 0, 0.2)[0, 0, 2] for _ in range(100)], int)
    assert 158 <= light.min() < 170 and 230 < light.max() <= 242


def test_mixup_keeps_both() -> None:
    first, second = one_object(SIZE, (10, 10, 40, 40), 0), one_object(SIZE, (50, 50, 90, 90), 1)
    mixed = mixup(np.random.default_rng(0), first, second)
    assert mixed.class_id.tolist() == [0, 1] and mixed.boxes.tolist() == [[10, 10, 40, 40], [50, 50, 90, 90]]
    assert 60 < mixed.image[20, 20, 0] < 195 and 60 < mixed.image[60, 60, 1] < 195


# ------------------------------------------------------------------------------------------------ geometry, settings


@QUICK
@given(st.lists(st.tuples(*[st.floats(-50, 150, width=32)] * 4), max_size=5), st.floats(0.2, 3), st.floats(-180, 180))
def test_moved_boxes_hold_moved_points(rows: list[tuple[float, ...]], gain: float, degrees: float) -> None:
    raw = np.array(rows, np.float32).reshape(-1, 4)
    boxes = np.concatenate([np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1)
    matrix = np.concatenate([linear(gain, degrees, (5, -7)), [[3.0], [-8.0]]], axis=1)
    moved = move_boxes(boxes, matrix)
    for x, y in ((0, 1), (0, 3), (2, 1), (2, 3)):
        points = boxes[:, [x, y]] @ matrix[:, :2].T + matrix[:, 2]
        assert (points >= moved[:, :2] - 1e-3).all() and (points <= moved[:, 2:] + 1e-3).all()


def test_clipping_and_what_is_left() -> None:
    boxes = np.array([[-10, 0, 10, 10], [5, 5, 15, 15], [30, 30, 40, 40]], np.float32)
    part = clipped(boxes, 0, 0, 20, 10)
    assert part.tolist() == [[0, 0, 10, 10], [5, 5, 15, 10], [20, 10, 20, 10]]
    assert visible(boxes, part).tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("name", [field.name for field in fields(Augment)])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 2000, "0.5", None, True])
def test_settings_are_checked(name: str, value: Any) -> None:
    with pytest.raises(DimensionError, match=f"^{name} is .*a number from 0 to"):
        Augment(**{name: value})
