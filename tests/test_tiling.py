"""Tiles as a user meets them: one tile is plain inference, bad input is named, memory does not grow with pictures."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.seeing_session import CARD, SIDE, SeeingSession, Seer, place_picture
from reference.tiny_model import make_tiny_ir

from ovyolo import Detector
from ovyolo.errors import DimensionError, OvyoloWarning
from ovyolo.tiling import Tiler, TileSettings, plan_tiles


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 64x64 pixels that marks bright 8-pixel cells."""
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


def canvas(spots: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    image = np.zeros((*shape, 3), np.uint8)
    for x, y in spots:
        image[y : y + 8, x : x + 8] = 255
    return image


def assert_equal(ours: Any, theirs: Any) -> None:
    np.testing.assert_array_equal(ours.xyxy, theirs.xyxy)
    np.testing.assert_array_equal(ours.confidence, theirs.confidence)
    np.testing.assert_array_equal(ours.class_id, theirs.class_id)
    assert (ours.truncated, ours.image_shape, ours.names) == (theirs.truncated, theirs.image_shape, theirs.names)


@pytest.mark.parametrize("tile", [64, 96, 1024, "auto", (64, 96)])
@pytest.mark.parametrize("full", [False, True])
def test_one_tile_is_plain_inference(tile: Any, full: bool, tiny: Path) -> None:
    image = canvas([(0, 0), (8, 8), (40, 24), (56, 40)], (48, 64))
    detector = Detector(tiny, conf=0.01)
    assert len(detector(image)) >= 4
    assert_equal(detector(image, tile=tile, full=full), detector(image))


def test_one_tile_is_plain_inference_on_real_pictures(shared: Path, tmp_path: Path) -> None:
    detector = Detector(shared / "weights" / "yolov5n.pt", conf=0.05, cache_dir=tmp_path)
    for name in ("bus.jpg", "zidane.jpg"):
        picture = shared / "images" / name
        plain = detector(picture)
        assert len(plain) > 3
        assert_equal(detector(picture, tile=2048, overlap=0.5, full=True), plain)


def test_tiles_find_what_shrinking_loses(tiny: Path) -> None:
    spots = [(8, 16), (120, 56), (232, 168), (184, 104)]
    image = canvas(spots, (192, 256))
    detector = Detector(tiny)
    assert len(detector(image)) == 0
    found = detector(image, tile=64, overlap=0.125)
    assert sorted(found.xyxy.round().tolist()) == sorted([x, y, x + 8, y + 8] for x, y in spots)
    assert found.image_shape == (192, 256) and found.device == "CPU"
    several = detector([image, image], tile=64, overlap=0.125)
    assert [len(one) for one in several] == [4, 4]


def test_tiles_are_full_and_cover_the_picture() -> None:
    for height, width, tile, overlap in (
        (700, 1000, 640, 0.2),
        (64, 65, 64, 0.9),
        (100, 1, 64, 0.2),
        (1, 3000, 64, 0.0),
    ):
        plan = plan_tiles((height, width), TileSettings(tile, overlap), (64, 64))
        sides = plan.tiles[:, 2:] - plan.tiles[:, :2]
        assert (sides == (min(tile, width), min(tile, height))).all() and len(np.unique(plan.tiles, axis=0)) == len(
            plan.tiles
        )
        seen = np.zeros((height, width), bool)
        for x1, y1, x2, y2 in plan.tiles:
            seen[y1:y2, x1:x2] = True
        assert seen.all() and plan.tiles.min() >= 0 and (plan.tiles.max(axis=0)[2:] == (width, height)).all()


def test_auto_looks_at_picture_and_model() -> None:
    def count(size: tuple[int, int], imgsz: tuple[int, int]) -> int:
        return len(plan_tiles(size, TileSettings("auto"), imgsz).tiles)

    assert count((640, 640), (640, 640)) == count((900, 900), (640, 640)) == count((480, 640), (640, 640)) == 1
    assert count((1280, 1280), (640, 640)) == 9 and count((1280, 1280), (1280, 1280)) == 1
    assert (plan_tiles((2000, 3000), TileSettings("auto"), (384, 640)).tiles[0] == (0, 0, 640, 384)).all()


def test_region_of_interest(tiny: Path) -> None:
    spots = [(8, 8), (72, 8), (8, 72), (136, 136)]
    image, detector = canvas(spots, (192, 192)), Detector(tiny)
    tiles = {"tile": 64, "overlap": 0.125}
    assert len(detector(image, **tiles)) == 4
    left = detector(image, **tiles, roi=(0, 0, 64, 192))
    assert sorted(left.xyxy[:, :2].round().tolist()) == [[8, 8], [8, 72]]
    triangle = [(0, 0), (180, 0), (0, 180)]
    assert len(detector(image, **tiles, roi=triangle)) == 3
    assert len(plan_tiles((192, 192), TileSettings(64, 0.125, roi=triangle), (64, 64)).tiles) < 16
    # a region that sticks out is cut to the picture
    assert len(detector(image, **tiles, roi=(-500, -500, 64, 64))) == 1
    for outside in ((300, 300, 400, 400), [(-9, -9), (-1, -9), (-5, -1)]):
        with pytest.raises(DimensionError, match=r"region of interest .* has no part in the picture of 192x192"):
            detector(image, **tiles, roi=outside)


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        ({"tile": 0}, "tile is 0"),
        ({"tile": -64}, "tile is -64"),
        ({"tile": 64.5}, r"tile is 64\.5"),
        ({"tile": "big"}, "'auto'"),
        ({"tile": (64, 64, 3)}, "tile is"),
        ({"tile": 64, "overlap": 1.0}, r"overlap is 1\.0"),
        ({"tile": 64, "overlap": -0.1}, r"overlap is -0\.1"),
        ({"tile": 64, "overlap": float("nan")}, "overlap is nan"),
        ({"tile": 64, "overlap": "much"}, "overlap is much"),
        ({"tile": 64, "merge": "best"}, "merge is 'best'; it takes one of nms, nmm, wbf, soft"),
        ({"tile": 64, "skip_flat": 300}, "skip_flat is 300"),
        ({"tile": 64, "roi": (9, 9, 9, 20)}, "x1 < x2"),
        ({"tile": 64, "roi": [(0, 0), (1, 1)]}, "three or more points"),
        ({"tile": 64, "roi": [(0, 0), (1, float("nan")), (4, 4)]}, "three or more points"),
        ({"tile": 64, "roi": "left"}, "roi is left"),
        ({"overlap": 0.5}, "overlap is for tiles: give tile as well"),
        ({"tile": None, "full": True}, "is for tiles"),
    ],
)
def test_bad_settings_are_named(tiles: dict[str, Any], words: str, tiny: Path) -> None:
    with pytest.raises(DimensionError, match=words):
        Detector(tiny)(np.zeros((70, 70, 3), np.uint8), **tiles)


