"""Streams of frames that are cut into tiles: computed ahead, bounded, in order, whatever the device does."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.seeing_session import CARD, SIDE, SeeingSession, Seer, place_picture
from reference.spots import left_threads
from reference.tiny_model import make_tiny_ir

from ovyolo import Detections, Detector
from ovyolo.errors import ModelError, OvyoloWarning
from ovyolo.stream import Stream, StreamSettings
from ovyolo.tiling import TiledFrames, Tiler, TileSettings
from ovyolo.tiling import frames as frames_module

OBJECTS = np.array([[20, 20, 40, 40], [110, 60, 130, 80], [70, 100, 90, 130]], float)


def seeing_tiler(decode: Callable[..., Detections] | None = None, **settings: Any) -> Tiler:
    seer = Seer(OBJECTS, np.zeros(3, np.int32), 0.0, np.random.default_rng(0))
    return Tiler(CARD, TileSettings(SIDE, 0.5, **settings), decode or seer, iou=0.45, agnostic=False, max_det=99)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 64x64 pixels that marks bright 8-pixel cells."""
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


def spotted(number: int) -> np.ndarray:
    """A frame with two spots."""
    image = np.zeros((160, 200 + number, 3), np.uint8)
    for y in (40, 120):
        image[y : y + 8, 8 + 16 * number : 16 + 16 * number] = 255
    return image


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_streams_cut_frames_into_tiles(tiny: Path) -> None:
    frames = [spotted(i) for i in range(6)]
    detector = Detector(tiny, hint="throughput")
    with detector.stream(iter(frames), tile=64, overlap=0.125) as stream:
        seen = [(frame.index, found) for frame, found in stream]
    assert [index for index, _ in seen] == list(range(6))
    for index, found in seen:
        alone = detector(frames[index], tile=64, overlap=0.125)
        np.testing.assert_array_equal(found.xyxy, alone.xyxy)
        np.testing.assert_array_equal(found.confidence, alone.confidence)
        assert len(found) == 2
    for _ in detector.stream(iter(frames), tile=64):
        break  # leaving early ends the threads and does not compute what waits
    assert not left_threads()


