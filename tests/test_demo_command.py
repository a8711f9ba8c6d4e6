"""``ovyolo demo``: both forms of the shipped model side by side on fresh boards, with a tiny model in its place."""

from __future__ import annotations

import builtins
import json
import re
import sys
import zlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import pytest
from reference.fresh import run_python
from reference.tiny_model import tiny_model

from ovyolo.cli import main
from ovyolo.core import shared_core
from ovyolo.dataset import load_dataset
from ovyolo.demo import CLASSES, make_dataset, shipped
from ovyolo.demo.contest import HOW_TO_AP, hold_contest
from ovyolo.demo.page import write_page, write_pictures
from ovyolo.demo.shipped import FOLDER, TRAINING_SEED, Shipped, shipped_models
from ovyolo.errors import DataError, DimensionError
from ovyolo.evaluate import evaluate
from ovyolo.export.portable import save_ir
from ovyolo.runtime import read_model

SIDE = 160


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shipped:
    """Models that call white cells all sorts of defects, where the shipped ones would lie."""
    made = Shipped.of(tmp_path / "model")
    for path, bias in ((made.dense, -16.0), (made.compressed, -12.0)):
        model, card = tiny_model((SIDE, SIDE), bias, len(CLASSES))
        save_ir(model, replace(card, names=CLASSES), path, fp32=path == made.dense)
    made.report.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "model")
    return made


