"""The commands as a user types them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.tiny_model import make_tiny_ir

from ovyolo.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("cli") / "tiny.xml")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures with 0, 1 and 2 white spots."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for count in range(3):
        image = np.zeros((64, 64, 3), np.uint8)
        for i in range(count):
            image[16:24, 16 * (i + 1) : 16 * (i + 1) + 8] = 255
        cv2.imwrite(str(folder / f"{count}.png"), image)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command run in this process."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as left:
        status = int(left.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def assert_one_line_error(result: tuple[int, str, str], *words: str) -> None:
    status, _, err = result
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def test_detect_writes_what_was_asked(capsys, model: Path, photos: Path, tmp_path: Path) -> None:
    status, out, err = run(
        capsys, "detect", "--model", model, "--source", photos, "-o", tmp_path / "drawn",
        "--json", tmp_path / "boxes.json", "--csv", tmp_path / "boxes.csv", "--txt", tmp_path / "labels",
    )  # fmt: skip
    assert status == 0, err
    assert out == ""
    assert "3 picture(s)" in err and "3 spot" in err
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png", "2.png"]
    data = json.loads((tmp_path / "boxes.json").read_text(encoding="utf-8"))
    assert [len(entry["boxes"]) for entry in data] == [0, 1, 2]
    table = list(csv.DictReader(io.StringIO((tmp_path / "boxes.csv").read_text(encoding="utf-8"))))
    assert [row["name"] for row in table] == ["spot"] * 3
    lines = [(tmp_path / "labels" / f"{i}.txt").read_text().splitlines() for i in range(3)]
    assert [len(part) for part in lines] == [0, 1, 2]
    label, cx, cy, width, height, confidence = (float(v) for v in lines[1][0].split())
    assert (label, cx, cy, width, height) == pytest.approx((0, 20 / 64, 20 / 64, 8 / 64, 8 / 64), abs=1e-3)
    assert confidence > 0.9


def test_json_to_standard_output(capsys, model: Path, photos: Path) -> None:
    status, out, _ = run(capsys, "detect", "--model", model, "--source", photos / "2.png", "--no-save", "--json", "-")
    assert status == 0
    assert len(json.loads(out)[0]["boxes"]) == 2


def test_results_go_to_numbered_folders(capsys, model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(capsys, "detect", "--model", model, "--source", photos, "--quiet")[0] == 0
    assert sorted(p.name for p in Path("runs/detect").iterdir()) == ["1", "2"]


def test_bad_pictures_are_skipped_only_on_request(capsys, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "3.png").write_bytes(b"")
    words = ("detect", "--model", model, "--source", photos, "--json", tmp_path / "b.json", "--no-save")
    assert_one_line_error(run(capsys, *words), "3.png")
    assert not (tmp_path / "b.json").exists()
    status, _, err = run(capsys, *words, "--skip-bad")
    assert status == 1
    assert "warning: " in err and "3.png" in err
    assert len(json.loads((tmp_path / "b.json").read_text())) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("detect", "--model", "MODEL", "--source", "nowhere.png"), ["nowhere.png"]),
        (("detect", "--model", "nowhere.xml", "--source", "PHOTOS"), ["nowhere.xml", "does not exist"]),
        (("detect", "--model", "MODEL", "--source", "PHOTOS", "--device", "NPU"), ["'NPU' is not there", "CPU"]),
        (("detect", "--model", "MODEL", "--source", "PHOTOS", "--conf", "7"), ["from 0 to 1"]),
        (("detect", "--model", "MODEL", "--source", "PHOTOS", "--imgsz", "320"), ["imgsz"]),
        (("detect", "--model", "MODEL"), ["--source"]),
        (("detect", "--model", "MODEL", "--source", "PHOTOS", "--json", "-", "--csv", "-"), ["standard output"]),
        (("export", "nowhere.pt"), ["nowhere.pt", "does not exist"]),
        (("export", "PHOTOS"), ["is a folder"]),
        (("export", "PHOTOS/0.png"), ["0.png", ".pt, .onnx, .tflite or .xml"]),
        (("export", "MODEL"), ["tiny.xml"]),
        (("export", "MODEL", "-o", "x.onnx"), ["must end in .xml"]),
        (("export", "MODEL", "--imgsz", "big"), ["'big' is not an image size"]),
        (("info", "nowhere.xml"), ["nowhere.xml"]),
        (("info", "PHOTOS/0.png"), ["0.png"]),
        (("dance",), ["invalid choice"]),
        ((), ["required"]),
    ],
)
def test_errors_are_one_line(capsys, model: Path, photos: Path, words, expected, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(word).replace("MODEL", str(model)).replace("PHOTOS", str(photos)) for word in words]
    assert_one_line_error(run(capsys, *words), *expected)


def test_info_says_what_the_model_is(capsys, model: Path) -> None:
    status, out, _ = run(capsys, "info", model)
    assert status == 0
    for part in ("spot", "[1,64,64,3] u8", "head0 [1,6,8,8]", "stride 8, anchors 8×8", "FP32", "MB"):
        assert part in out
    status, out, _ = run(capsys, "info", "--json", model)
    assert json.loads(out)["names"] == ["spot"]


def test_doctor_says_what_is_here(capsys) -> None:
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    for part in ("OpenVINO", "device CPU", "instructions", "opencv-python", "nncf", "torch"):
        assert part in out


@pytest.mark.parametrize("command", ["", "export", "detect", "info", "doctor"])
def test_help(capsys, command: str) -> None:
    status, out, _ = run(capsys, *([command] if command else []), "--help")
    assert status == 0
    assert out.startswith("usage: ovyolo")


def test_version(capsys) -> None:
    from ovyolo import __version__

    assert run(capsys, "--version")[1] == f"ovyolo {__version__}\n"


def test_export_as_a_user_types_it(shared: Path, tmp_path: Path) -> None:
    """A fresh process; relative paths; the output lies beside the source."""
    (tmp_path / "best.pt").write_bytes((shared / "weights" / "yolov5n.pt").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "ovyolo", "export", "best.pt", "--imgsz", "320,640"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "images [1,320,640,3] u8" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.bin", "best.pt", "best.xml"]


def test_imgsz_that_does_not_fit(capsys, shared: Path, tmp_path: Path) -> None:
    result = run(capsys, "export", shared / "weights" / "yolov5n.pt", "-o", tmp_path / "x.xml", "--imgsz", "600")
    assert_one_line_error(result, "yolov5n.pt", "600", "stride 32", "try 576,576 or 608,608")
    assert not list(tmp_path.iterdir())


def test_video_in_video_out(capsys, shared: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    capture = cv2.VideoCapture(str(shared / "video" / "bottle-detection.mp4"))
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 10, (640, 360))
    for _ in range(12):
        writer.write(capture.read()[1])
    writer.release()
    weights = shared / "weights" / "yolov5n.pt"
    status, out, err = run(
        capsys, "detect", "--model", weights, "--cache-dir", tmp_path / "cache", "--imgsz", "320",
        "--source", clip, "-o", tmp_path / "out", "--json", "-",
    )  # fmt: skip
    assert status == 0, err
    assert [entry["index"] for entry in json.loads(out)] == list(range(12))
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 12
