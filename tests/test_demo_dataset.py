"""Data sets of synthetic boards: labels that fit the pictures, runs that go on, and the command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.fresh import run_python

from ovyolo.cli import main
from ovyolo.dataset import load_dataset
from ovyolo.demo import CLASSES, dataset, make_board, make_dataset
from ovyolo.demo.dataset import seed_of
from ovyolo.errors import DataError, DimensionError, OvyoloError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_is_a_data_set_that_we_read(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "boards", train=4, val=2, imgsz=(160, 192), seed=9, suffix=".png")
    assert data == tmp_path / "boards" / "data.yaml"
    for split, count in (("train", 4), ("val", 2)):
        read = load_dataset(data, split)
        assert read.names == CLASSES and len(read.items) == count and not read.problems
        for index, item in enumerate(read.items):
            picture, boxes, class_id = make_board(seed_of(9, split, index), (160, 192))
            np.testing.assert_array_equal(cv2.imread(str(item.path)), picture)
            np.testing.assert_array_equal(item.class_id, class_id)
            np.testing.assert_allclose(item.boxes, boxes, atol=1e-3)
    first = [make_board(seed_of(9, split, 0), (160, 192))[0] for split in ("train", "val")]
    assert (first[0] != first[1]).any(), "validation boards are others"


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"train": 5, "val": 2, "imgsz": 128, "seed": 2}
    make_dataset(tmp_path / "whole", **settings)
    made = []

    def interrupted(*arguments: object, **more: object) -> object:
        made.append(arguments)
        if len(made) == 4:
            raise KeyboardInterrupt
        return make_board(*arguments, **more)

    monkeypatch.setattr(dataset, "make_board", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "broken", **settings)
    assert not (tmp_path / "broken" / "data.yaml").exists(), "what is not finished is no data set"
    # as a kill between a label and its picture, and in the middle of a write, would leave it
    (tmp_path / "broken" / "images" / "train" / "board000001.jpg").unlink()
    (tmp_path / "broken" / "images" / "train" / ".ovyolo-0123456789ab.tmp").write_bytes(b"half")
    make_dataset(tmp_path / "broken", **settings)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert len(made) == 4 + 7 - 3 + 1, "only what was missing was made again"


def test_more_boards_later_are_the_same_boards(tmp_path: Path) -> None:
    make_dataset(tmp_path / "grown", train=2, val=0, imgsz=128)
    assert "val" not in (tmp_path / "grown" / "data.yaml").read_text()
    make_dataset(tmp_path / "grown", train=4, val=1, imgsz=128)
    make_dataset(tmp_path / "whole", train=4, val=1, imgsz=128)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", train=2, val=0, imgsz=128)
    before = contents(tmp_path / "a")
    for other in ({"seed": 1}, {"imgsz": 160}, {"style": "bare"}, {"suffix": ".png"}):
        with pytest.raises(DataError, match="made otherwise"):
            make_dataset(tmp_path / "a", **{"train": 2, "val": 0, "imgsz": 128, **other})
    with pytest.raises(DataError, match="more than 1 train"):
        make_dataset(tmp_path / "a", train=1, val=0, imgsz=128)
    assert contents(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        make_dataset(tmp_path / "b", train=1, imgsz=128)
    assert contents(tmp_path / "b") == {"thesis.txt": b"years of work"}
    with pytest.raises(OvyoloError, match="cannot be written"):
        make_dataset(tmp_path / "b" / "thesis.txt", train=1, imgsz=128)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"train": -1}, "train"), ({"val": 1.5}, "val"), ({"train": 0, "val": 0}, "train"), ({"seed": -1}, "seed"),
        ({"imgsz": 32}, "imgsz"), ({"imgsz": (640, 640, 3)}, "imgsz"), ({"style": "pink"}, "style"),
        ({"suffix": ".gif"}, "suffix"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named_before_anything_is_written(tmp_path: Path, arguments: dict, word: str) -> None:
    with pytest.raises(DimensionError, match=f"^{word} "):
        make_dataset(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "boards", str(tmp_path / "d"), "--train", "2", "--val", "1", "--imgsz", "128", "--seed", "3"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "d" / "data.yaml")
    assert "2 boards for training, 1 for validation" in err
    assert len(list((tmp_path / "d" / "images").rglob("*.jpg"))) == 3
    assert main([*words, "--png"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and "another folder" in err
    for wrong in (["demo", "boards"], [*words[:-1], "-1"], [*words, "--imgsz", "x"]):
        with pytest.raises(SystemExit) as left:
            main(wrong)
        assert left.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_needs_no_runtime() -> None:
    loaded = run_python(
        "import sys; from ovyolo.demo import make_board; make_board(0, (128, 128));"
        "print(*{m.split('.')[0] for m in sys.modules})"
    ).split()
    assert "cv2" in loaded
    assert not {"openvino", "torch", "nncf", "matplotlib"} & set(loaded)
