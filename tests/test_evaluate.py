"""COCO's figures equal pycocotools'; matching, confusion and class numbers are what they say."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo.card import Card, Head
from ovyolo.dataset import DataSet, Item, load_dataset
from ovyolo.detections import Detections
from ovyolo.errors import DataError, DimensionError, OvyoloError
from ovyolo.evaluate import Predictions, class_mapping, read_predictions, score, write_predictions
from ovyolo.evaluate.matching import confidence_curves, confusion_matrix, match, overlaps
from ovyolo.evaluate.predictions import COCO91

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
STATS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def made_set(pictures: list[list[tuple[Any, ...]]], classes: int = 3, ids: list[Any] | None = None) -> DataSet:
    """Pictures of 400x500; an object is (class, left, top, right, bottom, crowd)."""
    items = []
    for index, objects in enumerate(pictures):
        rows = np.array(objects, np.float64).reshape(-1, 6)
        boxes = rows[:, 1:5]
        items.append(
            Item(
                Path(f"/nowhere/{index}.jpg"), ids[index] if ids else index + 1, (400, 500), boxes,
                rows[:, 0].astype(np.int32), rows[:, 5] > 0, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            )
        )  # fmt: skip
    names = tuple(f"c{i}" for i in range(classes))
    return DataSet(names, tuple(items), Path("made.json"), "val", tuple(range(classes)), coco=True)


def made_predictions(rows: list[tuple[Any, ...]]) -> Predictions:
    """A row is (picture, class, left, top, right, bottom, score); pictures ascending."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    xywh = np.concatenate([table[:, 2:4], table[:, 4:6] - table[:, 2:4]], axis=1)
    return Predictions(table[:, 0].astype(np.int64), xywh, table[:, 6], table[:, 1].astype(np.int64))