def test_other_words_are_refused(tiny: Path) -> None:
    with pytest.raises(TypeError, match="'tiles' is not an argument"):
        Detector(tiny)(np.zeros((70, 70, 3), np.uint8), tiles=64)


def test_tile_is_rounded_up_to_the_stride_and_says_so(tiny: Path) -> None:
    detector = Detector(tiny)
    image = canvas([(8, 8)], (200, 200))
    with pytest.warns(OvyoloWarning, match="tile 60x60 was rounded up to 64x64: the model's largest stride is 8"):
        first = detector(image, tile=60, overlap=0.125)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        second = detector(image, tile=60, overlap=0.125)
    assert_equal(first, second)
    assert_equal(first, detector(image, tile=64, overlap=0.125))


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 129), (64, 64)])
def test_odd_pictures(shape: tuple[int, int], tiny: Path) -> None:
    found = Detector(tiny)(np.full((*shape, 3), 255, np.uint8), tile=64, full=True)
    assert found.image_shape == shape
    assert (found.xyxy >= 0).all() and (found.xyxy[:, 2:] <= (shape[1], shape[0])).all()


def test_memory_is_the_rings(tiny: Path) -> None:
    """100 megapixels in 900 tiles: what is allocated meanwhile is far below the picture, and all tiles together."""
    image = np.broadcast_to(np.uint8(30), (10_000, 10_000, 3))
    detector = Detector(tiny)
    detector(image[:700, :700], tile=320, overlap=0.1)
    tracemalloc.start()
    try:
        found = detector(image, tile=352, overlap=0.05, full=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 0 and found.image_shape == (10_000, 10_000)
    assert peak < 8 * 2**20


def test_no_more_is_under_way_than_there_are_slots() -> None:
    for slots, batch in ((1, 1), (2, 1), (3, 4)):
        rng = np.random.default_rng(0)
        objects = np.array([[10, 10, 30, 30], [150, 90, 170, 120]], float)
        seer = Seer(objects, np.array([0, 1], np.int32), 0.0, rng)
        session = SeeingSession(slots, batch)
        tiler = Tiler(CARD, TileSettings(SIDE, 0.25, True), seer, iou=0.45, agnostic=False, max_det=300)
        found = tiler(place_picture(200, 300), session)
        views = tiler.plan((200, 300)).views
        assert session.submitted == -(-views // batch) and session.most == min(slots, session.submitted)
        assert sorted(found.xyxy.tolist()) == objects.tolist()


def test_flat_tiles_are_skipped_only_when_asked() -> None:
    rng = np.random.default_rng(0)
    seer = Seer(np.zeros((0, 4)), np.zeros(0, np.int32), 0.0, rng)
    image = np.clip(rng.normal(100, 2, (256, 256, 3)), 0, 255).astype(np.uint8)  # noise alone is flat
    image[100:104, 70:86] = 140  # a scratch is not
    for levels, submitted in ((0.0, 16), (8.0, 1)):
        session = SeeingSession()
        Tiler(CARD, TileSettings(SIDE, 0.0, skip_flat=levels), seer, iou=0.45, agnostic=False, max_det=9)(
            image, session
        )
        assert session.submitted == submitted


@pytest.mark.parametrize("merge", ["nms", "nmm", "wbf", "soft"])
def test_every_way_of_merging_gives_each_object(merge: str) -> None:
    rng = np.random.default_rng(3)
    objects = np.array([[50, 10, 70, 30], [55, 50, 75, 90], [20, 100, 180, 140.0]])
    seer = Seer(objects, np.array([0, 1, 0], np.int32), 0.2, rng)
    tiler = Tiler(CARD, TileSettings(SIDE, 0.5, merge=merge), seer, iou=0.45, agnostic=False, max_det=300)
    found = tiler(place_picture(200, 200), SeeingSession())
    if merge == "soft":  # what it lowers it does not drop
        found = found[found.confidence > 0.25]
    for box in objects:
        assert (np.abs(found.xyxy - box).max(axis=1) < 2).sum() >= 1
    assert merge == "soft" or len(found) == 3


def test_fewer_boxes_than_asked_for_are_the_best_and_it_says_so(tiny: Path) -> None:
    image = canvas([(8 + 16 * i, 8 + 16 * j) for i in range(10) for j in range(10)], (192, 192))
    found = Detector(tiny, max_det=20)(image, tile=64, overlap=0.125)
    assert len(found) == 20 and found.truncated


def test_threads_share_a_detector_that_tiles(tiny: Path) -> None:
    detector = Detector(tiny)
    pictures = [canvas([(8 + 8 * i, 8)], (100, 200)) for i in range(12)]
    expected = [detector(one, tile=64).xyxy.tolist() for one in pictures]
    results: dict[int, Any] = {}

    def work(i: int) -> None:
        results[i] = detector(pictures[i], tile=64).xyxy.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [results[i] for i in range(12)] == expected
