"""Whatever a caller passes to ``ovyolo._nms``: a clear error or a right answer, never a crash, a hang or a bloat."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.fresh import run_python

from ovyolo import _nms
from ovyolo.errors import DimensionError, OvyoloError

ANCHORS = np.full((1, 1, 2), 16.0)
HEAD = np.zeros((1, 7, 4, 4), np.float32)
ROWS = np.zeros((1, 6, 7), np.float32)
BOXES = np.zeros((6, 4), np.float32)
SCORES = np.zeros(6, np.float32)


def heads_call(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "heads": [HEAD], "anchors": ANCHORS, "strides": [8], "num_classes": 2, "conf": 0.25, "iou": 0.45
    }  # fmt: skip
    return _nms.decode_nms(**{**given, **changes})


def rows_call(**changes: Any) -> Any:
    return _nms.decode_nms_rows(**{"rows": ROWS, "num_classes": 2, "conf": 0.25, "iou": 0.45, **changes})


def nms_call(**changes: Any) -> Any:
    return _nms.nms(**{"xyxy": BOXES, "scores": SCORES, "iou": 0.45, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": HEAD}, "heads is one array"),
        ({"heads": None}, "heads is a NoneType"),
        ({"heads": 3}, "heads is a int"),
        ({"heads": []}, "heads is empty"),
        ({"heads": [HEAD, HEAD]}, r"anchors have shape \(1, 1, 2\)"),
        ({"heads": [HEAD.tolist()]}, r"heads\[0\] is a list"),
        ({"heads": [None]}, r"heads\[0\] is a NoneType"),
        ({"heads": [HEAD.astype(np.float16)]}, "dtype float16"),
        ({"heads": [HEAD.astype(np.float64)]}, "dtype float64"),
        ({"heads": [HEAD.astype(">f4")]}, "dtype >f4"),
        ({"heads": [HEAD.astype(np.int32)]}, "dtype int32"),
        ({"heads": [HEAD.astype(object)]}, "dtype object"),
        ({"heads": [HEAD.astype(np.complex64)]}, "dtype complex64"),
        ({"heads": [HEAD[:, :6]]}, r"expected \[1, 7, H, W\]"),
        ({"heads": [HEAD[0, 0]]}, r"expected \[1, 7, H, W\]"),
        ({"heads": [HEAD[0, 0, 0, 0]]}, r"heads\[0\] is a float32"),
        ({"heads": [np.zeros((), np.float32)]}, "shape"),
        ({"heads": [np.zeros((2, 7, 4, 4), np.float32)]}, r"\(2, 7, 4, 4\)"),
        ({"heads": [np.zeros((0, 7, 4, 4), np.float32)]}, r"\(0, 7, 4, 4\)"),
        ({"heads": [np.zeros((1, 1, 7, 4, 4), np.float32)]}, "shape"),
        ({"anchors": [[1, 2]]}, "anchors have shape"),
        ({"anchors": np.zeros((1, 0, 2))}, "anchors have shape"),
        ({"anchors": [[[1, 2], [3]]]}, "anchors"),
        ({"anchors": "abc"}, "anchors have shape"),
        ({"anchors": [[["a", "b"]]]}, "anchors cannot be read as numbers"),
        ({"anchors": None}, "anchors have shape"),
        ({"anchors": ANCHORS * 0}, "anchors holds 0"),
        ({"anchors": -ANCHORS}, "anchors holds -16"),
        ({"anchors": ANCHORS * np.nan}, "anchors holds nan"),
        ({"anchors": ANCHORS * np.inf}, "anchors holds inf"),
        ({"anchors": ANCHORS * 1e9}, "at most 1e6"),
        ({"strides": [8, 16]}, "strides has shape"),
        ({"strides": 8}, "strides has shape"),
        ({"strides": [0]}, "strides holds 0"),
        ({"strides": ["x"]}, "strides cannot be read"),
        ({"strides": [10**400]}, "strides cannot be read"),
        ({"strides": None}, "strides"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": 3}, r"expected \[1, 8, H, W\]"),
        ({"num_classes": 2**31 - 4}, "expected"),
        ({"num_classes": 10**30}, "expected"),
        ({"num_classes": 2.0}, "num_classes is 2.0"),
        ({"num_classes": None}, "num_classes is None"),
    ],
)
def test_bad_heads_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DimensionError, match=words):
        heads_call(**changes)


def test_a_refused_picture_leaves_a_decoder_usable() -> None:
    decode = _nms.HeadDecoder(ANCHORS, [8], 2, conf=0.2, iou=0.45)
    right = decode([HEAD])
    assert len(right[0]) > 0
    for heads, transform, words in [
        (HEAD, None, "heads is one array"),
        ([HEAD, HEAD], None, "heads has 2 levels, but anchors have shape"),
        ([HEAD[:, :6]], None, r"expected \[1, 7, H, W\]"),
        ([HEAD.astype(np.float64)], None, "dtype float64"),
        ([HEAD], (0, 1, 0, 0, 5, 5), "gain that is not positive"),
    ]:
        with pytest.raises(DimensionError, match=words):
            decode(heads, transform)
        assert np.array_equal(decode([HEAD])[0], right[0])
    with pytest.raises(TypeError):
        _nms.HeadDecoder()  # type: ignore[call-arg]
    shrinking = np.zeros((1, 7, 4, 4), np.float32)
    decode([shrinking])
    shrinking.resize((1, 7, 2, 4), refcheck=False)  # nothing of it is held between calls
    assert len(decode([shrinking])[0]) == len(decode([HEAD[:, :, :2].copy()])[0])


@pytest.mark.parametrize("call", [heads_call, rows_call])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conf": -0.1}, "conf is -0.1"),
        ({"conf": 1.1}, "conf is 1.1"),
        ({"conf": float("nan")}, "conf is nan"),
        ({"conf": "high"}, "conf is 'high'"),
        ({"conf": None}, "conf is None"),
        ({"conf": 10**400}, "conf"),
        ({"iou": 2}, "iou is 2"),
        ({"iou": float("inf")}, "iou is inf"),
        ({"iou": []}, r"iou is \[\]"),
        ({"max_det": 0}, "max_det is 0"),
        ({"max_det": 1.5}, "max_det is 1.5"),
        ({"max_det": None}, "max_det is None"),
        ({"max_nms": 0}, "max_nms is 0"),
        ({"max_nms": -(10**30)}, "max_nms is -1"),
        ({"class_mask": [True, False]}, "class_mask is not an array"),
        ({"class_mask": np.ones(2, np.float32)}, "class_mask is not an array"),
        ({"class_mask": np.ones(3, bool)}, r"class_mask has shape \(3,\)"),
        ({"class_mask": np.ones((2, 1), bool)}, "class_mask has shape"),
        ({"class_mask": np.ones((), bool)}, "class_mask has shape"),
        ({"transform": 5}, "transform is not six numbers"),
        ({"transform": (1, 1, 0, 0, 5)}, "transform is not six numbers"),
        ({"transform": (1, 1, 0, 0, 5, "x")}, "transform is not six numbers"),
        ({"transform": (1, 1, 0, 0, 5, 10**400)}, "transform is not six numbers"),
        ({"transform": (0, 1, 0, 0, 5, 5)}, "gain that is not positive"),
        ({"transform": (1, -1, 0, 0, 5, 5)}, "gain that is not positive"),
        ({"transform": (1, 1, float("nan"), 0, 5, 5)}, "must be finite"),
        ({"transform": (1, 1, 0, 0, 5, float("inf"))}, "must be finite"),
        ({"transform": (1, 1, 0, 0, -5, 5)}, "negative width or height"),
    ],
)
def test_bad_settings_are_refused(call: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DimensionError, match=words) as caught:
        call(**changes)
    assert isinstance(caught.value, OvyoloError) and isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "changes", "words"),
    [
        (rows_call, {"rows": [[0.0] * 7]}, "rows is a list"),
        (rows_call, {"rows": ROWS.astype(np.float64)}, "dtype float64"),
        (rows_call, {"rows": ROWS[0, 0]}, "rows has shape"),
        (rows_call, {"rows": np.zeros((2, 6, 7), np.float32)}, "rows has shape"),
        (rows_call, {"rows": ROWS[..., :6]}, r"expected \[1, N, 7\]"),
        (rows_call, {"objectness": False}, r"expected \[1, N, 6\]"),
        (rows_call, {"num_classes": 0}, "num_classes is 0"),
        (rows_call, {"num_classes": 2**31}, "rows has shape"),
        (nms_call, {"xyxy": BOXES.tolist()}, "xyxy is a list"),
        (nms_call, {"xyxy": BOXES.astype(np.float16)}, "dtype float16"),
        (nms_call, {"xyxy": BOXES[:, :3]}, "xyxy has shape"),
        (nms_call, {"xyxy": BOXES[0]}, "xyxy has shape"),
        (nms_call, {"scores": SCORES[:5]}, "scores has shape"),
        (nms_call, {"scores": SCORES[:, None]}, "scores has shape"),
        (nms_call, {"scores": SCORES.astype(np.float64)}, "dtype float64"),
        (nms_call, {"class_ids": np.zeros(6, np.int64)}, "class_ids is not an int32 array"),
        (nms_call, {"class_ids": [0] * 6}, "class_ids is not an int32 array"),
        (nms_call, {"class_ids": np.zeros(7, np.int32)}, "class_ids has shape"),
        (nms_call, {"iou": 1.5}, "iou is 1.5"),
        (nms_call, {"max_det": 0}, "max_det is 0"),
    ],
)
def test_bad_rows_and_boxes_are_refused(call: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DimensionError, match=words):
        call(**changes)


def test_an_unknown_simd_level_is_refused() -> None:
    with pytest.raises(DimensionError, match="simd level is 'avx9'"):
        _nms.set_simd_level("avx9")
    with pytest.raises(DimensionError, match="simd level"):
        _nms.set_simd_level(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("shape", [(7, 1, 1), (7, 1, 7), (7, 3, 3), (7, 5, 13), (7, 0, 4), (7, 4, 0)])
def test_heads_of_one_value(shape: tuple[int, ...], multi_label: bool) -> None:
    cells = shape[1] * shape[2]
    for value in (np.nan, np.inf, -np.inf, 0.0, 50.0, -50.0, 3.4e38, 1e-45):
        xyxy, confidence, class_id, truncated, nonfinite = heads_call(
            heads=[np.full(shape, value, np.float32)], conf=0.5, iou=1.0, multi_label=multi_label, max_det=5000
        )
        hot = value in (np.inf, 50.0, np.float32(3.4e38), 3.4e38)
        assert len(xyxy) == len(confidence) == len(class_id) == (cells * (1 + multi_label) if hot else 0)
        assert not truncated and nonfinite == (cells if np.isnan(value) else 0)
        assert np.isfinite(xyxy).all() and np.isfinite(confidence).all()


def test_infinite_logits_are_legal() -> None:
    head = np.full((1, 6, 1, 2), np.inf, np.float32)
    head[0, :2, 0, 0] = -np.inf
    head[0, 2, 0, 1] = -np.inf
    xyxy, confidence, _, _, nonfinite = heads_call(heads=[head], num_classes=1)
    # centres at -0.5 and 1.5 cells from the grid point, sizes of 4 anchors, one of no width
    np.testing.assert_allclose(xyxy, [[-36, -36, 28, 28], [20, -20, 20, 44]])
    assert confidence.tolist() == [1, 1] and nonfinite == 0


def test_best_class_of_minus_infinities_is_no_box() -> None:
    head = np.full((1, 7, 1, 1), -np.inf, np.float32)
    head[0, 4] = 9
    assert len(heads_call(heads=[head], conf=0.0)[0]) == 0


def test_ten_thousand_hot_classes_stay_within_bounds() -> None:
    """16 million candidates from a 64 MB head: memory grows by the bound on candidates, not by their number."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory of a process is read from /proc, which this system does not have")
    code = """
import numpy as np
from ovyolo import _nms
def peak():  # not ru_maxrss: that begins with what the parent process had
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
head = np.full((1, 10005, 40, 40), 3, np.float32)
_nms.decode_nms([head[:, :7]], [[[9, 9]]], [8], 2, conf=0.01, iou=0.5)
before = peak()
result = _nms.decode_nms([head], [[[9, 9]]], [8], 10000, conf=0.01, iou=0.5, multi_label=True)
print(len(result[0]), result[3], peak() - before)
"""
    boxes, truncated, grown = run_python(code).split()
    assert (boxes, truncated) == ("300", "True")
    assert int(grown) < 12_000  # kilobytes