def random_case(seed: int) -> tuple[DataSet, Predictions]:
    """Objects of all sizes, crowds, pictures without either, equal scores, more boxes than 100 of a class."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 6))
    pictures, rows = [], []
    for picture in range(int(rng.integers(1, 9))):
        count = int(rng.integers(0, 9))
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate(
            [corner, corner + rng.choice([12.0, 40, 150], (count, 1)) * rng.uniform(0.6, 1.4, (count, 2))], 1
        )
        # class numbers start at 0, some never occur
        kinds = rng.integers(0, classes, count)
        pictures.append([(kind, *box, rng.random() < 0.15) for kind, box in zip(kinds, boxes, strict=True)])
        for box, kind in zip(boxes, kinds, strict=True):
            for _ in range(int(rng.integers(0, 4))):
                moved = box + rng.normal(0, rng.choice([0.5, 3, 10]), 4)
                moved[2:] = np.maximum(moved[2:], moved[:2])
                rows.append(
                    (picture, kind if rng.random() < 0.8 else rng.integers(classes), *moved, round(rng.random(), 2))
                )
        extra = 130 if rng.random() < 0.2 else int(rng.integers(0, 9))
        for _ in range(extra):
            x, y = rng.uniform(0, 300, 2)
            rows.append(
                (
                    picture,
                    rng.integers(classes),
                    x,
                    y,
                    x + rng.uniform(1, 90),
                    y + rng.uniform(1, 90),
                    round(rng.random(), 2),
                )
            )
    return made_set(pictures, classes), made_predictions(rows)


def pycocotools_stats(dataset: DataSet, predictions: Predictions) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: dict[str, Any] = {
        "images": [{"id": item.image_id, "height": 400, "width": 500} for item in dataset.items],
        "categories": [
            {"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.names, strict=True)
        ],
        "annotations": [],
    }
    for item in dataset.items:
        for k in range(len(item)):
            left, top, right, bottom = item.boxes[k].tolist()
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": item.image_id, "iscrowd": int(item.crowd[k]),
                 "category_id": dataset.category_ids[item.class_id[k]], "area": float(item.area[k]),
                 "bbox": [left, top, right - left, bottom - top]}
            )  # fmt: skip
    rows = [
        {"image_id": dataset.items[i].image_id, "category_id": dataset.category_ids[c], "bbox": box, "score": s}
        for i, c, box, s in zip(
            predictions.image.tolist(), predictions.class_id.tolist(), predictions.xywh.tolist(), predictions.score.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


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


# ------------------------------------------------------------------------------------- predictions from elsewhere


def rows_for(dataset: DataSet, numbers: tuple[int, ...]) -> list[dict[str, Any]]:
    return [
        {"image_id": item.image_id, "category_id": numbers[c], "bbox": [a, b, x - a, y - b], "score": 0.9}
        for item in dataset.items
        for c, (a, b, x, y) in zip(item.class_id.tolist(), item.boxes.tolist(), strict=True)
    ]


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("ids", ["dataset", "zero-based", "one-based", "coco91"])
def test_category_numbers_are_never_guessed(tmp_path: Path, ids: str) -> None:
    dataset = made_set([[(c, 0, 0, 20, 20, 0) for c in (0, 14, 79)]], 80)
    numbers = {
        "dataset": dataset.category_ids, "zero-based": tuple(range(80)), "one-based": tuple(range(1, 81)), "coco91": COCO91
    }[ids]  # fmt: skip
    path = write(tmp_path / "x.json", rows_for(dataset, numbers))
    assert read_predictions(path, dataset, ids=ids).class_id.tolist() == [0, 14, 79]
    if ids in ("one-based", "coco91"):
        with pytest.raises(DataError, match=rf"category_id (80|90) is none of the classes.*--category-ids .*{ids}"):
            read_predictions(path, dataset)


def test_category_numbers_of_the_data_set_come_first(tmp_path: Path) -> None:
    dataset = made_set([[(0, 0, 0, 20, 20, 0), (2, 30, 30, 60, 60, 0)]])
    dataset = DataSet(dataset.names, dataset.items, dataset.source, "val", (1, 2, 5), coco=True)
    path = write(tmp_path / "x.json", rows_for(dataset, (1, 2, 5)))
    assert read_predictions(path, dataset).class_id.tolist() == [0, 2]
    with pytest.raises(DataError, match="zero-based"):
        read_predictions(write(tmp_path / "y.json", rows_for(dataset, (0, 1, 2))), dataset)
    with pytest.raises(DataError, match="COCO's 80 classes"):
        read_predictions(path, dataset, ids="coco91")
    with pytest.raises(DimensionError, match="ids is 'other'"):
        read_predictions(path, dataset, ids="other")


def test_numbers_that_speak_for_another_scheme_are_pointed_out(tmp_path: Path) -> None:
    dataset = made_set([[(c, 0, 0, 20, 20, 0) for c in range(60)]], 80)
    read = read_predictions(write(tmp_path / "x.json", rows_for(dataset, COCO91)), dataset)
    assert "CAUTION" in read.notes[0] and "coco91" in read.notes[0]
    read = read_predictions(write(tmp_path / "x.json", rows_for(dataset, tuple(range(80)))), dataset)
    assert "CAUTION" not in read.notes[0] and "category_id read as dataset: 0 to 79" in read.notes[0]


def test_shifted_classes_and_other_pictures_are_pointed_out() -> None:
    rng = np.random.default_rng(0)
    objects = [[(i % 3, *xy, *(xy + 30), 0) for i, xy in enumerate(rng.uniform(0, 300, (20, 2)))] for _ in range(5)]
    dataset = made_set(objects)
    rows = [(p, (o[0] + 1) % 3, *o[1:5], 0.9) for p, one in enumerate(objects) for o in one]
    assert any("name its class" in note for note in score(dataset, made_predictions(rows)).notes)
    rows = [(p, o[0], *(np.array(o[1:5]) / 640), 0.9) for p, one in enumerate(objects) for o in one]
    assert any("lie on any object" in note for note in score(dataset, made_predictions(rows)).notes)


@pytest.mark.parametrize("name", ["000000000139", "000000000139.jpg", 139, "139"])
def test_pictures_go_by_number_or_name(shared: Path, tmp_path: Path, name: Any) -> None:
    for description in ("data.yaml", "instances.json"):
        dataset = load_dataset(shared / "coco-val128" / description, limit=3)
        path = write(tmp_path / "x.json", [{"image_id": name, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}])
        assert read_predictions(path, dataset).image.tolist() == [0]


def test_unknown_pictures_are_an_error_or_left_out(tmp_path: Path) -> None:
    dataset = made_set([[(0, 0, 0, 20, 20, 0)], [(1, 0, 0, 20, 20, 0)]])
    rows = rows_for(dataset, dataset.category_ids)
    path = write(tmp_path / "x.json", [*rows, {**rows[0], "image_id": 77}, {**rows[0], "image_id": 2}])
    with pytest.raises(DataError, match=r"1 of the 4 predictions.*image_id 77.*--skip-bad"):
        read_predictions(path, dataset)
    read = read_predictions(path, dataset, skip_bad=True)
    assert read.image.tolist() == [0, 1, 1] and read.class_id.tolist() == [0, 1, 0]
    assert "left out" in read.notes[-1]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({}, "holds no predictions"),
        ([1], "prediction 0 is 1, not an object"),
        ([{"image_id": 1}], "prediction 0 has no category_id"),
        ([{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3], "score": 1}], "takes .left, top, width, height"),
        ([{"image_id": 1, "category_id": 0, "bbox": [1, 2, -3, 1], "score": 1}], "cannot be negative"),
        ([{"image_id": 1, "category_id": 0, "bbox": [1, 2, math.inf, 1], "score": 1}], "not finite"),
        ([{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 1], "score": math.nan}], "not finite"),
        ([{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 1], "score": "1"}], "not finite"),
        ([{"image_id": 1, "category_id": 1e9, "bbox": [1, 2, 3, 1], "score": 1}], "numbers are needed"),
        ([{"image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 1], "score": 1}], "numbers are needed"),
        ([{"image_id": 1, "category_id": 10**30, "bbox": [1, 2, 3, 1], "score": 1}], "numbers are needed"),
        ([{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 1], "score": 1}], "category_id 7 is none"),
    ],
)
def test_bad_predictions_are_one_clear_line(tmp_path: Path, rows: Any, said: str) -> None:
    path = write(tmp_path / "x.json", rows)
    with pytest.raises(DataError, match=said) as error:
        read_predictions(path, made_set([[(0, 0, 0, 20, 20, 0)]]))
    assert "x.json" in str(error.value)


@pytest.mark.parametrize("data", [b"", b"[", b"\xff", b"[" * 100_000, b"[1" + b"0" * 5000 + b"]"])
def test_files_that_are_no_predictions(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.json"):
        read_predictions(tmp_path / "x.json", made_set([[]]))


def test_no_predictions_are_fine(tmp_path: Path) -> None:
    assert len(read_predictions(write(tmp_path / "x.json", []), made_set([[]]))) == 0


def test_written_predictions_come_back(tmp_path: Path) -> None:
    dataset, predictions = random_case(5)
    dataset = DataSet(
        dataset.names, dataset.items, dataset.source, "val", tuple(range(10, 10 + len(dataset.names))), coco=True
    )
    path = write_predictions(tmp_path / "new" / "x.json", dataset, predictions)
    again = read_predictions(path, dataset)
    assert (
        again.image.tolist() == predictions.image.tolist() and again.class_id.tolist() == predictions.class_id.tolist()
    )
    np.testing.assert_allclose(again.xywh, predictions.xywh, atol=1e-4)
    assert not list(path.parent.glob(".*"))
    with pytest.raises(DataError, match="cannot be written"):
        write_predictions(path / "below", dataset, predictions)


def test_from_detections() -> None:
    found = [
        Detections.from_arrays([[1, 2, 4, 8]], [0.5], [2]),
        Detections.empty(),
        Detections.from_arrays([[0, 0, 1, 1]], [1], [0]),
    ]
    table = Predictions.from_detections(found, model="m")
    assert (
        table.image.tolist() == [0, 2] and table.xywh[0].tolist() == [1, 2, 3, 6] and table.class_id.tolist() == [2, 0]
    )
    assert len(Predictions.from_detections([])) == 0 and table.made == {"model": "m"}


# ------------------------------------------------------------------------------------------------- whose classes


def card(*names: str) -> Card:
    return Card(names, (64, 64), Head("anchors", ("head0",), (32,), (((10.0, 10.0),),)))


def test_class_mapping() -> None:
    dataset = made_set([[]])
    assert class_mapping(card("c0", "c1", "c2"), dataset) == (None, "")
    mapping, note = class_mapping(card("c2", "c0", "c1"), dataset)
    assert mapping is not None and mapping.tolist() == [2, 0, 1] and "by name" in note
    mapping, note = class_mapping(card("x", "c1", "c2"), dataset)
    assert mapping is None and "class 0 is 'x'" in note
    mapping, note = class_mapping(card("c2", "a", "c0", "c1"), dataset)
    assert mapping is not None and mapping.tolist() == [2, -1, 0, 1] and "1 other classes" in note
    with pytest.raises(DataError, match=r"made.json has 3 classes .c0, c1, c2., but the model tells 2 apart"):
        class_mapping(card("c0", "c1"), dataset)
    yolo = DataSet(dataset.names, dataset.items, Path("data.yaml"), "val", (0, 1, 2))
    with pytest.raises(DataError, match="data.yaml has 3 classes"):
        class_mapping(card("c2", "a", "c0", "c1"), yolo)


def test_classes_as_drops_the_unknown() -> None:
    table = made_predictions([(0, 0, 0, 0, 1, 1, 0.5), (0, 1, 0, 0, 1, 1, 0.5), (1, 2, 0, 0, 1, 1, 0.5)])
    moved = table.classes_as(np.array([1, -1, 0]))
    assert moved.class_id.tolist() == [1, 0] and moved.image.tolist() == [0, 1]
