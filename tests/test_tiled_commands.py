"""Tiles on the command line: ``detect --tile``, ``val --tile``, ``--sizes`` and ``--compare``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.judging import made_predictions, made_set, pycocotools_stats
from reference.spot_model import CELL, SIDE, write_spot_model

from ovyolo.cli import main
from ovyolo.errors import DimensionError
from ovyolo.evaluate import SizeEdges, score, score_by_size
from ovyolo.evaluate.compare import Variant


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spot network, and pictures four times its input with spots of 8 pixels: lost when shrunk."""
    folder = tmp_path_factory.mktemp("spots")
    write_spot_model(folder / "spots.xml")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    side = 4 * SIDE
    for index in range(4):
        image = rng.integers(10, 30, (side, side, 3))
        lines = []
        for cell in rng.choice((side // CELL) ** 2, 12, replace=False):
            row, column = divmod(int(cell), side // CELL)
            image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 240
            lines.append(f"0 {(column + 0.5) * CELL / side} {(row + 0.5) * CELL / side} {CELL / side} {CELL / side}")
        cv2.imwrite(str(folder / f"images/{index}.png"), image.astype(np.uint8))
        (folder / f"labels/{index}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "data.yaml").write_text("val: images\nnames: [bright, grey]\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(spots: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(spots)
    return spots


def test_detect_with_tiles(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["detect", "--model", "spots.xml", "--source", "images", "--no-save", "--json", "-"]
    assert main([*words, "--tile", "64", "--overlap", "0.125", "--full"]) == 0
    out, err = capsys.readouterr()
    assert [len(one["boxes"]) for one in json.loads(out)] == [12] * 4 and "48 bright" in err
    assert main([*words, "--tile", "64", "--overlap", "0.125", "--roi", "0,0,128,128"]) == 0
    assert 0 < sum(len(one["boxes"]) for one in json.loads(capsys.readouterr().out)) < 48


def test_val_with_tiles_and_sizes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["val", "spots.xml", "--data", "data.yaml", "--quiet"]
    assert main([*words, "--json", "-"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*words, "--tile", "64", "--overlap", "0.125", "--sizes", "6,16", "--report", "r.html"]) == 0
    out, err = capsys.readouterr()
    assert "object size objects     AP" in out and "6–16" in out and err == "written: r.html\n"
    page = Path("r.html").read_text(encoding="utf-8")
    assert "Object sizes" in page and "6–16" in page
    assert main([*words, "--tile", "64", "--overlap", "0.125", "--sizes", "1%,5%", "--json", "-"]) == 0
    tiled = json.loads(capsys.readouterr().out)
    assert plain["ap50"] < 0.1 and tiled["ap50"] > 0.9
    assert [one["label"] for one in tiled["sizes"]] == ["below 1 %", "1–5 %", "from 5 %"]
    assert [one["objects"] for one in tiled["sizes"]] == [0, 48, 0]
    assert tiled["sizes"][1]["ap"] == pytest.approx(tiled["ap"], abs=1e-6) and tiled["sizes"][0]["ap"] is None
    assert tiled["made"]["tile"] == "64x64" and tiled["made"]["views"].endswith("a picture")


def test_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["val", "spots.xml", "--data", "data.yaml", "--quiet", "--sizes", "16"]
    ways = ["--compare", "plain", "tile=64,overlap=0.125", "tile=64,overlap=0.125,full"]
    assert main([*words, *ways, "--report", "c.html"]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith(("plain", "tile="))]
    assert [line.split()[0] for line in lines] == ways[1:] and "ms a picture" in out and "written: c.html" in err
    assert main([*words, *ways, "--json", "-"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [one["views"] for one in compared] == [1, 25, 26]
    assert compared[0]["scores"]["ap50"] < 0.1 and compared[1]["scores"]["ap50"] > 0.9
    assert all(one["ms"]["median"] > 0 for one in compared)
    page = Path("c.html").read_text(encoding="utf-8")
    assert (
        page.count("<svg") == 2
        and "Recall by object size" in page
        and "http" not in page.replace("http://www.w3.org", "")
    )
    # the comparison's plain way is plain val
    assert main(["val", "spots.xml", "--data", "data.yaml", "--quiet", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["ap"] == compared[0]["scores"]["ap"]


def test_compare_says_which_objects_no_tile_holds(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    side = 4 * SIDE
    cv2.imwrite(str(tmp_path / "images/0.png"), np.full((side, side, 3), 20, np.uint8))
    large, edge = SIDE + 8, 16  # one fits in no tile, one just lies at the picture's edge
    lines = [f"0 0.5 0.5 {large / side} {large / side}", f"0 {edge / 2 / side} 0.5 {edge / side} {edge / side}"]
    (tmp_path / "labels/0.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "data.yaml").write_text("val: images\nnames: [bright, grey]\n", encoding="utf-8")
    words = ["val", str(spots / "spots.xml"), "--data", str(tmp_path / "data.yaml"), "--quiet", "--compare"]
    assert (
        main([*words, "plain", f"tile={SIDE},overlap=0.5", f"tile={SIDE},full", f"tile={2 * SIDE},overlap=0.75"]) == 0
    )
    notes = [line for line in capsys.readouterr().out.splitlines() if "seen in pieces" in line]
    (note,) = notes
    assert note.startswith(f"note: tile={SIDE},overlap=0.5: 1 of 2 objects lie whole in no tile")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--overlap", "0.3"], "--overlap is for tiles: give --tile as well"),
        (["--full"], "--full is for tiles"),
        (["--tile", "0"], "'0' is not an image size"),
        (["--tile", "64", "--overlap", "1"], "'1' is not a number from 0 to below 1"),
        (["--tile", "64", "--overlap=-0.1"], "is not a number from 0 to below 1"),
        (["--tile", "64", "--roi", "1,2,3"], "is no region"),
        (["--tile", "64", "--roi", "900,900,950,950"], "has no part in the picture"),
        (["--tile", "64", "--merge", "best"], "invalid choice"),
        (["--tile", "64", "--skip-flat", "0"], "not a number of grey levels"),
        (["--tile", "64", "--rect"], "rect"),
        (["--sizes", "big"], "sizes 'big' cannot be read"),
        (["--sizes", "16,8"], "ascending"),
        (["--sizes", "16,5%"], "cannot be read"),
        (["--sizes", "50%,150%"], "below 100 %"),
        (["--compare", "plain", "tiles=64"], "'tiles=64' cannot be compared"),
        (["--compare", "plain", "full"], "needs tile=..."),
        (["--compare", "tile=64,overlap=2"], "overlap is 2"),
        (["--compare", "plain", "--tile", "64"], "--compare names the ways itself"),
        (["--compare", "imgsz=128"], "imgsz cannot be given"),
    ],
)
def test_failures_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    try:
        status = main(["val", "spots.xml", "--data", "data.yaml", "--quiet", *words])
    except SystemExit as stop:
        status = int(str(stop.code))
    out, err = capsys.readouterr()
    assert status == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err and "Traceback" not in err


def test_variants_say_what_they_mean() -> None:
    assert Variant.parse("plain").words == {} and Variant.parse("imgsz=480x640").imgsz == (480, 640)
    assert Variant.parse("tile=480x640, overlap=0.3,merge=nmm").words == {
        "tile": (480, 640), "overlap": 0.3, "merge": "nmm"
    }  # fmt: skip
    assert Variant.parse("tile=auto,full").settings.full
    with pytest.raises(DimensionError, match="merge is 'best'"):
        Variant.parse("tile=64,merge=best")


def test_sizes_are_cocos_where_the_edges_are() -> None:
    rng = np.random.default_rng(2)
    pictures, rows = [], []
    for index in range(6):
        sides = rng.choice([10.0, 50, 150], (8, 1)) * rng.uniform(0.7, 1.3, (8, 2))
        corner = rng.uniform(0, 250, (8, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        pictures.append([(int(rng.integers(0, 3)), *box, rng.random() < 0.1) for box in boxes])
        for kind, *box, _ in pictures[-1]:
            moved = np.array(box) + rng.normal(0, 2, 4)
            moved[2:] = np.maximum(moved[2:], moved[:2])
            rows.append((index, kind, *moved, rng.random()))
    dataset, predictions = made_set(pictures), made_predictions(rows)
    theirs = pycocotools_stats(dataset, predictions).stats
    scores = score_by_size(score(dataset, predictions), dataset, predictions, SizeEdges((32, 96)))
    np.testing.assert_allclose([one.ap for one in scores.sizes], theirs[3:6], atol=1e-6)
    assert sum(one.objects for one in scores.sizes) == scores.objects
    assert all(0 <= one.recall <= one.recall_any <= 1 for one in scores.sizes)
    # shares of a picture of 400x500
    unit = math.sqrt(400 * 500)
    relative = score_by_size(scores, dataset, predictions, SizeEdges((32 / unit, 96 / unit), True))
    for one, other in zip(scores.sizes, relative.sizes, strict=True):
        assert replace(other, label=one.label) == one
