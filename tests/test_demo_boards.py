"""Synthetic boards: each defect does to the copper what its name says, and the labels are exactly where it does it."""

from __future__ import annotations

import hashlib
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo.demo import CLASSES, Board, draw_board, make_board
from ovyolo.demo.appearance import STYLES
from ovyolo.demo.camera import SCALE, Camera
from ovyolo.demo.plan import random_layout
from ovyolo.errors import DimensionError

# another picture from the same seed is another demo.dataset.VERSION
KNOWN_CLASSES = ["spur", "pin-hole", "short", "open", "spurious copper", "mouse bite"]
KNOWN_BOX = [159.0, 138.0, 169.0, 149.0]
KNOWN_SUMS = {"masked": "c26411ff4c1ca231", "bare": "f463c1c834560813", "binary": "c439f9b8fe2692d6"}

OPEN, SHORT, BITE, SPUR, SPURIOUS, PINHOLE = range(6)
SIZE = (320, 384)


@cache
def board(seed: int, style: str | None = None, kind: int | None = None) -> Board:
    """A board of medium size with its clean twin; with ``kind``, one defect of that class."""
    if kind is None:
        return draw_board(seed, SIZE, style=style, defects=6, clean=True)
    return draw_board(seed, SIZE, style=style, defects=1, classes=[kind], clean=True)


