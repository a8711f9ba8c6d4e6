"""Predictions of other tools: read as they say, never guessed; and whose class is whose."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.judging import card, made_predictions, made_set, random_case

from ovyolo.dataset import DataSet, load_dataset
from ovyolo.detections import Detections
from ovyolo.errors import DataError, DimensionError
from ovyolo.evaluate import Predictions, class_mapping, read_predictions, score, write_predictions
from ovyolo.evaluate.predictions import COCO91


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
        "dataset": dataset.category_ids,
        "zero-based": tuple(range(80)),
        "one-based": tuple(range(1, 81)),
        "coco91": COCO91,
    }[ids]
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
    with pytest.raises(DataError, match=r"data\.yaml has 3 classes"):
        class_mapping(card("c2", "a", "c0", "c1"), yolo)


def test_classes_as_drops_the_unknown() -> None:
    table = made_predictions([(0, 0, 0, 0, 1, 1, 0.5), (0, 1, 0, 0, 1, 1, 0.5), (1, 2, 0, 0, 1, 1, 0.5)])
    moved = table.classes_as(np.array([1, -1, 0]))
    assert moved.class_id.tolist() == [1, 0] and moved.image.tolist() == [0, 1]
