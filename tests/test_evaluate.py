"""COCO's figures equal pycocotools'; matching, confusion and class numbers are what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.judging import made_predictions, made_set, pycocotools_stats, random_case

from ovyolo.dataset import load_dataset
from ovyolo.errors import DataError, DimensionError, OvyoloError
from ovyolo.evaluate import read_predictions, score
from ovyolo.evaluate.matching import confidence_curves, confusion_matrix, match, overlaps

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
STATS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


# -------------------------------------------------------------------------------------------------- COCO's figures


@pytest.mark.parametrize("seed", range(40))
def test_figures_are_pycocotools(seed: int) -> None:
    dataset, predictions = random_case(seed)
    if not len(predictions):
        pytest.skip("pycocotools takes no empty predictions")
    evaluation = pycocotools_stats(dataset, predictions)
    scores = score(dataset, predictions)
    for name, theirs in zip(STATS, evaluation.stats, strict=True):
        ours = getattr(scores, name)
        assert (theirs == -1 and math.isnan(ours)) or ours == pytest.approx(theirs, abs=1e-6), name
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for index, one in enumerate(scores.classes):
        theirs = precision[:, :, index]
        if (theirs == -1).all():
            assert math.isnan(one.ap) and math.isnan(one.ap50) and one.objects == 0
        else:
            assert one.ap == pytest.approx(theirs.mean(), abs=1e-6)
            assert one.ap50 == pytest.approx(theirs[0].mean(), abs=1e-6)


def test_judging_twice_gives_the_same() -> None:
    dataset, predictions = random_case(3)
    first, again = score(dataset, predictions), score(dataset, predictions)
    assert first.to_dict() == again.to_dict()
    other = score(dataset, predictions.take(predictions.score > 0.5))
    assert other.boxes < first.boxes and score(dataset, predictions).to_dict() == first.to_dict()


@pytest.mark.parametrize("name", ["data.yaml", "instances.json"])
def test_upstream_predictions_give_upstream_figures(shared: Path, name: str) -> None:
    dataset = load_dataset(shared / "coco-val128" / name).checked()
    scores = score(dataset, read_predictions(shared / "golden/yolov5n-coco-val128-predictions.json", dataset))
    wanted = {"ap": 0.339, "ap50": 0.523, "ap75": 0.369, "ap_small": 0.173, "ap_medium": 0.332, "ap_large": 0.470}
    for figure, value in {**wanted, "ar100": 0.542}.items():
        assert f"{getattr(scores, figure):.3f}" == f"{value:.3f}", figure
    assert (scores.pictures, scores.objects, scores.boxes) == (128, 898, 29993)
    assert not any("CAUTION" in note for note in scores.notes)


def test_nothing_found_and_nothing_there() -> None:
    dataset = made_set([[(0, 1, 1, 20, 20, 0)], []])
    scores = score(dataset, made_predictions([]))
    assert scores.ap == 0 and scores.recall == 0 and scores.missed == 1 and math.isnan(scores.precision)
    empty = score(made_set([[], []]), made_predictions([(0, 1, 1, 1, 9, 9, 0.5)]))
    assert math.isnan(empty.ap) and math.isnan(empty.f1) and empty.false == 1
    assert "no object is labelled" in empty.notes[0] and "–" in empty.table()
    assert json.loads(empty.to_json())["ap"] is None
    with pytest.raises(DataError, match="no pictures"):
        score(made_set([]), made_predictions([]))


@pytest.mark.parametrize("bad", [{"at_conf": 1.5}, {"at_conf": -1}, {"match_iou": 0}, {"match_iou": math.nan}])
def test_arguments_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(DimensionError, match=next(iter(bad))):
        score(*random_case(0), **bad)  # type: ignore[arg-type]


def test_missing_library_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    dataset, predictions = random_case(1)
    with pytest.raises(OvyoloError, match=r"pip install 'ovyolo\[val\]'"):
        score(dataset, predictions)


# ------------------------------------------------------------------------------------------- matching and confusion


@pytest.mark.parametrize("seed", range(25))
def test_matches_are_pycocotools(seed: int) -> None:
    dataset, predictions = random_case(seed)
    # pycocotools looks at 100 boxes a class and picture
    keep = np.ones(len(predictions), bool)
    for picture in range(len(dataset)):
        mine = np.flatnonzero(predictions.image == picture)
        keep[mine[80:]] = False
    predictions = predictions.take(keep)
    if not len(predictions):
        pytest.skip("pycocotools takes no empty predictions")
    matches = match(dataset, predictions, 0.5)
    theirs = np.full(len(predictions), -1)
    object_start = np.concatenate([[0], np.cumsum([len(item) for item in dataset.items])])
    for one in pycocotools_stats(dataset, predictions).evalImgs:
        if one is None or one["aRng"] != [0, 1e10]:
            continue
        for box, thing, ignored in zip(one["dtIds"], one["dtMatches"][0], one["dtIgnore"][0], strict=True):
            if thing:
                theirs[box - 1] = -2 if ignored else thing - 1
    assert matches.found.tolist() == theirs.tolist()
    assert object_start[-1] == len(matches.score_of)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), confidence=st.floats(0, 1))
def test_confusion_counts_every_object_and_box_once(seed: int, confidence: float) -> None:
    dataset, predictions = random_case(seed)
    classes = len(dataset.names)
    matches = match(dataset, predictions, 0.5)
    matrix, taken_by, right = confusion_matrix(matches, predictions, classes, confidence)
    real = ~matches.object_crowd
    assert matrix[:classes].sum(axis=1).tolist() == np.bincount(matches.object_class[real], minlength=classes).tolist()
    shown = (predictions.score >= confidence) & (matches.found != -2)
    # a box that matched an object counts for it, whatever its own column
    assert (
        matrix[:, :classes].sum(axis=0).tolist() == np.bincount(predictions.class_id[shown], minlength=classes).tolist()
    )
    taken = taken_by[taken_by >= 0]
    assert len(set(taken.tolist())) == len(taken) and not (right & (taken_by >= 0)).any()
    assert not right[matches.object_crowd].any()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_curves_count_what_a_threshold_leaves(seed: int) -> None:
    dataset, predictions = random_case(seed)
    matches = match(dataset, predictions, 0.5)
    curves = confidence_curves(matches, predictions, len(dataset.names))
    for step in (0, 1, 250, 500, 999, 1000):
        shown = (predictions.score >= curves.grid[step]) & (matches.found != -2)
        for class_id in range(len(dataset.names)):
            mine = shown & (predictions.class_id == class_id)
            assert curves.boxes[class_id, step] == mine.sum()
            assert curves.hits[class_id, step] == (mine & (matches.found >= 0)).sum()
    exact, stepped = score(dataset, predictions, at_conf=0.25), curves
    assert exact.hits == stepped.hits[:, 250].sum() and exact.confidence_chosen


def test_best_f1_and_counts() -> None:
    dataset = made_set([[(0, 0, 0, 10, 10, 0), (1, 50, 50, 90, 90, 0)]], 2)
    rows = [(0, 0, 0, 0, 10, 10, 0.9), (0, 1, 50, 50, 90, 90, 0.6), (0, 0, 200, 200, 230, 230, 0.3)]
    scores = score(dataset, made_predictions(rows))
    assert 0.3 < scores.confidence <= 0.6 and scores.f1 == scores.precision == scores.recall == 1
    assert (scores.hits, scores.false, scores.missed) == (2, 0, 0)
    lower = score(dataset, made_predictions(rows), at_conf=0.1)
    assert (lower.hits, lower.false) == (2, 1) and lower.precision == 0.75
    assert lower.classes[0].f1 == pytest.approx(2 / 3)


def test_confusion_by_hand() -> None:
    dataset = made_set(
        [[(0, 0, 0, 10, 10, 0), (1, 50, 50, 90, 90, 0), (2, 100, 0, 140, 40, 0), (2, 0, 300, 90, 390, 1)]]
    )
    rows = [
        (0, 0, 0, 0, 10, 10, 0.9),  # right
        (0, 1, 0, 0, 10, 10, 0.8),  # a second box there of another class: false
        (0, 2, 50, 50, 90, 88, 0.7),  # wrong class
        (0, 2, 10, 310, 50, 350, 0.6),  # in the crowd: ignored
        (0, 0, 10, 310, 50, 350, 0.6),  # another class in the crowd: false
        (0, 2, 100, 0, 140, 40, 0.1),  # too weak: missed
    ]
    detail = score(dataset, made_predictions(rows), at_conf=0.5).detail
    assert detail is not None
    assert detail.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    assert detail.taken_by.tolist() == [-1, 2, -1, -1]


def test_overlaps() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    objects = np.array([[0.0, 0, 10, 5], [0, 0, 100, 100], [5, 5, 5, 5]])
    crowd = np.array([False, True, False])
    np.testing.assert_allclose(overlaps(boxes, objects, crowd), [[0.5, 1, 0], [0, 0, 0]])
