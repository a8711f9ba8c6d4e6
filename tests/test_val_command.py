"""``ovyolo val``: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovyolo.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures with a box each, and predictions that find two of them."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    rows = []
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), np.full((100, 200, 3), 50 * index, np.uint8))
        (tmp_path / f"labels/{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.4 0.4\n")
        rows.append({"image_id": index, "category_id": index % 2, "bbox": [60, 30, 80, 40], "score": 0.9 - index / 10})
    (tmp_path / "data.yaml").write_text("val: images\nnames: [scratch, dent]\n")
    (tmp_path / "found.json").write_text(json.dumps(rows[:2]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predictions_are_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["val", "--data", "data.yaml", "--predictions", "found.json"]) == 0
    out, err = capsys.readouterr()
    assert "3 pictures, 3 objects, 2 classes" in out and "AP50 0.752" in out and not err
    assert "2 found, 1 missed, 0 false" in out and "category_id read as dataset: 0 to 1" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("scratch", "dent"))] == ["scratch", "dent"]


def test_everything_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--json", "s.json", "--save-json", "deep/p.json", "--report", "r.html", "--at-conf", "0.85"]
    assert main(["val", "--data", ".", "--predictions", "found.json", *words]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "written: s.json",
        f"written: {Path('deep/p.json')}",
        "written: r.html",
    ]
    scores = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert (
        scores["confidence"] == 0.85
        and scores["hits"] == 1
        and scores["confusion"] == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    )
    assert scores["classes"][1]["name"] == "dent" and scores["classes"][1]["precision"] is None
    assert json.loads(Path("deep/p.json").read_text())[0]["bbox"] == [60, 30, 80, 40]
    assert "<html" in Path("r.html").read_text(encoding="utf-8")
    assert not list(folder.rglob("*.part"))


def test_json_on_standard_output_is_json_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["val", "--data", "data.yaml", "--predictions", "found.json", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 3


def test_coco_json_needs_no_pictures_to_judge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 100} for i in range(2)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 0, "bbox": [60, 30, 80, 40]}],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }
    (folder / "elsewhere").mkdir()
    Path("elsewhere/truth.json").write_text(json.dumps(truth))
    assert main(["val", "--data", "elsewhere/truth.json", "--predictions", "found.json"]) == 0
    assert "AP    1.000" in capsys.readouterr().out


def test_bad_files_stop_it_or_are_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        (folder / f"images/bad{index:02}.png").write_bytes(b"")
    Path("labels/2.txt").write_text("5 0.5 0.5 0.1 0.1")
    words = ["val", "--data", "data.yaml", "--predictions", "found.json"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and len(lines) == 12 and all(line.startswith("bad: ") for line in lines[:11])
    assert "labels/2.txt: line 1 names class 5" in err.replace("\\", "/") and lines[10] == "bad: and 3 more"
    assert lines[11].startswith("error: 13 files of data.yaml (val)") and "--skip-bad" in lines[11]
    assert main([*words, "--skip-bad"]) == 1
    out, err = capsys.readouterr()
    assert "2 pictures, 2 objects" in out and "AP    1.000" in out and "13 files could not be used" in out
    assert err.startswith("skipped: ") and len(err.splitlines()) == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: --data"),
        (["--data", "data.yaml"], "give a model, or --predictions"),
        (["m.xml", "--data", "data.yaml", "--predictions", "found.json"], "one of the two"),
        (["--data", "gone.yaml", "--predictions", "found.json"], "gone.yaml does not exist"),
        (["--data", "data.yaml", "--predictions", "gone.json"], "gone.json does not exist"),
        (["--data", "data.yaml", "--predictions", "data.yaml"], "data.yaml cannot be read as JSON"),
        (["--data", "found.json", "--predictions", "found.json"], "found.json is not a COCO data set"),
        (["--data", "data.yaml", "--split", "test", "--predictions", "found.json"], "has no `test`"),
        (["--data", "data.yaml", "--split", "all", "--predictions", "found.json"], "invalid choice"),
        (
            ["--data", "data.yaml", "--predictions", "found.json", "--category-ids", "one-based"],
            "category_id 0 is none",
        ),
        (["--data", "data.yaml", "--predictions", "found.json", "--conf", "7"], "not a number from 0 to 1"),
        (["--data", "data.yaml", "--predictions", "found.json", "--match-iou", "0"], "match_iou is 0"),
        (["--data", "data.yaml", "--predictions", "found.json", "--json", "images"], "--json images is a folder"),
        (["--data", "data.yaml", "--predictions", "found.json", "--report", "data.yaml/r.html"], "is not a folder"),
        (["--data", "data.yaml", "--predictions", "found.json", "--images", "images"], "--images is for COCO"),
        (["gone.xml", "--data", "data.yaml"], "gone.xml does not exist"),
        (["gone.pt", "--data", "data.yaml"], "gone.pt does not exist"),
        (["found.json", "--data", "data.yaml"], "found.json is not a model"),
        (["gone.xml", "--data", "data.yaml", "--rect"], "--rect needs the .pt"),
    ],
)
def test_failures_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    try:
        status = main(["val", *words])
    except SystemExit as stop:
        status = int(str(stop.code))
    out, err = capsys.readouterr()
    assert status == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err and "Traceback" not in err


def test_interrupt(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ovyolo import dataset

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "load_dataset", stop)
    assert main(["val", "--data", "data.yaml", "--predictions", "found.json", "--json", "s.json"]) == 130
    assert capsys.readouterr().err == "interrupted\n" and not Path("s.json").exists()


def test_a_model_end_to_end(shared: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["val", str(shared / "weights/yolov5n-deeppcb.pt"), "--data", str(shared / "deeppcb"), "--limit", "6"]
    assert main([*words, "--cache-dir", "cache", "--save-json", "p.json", "--json", "s.json"]) == 0
    model = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert model["ap50"] > 0.85 and model["made"]["device"] == "CPU" and model["pictures"] == 6
    # what it wrote, judged again, scores the same
    data = ["--data", str(shared / "deeppcb"), "--limit", "6"]
    assert main(["val", *data, "--predictions", "p.json", "--json", "again.json"]) == 0
    again = json.loads(Path("again.json").read_text(encoding="utf-8"))
    for figure in ("ap", "ap50", "ap_small", "ar100", "f1", "confusion"):
        assert again[figure] == (pytest.approx(model[figure], abs=1e-4) if figure != "confusion" else model[figure])


@pytest.mark.parametrize("name", ["data.yaml", "instances.json"])
def test_upstream_predictions_from_the_command_line(
    shared: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = shared / "golden/yolov5n-coco-val128-predictions.json"
    assert main(["val", "--data", str(shared / "coco-val128" / name), "--predictions", str(predictions)]) == 0
    figures = "AP    0.339   AP50 0.523   AP75 0.369   small 0.173   medium 0.332   large 0.470"
    out = capsys.readouterr().out
    assert figures in out and "AR100 0.542" in out
