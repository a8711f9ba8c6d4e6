"""Streams: what comes out is what single calls give, in order; and what happens when things go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from reference.spots import left_threads, number_of, spots
from reference.tiny_model import make_tiny_ir

from ovyolo import Detector
from ovyolo.errors import DimensionError, ImageError, ModelError, OvyoloWarning
from ovyolo.io import Frame
from ovyolo.runtime import open_session


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not left_threads()


# what comes out


@pytest.mark.parametrize("setting", [{}, {"hint": "throughput"}, {"hint": "throughput", "streams": 1}])
def test_in_order_and_equal_to_single_calls(tiny: Path, setting: dict[str, Any]) -> None:
    with Detector(tiny, **setting) as detector:
        results = list(detector.stream(spots(i) for i in range(200)))
        assert [frame.index for frame, _ in results] == list(range(200))
        assert [number_of(found) for _, found in results] == [i % 64 for i in range(200)]
        for frame, found in results[:64]:
            alone = detector(frame.image)
            np.testing.assert_array_equal(found.xyxy, alone.xyxy)
            np.testing.assert_array_equal(found.confidence, alone.confidence)
            assert found.names == alone.names and found.image_shape == alone.image_shape and found.device == "CPU"


def test_pictures_of_many_sizes(tiny: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), np.uint8) for _ in range(40)]
    with Detector(tiny, conf=0.0) as detector:
        for (_, found), picture in zip(detector.stream(pictures), pictures, strict=True):
            np.testing.assert_array_equal(found.xyxy, detector(picture).xyxy)


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_any_number_of_slots(tiny: Path, slots: int) -> None:
    with Detector(tiny) as detector:
        found = [number_of(found) for _, found in detector.stream(map(spots, range(30)), slots=slots)]
    assert found == list(range(30))


def test_a_real_video_gives_what_single_calls_give(shared: Path, tmp_path: Path) -> None:
    video = shared / "video" / "bottle-detection.mp4"
    with Detector(shared / "weights" / "yolov5n.pt", imgsz=320, cache_dir=tmp_path, hint="throughput") as detector:
        stream = detector.stream(video)
        for count, (frame, found) in enumerate(islice(iter(stream), 30)):
            alone = detector(frame.image)
            assert frame.index == count and len(found) == len(alone)
            np.testing.assert_allclose(found.xyxy, alone.xyxy, atol=1e-3)


def test_calls_while_a_stream_runs(tiny: Path) -> None:
    """From the loop itself and from other threads."""
    with Detector(tiny) as detector:
        wrong: list[int] = []

        def call(start: int) -> None:
            wrong.extend(i for i in range(start, start + 60) if number_of(detector(spots(i))) != i % 64)

        threads = [threading.Thread(target=call, args=(7 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for index, (_, found) in enumerate(detector.stream(map(spots, range(100)))):
            assert number_of(found) == index % 64
            assert number_of(detector(spots(index + 5))) == (index + 5) % 64
        for thread in threads:
            thread.join(30)
        assert not wrong


def test_two_streams_of_one_detector(tiny: Path) -> None:
    with Detector(tiny) as detector:
        pairs = zip(detector.stream(map(spots, range(40))), detector.stream(map(spots, range(9, 49))), strict=True)
        assert [(number_of(a[1]), number_of(b[1])) for a, b in pairs] == [(i, i + 9) for i in range(40)]


# a slow consumer


def paced(count: int, seconds: float) -> Iterator[np.ndarray]:
    for index in range(count):
        time.sleep(seconds)
        yield spots(index)


def test_block_loses_nothing(tiny: Path) -> None:
    seen = []
    with Detector(tiny) as detector:
        stream = detector.stream(map(spots, range(40)))
        for _, found in stream:
            time.sleep(0.005)
            seen.append(number_of(found))
    assert seen == list(range(40)) and stream.dropped == {}


@pytest.mark.parametrize("policy", ["drop-oldest", "latest"])
def test_drops_are_counted(tiny: Path, policy: str) -> None:
    seen = []
    with Detector(tiny) as detector:
        stream = detector.stream(paced(120, 0.002), policy=policy)
        for frame, _ in stream:
            time.sleep(0.02)
            seen.append(frame.index)
    assert seen == sorted(set(seen)) and seen[-1] == 119
    assert len(seen) < 100 and stream.dropped == {"source0": 120 - len(seen)}


def test_reading_does_not_run_away(tiny: Path) -> None:
    """Under ``block`` a source is never read further ahead than the ring and the short queue."""
    given = 0

    def count() -> Iterator[np.ndarray]:
        nonlocal given
        for index in range(1000):
            given += 1
            yield spots(index)

    with Detector(tiny) as detector, detector.stream(count(), slots=3) as stream:
        results = iter(stream)
        next(results)
        time.sleep(0.3)
        assert given <= 1 + 3 + 4 + 2
        results.close()  # type: ignore[attr-defined]


# several sources


def dying(after: int) -> Iterator[np.ndarray]:
    yield from map(spots, range(after))
    raise ConnectionError("cable pulled")


def test_sources_take_turns(tiny: Path) -> None:
    slow_frames = {"source0": 30, "source1": 30}
    seen: list[str] = []

    def fast() -> Iterator[np.ndarray]:
        """Has always one more, until the slow ones are through: if they had to wait for its end, they never were."""
        for index in range(50_000):
            if all(seen.count(name) == count for name, count in slow_frames.items()):
                return
            yield spots(index % 300)

    with Detector(tiny) as detector:
        for frame, _ in detector.stream([paced(30, 0.001), paced(30, 0.001), fast()]):
            seen.append(frame.source)
    assert {name: seen.count(name) for name in slow_frames} == slow_frames
    assert seen.count("source2") < 50_000


def test_one_dead_source_does_not_stop_the_others(tiny: Path) -> None:
    with Detector(tiny) as detector:
        stream = detector.stream([map(spots, range(40)), dying(3), dying(0), map(spots, range(40))], on_error="skip")
        order = [(frame.source, number_of(found)) for frame, found in stream]
    for name, count in (("source0", 40), ("source1", 3), ("source2", 0), ("source3", 40)):
        assert [number for source, number in order if source == name] == list(range(count))
    assert all(message == f"{name} failed: ConnectionError: cable pulled" for name, message in stream.errors)
    assert sorted(name for name, _ in stream.errors) == ["source1", "source2"]


def test_an_error_is_raised_at_its_place(tiny: Path) -> None:
    seen = []
    with Detector(tiny) as detector, pytest.raises(ImageError, match="source0 failed: ConnectionError: cable pulled"):
        for _, found in detector.stream(dying(11)):
            seen.append(number_of(found))
    assert seen == list(range(11))


def test_a_bad_picture_among_good_ones(tiny: Path, tmp_path: Path) -> None:
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), spots(index))
    (tmp_path / "2.png").write_bytes(b"no picture")
    with Detector(tiny) as detector:
        stream = detector.stream(tmp_path, on_error="skip")
        assert [number_of(found) for _, found in stream] == [0, 1, 3, 4]
        assert len(stream.errors) == 1 and "2.png" in stream.errors[0][1]
        with pytest.raises(ImageError, match=r"2\.png"):
            list(detector.stream(tmp_path))
        frames = [Frame(spots(0), "a"), Frame(np.zeros((4, 4, 3), np.float32), "b"), Frame(spots(2), "c")]
        stream = detector.stream(frames, on_error="skip")
        assert [number_of(found) for _, found in stream] == [0, 2] and "b has dtype float32" in stream.errors[0][1]


def test_what_is_no_source(tiny: Path) -> None:
    with Detector(tiny) as detector:
        for bad, message in (
            (None, "NoneType"), ([], "empty"), ([spots(0), paced(1, 0)], "mixes"), ([paced(1, 0), None], "NoneType"),
        ):  # fmt: skip
            with pytest.raises((ImageError, DimensionError), match=message):
                detector.stream(bad)
        for argument in ({"policy": "x"}, {"on_error": "x"}, {"timeout": 0}, {"slots": 0}):
            with pytest.raises(DimensionError, match=next(iter(argument))):
                detector.stream([spots(0)], **argument)
        stream = detector.stream([spots(0)])
        assert len(list(stream)) == 1
        with pytest.raises(DimensionError, match="read once"):
            iter(stream)


# a real device that fails


def test_a_real_session_gives_up_in_time(tiny: Path) -> None:
    session, _ = open_session(tiny)

    class Never:
        def wait_for(self, _: int) -> bool:
            time.sleep(0.05)
            return False

    session._requests[0] = Never()
    with pytest.raises(ModelError, match=r"gave no result within 0\.3 s"):
        session.wait(0, 0.3)


def test_nan_is_told_once(tmp_path: Path) -> None:
    broken = make_tiny_ir(tmp_path / "nan.xml", bias=float("nan"))
    with Detector(broken) as detector, pytest.warns(OvyoloWarning, match="gave NaN in 64 cells") as told:
        assert len(list(detector.stream(map(spots, range(10))))) == 10
    assert len(told) == 1