def test_huge_limits_cost_nothing() -> None:
    result = heads_call(heads=[HEAD + 5], max_det=10**12, max_nms=10**12, multi_label=True, iou=1.0)
    assert len(result[0]) == 32 and result[3] is False


def test_zero_stride_views_are_copied() -> None:
    spread = np.broadcast_to(np.float32(5), (1, 7, 4, 4))
    assert len(heads_call(heads=[spread], iou=1.0)[0]) == 16
    assert len(rows_call(rows=np.broadcast_to(np.float32(5), (3, 7)), iou=1.0)[0]) == 3
    assert len(nms_call(xyxy=np.broadcast_to(np.float32(5), (6, 4)))) == 6


def test_class_ids_of_any_value() -> None:
    extremes = np.array([-(2**31), 2**31 - 1, -1, 0, 1, 2**30], np.int32)
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (6, 1))
    assert nms_call(xyxy=boxes, class_ids=extremes).tolist() == [0, 2, 3, 4, 5, 1]
    assert nms_call(xyxy=boxes, class_ids=extremes, agnostic=True).tolist() == [0]
    backwards = np.repeat(extremes, 2)[::-2]
    assert len(nms_call(xyxy=boxes, class_ids=backwards)) == 6


def seconds_for(boxes: np.ndarray, iou: float) -> float:
    scores = np.random.default_rng(1).random(len(boxes)).astype(np.float32)
    begin = time.perf_counter()
    _nms.nms(np.ascontiguousarray(boxes, np.float32), scores, iou=iou)
    return time.perf_counter() - begin