@pytest.mark.parametrize("batch", [1, 4])
def test_frames_compute_before_they_are_waited_for(batch: int) -> None:
    tiler, session = seeing_tiler(), SeeingSession(2, batch)
    picture = place_picture(160, 160)
    tiles = -(-tiler.plan((160, 160)).views // batch)
    frames = TiledFrames(tiler, session, 3)
    for slot in range(3):
        frames.hold(slot, picture)
        frames.submit(slot)
    assert until(lambda: len(frames._results) == 3)
    assert session.submitted == 3 * tiles
    assert session.most == 2, "no more under way than there are slots"
    for slot in (2, 0, 1):
        (found,) = frames.wait(slot, 5)
        np.testing.assert_allclose(np.sort(found.xyxy[:, 0]), np.sort(OBJECTS[:, 0]))
        assert frames.wait(slot, 5) == [], "a result is given once"
    frames.close()
    assert not left_threads()


def test_the_device_does_not_idle_between_frames() -> None:
    both_waiting = threading.Event()
    under_way_at_merge: list[int] = []

    class Gated(SeeingSession):
        def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
            assert both_waiting.wait(10)
            return super().wait(slot, timeout)

    class Watched(Tiler):
        def merged(self, picture: Any) -> Detections:
            under_way_at_merge.append(len(session._under_way))
            return super().merged(picture)

    seer = Seer(OBJECTS, np.zeros(3, np.int32), 0.0, np.random.default_rng(0))
    session = Gated(3)
    tiler = Watched(CARD, TileSettings(SIDE), seer, iou=0.45, agnostic=False, max_det=99)
    frames = TiledFrames(tiler, session, 2)
    for slot in range(2):
        frames.hold(slot, place_picture(160, 160))
        frames.submit(slot)
    both_waiting.set()
    for slot in range(2):
        frames.wait(slot, 10)
    frames.close()
    assert under_way_at_merge == [2, 0], "the second frame's tiles compute while the first one's are merged"


def test_frames_in_memory_are_bounded_by_the_ring(tiny: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def source() -> Iterator[np.ndarray]:
        for number in range(40):
            frame = spotted(number % 8)
            alive.append(weakref.ref(frame))
            yield frame

    most = 0
    with Detector(tiny).stream(source(), tile=64, overlap=0.125, slots=3) as stream:
        for number, (_, found) in enumerate(stream):
            if number % 8 == 0:
                time.sleep(0.05)  # a consumer that dawdles fills whatever there is to fill
            assert len(found) == 2
            most = max(most, sum(one() is not None for one in alive))
    # three in the ring, four that wait, one each in the hands of source, feeder, consumer and this loop
    assert number == 39 and 3 <= most <= 12


@pytest.mark.parametrize("fault", ["runtime", "decode"])
def test_a_device_that_fails_once_loses_no_frame(fault: str) -> None:
    opened: list[SeeingSession] = []

    class Failing(SeeingSession):
        failed = False

        def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
            fails = len(opened) == 1 and self.submitted > 30 and not self.failed
            if fails:
                self.failed = True
                if fault == "runtime":
                    raise ModelError("the device failed while computing") from RuntimeError("gone")
            outputs = super().wait(slot, timeout)
            return [np.zeros((1, 2, 3))] if fails else outputs

    def open_frames(anew: bool) -> TiledFrames:
        opened.append(Failing(2))
        return TiledFrames(seeing_tiler(), opened[-1], 3, 5.0)

    pictures = [place_picture(160, 160 + 8 * i) for i in range(8)]
    stream = Stream(iter(pictures), open_frames, lambda found, _: found[0], StreamSettings(timeout=5.0, slots=3))
    with pytest.warns(OvyoloWarning, match="compiling the model anew"):
        seen = [(frame.index, found) for frame, found in stream]
    assert [index for index, _ in seen] == list(range(8)) and stream.rebuilds == 1
    for index, found in seen:
        assert found.image_shape == (160, 160 + 8 * index)
        np.testing.assert_allclose(np.sort(found.xyxy[:, 0]), np.sort(OBJECTS[:, 0]))
    assert not left_threads()


def test_a_tile_that_fails_fails_for_all_who_wait() -> None:
    class Hanging(SeeingSession):
        def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
            raise ModelError("the device gave no result within 1 s")

    frames = TiledFrames(seeing_tiler(), Hanging(), 2)
    for slot in range(2):
        frames.hold(slot, place_picture(100, 100))
        frames.submit(slot)
    for slot in (0, 1, 0):
        with pytest.raises(ModelError, match="no result"):
            frames.wait(slot, 1)


def test_a_device_that_never_answers_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "PATIENCE", 0.1)
    release = threading.Event()

    class Hanging(SeeingSession):
        closed = False

        def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
            release.wait(20)
            return super().wait(slot, timeout)

        def close(self) -> None:
            self.closed = True

    session = Hanging()
    frames = TiledFrames(seeing_tiler(), session, 2)
    frames.hold(0, place_picture(100, 100))
    frames.submit(0)
    begin = time.monotonic()
    with pytest.raises(ModelError, match=r"no result within 0\.2 s"):
        frames.wait(0, 0.2)
    frames.close()
    assert time.monotonic() - begin < 5
    assert not session.closed, "its memory may still be written to"
    release.set()
    assert not left_threads()


def test_a_region_may_lie_where_the_networks_own_picture_has_nothing(tiny: Path) -> None:
    """What is computed before the first frame has the network's size, 64 here, and no region."""
    detector = Detector(tiny)
    region = (96, 80, 200, 160)
    frames = [spotted(number) for number in (6, 7, 8)]
    expected = [len(detector(frame, tile=64, overlap=0.125, roi=region)) for frame in frames]
    assert expected == [1, 1, 1]
    stream = detector.stream(iter(frames), tile=64, overlap=0.125, roi=region, skip_flat=4)
    assert [len(found) for _, found in stream] == expected


def test_a_frame_without_the_region_is_told_and_skipped(tiny: Path) -> None:
    frames = [spotted(0), np.zeros((32, 32, 3), np.uint8), spotted(2)]
    stream = Detector(tiny).stream(iter(frames), tile=64, overlap=0.125, roi=(0, 40, 200, 160), on_error="skip")
    assert [(frame.index, len(found)) for frame, found in stream] == [(0, 2), (2, 2)]
    ((_, message),) = stream.errors
    assert "no part in the picture of 32x32" in message
