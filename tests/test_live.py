"""Live sources against real servers on the loopback: what comes is fresh and whole, and a loss is told and mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from reference.cameras import Camera, MjpegCamera, RtspCamera, picture, wait_until
from reference.spots import left_threads

from ovyolo.errors import DeviceError, DimensionError, ImageError, OvyoloWarning
from ovyolo.io import Frame, LiveSource, open_source
from ovyolo.io.address import address_of
from ovyolo.io.sources import open_sources

QUICK: dict[str, Any] = {"open_timeout": 2.0, "read_timeout": 0.6}
pytestmark = pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")


@pytest.fixture(params=["http", "rtsp"])
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Camera]:
    with MjpegCamera() if request.param == "http" else RtspCamera(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ovyolo.io.live.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("ovyolo.io.capture.GRACE", 0.2)
    yield
    assert not left_threads(4)


def shown(frame: Frame) -> int:
    """Which picture it is; fails where a part of it is anything but a black picture with a white spot."""
    side = frame.image.shape[0]
    cells = frame.image[..., 1].reshape(8, side // 8, 8, side // 8).mean((1, 3))
    spot = int(cells.argmax())
    assert cells.max() > 200 and np.delete(cells.ravel(), spot).max() < 40, "half a picture, or two in one"
    return spot


def late(camera: Camera, frame: Frame) -> int:
    """How many pictures the camera has taken since."""
    return (camera.now - shown(frame)) % 64


def until(source: Iterator[Frame], true: Callable[[Frame], bool], most: int = 500) -> Frame:
    return next(frame for frame in islice(source, most) if true(frame))


def test_fresh_and_in_order(camera: Camera) -> None:
    with LiveSource(camera.url, **QUICK) as source:
        frames = list(islice(source, 30))
        assert late(camera, frames[-1]) < 15
    numbers = np.unwrap([shown(f) for f in frames], period=64)
    assert (np.diff(numbers) >= 1).all() and [f.index for f in frames] == list(range(30))
    times = np.array([f.timestamp for f in frames])
    assert times[0] == 0 and (np.diff(times) > 0).all() and all(f.gap == 0 and f.video for f in frames)
    assert frames[0].image.shape == (128, 128, 3) and source.losses == 0 and source.errors == []
    assert frames[0].source.endswith("/line1") and "s3cret" not in frames[0].source + source.name


def test_dies_and_comes_back(camera: Camera) -> None:
    with LiveSource(camera.url, **QUICK) as source:
        frames = iter(source)
        list(islice(frames, 10))
        camera.stop()
        back = threading.Timer(1.0, camera.start)
        back.start()
        with pytest.warns(OvyoloWarning) as told:
            first = until(frames, lambda frame: frame.gap > 0)
        assert 0.8 < first.gap < 4 and late(camera, first) < 20
        assert [f.gap for f in islice(frames, 5)] == [0] * 5
        assert [str(w.message).split(";")[-1].split(" after")[0].strip() for w in told] == [
            "trying again", f"{source.name} is back"
        ]  # fmt: skip
        ((name, message),) = source.errors
        assert name == source.name and "was lost once" in message and "s3cret" not in message


def test_stalls_without_closing(camera: Camera) -> None:
    with LiveSource(camera.url, **QUICK) as source:
        frames = iter(source)
        list(islice(frames, 10))
        before = camera.now
        camera.stalled = True
        threading.Timer(1.5, lambda: setattr(camera, "stalled", False)).start()
        first = until(frames, lambda frame: frame.gap > 0)
        assert 0.6 < first.gap < 4
        # not what lay in the old connection's buffers
        assert camera.now - before > 30 and late(camera, first) < 20
        assert "gave no picture for 0.6 s" in source.errors[0][1]


def test_restarts_with_another_size(camera: Camera) -> None:
    with LiveSource(camera.url, **QUICK) as source:
        frames = iter(source)
        assert [f.image.shape for f in islice(frames, 3)] == [(128, 128, 3)] * 3
        camera.stop()
        camera.side = 192
        camera.start()
        first = until(frames, lambda frame: frame.gap > 0)
        assert first.image.shape == (192, 192, 3)
        assert late(camera, first) < 20


def test_changes_size_in_mid_stream() -> None:
    with MjpegCamera() as camera, LiveSource(camera.url, **QUICK) as source:
        frames = iter(source)
        list(islice(frames, 3))
        camera.side = 192
        first = until(frames, lambda frame: frame.image.shape == (192, 192, 3))
        assert shown(first) >= 0 and first.gap == 0 and source.losses == 0


def test_pictures_cut_short_are_not_handed_out(camera: Camera) -> None:
    with LiveSource(camera.url, **QUICK) as source:
        frames = iter(source)
        list(islice(frames, 5))
        camera.cut = True
        threading.Timer(0.4, lambda: setattr(camera, "cut", False)).start()
        shown(until(frames, lambda frame: frame.gap > 0))
        for frame in islice(frames, 20):
            shown(frame)
        assert source.losses >= 1


def test_begins_between_key_frames(tmp_path: Path) -> None:
    with RtspCamera(tmp_path) as camera:
        camera.keyless = True
        wait_until(lambda: camera.now % 12 == 2)
        with LiveSource(camera.url, **QUICK) as source:
            for frame in islice(source, 20):
                shown(frame)


def test_nobody_there(camera: Camera) -> None:
    camera.stop()
    with LiveSource(camera.url, **QUICK) as source, pytest.raises(ImageError, match="cannot be reached") as caught:
        next(iter(source))
    assert "s3cret" not in str(caught.value)


def test_accepts_and_never_answers(camera: Camera) -> None:
    camera.deaf = True
    begun = time.monotonic()
    with LiveSource(camera.url, open_timeout=0.4) as source, pytest.raises(ImageError, match="did not answer within"):
        next(iter(source))
    assert time.monotonic() - begun < 2
    camera.deaf = False


def test_gives_up(camera: Camera) -> None:
    with LiveSource(camera.url, give_up=0.7, **QUICK) as source:
        frames = iter(source)
        list(islice(frames, 3))
        camera.stop()
        begun = time.monotonic()
        with pytest.raises(ImageError, match=r"no picture for 0\.7 s"):
            list(frames)
        assert time.monotonic() - begun < 5


def test_persists_from_the_beginning(camera: Camera) -> None:
    camera.stop()
    threading.Timer(0.6, camera.start).start()
    with LiveSource(camera.url, persist=True, **QUICK) as source:
        first = next(iter(source))
        assert first.index == 0 and first.timestamp == 0 and first.gap > 0.3


@pytest.mark.parametrize("kind", ["stalled", "deaf", "lost"])
def test_closing_wakes_who_waits(camera: Camera, kind: str) -> None:
    source = LiveSource(camera.url, open_timeout=3, read_timeout=3)
    if kind == "lost":
        source = LiveSource(camera.url, open_timeout=3, read_timeout=3, persist=True)
        camera.stop()
    else:
        setattr(camera, kind, True)
    threading.Timer(0.3, source.close).start()
    begun = time.monotonic()
    assert list(source) == [] and time.monotonic() - begun < 1.5
    camera.stalled = camera.deaf = False
    with pytest.raises(ImageError, match="is closed"):
        iter(source)


def test_a_camera_with_a_library_of_its_own() -> None:
    made: list[Any] = []

    class Board:
        """Five pictures a connection, then it fails."""

        def __init__(self) -> None:
            self.closed = False
            made.append(self)

        def __iter__(self) -> Iterator[np.ndarray]:
            yield from (picture(i) for i in range(5))
            raise RuntimeError("cable pulled")

        def close(self) -> None:
            self.closed = True

    with LiveSource(Board, name="line3") as source:
        frames = list(islice(source, 12))
    assert [shown(f) for f in frames] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [f.index for f in frames if f.gap] == [5, 10] and {f.source for f in frames} == {"line3"}
    wait_until(lambda: all(board.closed for board in made))
    assert "line3 failed: RuntimeError: cable pulled" in source.errors[0][1]


def test_a_part_without_length_and_damaged_parts() -> None:
    from ovyolo.io.mjpeg import MjpegCapture

    whole = [cv2.imencode(".jpg", picture(i))[1].tobytes() for i in range(4)]
    parts = [whole[0], whole[1][:400], b"no picture", whole[2], whole[3][:-2]]
    body = b"preamble\r\n" + b"".join(b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + part + b"\r\n" for part in parts)

    class Answer:
        def __init__(self) -> None:
            import io

            self.readline = io.BytesIO(body + b"--x--\r\n").readline

        def close(self) -> None: ...

    found = [int(image[..., 1].argmax()) for image in MjpegCapture(Answer(), b"--x", "camera")]
    assert found == [int(picture(i)[..., 1].argmax()) for i in (0, 2)]


def test_a_recording_behind_a_url_ends(tmp_path: Path) -> None:
    """It announces its length: its end is no loss."""
    import http.server
    from functools import partial

    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, (128, 128))
    for number in range(40):
        writer.write(picture(number))
    writer.release()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with LiveSource(f"{address}/a.avi", **QUICK) as source:
            frames = list(source)
        assert [shown(frame) for frame in frames] == list(range(40)) and source.losses == 0 and source.fps == 25
        with LiveSource(f"{address}/none.avi", **QUICK) as source, pytest.raises(ImageError, match="answers 404"):
            next(iter(source))
        server.shutdown()


# what is a live source


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0", "camera", "camera 0"),
        (12, "camera", "camera 12"),
        ("/dev/video3", "camera", "camera 3"),
        ("rtsp://a:b@10.0.0.7:8554/x?y=1", "rtsp", "rtsp://10.0.0.7:8554/x?y=1"),
        ("HTTPS://u@cam/v.mjpg", "http", "HTTPS://cam/v.mjpg"),
        ("rtmp://cam/live", "url", "rtmp://cam/live"),
        ("rtsp://[::1", "rtsp", "rtsp://[::1"),
        ("rtsp://a:b@c@10.0.0.7/x", "rtsp", "rtsp://10.0.0.7/x"),
        ("http://cam/v?user=a&Password=b_c&ch=1", "http", "http://cam/v?user=a&Password=***&ch=1"),
        ("rtsp://cam/user=a_password=b_c_channel=1", "rtsp", "rtsp://cam/user=a_password=***_channel=1"),
        ("rtspsrc location=rtsp://a:b@c/d ! decodebin ! appsink", "gstreamer",
         "rtspsrc location=rtsp://c/d ! decodebin ! appsink"),
    ],
)  # fmt: skip
def test_addresses(text: Any, kind: str, name: str) -> None:
    found = address_of(text)
    assert found is not None and (found.kind, found.name) == (kind, name)


def test_what_is_no_address() -> None:
    for text in ("a.mp4", "./0", "12345", "C:\\x.png", "a!b.png"):
        assert address_of(text) is None
    for bad in ("a.png", 1.5, None):
        with pytest.raises(ImageError, match="no live source"):
            LiveSource(bad)  # type: ignore[arg-type]
    for argument in ({"open_timeout": 0}, {"read_timeout": -1}, {"give_up": float("nan")}):
        with pytest.raises(DimensionError, match=next(iter(argument))):
            LiveSource(0, **argument)


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        (9999, ImageError, "camera 9999 cannot be opened: check that it is connected"),
        ("videotestsrc ! appsink", (DeviceError, ImageError), "GStreamer|cannot be opened"),
        ("rtsp://[::1/x", ImageError, "is no address"),
        ("http://[::1/x", ImageError, "cannot be reached|is no address"),
        ("rtmp://127.0.0.1:1/x", ImageError, "cannot be opened"),
        ("rtsp://127.0.0.1:1/x", ImageError, "cannot be reached"),
    ],
)
def test_what_cannot_be_opened(address: Any, error: Any, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with open_source(address) as source, pytest.raises((ImageError, DeviceError), match=words) as caught:
        next(iter(source))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""


def test_lists_of_sources(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("rtsp://10.0.0.7/a\n0\n")
    opened = open_sources([str(tmp_path / "list.txt"), np.zeros((4, 4, 3), np.uint8)], read_timeout=2)
    assert [getattr(one, "name", "files") for one in opened] == ["files", "rtsp://10.0.0.7/a", "camera 0"]
    (tmp_path / "list.txt").write_text("rtsp://10.0.0.7/a\nmissing.png\n")
    files, live = open_sources(str(tmp_path / "list.txt"), on_error="skip")
    assert "missing.png" in files.errors[0][1] and live.name == "rtsp://10.0.0.7/a"  # type: ignore[attr-defined]
    with pytest.raises(ImageError, match="side by side"):
        open_source(["rtsp://10.0.0.7/a", "rtsp://10.0.0.8/a"])
    with pytest.raises(ImageError, match="named twice"):
        open_sources([0, "0"])
    with pytest.raises(ImageError, match="numbered from 0"):
        open_source(-1)