def parts(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def holes(mask: np.ndarray) -> int:
    """Parts of what is not copper."""
    return cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 1


def test_classes_are_those_of_the_trade() -> None:
    assert CLASSES == ("open", "short", "mouse bite", "spur", "spurious copper", "pin-hole")


def test_same_seed_same_board_another_seed_another() -> None:
    first, second, other = (make_board(seed, SIZE) for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).mean() > 0.2
    assert first[0].dtype == np.uint8 and first[1].dtype == np.float32 and first[2].dtype == np.int64


@pytest.mark.parametrize("style", STYLES)
def test_a_known_board_on_every_machine(style: str) -> None:
    """Drawn by what OpenCV and NumPy compute alike in all versions, to the last bit."""
    picture, boxes, class_id = make_board((2026, 1), (256, 256), style=style, defects=6)
    if style != "masked":  # whose silk screen leaves other places for defects
        assert [CLASSES[k] for k in class_id] == KNOWN_CLASSES
        assert boxes[0].tolist() == KNOWN_BOX
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == KNOWN_SUMS[style]


@pytest.mark.parametrize("seed", range(8))
def test_nets_never_touch(seed: int) -> None:
    nets = board(seed).clean_nets
    _, labels = cv2.connectedComponents((nets > 0).astype(np.uint8), connectivity=8)
    pairs = np.unique(np.stack([labels[nets > 0], nets[nets > 0]], 1), axis=0)
    assert len(pairs) > 10
    assert len(np.unique(pairs[:, 0])) == len(pairs), "a connected piece of copper belongs to two nets"


@pytest.mark.parametrize("seed", range(8))
def test_nets_are_trees(seed: int) -> None:
    """A loop would stay connected when it is cut, so an `open` would be none."""
    rng = np.random.default_rng(seed)
    camera = Camera(rng, SIZE)
    layout = random_layout(rng, camera.columns, camera.rows)
    for net in {trace.net for trace in layout.traces}:
        traces = [trace for trace in layout.traces if trace.net == net]
        ends = {end for trace in traces for end in (trace.points[0], trace.points[-1])}
        assert len(ends) == len(traces) + 1


@pytest.mark.parametrize("kind", range(6), ids=CLASSES)
@pytest.mark.parametrize("seed", range(6))
def test_each_defect_is_what_it_is_called(seed: int, kind: int) -> None:
    made = board(seed, kind=kind)
    assert made.class_id.tolist() == [kind]
    before, after = made.clean_nets > 0, made.nets > 0
    grown, gone = after & ~before, before & ~after
    more_parts, more_holes = parts(after) - parts(before), holes(after) - holes(before)
    if kind == OPEN:
        assert more_parts == 1 and gone.any() and not grown.any()
        assert len(np.unique(made.clean_nets[gone])) == 1
    elif kind == SHORT:
        assert more_parts == -1 and grown.any() and not gone.any()
        beside = cv2.dilate(grown.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert len(np.unique(made.clean_nets[beside & before])) == 2
    elif kind == BITE:
        assert more_parts == 0 and more_holes == 0 and gone.any() and not grown.any()
        assert touches(gone, ~before), "a bite begins at the edge"
    elif kind == SPUR:
        assert more_parts == 0 and more_holes == 0 and grown.any() and not gone.any()
        wide = cv2.dilate(grown.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert len(np.unique(made.clean_nets[wide & before])) == 1, "a spur stays away from other nets"
    elif kind == SPURIOUS:
        assert more_parts == 1 and grown.any() and not gone.any()
        assert not touches(grown, before)
    else:
        assert more_parts == 0 and more_holes == 1 and gone.any() and not grown.any()
        assert not touches(gone, ~before), "a pin-hole has copper all around"


def touches(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((cv2.dilate(a.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & b).any())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63), style=st.sampled_from(STYLES))
def test_many_defects_add_up(seed: int, style: str) -> None:
    made = draw_board(seed, (256, 256), style=style, defects=12, clean=True)
    kinds = made.class_id
    change = parts(made.nets > 0) - parts(made.clean_nets > 0)
    assert change == np.isin(kinds, (OPEN, SPURIOUS)).sum() - (kinds == SHORT).sum()
    assert_boxes_are_the_changes(made)


def assert_boxes_are_the_changes(made: Board) -> None:
    """Each box is touched on all four sides by changed copper, and nothing is changed outside of them."""
    changed = made.nets != made.clean_nets
    for x0, y0, x1, y1 in (made.boxes * SCALE).astype(int):
        inside = changed[y0:y1, x0:x1]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        changed[y0:y1, x0:x1] = False
    assert not changed.any()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_boxes_fit_what_the_camera_sees(seed: int, style: str) -> None:
    made = board(seed, style)
    height, width = made.picture.shape[:2]
    assert made.clean is not None and made.picture.shape == (*SIZE, 3) and len(made.boxes) >= 4
    assert (made.boxes[:, :2] >= 0).all() and (made.boxes[:, 2:] <= (width, height)).all()
    sides = made.boxes[:, 2:] - made.boxes[:, :2]
    assert (sides >= 5).all() and (sides.max(1) >= 8).all() and (sides <= 50).all()
    assert_boxes_are_the_changes(made)
    difference = np.abs(made.picture.astype(int) - made.clean).max(2)
    elsewhere = difference.copy()
    for x0, y0, x1, y1 in made.boxes:
        left, top, right, bottom = int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1))
        spread = difference[max(0, top - 6) : bottom + 6, max(0, left - 6) : right + 6]
        assert difference[top:bottom, left:right].max() >= 12, "a defect can be seen"
        # the half-way contour of what changed, blurred by the lens, is the box to two pixels
        seen_y, seen_x = np.nonzero(spread > 0.35 * spread.max())
        seen = np.array([seen_x.min(), seen_y.min(), seen_x.max() + 1, seen_y.max() + 1], float)
        seen += np.array([max(0, left - 6), max(0, top - 6)] * 2)
        assert np.abs(seen - (x0, y0, x1, y1)).max() <= 3.0
        elsewhere[max(0, top - 6) : bottom + 6, max(0, left - 6) : right + 6] = 0
    assert elsewhere.max() <= 1, "without the defects it is the same picture"


def test_styles_look_like_what_they_are() -> None:
    assert set(np.unique(board(0, "binary").picture)) == {0, 255}
    for style in ("masked", "bare"):
        picture = board(0, style).picture
        assert picture.std() > 15 and len(np.unique(picture)) > 100
        assert (picture[..., 0] != picture[..., 2]).any()
    drawn = {draw_board(seed, (128, 128), defects=0).style for seed in range(30)}
    assert drawn == set(STYLES)


def test_only_the_classes_that_were_asked_for() -> None:
    _, boxes, class_id = make_board(1, SIZE, classes=[SPUR, PINHOLE], defects=6)
    assert len(boxes) == len(class_id) > 2
    assert set(class_id.tolist()) == {SPUR, PINHOLE}
    picture, boxes, class_id = make_board(1, SIZE, defects=0)
    assert boxes.shape == (0, 4) and class_id.shape == (0,) and picture.shape == (*SIZE, 3)


def test_all_classes_come_about_equally_often() -> None:
    kinds = np.concatenate([make_board(seed, (320, 320), style="binary", defects=6)[2] for seed in range(20)])
    counts = np.bincount(kinds, minlength=6)
    assert (counts >= 12).all(), dict(zip(CLASSES, counts, strict=True))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"seed": -1}, "seed"), ({"seed": ()}, "seed"), ({"seed": (1, -2)}, "seed"), ({"seed": "7"}, "seed"),
        ({"seed": 1.5}, "seed"), ({"size": (64, 640)}, "size"), ({"size": (640,)}, "size"), ({"size": 640}, "size"),
        ({"size": (4097, 640)}, "size"),
        ({"size": (640, 1e9)}, "size"), ({"style": "pink"}, "style"), ({"defects": -1}, "defects"),
        ({"defects": 2.5}, "defects"), ({"classes": []}, "classes"), ({"classes": [6]}, "classes"),
        ({"classes": 3}, "classes"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(DimensionError, match=f"^{word} is "):
        make_board(**{"seed": 0, "size": (128, 128), **arguments})
