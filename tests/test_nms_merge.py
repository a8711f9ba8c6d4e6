"""Merging of boxes: the kernels of ``ovyolo._nms`` against their NumPy twins, and what must hold of any result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import merge_numpy as twin

from ovyolo import _nms
from ovyolo.errors import DimensionError

HOWS = ("nms", "nmm", "wbf", "soft")


def crowd(rng: np.random.Generator, n: int, side: float, kind: str) -> NDArray[np.float32]:
    """Boxes that are scattered, crowded about few objects, of all sizes, thin, on whole pixels, or broken."""
    if kind == "crowded":
        objects = rng.uniform(0, side, (max(1, n // 8), 2)), rng.uniform(4, side / 4, (max(1, n // 8), 2))
        which = rng.integers(0, max(1, n // 8), n)
        size = objects[1][which] * rng.uniform(0.7, 1.3, (n, 2))
        centre = objects[0][which] + rng.normal(0, 0.15, (n, 2)) * size
    else:
        spread = {"scattered": 0.3, "sizes": 3.0, "thin": 2.0, "whole": 0.5, "broken": 0.5}[kind]
        size = side / 8 * np.exp(rng.normal(0, spread, (n, 2)))
        centre = rng.uniform(0, side, (n, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    if kind == "whole":
        boxes = np.round(boxes / 4) * 4
    boxes = boxes.astype(np.float32)
    if kind == "broken":
        with np.errstate(invalid="ignore"):
            odd = rng.random(boxes.shape) < 0.05
            boxes[odd] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 0, 1e-40], odd.sum())
    return boxes


@st.composite
def calls(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 70))
    kind = draw(st.sampled_from(["scattered", "crowded", "sizes", "thin", "whole", "broken"]))
    boxes = crowd(rng, n, 100.0, kind) + np.float32(draw(st.sampled_from([0, 0, -500, 16384, 70000])))
    scores = rng.random(n).astype(np.float32)
    if draw(st.booleans()):
        scores = np.round(scores * 4) / 4
    if kind == "broken" and n:
        scores[rng.integers(0, n)] = draw(st.sampled_from([np.nan, np.inf, -1.0, 0.0]))
    classes = None if draw(st.booleans()) else rng.choice([-5, 0, 3, 2**31 - 1], n).astype(np.int32)
    return (boxes, scores, classes), {
        "threshold": draw(st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.55, 0.9, 1.0]) | st.floats(0, 1)),
        "how": draw(st.sampled_from(HOWS)),
        "metric": draw(st.sampled_from(["iou", "ios"])),
        "agnostic": draw(st.booleans()),
        "sigma": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "least": draw(st.sampled_from([0.0, 0.001, 0.2])),
    }


@settings(max_examples=250, deadline=None)
@given(calls())
def test_merging_gives_what_the_twin_gives(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, kwargs = call
    with np.errstate(all="ignore"):
        theirs = twin.merge(*args, **kwargs)
    ours = _nms.merge(*args, **kwargs)
    assert [a.dtype for a in ours] == [np.float32, np.float32, np.int64, np.int64]
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_array_equal(ours[3], theirs[3])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(calls())
def test_what_holds_of_any_merging(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    """Best first; nothing invented; each usable box belongs to one result; results of NMS do not match each other."""
    (boxes, scores, classes), kwargs = call
    made, confidence, index, group = _nms.merge(boxes, scores, classes, **kwargs)
    assert (np.diff(confidence) <= 0).all() and len(set(index.tolist())) == len(index)
    assert (group[index] == np.arange(len(index))).all()
    usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if kwargs["how"] in ("nms", "nmm"):
        assert ((group >= 0) == usable).all()
        np.testing.assert_array_equal(confidence, scores[index])
    if kwargs["how"] == "nms":
        np.testing.assert_array_equal(made, boxes[index])
        merged_again = _nms.merge(made, confidence, None if classes is None else classes[index], **kwargs)
        assert len(merged_again[2]) == len(index)
    for k in range(len(index)):
        members = boxes[group == k].astype(np.float64)
        with np.errstate(over="ignore"):
            assert (made[k][:2] >= members[:, :2].min(axis=0) - 1e-5 * np.abs(members).max()).all()
            assert (made[k][2:] <= members[:, 2:].max(axis=0) + 1e-5 * np.abs(members).max()).all()


@pytest.mark.parametrize("how", ["nms", "nmm", "wbf"])
@pytest.mark.parametrize("kind", ["scattered", "crowded", "sizes", "thin"])
def test_many_boxes_give_what_the_twin_gives(how: str, kind: str) -> None:
    """Enough that grids of several sizes, their fallbacks, and fetching ahead are in use."""
    rng = np.random.default_rng(5)
    boxes, scores = crowd(rng, 1500, 3000.0, kind), rng.random(1500).astype(np.float32)
    if kind == "thin":
        boxes[::7, 2] += 2500
    classes = rng.integers(0, 2, 1500).astype(np.int32)
    ours, theirs = (f(boxes, scores, classes, threshold=0.3, how=how) for f in (_nms.merge, twin.merge))
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_array_equal(ours[3], theirs[3])


@pytest.fixture
def any_blocks() -> Iterator[None]:
    yield
    _nms.set_merge_blocks()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls(), st.integers(1, 7), st.integers(1, 9))
def test_blocks_change_nothing(
    any_blocks: None, call: tuple[tuple[Any, ...], dict[str, Any]], a_block: int, in_cache: int
) -> None:
    """Of few boxes each, so that many boxes lie in several and wait for each other."""
    args, kwargs = call
    _nms.set_merge_blocks(1000, 1000)
    whole = _nms.merge(*args, **kwargs)
    _nms.set_merge_blocks(a_block, in_cache)
    for ours, theirs in zip(_nms.merge(*args, **kwargs), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("metric", ["iou", "ios"])
@pytest.mark.parametrize("kind", ["scattered", "crowded", "sizes", "whole", "border", "far", "one place", "turned"])
def test_many_blocks_change_nothing(any_blocks: None, kind: str, metric: str) -> None:
    """Of the usual size; with crowds that lie where blocks meet, which give too many rivals; with boxes far away."""
    rng = np.random.default_rng(11)
    n = 20_000
    boxes = crowd(rng, n, 10_000.0, kind if kind in ("crowded", "sizes", "whole") else "scattered")
    if kind in ("scattered", "whole", "border", "far", "turned"):
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (boxes[:, 2:] - boxes[:, :2]) / 64
        boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    if kind == "border":
        # a row of crowds without a gap: some border of blocks runs through one of them
        boxes[: n // 4] = [3900, 4900, 4100, 5100]
        boxes[: n // 4, ::2] += (np.arange(n // 4)[:, None] % 12) * 200
        boxes[: n // 4] += rng.normal(0, 4, (n // 4, 4)).astype(np.float32)
    if kind == "far":
        boxes[::1000] *= np.float32(1e30)
    if kind == "turned":  # of no area: corners, or two sides, the wrong way round and several blocks apart
        boxes[::3, :2] += 6000
        boxes[1::7, 0] += 6000
    if kind == "one place":
        boxes[:] = [4900, 4900, 5100, 5100]
    scores = rng.random(n).astype(np.float32)
    _nms.set_merge_blocks(1024, n)
    whole = _nms.merge(boxes, scores, threshold=0.5, how="nmm", metric=metric)
    _nms.set_merge_blocks()
    for ours, theirs in zip(_nms.merge(boxes, scores, threshold=0.5, how="nmm", metric=metric), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sizes_of_blocks_are_checked() -> None:
    for wrong in (0, -1, 2.5, "many", None):
        with pytest.raises(DimensionError, match="a_block is"):
            _nms.set_merge_blocks(wrong)  # type: ignore[arg-type]
        with pytest.raises(DimensionError, match="in_cache is"):
            _nms.set_merge_blocks(1024, wrong)  # type: ignore[arg-type]


def test_nms_is_the_other_nms() -> None:
    """Away from ties, the float32 kernel behind decoding keeps the same boxes."""
    rng = np.random.default_rng(1)
    boxes, scores = crowd(rng, 4000, 2000.0, "crowded"), rng.random(4000).astype(np.float32)
    classes = rng.integers(0, 3, 4000).astype(np.int32)
    for agnostic in (False, True):
        kept = _nms.nms(boxes, scores, classes, iou=0.45, agnostic=agnostic)
        index = _nms.merge(boxes, scores, classes, threshold=0.45, agnostic=agnostic)[2]
        assert len(set(kept.tolist()) ^ set(index.tolist())) <= 4  # IoU within float32's grain of the threshold


@pytest.mark.parametrize("offset", [0, 16384, 40000, 100000])
def test_half_a_pixel_counts_far_from_the_origin(offset: int) -> None:
    """Two boxes of 4 pixels that lie 1.5 px apart have IoU 5/11 = 0.4545; half a pixel further 1/3."""
    boxes = np.array([[0, 0, 4, 4], [1.5, 0, 5.5, 4], [2, 8, 6, 12], [0, 8, 4, 12]], np.float32) + np.float32(offset)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    for how in ("nms", "nmm", "wbf"):
        assert _nms.merge(boxes, scores, threshold=0.45, how=how)[3].tolist()[:2] == [0, 0]
        assert len(_nms.merge(boxes, scores, threshold=0.45, how=how)[2]) == 3
        assert len(_nms.merge(boxes, scores, threshold=0.46, how=how)[2]) == 4
    fused = _nms.merge(boxes, scores, threshold=0.45, how="wbf")[0][0]
    assert abs(fused[0] - offset - 0.8 * 1.5 / 1.7) <= offset / 2**23 + 1e-6
    assert _nms.merge(boxes, scores, threshold=0.45, how="nmm")[0][0].tolist() == [
        offset,
        offset,
        offset + 5.5,
        offset + 4,
    ]


def test_weighted_fusion_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 0, 60, 10]], np.float32)
    made, confidence, index, group = _nms.merge(
        boxes, np.array([0.75, 0.25, 0.6], np.float32), threshold=0.55, how="wbf"
    )
    np.testing.assert_allclose(made, [[50, 0, 60, 10], [0.5, 0, 10.5, 10]])
    np.testing.assert_allclose(confidence, [0.6, 0.5])
    assert index.tolist() == [2, 0] and group.tolist() == [1, 1, 0]


def test_soft_nms_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [50, 0, 60, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.1], np.float32)
    _, confidence, index, _ = _nms.merge(boxes, scores, threshold=0.3, how="soft")
    assert index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(confidence, [0.9, 0.8 * np.exp(-((1 / 3) ** 2) / 0.5), 0.1], rtol=1e-6)
    _, confidence, *_ = _nms.merge(boxes, scores, threshold=0.3, how="soft", sigma=0)
    np.testing.assert_allclose(confidence, [0.9, 0.8 * 2 / 3, 0.1], rtol=1e-6)
    assert len(_nms.merge(boxes, scores, threshold=0.3, how="soft", least=0.2)[2]) == 2


def test_fifty_thousand_boxes_are_quick_however_they_lie() -> None:
    """Bounds are ten times what a busy machine needs: they catch a grid that degenerates, not a slow day."""
    rng = np.random.default_rng(0)
    n = 50_000
    scores = rng.random(n).astype(np.float32)
    lines = crowd(rng, n, 10_000.0, "scattered")
    lines[:, 0], lines[:, 2] = 0, 10_000
    lines[:, 3] = lines[:, 1] + 1
    same = np.tile(np.array([[5, 5, 90, 80]], np.float32), (n, 1))
    for boxes in (crowd(rng, n, 10_000.0, "crowded"), crowd(rng, n, 10_000.0, "sizes") / 8, lines, same):
        for how in ("nms", "nmm"):
            begin = time.process_time()
            _nms.merge(boxes, scores, threshold=0.5, how=how)
            assert time.process_time() - begin < 3.0


@st.composite
def tiled(draw: st.DrawFn) -> tuple[Any, Any, Any, Any, Any]:
    """Tiles with some overlap, and objects as each tile sees them, with noise; and boxes that are of no object."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step, side = draw(st.sampled_from([(100, 100), (80, 100), (70, 100), (99, 100)]))
    tiles = np.array([[x, y, x + side, y + side] for y in (0, step, 2 * step) for x in (0, step, 2 * step)], float)
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        corner, size = rng.uniform(0, 200, 2), rng.uniform(5, 180, 2)
        kind = int(rng.integers(0, 2))
        for number, tile in enumerate(tiles):
            seen = twin.cut_by(np.concatenate([corner, corner + size]), tile)
            if (seen[2:] - seen[:2] > 2).all() and rng.random() < 0.9:
                rows.append((seen + rng.normal(0, draw(st.sampled_from([0, 1, 4])), 4), kind, number))
    for _ in range(draw(st.integers(0, 8))):
        corner = rng.uniform(0, 250, 2)
        rows.append((np.concatenate([corner, corner + rng.uniform(-2, 60, 2)]), 0, int(rng.integers(0, 9))))
    order = rng.permutation(len(rows))
    boxes = np.array([rows[i][0] for i in order], np.float32).reshape(-1, 4)
    return (
        boxes,
        np.array([rows[i][1] for i in order], np.int32),
        np.array([rows[i][2] for i in order], np.int32),
        tiles,
        rng,
    )