def test_the_command(
    tiny: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("1", "2"):
        assert main(["demo", "--boards", "3", "--seed", "4", "--seconds", "0.05"]) == 0
        out, err = capsys.readouterr()
        folder = Path("runs") / "demo" / number
        for word in ("AP", "AP50", "defects found", "latency", "zipped", "times as long", "rounds in turn"):
            assert word in out
        assert str(folder / "report.html") in err and str(folder / "pictures") in err
        pictures = sorted((folder / "pictures").iterdir())
        assert [path.name for path in pictures] == [f"board{i:06d}.jpg" for i in range(3)]
        assert cv2.imread(str(pictures[0])).shape == (2 * SIDE, 4 * SIDE + 8, 3)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert page.count("data:image/jpeg;base64,") == 3 and not re.search(r"(src|href)=.http|<script|<link", page)


def test_figures_are_those_that_val_finds(tiny: Shipped, tmp_path: Path) -> None:
    contest = hold_contest(tmp_path / "boards", boards=4, seed=9, seconds=0.05)
    data = tmp_path / "boards" / "data.yaml"
    for form, path in zip(contest.forms, (tiny.dense, tiny.compressed), strict=True):
        assert form.ap == pytest.approx(100 * evaluate(path, data).ap, nan_ok=True)
        assert form.hits + form.false == len(form.found)
        parts = [path.read_bytes(), path.with_suffix(".bin").read_bytes()]
        packed = sum(len(zlib.compress(part, 9)) for part in parts)
        assert (form.bytes, form.zipped) == (len(parts[0]) + len(parts[1]), packed) and form.ms > 0
    assert contest.ratio.low <= contest.ratio.value <= contest.ratio.high and contest.ratio.rounds >= 10


def test_its_boards_are_what_the_same_seed_gives_a_data_set(tiny: Shipped, tmp_path: Path) -> None:
    contest = hold_contest(tmp_path / "boards", boards=2, seed=5, seconds=0.05)
    data = make_dataset(tmp_path / "others", train=0, val=2, seed=5, imgsz=SIDE, defects=shipped.DEFECTS)
    for one, other in zip(contest.dataset.items, load_dataset(data, "val").items, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
        assert len(one) == len(other) > 1


def test_missed_and_false_are_counted_a_board(tiny: Shipped, tmp_path: Path) -> None:
    contest = hold_contest(tmp_path / "boards", boards=3, seconds=0.05)
    told = [sentence for _, sentence in write_pictures(contest, tmp_path / "pictures")]
    for number, form in enumerate(contest.forms):
        counts = [re.findall(r"(\d+) missed, (\d+) false", sentence)[number] for sentence in told]
        assert sum(int(missed) for missed, _ in counts) == contest.dataset.objects - form.hits
        assert sum(int(false) for _, false in counts) == form.false


def test_without_the_evaluator_all_but_ap_is_told(
    tiny: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install .` brings neither faster-coco-eval nor Jinja2 nor matplotlib."""
    usual = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name.split(".")[0] in ("faster_coco_eval", "jinja2", "matplotlib", "torch", "nncf"):
            raise ImportError(f"No module named {name!r}")
        return usual(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    contest = hold_contest(tmp_path / "boards", boards=2, seconds=0.05)
    assert contest.forms[0].ap is None and HOW_TO_AP in contest.table() and "\n" not in HOW_TO_AP
    assert "defects found" in contest.table()
    page = write_page(contest, write_pictures(contest, tmp_path / "pictures"), tmp_path / "report.html")
    assert "ovyolo[val]" in page.read_text(encoding="utf-8")


def test_bad_input_is_one_line(
    tiny: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for words, said in (
        (["--seed", str(TRAINING_SEED)], "another seed"),
        (["-o", str(tmp_path / "full")], "not empty"),
        (["-o", str(tmp_path / "full" / "thesis.txt")], "not empty"),
    ):
        assert main(["demo", "--quiet", *(["-o", str(tmp_path / "new")] if "-o" not in words else []), *words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "new").exists()
    for words in (["--boards", "0"], ["--seed", "-1"], ["--threads", "x"], ["nonsense"]):
        with pytest.raises(SystemExit) as left:
            main(["demo", *words])
        assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    tiny.compressed.with_suffix(".bin").unlink()
    assert main(["demo", "--quiet", "-o", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "boards-int8.bin is missing" in err and "demo_model.py" in err
    assert not (tmp_path / "new").exists()


def test_more_defects_on_request(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "many", train=4, val=0, imgsz=320, defects=5)
    assert load_dataset(data, "train").objects >= 16
    with pytest.raises(DataError, match="made otherwise"):
        make_dataset(tmp_path / "many", train=4, val=0, imgsz=320)
    with pytest.raises(DimensionError, match=r"^defects "):
        make_dataset(tmp_path / "new", train=4, defects=-1)


def test_the_package_says_where_its_models_are() -> None:
    assert Path(str(files("ovyolo.demo"))) / "model" == FOLDER


def test_shipped_models_explain_themselves() -> None:
    made = shipped_models()
    dense, compressed = (read_model(path, shared_core())[1] for path in (made.dense, made.compressed))
    assert dense.names == compressed.names == CLASSES and dense.imgsz == compressed.imgsz == (shipped.IMGSZ,) * 2
    assert compressed.precision == "INT8" != dense.precision
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6
    report = json.loads(made.report.read_text(encoding="utf-8"))
    assert report["steps"][0]["name"] == "original" and report["steps"][-1]["name"] == "INT8 trained"
    assert report["steps"][-1]["ap50"] > report["steps"][0]["ap50"] - 10
    note = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in note and str(TRAINING_SEED) in note
    for path in FOLDER.iterdir():
        assert path.suffix == ".bin" or str(Path.home()) not in path.read_text(encoding="utf-8")


def test_shipped_models_find_defects_on_fresh_boards(tmp_path: Path) -> None:
    contest = hold_contest(tmp_path / "boards", boards=24, seed=77, seconds=0.3)
    for form in contest.forms:
        assert form.ap50 is not None and form.ap50 > 50
    dense, compressed = contest.forms
    assert compressed.bytes < 0.7 * dense.bytes and compressed.zipped < dense.zipped


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from ovyolo.cli import main
assert main(["demo", "--quiet", "--boards", "2", "--seconds", "0.05", "-o", sys.argv[1]]) == 0
print(*[name for name in ("torch", "nncf", "jinja2") if name in sys.modules])
"""
    assert run_python(code, tmp_path / "out").splitlines()[-1].strip() == ""


def test_the_installed_package_holds_the_models() -> None:
    checkout = Path(__file__).resolve().parents[1] / "ovyolo" / "demo" / "model"
    if not checkout.is_dir():
        pytest.skip("not in a checkout")
    for path in checkout.iterdir():
        assert (FOLDER / path.name).read_bytes() == path.read_bytes()
