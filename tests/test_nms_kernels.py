"""The kernels of ``ovyolo._nms`` against their NumPy twins and against golden results."""

from __future__ import annotations

import doctest
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import decode_numpy as twin
from reference.kernel_cases import assert_identical, assert_same, random_values

from ovyolo import _nms

LEVELS = ("plain", "sse2", "avx2")
ODD_LOGITS = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 88, -88, -104, 710, 1e30, -1e30, 1e-40], np.float32)


def available_levels() -> list[str]:
    _nms.set_simd_level("auto")
    return list(LEVELS[: LEVELS.index(_nms.simd_level()) + 1])


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    _nms.set_simd_level("auto")


@st.composite
def settings_of_a_call(draw: st.DrawFn, num_classes: int, rng: np.random.Generator) -> dict[str, Any]:
    mask = draw(st.sampled_from([None, "bool", "uint8", "none"]))
    chosen = None if mask is None else rng.random(num_classes) < (0.0 if mask == "none" else 0.6)
    return {
        "conf": draw(st.sampled_from([0.0, 0.001, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)),
        "iou": draw(st.sampled_from([0.0, 0.45, 0.6, 1.0]) | st.floats(0, 1)),
        "max_det": draw(st.sampled_from([1, 5, 300, 5000])),
        "max_nms": draw(st.sampled_from([1, 3, 40, 500, 30000])),
        "multi_label": draw(st.booleans()),
        "agnostic": draw(st.booleans()),
        "class_mask": chosen.astype(np.uint8) if chosen is not None and mask == "uint8" else chosen,
        "transform": draw(st.sampled_from([None, (0.5, 0.6, 3.0, 4.5, 90.0, 60.0)])),
    }


@st.composite
def head_calls(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels, na = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    nc = draw(st.sampled_from([1, 2, 3, 7, 20]))
    kind = draw(st.sampled_from(["smooth", "smooth", "ties", "hot", "constant"]))
    odd = draw(st.sampled_from([0.0, 0.0, 0.002, 0.05]))
    heads = []
    for _ in range(levels):
        height, width = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        head = random_values(rng, (1, na * (5 + nc), height, width), kind)
        places = rng.random(head.shape) < odd
        head[places] = rng.choice(ODD_LOGITS, places.sum())
        heads.append(head[0] if draw(st.booleans()) else head)
    anchors = rng.uniform(4, 60, (levels, na, 2))
    strides = 8 * 2 ** np.arange(levels)
    return (heads, anchors, strides, nc), draw(settings_of_a_call(nc, rng))


@settings(max_examples=300, deadline=None)
@given(head_calls())
def test_heads_give_what_the_twin_gives(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, kwargs = call
    theirs = twin.decode_nms(*args, **kwargs)
    results = []
    for level in available_levels():
        _nms.set_simd_level(level)
        results.append(_nms.decode_nms(*args, **kwargs))
        assert_same(results[-1], theirs)
        assert_identical(results[-1], results[0])


@st.composite
def row_calls(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, nc = draw(st.integers(0, 120)), draw(st.sampled_from([1, 2, 5, 33]))
    with_objectness = draw(st.booleans())
    rows = rng.random((n, nc + 4 + with_objectness)) ** draw(st.sampled_from([1, 4]))
    if draw(st.booleans()):
        rows = np.round(rows * 4) / 4
    rows[:, :2] *= 100
    rows[:, 2:4] *= 40
    rows = rows.astype(np.float32)
    places = rng.random(rows.shape) < draw(st.sampled_from([0.0, 0.01, 0.1]))
    rows[places] = rng.choice(np.array([np.nan, np.inf, -np.inf, -3, 3e38, -3e38, 7], np.float32), places.sum())
    kwargs = {**draw(settings_of_a_call(nc, rng)), "objectness": with_objectness}
    return (rows[None] if draw(st.booleans()) else rows, nc), kwargs


@settings(max_examples=300, deadline=None)
@given(row_calls())
def test_rows_give_what_the_twin_gives(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, kwargs = call
    with np.errstate(over="ignore"):
        assert_same(_nms.decode_nms_rows(*args, **kwargs), twin.decode_nms_rows(*args, **kwargs))


def scene(rng: np.random.Generator, n: int, kind: str) -> NDArray[np.float32]:
    """Boxes: scattered, crowded, of all sizes, thin, copies of few, or inverted and odd."""
    centre, size = rng.uniform(0, 3000, (n, 2)), rng.uniform(5, 80, (n, 2))
    if kind == "crowded":
        centre /= 12
    elif kind == "sizes":
        size = 10 ** rng.uniform(-3, 4, (n, 2))
    elif kind == "thin":
        size *= np.where(rng.random((n, 1)) < 0.5, [10, 0.01], [0.01, 10])
        centre /= 5
    elif kind == "far":
        centre += rng.choice([-1e5, 1e5, 1e8], (n, 2))
    elif kind == "copies":
        pick = rng.integers(0, max(n // 10, 1), n)
        centre, size = np.round(centre[pick] / 50) * 50, np.round(size[pick])
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    if kind == "odd":
        boxes[::7, 2] = boxes[::7, 0]
        boxes[1::7] = boxes[1::7, [2, 3, 0, 1]]
        boxes[2::7, 0] = rng.choice(np.array([np.nan, np.inf, -3e38, 1e-42], np.float32), len(boxes[2::7]))
    return boxes


KINDS = ["scattered", "crowded", "sizes", "thin", "far", "copies", "odd"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([0, 1, 2, 30, 400]),
    kind=st.sampled_from(KINDS),
    classes=st.sampled_from([None, 1, 4]),
    agnostic=st.booleans(),
    iou=st.sampled_from([0.0, 1e-6, 0.1, 0.45, 0.6, 0.95, 0.999, 1.0]) | st.floats(0, 1),
    max_det=st.sampled_from([None, None, 1, 20]),
)
def test_nms_gives_what_the_twin_gives(
    seed: int, n: int, kind: str, classes: int | None, agnostic: bool, iou: float, max_det: int | None
) -> None:
    rng = np.random.default_rng(seed)
    boxes = scene(rng, n, kind)
    scores = np.round(rng.normal(0, 1, n), 2).astype(np.float32)
    scores[rng.random(n) < 0.01] = np.nan
    class_ids = None if classes is None else rng.integers(-classes, classes, n).astype(np.int32)
    theirs = twin.nms(boxes, scores, class_ids, iou=iou, max_det=max_det, agnostic=agnostic)
    for level in available_levels():
        _nms.set_simd_level(level)
        ours = _nms.nms(boxes, scores, class_ids, iou=iou, max_det=max_det, agnostic=agnostic)
        assert ours.dtype == np.int64
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("iou", [0.0, 0.45, 0.9])
def test_many_boxes_are_kept_as_by_the_twin(kind: str, iou: float) -> None:
    rng = np.random.default_rng(5)
    boxes, scores = scene(rng, 4000, kind), rng.random(4000).astype(np.float32)
    for class_ids in (None, rng.integers(0, 3, 4000).astype(np.int32)):
        theirs = twin.nms(boxes, scores, class_ids, iou=iou)
        np.testing.assert_array_equal(_nms.nms(boxes, scores, class_ids, iou=iou), theirs)
        for max_det in (1024, 1025):
            np.testing.assert_array_equal(
                _nms.nms(boxes, scores, class_ids, iou=iou, max_det=max_det), theirs[:max_det]
            )


def test_many_rows_with_a_large_max_det() -> None:
    rng = np.random.default_rng(6)
    rows = np.column_stack([rng.uniform(0, 900, (3000, 2)), rng.uniform(5, 60, (3000, 2)), rng.random((3000, 6))])
    rows = rows.astype(np.float32)
    for agnostic in (False, True):
        kwargs: dict[str, Any] = {"conf": 0.1, "iou": 0.5, "max_det": 4000, "multi_label": True, "agnostic": agnostic}
        theirs = twin.decode_nms_rows(rows, 5, **kwargs)
        assert len(theirs[0]) > 1100
        assert_same(_nms.decode_nms_rows(rows, 5, **kwargs), theirs)
        assert_same(
            _nms.decode_nms_rows(rows, 5, **{**kwargs, "max_det": 900}),
            twin.decode_nms_rows(rows, 5, **{**kwargs, "max_det": 900}),
        )


def test_scores_in_sorted_and_other_awkward_orders() -> None:
    n = 20000
    boxes = np.zeros((n, 4), np.float32)  # without area: all are kept, so the order is seen
    ramp = np.arange(n, dtype=np.float32)
    organ_pipe = np.minimum(ramp, n - ramp)
    for scores in (ramp, -ramp, organ_pipe, -organ_pipe, ramp % 2, np.zeros_like(ramp), ramp % 127):
        expected = np.lexsort((np.arange(n), -scores))
        np.testing.assert_array_equal(_nms.nms(boxes, scores, iou=0.5), expected)
        np.testing.assert_array_equal(_nms.nms(boxes, scores, iou=0.5, max_det=700), expected[:700])


def test_half_a_pixel_counts_at_a_hundred_thousand() -> None:
    boxes = np.array([[0, 0, 8, 8], [3.5, 0, 11.5, 8], [3, 0, 11, 8]], np.float32) + np.float32(1e5)
    # IoU 4.5/11.5 = 0.391 and 5/11 = 0.455 with the first
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert _nms.nms(boxes[:2], scores[:2], iou=0.42).tolist() == [0, 1]
    assert _nms.nms(boxes[::2].copy(), scores[::2].copy(), iou=0.42).tolist() == [0]


def test_iou_must_exceed_the_threshold() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert _nms.nms(boxes, scores, iou=0.5).tolist() == [0, 1]
    assert _nms.nms(boxes, scores, iou=0.4999).tolist() == [0]


def one_cell(logits: list[float], classes: int) -> list[NDArray[np.float32]]:
    return [np.array(logits, np.float32).reshape(1, 5 + classes, 1, 1)]


def test_the_mask_applies_after_the_best_class_or_to_each() -> None:
    heads = one_cell([0, 0, 0, 0, 9, 3, 5], 2)
    common: dict[str, Any] = {"conf": 0.1, "iou": 0.5, "class_mask": np.array([True, False])}
    assert len(_nms.decode_nms(heads, [[[10, 10]]], [8], 2, **common)[0]) == 0
    assert _nms.decode_nms(heads, [[[10, 10]]], [8], 2, multi_label=True, **common)[2].tolist() == [0]


@pytest.mark.parametrize("sound_of", [2, 20])
def test_a_cell_with_a_nan_class_yields_nothing_even_when_candidates_overflow(sound_of: int) -> None:
    rng = np.random.default_rng(7)
    head = random_values(rng, (5 + 40, 400), "hot")
    # the last class: found only after all others made candidates, which must not cost sound cells their places
    head[-1] = np.where(np.arange(400) % sound_of == 0, head[-1], np.nan)
    head = head.reshape(1, 45, 20, 20)
    for max_nms in (1, 50, 700):
        kwargs: dict[str, Any] = {"conf": 0.01, "iou": 1.0, "multi_label": True, "max_nms": max_nms, "max_det": 1000}
        theirs = twin.decode_nms([head], [[[20, 20]]], [8], 40, **kwargs)
        assert theirs[4] == 400 - 400 // sound_of and theirs[3] and len(theirs[0]) == max_nms
        assert_same(_nms.decode_nms([head], [[[20, 20]]], [8], 40, **kwargs), theirs)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("max_nms", [1, 60, 500, 2500])
def test_the_best_max_nms_survive_a_long_stream(multi_label: bool, max_nms: int) -> None:
    rng = np.random.default_rng(10)
    heads = [random_values(rng, (1, 2 * 9, side, side), "smooth") for side in (40, 30, 20)]
    heads[1][0, 8, 5:25, ::3] = np.nan
    # all heads hold overlapping scores, and with IoU 1 nothing hides a wrong choice
    kwargs: dict[str, Any] = {"conf": 0.01, "iou": 1.0, "max_det": 9999, "max_nms": max_nms, "multi_label": multi_label}
    args = (heads, np.full((3, 2, 2), 20.0), [8, 16, 32], 4)
    theirs = twin.decode_nms(*args, **kwargs)
    assert len(theirs[0]) == max_nms and theirs[3] and theirs[4] > 0
    assert_same(_nms.decode_nms(*args, **kwargs), theirs)


@pytest.mark.parametrize("level", LEVELS)
def test_scores_one_step_above_conf_are_found(level: str) -> None:
    """The thresholds on logits, which spare most cells the sigmoid, must never hide a candidate."""
    if level not in available_levels():
        pytest.skip(f"this CPU has no {level}")
    _nms.set_simd_level(level)
    rng = np.random.default_rng(11)
    pairs = rng.uniform(-12, 12, (400, 2)).astype(np.float32).tolist()
    for objectness, best in [*pairs, [np.inf, 17], [-90, 17]]:
        heads = one_cell([0, 0, 0, 0, objectness, best], 1)
        confidence = _nms.decode_nms(heads, [[[9, 9]]], [8], 1, conf=0.0, iou=0.5)[1]
        below = float(np.nextafter(confidence[0], np.float32(0)))
        for multi_label in (False, True):
            found = [
                len(_nms.decode_nms(heads, [[[9, 9]]], [8], 1, conf=conf, iou=0.5, multi_label=multi_label)[0])
                for conf in (below, float(confidence[0]))
            ]
            assert found == [1, 0], (objectness, best)


def test_truncated_says_whether_a_further_box_would_have_been_kept() -> None:
    rows = np.array([[50, 50, 9, 9, 0.9], [51, 50, 9, 9, 0.8], [90, 50, 9, 9, 0.7]], np.float32)
    common: dict[str, Any] = {"conf": 0.1, "iou": 0.5, "objectness": False}
    assert [len(_nms.decode_nms_rows(rows, 1, **common, max_det=n)[0]) for n in (1, 2, 3)] == [1, 2, 2]
    assert [_nms.decode_nms_rows(rows, 1, **common, max_det=n)[3] for n in (1, 2, 3)] == [True, False, False]
    assert _nms.decode_nms_rows(rows[:2], 1, **common, max_det=1)[3] is False
    assert [_nms.decode_nms_rows(rows, 1, **common, max_nms=n)[3] for n in (2, 3)] == [True, False]


def test_strided_and_read_only_heads_are_read_as_their_values() -> None:
    rng = np.random.default_rng(8)
    wide = random_values(rng, (1, 7, 10, 24), "smooth")
    kwargs: dict[str, Any] = {"conf": 0.05, "iou": 0.45}
    strided = wide[:, :, ::2, ::-3]
    expected = _nms.decode_nms([strided.copy()], [[[20, 20]]], [8], 2, **kwargs)
    assert len(expected[0]) > 3
    assert_identical(_nms.decode_nms([strided], [[[20, 20]]], [8], 2, **kwargs), expected)
    frozen = strided.copy()
    frozen.flags.writeable = False
    assert_identical(_nms.decode_nms((frozen,), [[[20, 20]]], [8], 2, **kwargs), expected)
    misaligned = np.frombuffer(b"x" + frozen.tobytes(), np.uint8)[1:].view(np.float32).reshape(frozen.shape)
    assert not misaligned.flags.aligned
    assert_identical(_nms.decode_nms([misaligned], [[[20, 20]]], [8], 2, **kwargs), expected)


def test_the_lock_is_released() -> None:
    rng = np.random.default_rng(9)
    boxes, scores = scene(rng, 300_000, "crowded"), rng.random(300_000).astype(np.float32)
    worker = threading.Thread(target=_nms.nms, args=(boxes, scores), kwargs={"iou": 0.45})
    ticks = 0
    worker.start()
    while worker.is_alive():
        ticks += 1
        time.sleep(0.001)
    assert ticks > 10


def test_examples_in_docstrings() -> None:
    ran = 0
    for name in _nms.__all__:
        for test in doctest.DocTestFinder().find(getattr(_nms, name), name, module=False, globs={}):
            outcome = doctest.DocTestRunner().run(test)
            assert outcome.failed == 0
            ran += outcome.attempted
    assert ran > 10


def iou_matrix(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    inter = np.clip(high - low, 0, None).prod(-1)
    size_a, size_b = (v[:, 2:4] - v[:, :2] for v in (a, b))
    return inter / (size_a.prod(-1)[:, None] + size_b.prod(-1)[None] - inter)


@pytest.mark.parametrize(("picture", "width", "height"), [("bus", 810, 1080), ("zidane", 1280, 720)])
@pytest.mark.parametrize(("setting", "least_share"), [("detect", 1.0), ("val", 0.995)])
def test_golden_heads_give_golden_rows(
    shared: Path, picture: str, width: int, height: int, setting: str, least_share: float
) -> None:
    card = json.loads((shared / "golden" / "yolov5n.json").read_text())
    rows = np.array(card["images"][f"{picture}.jpg"][setting])
    with np.load(shared / "golden" / f"yolov5n-raw-{picture}.npz") as stored:
        heads = [stored[f"head{i}"] for i in range(3)]
    gain = 640 / max(width, height)
    transform = (gain, gain, (640 - width * gain) / 2, (640 - height * gain) / 2, width, height)
    options: dict[str, Any] = {"conf": 0.25, "iou": 0.45}
    if setting == "val":
        options = {"conf": 0.001, "iou": 0.6, "multi_label": True, "max_det": 300}
    args = (heads, np.array(card["anchors"]), np.array(card["stride"]), len(card["names"]))
    ours = _nms.decode_nms(*args, transform=transform, **options)
    assert_same(ours, twin.decode_nms(*args, transform=transform, **options))
    xyxy, confidence, class_id, truncated, nonfinite = ours
    assert nonfinite == 0 and truncated == (setting == "val") and len(xyxy) == len(rows)
    wanted = rows[rows[:, 4] >= 0.01]
    same = (class_id[None] == wanted[:, 5:6]) & (np.abs(confidence[None] - wanted[:, 4:5]) <= 0.002)
    same &= iou_matrix(wanted, xyxy.astype(np.float64)) >= 0.995
    assert same.any(axis=1).mean() >= least_share
    if setting == "detect":
        assert same.sum() == len(rows)