@settings(max_examples=150, deadline=None)
@given(tiled(), st.sampled_from([0.3, 0.45, 0.6]), st.booleans())
def test_joining_gives_what_the_twin_gives(case: Any, threshold: float, agnostic: bool) -> None:
    boxes, classes, tile_ids, tiles, _ = case
    ours = _nms.join_fragments(boxes, classes, tile_ids, tiles, threshold=threshold, agnostic=agnostic)
    theirs = twin.join_fragments(boxes, classes, tile_ids, tiles, threshold=threshold, agnostic=agnostic)
    np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=100, deadline=None)
@given(tiled(), st.sampled_from([0.0, 0.3, 0.45, 0.6, 0.9]), st.sampled_from(["iou", "ios"]), st.booleans())
def test_matching_gives_what_the_twin_gives(case: Any, threshold: float, metric: str, cut: bool) -> None:
    boxes, classes, tile_ids, tiles, rng = case
    others = np.concatenate([boxes, crowd(rng, 12, 250.0, "sizes")])
    others_classes = rng.integers(0, 2, len(others)).astype(np.int32)
    others[rng.random(others.shape) < 0.02] = np.nan
    for given_classes in ((None, None), (classes, others_classes)):
        words: dict[str, Any] = {"threshold": threshold, "metric": metric, "within": tiles[tile_ids] if cut else None}
        if cut:
            words["scores"] = rng.random(len(boxes)).astype(np.float32)
            words["slack"] = rng.uniform(0, 6, len(others)) * (rng.random() < 0.5)
            words["other_scores"] = rng.random(len(others)).astype(np.float32)
        np.testing.assert_array_equal(
            _nms.matched(boxes, others, *given_classes, **words), twin.matched(boxes, others, *given_classes, **words)
        )


