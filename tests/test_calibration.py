"""Calibration pictures are kept apart from those that judge, and looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.spot_model import SIDE

pytest.importorskip("nncf")

from ovyolo.compress.calibration import choose_calibration
from ovyolo.dataset import load_dataset
from ovyolo.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")


def test_calibration_is_kept_apart_by_path_and_content(spots: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = load_dataset(spots[1])
    folder = tmp_path / "more"
    folder.mkdir()
    train = sorted((spots[1].parent / "images" / "train").iterdir())
    for path in train[:18]:
        shutil.copy(path, folder / path.name)
    shutil.copy(dataset.items[0].path, folder / "renamed.png")
    found, left = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[folder, dataset.items[1].path])
    assert len(found) == 18 and len(left) == len(dataset)
    assert "2 picture(s)" in found.warnings[0]
    assert "renamed.png" not in {path.name for path, _ in found.places}


def test_the_same_split_is_halved_and_said_so(spots: tuple[Path, Path]) -> None:
    dataset = load_dataset(spots[1])
    found, left = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], split="val")
    used = {path for path, _ in found.places}
    assert len(used) == len(left) == 12 and used.isdisjoint(item.path for item in left.items)
    assert "CAUTION" in found.warnings[0] and "halved" in found.warnings[0]
    again, _ = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], split="val")
    assert again.digest == found.digest


def test_calibration_that_shows_nothing_is_doubted(spots: tuple[Path, Path], tmp_path: Path) -> None:
    for index in range(10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((48, 90, 3), np.uint8))
    found, _ = choose_calibration(load_dataset(spots[1]), (SIDE, SIDE), data=spots[1], sources=[tmp_path])
    text = " ".join(found.warnings)
    assert "10 of the 10 calibration pictures are of one colour" in text and "CAUTION" in text
    assert "9 of the 10" in text and "only 10" in text


def test_calibration_pictures_that_cannot_be_read(spots: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "good.png"), np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    dataset = load_dataset(spots[1])
    with pytest.raises(DataError, match=r"1 calibration picture.*bad\.png"):
        choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[tmp_path])
    found, _ = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[tmp_path], skip_bad=True)
    assert len(found) == 1 and len(found.problems) == 1
