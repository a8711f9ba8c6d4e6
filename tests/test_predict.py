"""Predicting over a data set: every picture once, in order, whatever the slots; and nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.judging import FakeSession, card

from ovyolo.dataset import DataSet, Item
from ovyolo.errors import DataError, DimensionError, ImageError
from ovyolo.evaluate import Pictures, evaluate, predict, predict_dataset
from ovyolo.evaluate.inference import rect_shape

GREYS = (20, 200, 90, 140, 250, 60, 170)


def grey_set(folder: Path) -> DataSet:
    """Square pictures of one grey each, so that no padding changes their mean."""
    items = []
    for index, grey in enumerate(GREYS):
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), np.full((32, 32, 3), grey, np.uint8))
        none = np.zeros(0)
        items.append(Item(path, index, (32, 32), none.reshape(0, 4), none.astype(np.int32), none.astype(bool), none))
    return DataSet(("a",), tuple(items), folder / "data.yaml", "val", (0,))


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_picture_once_and_in_order(tmp_path: Path, slots: int, batch: int) -> None:
    session = FakeSession(slots, batch)
    found = predict(session, card("a"), Pictures(grey_set(tmp_path), (64, 64)))
    assert found.image.tolist() == list(range(len(GREYS)))
    np.testing.assert_allclose(found.score, np.array(GREYS) / 255, atol=1e-4)
    assert not session.under_way and session.submitted == -(-len(GREYS) // batch)
    assert session.most_under_way == min(slots, session.submitted)
    assert found.made == {"device": "FAKE", "imgsz": "64x64", "conf": 0.001, "iou": 0.6, "max_det": 300}
    # boxes come back in pixels of the 32x32 picture: the cell's centre, half of the anchor
    np.testing.assert_allclose(found.xywh[0], [8 - 2.5, 8 - 2.5, 5, 5], atol=1e-4)


def test_confidence_and_limits(tmp_path: Path) -> None:
    pictures = Pictures(grey_set(tmp_path), (64, 64))
    assert predict(FakeSession(), card("a"), pictures, conf=0.5).image.tolist() == [1, 3, 4, 6]
    for bad in ({"conf": 2}, {"iou": -1}, {"max_det": 0}):
        with pytest.raises(DimensionError, match=next(iter(bad))):
            predict(FakeSession(), card("a"), pictures, **bad)
    with pytest.raises(DimensionError, match="64x64 pixels, but the pictures are 32x64"):
        predict(FakeSession(), card("a"), Pictures(grey_set(tmp_path), (64, 32)))


def test_pictures_are_kept_while_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovyolo.io import images

    read, reads = images.read_image, []
    monkeypatch.setattr(images, "read_image", lambda path: reads.append(path) or read(path))
    dataset = grey_set(tmp_path)
    pictures = Pictures(dataset, (64, 64), keep_bytes=3 * 64 * 64 * 3)
    first = predict(FakeSession(), card("a"), pictures)
    assert len(reads) == 7
    again = predict(FakeSession(), card("a"), pictures)
    assert len(reads) == 7 + 4 and again.score.tolist() == first.score.tolist()


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = grey_set(tmp_path)
    dataset.items[2].path.write_bytes(b"gone bad")
    session = FakeSession()
    with pytest.raises(ImageError, match=r"2\.png"):
        predict(session, card("a"), Pictures(dataset, (64, 64)))
    assert not session.under_way
    found = predict(FakeSession(), card("a"), Pictures(dataset, (64, 64)), skip_bad=True)
    assert found.image.tolist() == [0, 1, 3, 4, 5, 6] and list(found.failed) == [2]
    left, table = found.without_failed(dataset)
    assert len(left) == 6 and table.image.tolist() == [0, 1, 2, 3, 4, 5] and not table.failed
    assert left.items[2].image_id == 3


@pytest.mark.parametrize("fail_at", [3, 4, 7])
def test_an_interrupt_leaves_nothing_computing(tmp_path: Path, fail_at: int) -> None:
    session = FakeSession(slots=3, fail_at=fail_at)
    with pytest.raises(KeyboardInterrupt):
        predict(session, card("a"), Pictures(grey_set(tmp_path), (64, 64)))
    assert not session.under_way
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ovyolo-read")]


def test_rect_shapes() -> None:
    assert rect_shape((426, 640), 640, 32) == (448, 672)
    for size in ((1, 1000), (1000, 1), (333, 777)):
        height, width = rect_shape(size, 640, 64)
        assert height % 64 == 0 and width % 64 == 0 and max(height, width) >= 640


def test_rect_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DimensionError, match=r"best\.xml is fixed: --rect needs the \.pt"):
        predict_dataset(tmp_path / "best.xml", grey_set(tmp_path), rect=True)
    with pytest.raises(DimensionError, match="takes one number"):
        predict_dataset(tmp_path / "best.pt", grey_set(tmp_path), rect=True, imgsz=(320, 640))


def test_the_real_model_scores_as_its_own_tools_say(shared: Path, tmp_path: Path) -> None:
    """A tenth of the pictures: the same figures from our boxes as from upstream's."""
    from ovyolo.dataset import load_dataset
    from ovyolo.evaluate import read_predictions, score

    dataset = load_dataset(shared / "coco-val128/data.yaml", limit=13).checked()
    theirs = score(
        dataset,
        read_predictions(shared / "golden/yolov5n-coco-val128-predictions.json", dataset, skip_bad=True),
        detail=False,
    )
    ours = evaluate(shared / "weights/yolov5n.pt", dataset, cache_dir=tmp_path)
    assert ours.pictures == 13 and ours.made["model"] == "yolov5n.pt"
    for figure in ("ap", "ap50", "ap75", "ar100"):
        assert getattr(ours, figure) == pytest.approx(getattr(theirs, figure), abs=0.01), figure


def test_classes_of_another_data_set(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 6 classes .*but yolov5n\.pt tells 80 apart"):
        evaluate(shared / "weights/yolov5n.pt", shared / "deeppcb/data.yaml", cache_dir=tmp_path)


@pytest.mark.slow
def test_yolov5n_scores_as_published(shared: Path, tmp_path: Path) -> None:
    from ovyolo.export import export

    path = export(shared / "weights/yolov5n.pt", tmp_path / "n.xml", fp32=True)
    scores = evaluate(path, shared / "coco-val128/data.yaml")
    assert scores.ap == pytest.approx(0.339, abs=0.002)
    assert scores.ap50 == pytest.approx(0.523, abs=0.002)
    assert scores.ap_small == pytest.approx(0.173, abs=0.002)


@pytest.mark.slow
def test_rect_scores_like_square(shared: Path, tmp_path: Path) -> None:
    scores = evaluate(shared / "weights/yolov5n.pt", shared / "coco-val128/data.yaml", rect=True, cache_dir=tmp_path)
    assert scores.ap == pytest.approx(0.345, abs=0.02) and "shapes" in scores.made["imgsz"]
