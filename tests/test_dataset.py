"""Data sets: what is read is right, what is wrong is named, and nothing hostile gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovyolo.dataset import DataSet, label_path, load_dataset, read_data_yaml
from ovyolo.errors import DataError, DimensionError

SAME_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 255, (height, width, channels), np.uint8)


def encoded(suffix: str, image: np.ndarray, *flags: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, list(flags))[1].tobytes())


# ----------------------------------------------------------------------------------------------------- data.yaml


def yolo_set(root: Path, labels: dict[str, str | None], yaml: str = "", size: tuple[int, int] = (40, 60)) -> Path:
    """A data set with pictures ``root/images/val/<name>.jpg``; a label of None writes no file."""
    for name, text in labels.items():
        for folder in ("images", "labels"):
            (root / folder / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images/val" / f"{name}.jpg").write_bytes(encoded(".jpg", picture(*size)))
        if text is not None:
            (root / "labels/val" / f"{name}.txt").write_text(text, encoding="utf-8")
    path = root / "data.yaml"
    path.write_text(yaml or "path: .\nval: images/val\nnames: [a, b, c]\n", encoding="utf-8")
    return path


def test_yolo_labels_become_pixels(tmp_path: Path) -> None:
    path = yolo_set(tmp_path, {"0012": "1 0.5 0.5 0.5 0.25\n2 0.25 0.5 0.1 0.1\n", "x": None, "y": "\n"})
    data = load_dataset(path).checked()
    assert [item.image_id for item in data.items] == [12, "x", "y"]
    assert data.objects == 2 and not data.problems and data.category_ids == (0, 1, 2)
    item = data.items[0]
    assert item.size == (40, 60)
    np.testing.assert_allclose(item.boxes, [[15, 15, 45, 25], [12, 18, 18, 22]])
    assert item.class_id.tolist() == [1, 2] and item.area.tolist() == pytest.approx([300, 24])
    assert any("1 picture(s) have no label file" in note for note in data.notes)


def test_polygons_become_boxes(tmp_path: Path) -> None:
    path = yolo_set(tmp_path, {"p": "0 0.1 0.2 0.5 0.1 0.4 0.6\n1 0.5 0.5 0.2 0.2"})
    np.testing.assert_allclose(load_dataset(path).items[0].boxes, [[6, 4, 30, 24], [24, 16, 36, 24]])


def test_repeated_labels_count_once(tmp_path: Path) -> None:
    data = load_dataset(yolo_set(tmp_path, {"p": "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2"}))
    assert data.objects == 2 and "stood twice" in data.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3 0.5 0.5 0.1 0.1", "line 1 names class 3, but the classes are 0 to 2"),
        ("-1 0.5 0.5 0.1 0.1", "names class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "names class 0.5"),
        ("0 0.5 0.5 0.1", "has 4 columns"),
        ("0 0.5 0.5 0.1 0.1 0.9", "has 6 columns"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 columns"),
        ("0 nan 0.5 0.1 0.1", "not finite"),
        ("0 inf 0.5 0.1 0.1", "not finite"),
        ("0 0.5 0.5 0 0.1", "width 0"),
        ("0 0.5 0.5 -0.1 0.1", "width -0.1"),
        ("0 0.1 0.1 0.1 0.2 0.1 0.3", "without an area"),
        ("0 1.5 0.5 0.1 0.1", "outside the picture"),
        ("0 30 20 10 10", "outside the picture"),
        ("0 0.05 0.5 0.5 0.1", "outside the picture"),
        ("a b c d e", "numbers are needed"),
        ("0 0.5 0.5 0.1 0.1\n\n7 0 0 1 1\n8 0 0 1 1", r"line 3 names class 7.*and 1 more line"),
        ("\udcff", "cannot be read as text"),
    ],
)
def test_bad_labels_are_named_line_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = yolo_set(tmp_path, {"good": "0 0.5 0.5 0.1 0.1", "bad": ""})
    (tmp_path / "labels/val/bad.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    data = load_dataset(path)
    assert [item.path.stem for item in data.items] == ["good"]
    assert [problem.path.name for problem in data.problems] == ["bad.txt"]
    with pytest.raises(DataError, match=rf"1 file of .*bad\.txt: .*{said}"):
        data.checked()
    assert data.checked(skip_bad=True) is data


def test_a_little_outside_is_taken(tmp_path: Path) -> None:
    data = load_dataset(yolo_set(tmp_path, {"p": "0 0.5 0.5 1.00001 1.02"}))
    assert len(data) == 1 and not data.problems


def test_the_first_ten_problems_and_a_count(tmp_path: Path) -> None:
    path = yolo_set(tmp_path, {f"{i:02}": "9 0.5 0.5 0.1 0.1" for i in range(13)} | {"good": ""})
    data = load_dataset(path)
    assert len(data.problem_lines()) == 11 and data.problem_lines()[-1] == "and 3 more"
    with pytest.raises(DataError, match=r"13 files .*and 3 more.*--skip-bad") as error:
        data.checked()
    assert "09.txt" in str(error.value) and "10.txt" not in str(error.value)


def test_unreadable_and_missing_pictures_are_problems(tmp_path: Path) -> None:
    yolo_set(tmp_path, {"a": "0 0.5 0.5 0.1 0.1", "b": "", "c": ""})
    (tmp_path / "images/val/b.jpg").write_bytes(b"")
    (tmp_path / "images/val/c.jpg").write_bytes((tmp_path / "images/val/a.jpg").read_bytes()[:-50])
    (tmp_path / "list.txt").write_text("./images/val/a.jpg\nimages/val/b.jpg\n\nimages\\val\\c.jpg\ngone.jpg\n")
    (tmp_path / "data.yaml").write_text("val: list.txt\nnames: {0: a, 1: b, 2: c}")
    data = load_dataset(tmp_path / "data.yaml")
    assert [item.path.name for item in data.items] == ["a.jpg"]
    said = {problem.path.name: problem.sentence for problem in data.problems}
    assert set(said) == {"b.jpg", "c.jpg", "gone.jpg"}
    assert "is empty" in said["b.jpg"] and "cut off" in said["c.jpg"] and "list.txt" in said["gone.jpg"]


@pytest.mark.parametrize(
    "yaml",
    [
        "val: images/val\nnames: [a, b, c]",
        "path: .\nval: [images/val, images/val]\nnames: [a, b, c]",
        "path: {root}\nval: images/val\nnames: [a, b, c]\nnc: 3",
        "path: ../data set\nval: images/val\nnames: [a, b, c]",
        "path: data set\nval: images/val\nnames: [a, b, c]",
        "path: /content/somewhere\nval: images/val\nnames: [a, b, c]",
        "val: ../images/val\nnames: [a, b, c]",
        "val: ../data set/images/val\nnames: [a, b, c]",
        "val: {root}/images/val\nnames: [a, b, c]",
        "val: images/val/one.jpg\nnames: [a, b, c]",
        "val: images/v*/*.jpg\nnames: [a, b, c]",
        "val: lists/val.txt\nnames: [a, b, c]",
        "path:\nval: images/val\ntrain: null\nnames:\n  2: c\n  0: a\n  1: b",
    ],
)
def test_where_pictures_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yaml: str) -> None:
    root = tmp_path / "data set"
    path = yolo_set(root, {"one": "0 0.5 0.5 0.1 0.1"}, yaml.replace("{root}", root.as_posix()))
    (root / "lists").mkdir()
    (root / "lists/val.txt").write_text("images/val/one.jpg\n")
    monkeypatch.chdir(tmp_path)
    data = load_dataset(path)
    assert [item.path.name for item in data.items] == ["one.jpg"] and data.objects == 1
    assert data.names == ("a", "b", "c")
    assert load_dataset(root).objects == 1


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("names: [a]", "has no `val`: it describes no split"),
        ("train: images\nnames: [a]", "has no `val`: it describes train"),
        ("val: nowhere\nnames: [a]", "'nowhere' was not found; looked for"),
        ("val: empty\nnames: [a]", "no pictures in empty"),
        ("val: images/val", "has no `names`"),
        ("val: images/val\nnames: []", "0 classes"),
        ("val: images/val\nnames: text", "must be a list of names"),
        ("val: images/val\nnames: {0: a, 2: b}", "must be 0 to 1"),
        ("val: images/val\nnames: {x: a}", "class numbers from 0"),
        ("val: images/val\nnames: [[a]]", "must be a list of names"),
        ("val: images/val\nnames: [a, b]\nnc: 3", "nc is 3, but `names` has 2"),
        ("val: images/val\nnc: -1", "nc is '-1'"),
        ("val: {a: b}\nnames: [a]", "`val` must be a folder"),
        ("path: [a]\nval: images/val\nnames: [a]", "`path` must be one folder"),
        ("- a\n- b", "holds a list"),
        ("", "holds the text"),
        ("val: [", "is not valid YAML at line"),
        ("a: &a [*a]\nnames: [*b]", "is not valid YAML"),
        ("!!python/object/apply:os.system ['touch pwned']", "data.yaml"),
        ("[" * 3000, "is not valid YAML"),
        ("val: images/val\nnames: [a]\nx: \x01", "is not valid YAML"),
    ],
)
def test_bad_descriptions_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yaml: str, said: str
) -> None:
    path = yolo_set(tmp_path, {"one": ""}, yaml or " ")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said) as error:
        load_dataset(path)
    assert "data.yaml" in str(error.value)
    assert not (tmp_path / "pwned").exists()


def test_bad_paths(tmp_path: Path) -> None:
    for path in (tmp_path / "no.yaml", tmp_path, tmp_path / "no.json"):
        with pytest.raises(DataError, match=r"does not exist|is a folder"):
            load_dataset(path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(tmp_path / "bytes.yaml")
    with pytest.raises(DimensionError, match="limit"):
        load_dataset(tmp_path / "bytes.yaml", limit=0)


def test_names_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("names: [no, on, 1e3, 2021-01-01, Größe]")
    assert read_data_yaml(path).names == ("no", "on", "1e3", "2021-01-01", "Größe")
    path.write_text("nc: 2")
    assert read_data_yaml(path).names == ("class0", "class1")


def test_no_label_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 2 pictures has a label file.*labels.val.a\.txt"):
        load_dataset(yolo_set(tmp_path, {"a": None, "b": None}))


def test_names_that_repeat_get_longer_ids(tmp_path: Path) -> None:
    path = yolo_set(tmp_path, {"line1/7": "0 0.5 0.5 0.1 0.1", "line2/007": ""})
    assert [item.image_id for item in load_dataset(path).items] == ["line1/7.jpg", "line2/007.jpg"]


def test_limit_spreads(tmp_path: Path) -> None:
    path = yolo_set(tmp_path, {f"{i}": "0 0.5 0.5 0.1 0.1" for i in range(9)})
    assert [item.image_id for item in load_dataset(path, limit=3).items] == [0, 4, 8]
    assert [item.image_id for item in load_dataset(path).spread(2).items] == [0, 8]
    assert len(load_dataset(path, limit=100)) == 9


def test_label_path_takes_the_last_images() -> None:
    assert label_path(Path("/images/a/images/v.1/x.y.png")) == Path("/images/a/labels/v.1/x.y.txt")
    assert label_path(Path("/plain/x.png")) == Path("/plain/x.txt")


LINES = st.lists(st.lists(st.floats(-2, 3) | st.integers(-2, 4) | st.just("x"), max_size=9), max_size=4)


@SAME_FOLDER
@given(lines=LINES)
def test_any_label_text_gives_boxes_in_the_picture_or_a_problem(tmp_path: Path, lines: list[list[Any]]) -> None:
    path = yolo_set(tmp_path, {"good": "", "any": "\n".join(" ".join(map(str, line)) for line in lines)})
    data = load_dataset(path)
    assert len(data.items) + len(data.problems) == 2
    for item in data.items:
        assert (item.boxes >= -2).all() and (item.boxes[:, 2:] <= np.array([62, 42])).all()
        assert (item.boxes[:, 2:] > item.boxes[:, :2]).all() and set(item.class_id.tolist()) <= {0, 1, 2}


# ------------------------------------------------------------------------------------------------------ COCO JSON


def coco_set(root: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    images = []
    for number in (7, 3):
        (root / "images" / f"{number}.png").write_bytes(encoded(".png", picture()))
        images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "z"}, {"id": 5, "name": "y"}, {"id": 18, "name": "x"}],
        **more,
    }
    path = root / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_categories_are_numbered_by_id(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 3, "category_id": 90, "bbox": [1, 2, 30, 20], "area": 111.5, "iscrowd": 1},
        {"id": 2, "image_id": 3, "category_id": 5, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 3, "category_id": 18, "segmentation": [[1, 1, 5, 1, 5, 9]], "ignore": 1},
    ]
    data = load_dataset(coco_set(tmp_path, annotations)).checked()
    assert data.names == ("y", "x", "z") and data.category_ids == (5, 18, 90) and data.coco
    assert [item.image_id for item in data.items] == [7, 3] and data.objects == 2
    item = data.items[1]
    assert item.class_id.tolist() == [2, 0, 1] and item.crowd.tolist() == [True, False, False]
    assert item.area.tolist() == [111.5, 12, 32] and item.boxes[2].tolist() == [1, 1, 5, 9]
    assert "1 annotation(s) have `ignore`" in data.notes[0]


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({"image_id": 3, "category_id": 6, "bbox": [1, 1, 2, 2]}, "category_id 6, which is not among"),
        ({"image_id": 3, "category_id": 5, "bbox": [1, 1, 0, 2]}, "width and height more than 0"),
        ({"image_id": 3, "category_id": 5, "bbox": [1, 1, float("nan"), 2]}, "finite"),
        ({"image_id": 3, "category_id": 5, "bbox": [1, 1, 2]}, "takes .left, top, width, height"),
        ({"image_id": 3, "category_id": 5, "bbox": [50, 1, 30, 2]}, "outside the picture"),
        ({"image_id": 3, "category_id": 5}, "bbox None"),
        ({"image_id": 9, "category_id": 5, "bbox": [1, 1, 2, 2]}, "image_id 9, which is not among its images"),
    ],
)
def test_bad_annotations_are_problems(tmp_path: Path, annotation: dict[str, Any], said: str) -> None:
    data = load_dataset(coco_set(tmp_path, [{"id": 4, **annotation}]))
    with pytest.raises(DataError, match=said):
        data.checked()
    assert len(data.items) == (2 if annotation["image_id"] == 9 else 1)


def test_bad_pictures_of_coco_are_problems(tmp_path: Path) -> None:
    path = coco_set(tmp_path, [])
    (tmp_path / "images/7.png").write_bytes(encoded(".png", picture(60, 40)))
    (tmp_path / "images/3.png").unlink()
    said = {problem.path.name: problem.sentence for problem in load_dataset(path).problems}
    assert "is 40x60 pixels, but the JSON says 60x40" in said["7.png"] and "does not exist" in said["3.png"]
    # judging predictions needs no pictures
    assert len(load_dataset(path, open_pictures=False)) == 2
    with pytest.raises(DataError, match=r"all have problems, the first is .*7\.png"):
        load_dataset(path).checked(skip_bad=True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"images": []}, "has no images"),
        ({"categories": []}, "has no categories"),
        ({"images": None}, "`images` must be a list"),
        ({"annotations": [1]}, "`annotations` must be a list of objects"),
        ({"images": [{"id": "x", "file_name": "3.png"}]}, "whole number `id`"),
        ({"images": [{"id": 1, "file_name": "3.png"}] * 2}, "two images have the id 1"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories have the id 1"),
        ({"categories": [{"id": True, "name": "a"}]}, "whole number `id`"),
        ({"images": [{"id": 1, "file_name": "gone.png"}]}, "were not found near it: name their folder with --images"),
    ],
)
def test_bad_coco_files_are_one_clear_line(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_dataset(coco_set(tmp_path, **{"annotations": [], **more}))


@pytest.mark.parametrize("text", ["[]", "{", "1", "null", "[" * 100_000, "\udcff"])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"x\.json"):
        load_dataset(path)


def test_folder_of_pictures(tmp_path: Path) -> None:
    path = coco_set(tmp_path / "a" / "annotations", [])
    (tmp_path / "a/annotations/images").rename(tmp_path / "a/val2017")
    with pytest.raises(DataError, match="not found near"):
        load_dataset(path)
    renamed = path.rename(path.with_name("instances_val2017.json"))
    assert len(load_dataset(renamed).checked()) == 2
    assert len(load_dataset(renamed, images=tmp_path / "a/val2017")) == 2
    with pytest.raises(DataError, match="does not exist: name it with --images"):
        load_dataset(renamed, images=tmp_path / "b")
    with pytest.raises(DataError, match="--images is for COCO"):
        load_dataset(yolo_set(tmp_path / "y", {"a": ""}), images=tmp_path)


# --------------------------------------------------------------------------------------------------- the real ones


def same(a: DataSet, b: DataSet) -> None:
    assert a.names == b.names and [i.image_id for i in a.items] == [i.image_id for i in b.items]
    for one, other in zip(a.items, b.items, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-9)
        np.testing.assert_allclose(one.area, other.area, atol=1e-6)
        assert one.class_id.tolist() == other.class_id.tolist() and one.size == other.size


def test_both_descriptions_of_coco_val128_are_the_same(shared: Path) -> None:
    yolo = load_dataset(shared / "coco-val128/data.yaml").checked()
    coco = load_dataset(shared / "coco-val128/instances.json").checked()
    assert len(yolo) == 128 and yolo.objects == 898
    same(yolo, coco)
    for item in yolo.items:
        assert cv2.imread(str(item.path)).shape[:2] == item.size


def test_deeppcb_splits(shared: Path) -> None:
    assert len(load_dataset(shared / "deeppcb/data.yaml", "train").checked()) == 800
    assert len(load_dataset(shared / "deeppcb", "val").checked()) == 200


def test_wrong_labels_are_told_even_where_no_other_picture_has_any(tmp_path: Path) -> None:
    data = yolo_set(tmp_path, {"a": "0 0.5 0.5 1.9 0.2", "b": None})
    found = load_dataset(data, "val")
    assert len(found.problems) == 1 and "a.txt" in str(found.problems[0])
    with pytest.raises(DataError, match=r"a\.txt"):
        found.checked()