def test_fragments_of_one_object_join_and_those_of_two_do_not() -> None:
    tiles = np.array([[0, 0, 100, 100], [80, 0, 180, 100], [0, 80, 100, 180], [80, 80, 180, 180]], float)
    object_, beside = np.array([50, 50, 130, 150.0]), np.array([60, 10, 130, 40.0])
    seen = np.array([twin.cut_by(box, tile) for box in (object_, beside) for tile in tiles], np.float32)[
        [0, 1, 2, 3, 4, 5]
    ]
    join = _nms.join_fragments(
        seen, np.zeros(6, np.int32), np.array([0, 1, 2, 3, 0, 1], np.int32), tiles, threshold=0.45
    )
    assert join.tolist() == [0, 0, 0, 0, 4, 4]
    # two equal objects, one below the other: what one tile saw of the first is not what the other saw of the second
    stacked = np.array([[60, 10, 100, 40], [80, 40, 130, 70]], np.float32)
    assert _nms.join_fragments(
        stacked, np.zeros(2, np.int32), np.array([0, 1], np.int32), tiles, threshold=0.45
    ).tolist() == [0, 1]


BOXES, SCORES = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
CLASSES, TILES = np.zeros(3, np.int32), np.zeros((2, 4))


@pytest.mark.parametrize(
    ("function", "changes", "words"),
    [
        ("merge", {"xyxy": BOXES.astype(float)}, "xyxy has dtype float64"),
        ("merge", {"xyxy": BOXES[:, :3]}, "expected .n, 4."),
        ("merge", {"scores": SCORES[:2]}, "one a box"),
        ("merge", {"class_ids": CLASSES.astype(np.int64)}, "class_ids is not an int32 array"),
        ("merge", {"class_ids": CLASSES[:1]}, "one a box"),
        ("merge", {"threshold": 1.5}, "threshold is 1.5"),
        ("merge", {"threshold": None}, "threshold is None"),
        ("merge", {"how": "best"}, "how is 'best'; it takes one of nms, nmm, wbf, soft"),
        ("merge", {"how": ["nms"]}, "how is"),
        ("merge", {"metric": "giou"}, "metric is 'giou'"),
        ("merge", {"sigma": -1}, "sigma is -1"),
        ("merge", {"sigma": "wide"}, "sigma is 'wide'"),
        ("merge", {"sigma": float("nan")}, "sigma is nan"),
        ("merge", {"least": 2}, "least is 2"),
        ("matched", {"others": BOXES[0]}, "others has shape"),
        ("matched", {"class_ids": CLASSES}, "go together"),
        ("matched", {"scores": SCORES}, "scores and other_scores go together"),
        ("matched", {"scores": SCORES, "other_scores": SCORES[:1]}, "other_scores has shape"),
        ("matched", {"slack": np.full(3, -1.0)}, "slack takes .3,. numbers"),
        ("matched", {"slack": np.full(3, np.nan)}, "slack takes"),
        ("matched", {"within": TILES}, "within has shape"),
        ("join_fragments", {"tile_ids": CLASSES + np.int32(2)}, "not one of the 2"),
        ("join_fragments", {"tile_ids": CLASSES - np.int32(1)}, "not one of the 2"),
        ("join_fragments", {"tiles": TILES[:, :2]}, "tiles has shape"),
        ("join_fragments", {"xyxy": BOXES * np.float32(np.nan)}, "not finite"),
    ],
)
def test_wrong_arguments_are_named(function: str, changes: dict[str, Any], words: str) -> None:
    given_arguments = {
        "merge": {"xyxy": BOXES, "scores": SCORES, "threshold": 0.5},
        "matched": {"xyxy": BOXES, "others": BOXES, "threshold": 0.5},
        "join_fragments": {
            "xyxy": BOXES, "class_ids": CLASSES, "tile_ids": CLASSES, "tiles": TILES, "threshold": 0.5
        },
    }[function]  # fmt: skip
    getattr(_nms, function)(**given_arguments)
    with pytest.raises(DimensionError, match=words):
        getattr(_nms, function)(**{**given_arguments, **changes})