@pytest.mark.parametrize("iou", [0.0, 0.45, 0.99])
def test_no_arrangement_of_boxes_takes_long(iou: float) -> None:
    """Bounds are generous for slow machines; comparing all pairs of 20,000 in NumPy takes many times as long."""
    rng = np.random.default_rng(2)
    n = 20_000
    centre = rng.uniform(0, 1e4, (n, 2))
    tiny_and_huge = np.where(rng.random((n, 1)) < 0.5, 1.0, 9000.0) * rng.uniform(0.5, 1, (n, 2))
    lines = np.stack([rng.uniform(500, 1000, n), rng.uniform(0.001, 1, n)], 1)
    nested = 2 ** rng.uniform(-60, 60, (n, 2))
    all_equal = np.ones((n, 2))
    for middle, size in ((centre, tiny_and_huge), (centre, lines), (0 * centre, nested), (0 * centre, all_equal)):
        assert seconds_for(np.concatenate([middle - size / 2, middle + size / 2], 1), iou) < 4
    assert seconds_for(np.tile([-3e38, -3e38, 3e38, 3e38], (n, 1)), iou) < 4


def test_another_thread_may_scribble_on_the_heads() -> None:
    head = np.full((1, 25, 40, 40), 4, np.float32)
    rng = np.random.default_rng(3)
    noise = [rng.normal(0, 50, head.shape).astype(np.float32) for _ in range(3)]
    noise[1][rng.random(head.shape) < 0.3] = np.nan
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            for values in noise:
                head[...] = values

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for i in range(150):
            xyxy, confidence, class_id, _, _ = heads_call(
                heads=[head], num_classes=20, multi_label=bool(i % 2), max_nms=100, max_det=50
            )
            assert len(xyxy) == len(confidence) == len(class_id) <= 50
            assert ((class_id >= 0) & (class_id < 20)).all()
    finally:
        stop.set()
        thread.join()
