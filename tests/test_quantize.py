"""``ovyolo quantize``: a budget that holds, runs that resume, bad input told before work begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.spot_model import SIDE, write_spot_data, write_spot_model

pytest.importorskip("nncf")

from ovyolo.cli import main
from ovyolo.compress import quantize
from ovyolo.compress.budget import Budget, BudgetError, search_prefix
from ovyolo.compress.journal import Journal
from ovyolo.compress.nncf_bridge import load_nncf
from ovyolo.core import shared_core
from ovyolo.dataset import load_dataset
from ovyolo.errors import DataError, OvyoloError
from ovyolo.runtime import read_model

pytestmark = pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")


@given(st.integers(1, 200), st.integers(1, 220))
def test_bisection_finds_the_shortest_prefix(total: int, needed: int) -> None:
    tried: list[int] = []

    def attempt(length: int) -> bool:
        tried.append(length)
        return length >= needed

    found = search_prefix([1 / total] * total, attempt, most=2)
    assert found == (needed if needed <= total else None)
    assert len(tried) <= 18 and len(set(tried)) == len(tried)


def test_zero_allows_no_class_to_lose() -> None:
    budget = Budget({"ap": 50.0, "classes": {"a": 40.0, "b": 60.0}}, 0)
    assert not budget.judge("one wins, one loses", {"ap": 50.5, "classes": {"a": 39.0, "b": 62.0}}).fits
    assert budget.judge("none loses", {"ap": 50.5, "classes": {"a": 40.0, "b": 61.0}}).fits
    assert not Budget({"ap": 50.0, "classes": {}}, 1.0).judge("unknown", {"ap": None, "classes": {}}).fits


def test_a_run_leaves_model_card_and_reports(spots: tuple[Path, Path], tmp_path: Path) -> None:
    result = quantize(*spots, tmp_path / "out.xml")
    model, card = read_model(result.path, shared_core())
    assert card.precision == "INT8" and card.notes == () and card.names == ("bright", "grey")
    assert result.drop == pytest.approx(0, abs=0.5) and card.scores["drop"] == result.drop
    assert card.scores["latency"]["ms"].keys() >= {"FP32", "INT8"}
    made = card.made["quantization"]
    assert made["calibration"]["pictures"] == 24 and made["can_overflow_without_vnni"] == 0
    assert made["instruction_sets"] == dict.fromkeys(made["instruction_sets"], "same")
    assert {str(node.get_type_info().version_id) for node in model.get_ops()} <= {f"opset{i}" for i in range(1, 8)}
    stored = json.loads(result.json_path.read_text())
    assert stored["complete"] and stored["report"]["after"]["ap"] == result.report["after"]["ap"]
    page = (result.html_path or Path()).read_text()
    assert "bright" in page and "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.bin",
        "out.quantize.html",
        "out.quantize.json",
        "out.xml",
    ]
    from ovyolo import Detector

    image = cv2.imread(str(load_dataset(spots[1]).items[0].path))
    assert len(Detector(result.path)(image)) == len(Detector(spots[0])(image)) > 0


@pytest.fixture
def black(tmp_path: Path) -> Path:
    folder = tmp_path / "black"
    folder.mkdir()
    for index in range(10):
        cv2.imwrite(str(folder / f"{index}.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    return folder


def test_black_calibration_is_caught(spots: tuple[Path, Path], black: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.xml"
    with pytest.raises(BudgetError, match="original was kept") as caught:
        quantize(*spots, target, calibration_sources=[black])
    assert "INT8: AP" in str(caught.value) and "drop" in str(caught.value)
    assert not target.exists() and not target.with_suffix(".bin").exists()
    report = json.loads(target.with_suffix(".quantize.json").read_text())["report"]
    assert report["after"] is None and report["trials"] and "one colour" in " ".join(report["notes"])
    measured = quantize(*spots, target, calibration_sources=[black], max_drop=None)
    assert measured.drop > 5 and target.exists()


def test_a_command_keeps_the_original(
    spots: tuple[Path, Path], black: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.xml"
    arguments = ["quantize", str(spots[0]), "--data", str(spots[1]), "-o", str(target), "--calib", str(black)]
    assert main([*arguments, "--max-drop", "0"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: no INT8 network of") and "within 0 points" in error
    assert not target.exists()


def test_command(spots: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.xml"
    arguments = ["quantize", str(spots[0]), "--data", str(spots[1]), "-o", str(target), "--quiet"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "drop" in shown.out and "nncf" not in shown.out.lower() and "written" in shown.err
    assert main([*arguments, "--rounding", "nearest", "--overflow", "half", "--max-drop", "none", "--no-html"]) == 0
    assert main([*arguments, "--overflow", "half"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--max-drop", "-1"])
    assert stopped.value.code == 2


def test_an_interrupted_run_leaves_no_model_and_goes_on(
    spots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovyolo.compress import quantize as module

    target = tmp_path / "out.xml"
    real = sys.modules["ovyolo.compress.finish"]._latency

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["ovyolo.compress.finish"], "_latency", interrupt)
    with pytest.raises(KeyboardInterrupt):
        module(*spots, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.quantize.json"]
    monkeypatch.setattr(sys.modules["ovyolo.compress.finish"], "_latency", real)
    assert quantize(*spots, target).report["reused"] >= 2
    assert quantize(*spots, target, fresh=True).report["reused"] == 0


def test_a_journal_of_other_inputs_or_damaged_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Journal(path, {"model": "a"}).keep("x", 1)
    assert "x" in Journal(path, {"model": "a"})
    assert "x" not in Journal(path, {"model": "b"})
    for text in ("", "{", "[1]", '{"version": 1, "inputs": {"model": "a"}, "measured": 5}'):
        path.write_text(text)
        assert "x" not in Journal(path, {"model": "a"})


def test_bad_data_is_told_before_work_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = write_spot_model(tmp_path / "m.xml"), write_spot_data(tmp_path / "d", train=4, val=4)
    images = sorted((tmp_path / "d" / "images" / "val").iterdir())
    images[0].write_bytes(b"nothing")
    (tmp_path / "d" / "labels" / "val" / f"{images[1].stem}.txt").write_text("0 7 7 1 1")
    with pytest.raises(DataError, match=r"2 files .* cannot be used") as caught:
        quantize(model, data, tmp_path / "q.xml")
    assert images[0].name in str(caught.value) and "outside" in str(caught.value)
    assert main(["quantize", str(model), "--data", str(data), "-o", str(tmp_path / "q.xml")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert [line.startswith("bad: ") for line in told] == [True, True, False] and told[2].startswith("error: 2 files")
    assert not (tmp_path / "q.quantize.json").exists()
    result = quantize(model, data, tmp_path / "q.xml", skip_bad=True, max_drop=None)
    assert result.report["pictures"] == 2 and "2 file(s)" in " ".join(result.report["notes"])


def test_wrong_inputs_give_one_sentence(spots: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = spots
    other = tmp_path / "data.yaml"
    other.write_text(f"path: {data.parent}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((model, other), {}, "3 classes"),
        ((tmp_path / "none.xml", data), {}, "does not exist"),
        ((tmp_path / "none.pt", data), {}, "does not exist"),
        ((model, tmp_path / "none.yaml"), {}, "does not exist"),
        ((model, data, model), {}, "overwrite its own source"),
        ((model, data, tmp_path / "a.bin"), {}, r"end in \.xml"),
        ((model, data), {"max_drop": -1}, "max_drop"),
        ((model, data), {"calibration_size": 0}, "calibration_size"),
        ((model, data), {"calibration_sources": [tmp_path / "nowhere"]}, "does not exist"),
        ((model, data), {"imgsz": 32}, "fixed"),
    ]
    for arguments, options, says in cases:
        with pytest.raises(OvyoloError, match=says) as caught:
            quantize(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_nothing_is_reported_to_anybody(spots: tuple[Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = """
import socket, sys
class Refuse(socket.socket):
    def connect(self, *arguments): raise SystemExit(f"phones {arguments}")
    connect_ex = connect
socket.socket = Refuse
socket.create_connection = socket.getaddrinfo = lambda *a, **k: sys.exit(f"phones {a}")
from ovyolo.compress import quantize
quantize(sys.argv[1], sys.argv[2], sys.argv[3], html=False)
print(*[name for name in ("torch", "openvino_telemetry") if sys.modules.get(name)])
"""
    env = {**os.environ, "HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    for name in ("NNCF_CI", "CI", "PYTEST_CURRENT_TEST"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (*spots, tmp_path / "q.xml"))], capture_output=True, text=True,
        env=env, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert list(home.rglob("*")) == []
    assert load_nncf() is load_nncf()
