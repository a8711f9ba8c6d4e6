"""What the upstream implementation returned for real checkpoints, and what we return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovyolo.decode import Decoder
from ovyolo.detector import Detector
from ovyolo.errors import UnsupportedModelError
from ovyolo.export import export
from ovyolo.io.images import read_image
from ovyolo.letterbox import letterbox
from ovyolo.runtime import open_session

CHECKPOINTS = [
    "yolov5n",
    "yolov5n-v6.0",
    "yolov5s-v6.0",
    "custom-2021-focus-spp-2class",
    "experimental-c3x-dwconv",
    "yolov5n-deeppcb",
]


def golden(shared: Path, name: str) -> dict[str, Any]:
    return json.loads((shared / "golden" / f"{name}.json").read_text(encoding="utf-8"))


def pictures(shared: Path, name: str) -> dict[str, Path]:
    data = golden(shared, name)["images"]
    folder = shared / ("deeppcb/images/val" if name == "yolov5n-deeppcb" else "images")
    return {picture: folder / picture for picture in data}


@pytest.fixture(scope="session")
def irs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    folder = tmp_path_factory.mktemp("golden")
    made = {}
    for name in CHECKPOINTS:
        for fp32 in (True, False):
            target = folder / f"{name}-{'fp32' if fp32 else 'fp16'}.xml"
            made[name, fp32] = export(shared / "weights" / f"{name}.pt", target, fp32=fp32)
    return made


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    inter = np.clip(bottom_right - top_left, 0, None).prod(2)
    area = [np.clip(x[:, 2:4] - x[:, :2], 0, None).prod(1) for x in (a, b)]
    return inter / np.maximum(area[0][:, None] + area[1][None] - inter, 1e-9)


def matched(theirs: np.ndarray, ours: np.ndarray, score: float, iou: float = 0.995) -> np.ndarray:
    """For each of their rows, whether a row of ours, used once, has its class, place and score."""
    done = np.zeros(len(theirs), bool)
    if not len(ours) or not len(theirs):
        return done
    overlap = iou_matrix(theirs, ours)
    fits = (overlap >= iou) & (theirs[:, None, 5] == ours[None, :, 5])
    fits &= np.abs(theirs[:, None, 4] - ours[None, :, 4]) <= score
    used = np.zeros(len(ours), bool)
    for i in range(len(theirs)):
        candidates = np.flatnonzero(fits[i] & ~used)
        if len(candidates):
            used[candidates[np.argmax(overlap[i, candidates])]] = True
            done[i] = True
    return done


def rows_of(found: Any) -> np.ndarray:
    return np.concatenate([found.xyxy, found.confidence[:, None], found.class_id[:, None]], 1)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("fp32", [True, False], ids=["fp32", "fp16"])
def test_detect_rows(name: str, fp32: bool, shared: Path, irs: dict[tuple[str, bool], Path]) -> None:
    with Detector(irs[name, fp32]) as detector:
        for picture, path in pictures(shared, name).items():
            theirs = np.array(golden(shared, name)["images"][picture]["detect"]).reshape(-1, 6)
            ours = rows_of(detector(path))
            assert len(ours) == len(theirs), picture
            ok = matched(theirs, ours, 0.002)
            assert ok.all(), f"{picture}: {theirs[~ok]}"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_val_rows(name: str, shared: Path, irs: dict[tuple[str, bool], Path]) -> None:
    session, card = open_session(irs[name, True])
    decode = Decoder(card)
    for picture, path in pictures(shared, name).items():
        theirs = np.array(golden(shared, name)["images"][picture]["val"]).reshape(-1, 6)
        theirs = theirs[theirs[:, 4] >= 0.01]
        image, fit = letterbox(read_image(path), card.imgsz)
        session.input(0)[0] = image
        session.submit(0)
        ours = rows_of(decode(session.wait(0), fit, conf=0.001, iou=0.6, multi_label=True, max_det=300))
        ok = matched(theirs, ours, 0.002)
        assert ok.mean() >= 0.995, f"{picture}: {ok.mean():.4f} of {len(ok)}; first missing {theirs[~ok][:3]}"


@pytest.mark.parametrize("picture", ["bus", "zidane"])
def test_raw_heads(picture: str, shared: Path, irs: dict[tuple[str, bool], Path]) -> None:
    stored = np.load(shared / "golden" / f"yolov5n-raw-{picture}.npz")
    session, card = open_session(irs["yolov5n", True])
    session.input(0)[0] = stored["letterboxed"]
    session.submit(0)
    for name, ours in zip(card.head.outputs, session.wait(0), strict=True):
        theirs = stored[name]
        assert np.abs(ours - theirs).max() <= 2e-3 * theirs.std()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_card(name: str, shared: Path, irs: dict[tuple[str, bool], Path]) -> None:
    _, card = open_session(irs[name, False])
    expected = golden(shared, name)
    assert list(card.names) == [expected["names"][str(i)] for i in range(len(expected["names"]))]
    assert list(card.head.strides) == expected["stride"]
    np.testing.assert_allclose(np.array(card.head.anchors), np.array(expected["anchors"]), rtol=1e-3)
    assert card.precision == "FP16"
    assert card.made["source"] == f"{name}.pt"


def test_face_head_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"face-head-refuse\.pt.*landmark") as error:
        export(shared / "weights" / "face-head-refuse.pt", tmp_path / "face.xml")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
