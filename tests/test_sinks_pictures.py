"""Annotated pictures and videos, and the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from reference.sinks import FOUND, IMAGE, LINUX_ONLY, NOTHING, film, left_behind, still

from ovyolo.errors import DeviceError, OvyoloError
from ovyolo.io import Frame, open_source, read_image
from ovyolo.io.sinks import PictureSink, ShowSink


def test_stills(tmp_path: Path) -> None:
    with PictureSink(tmp_path / "out") as sink:
        for name in ("x/a.jpg", "y/a.jpg", "a.png", "b.pgm", "grün, 1.webp"):
            sink.write(still(name), FOUND)
        sink.write(Frame(IMAGE, "image0"), FOUND)
    out = tmp_path / "out"
    assert left_behind(out) == ["a-2.jpg", "a.jpg", "a.png", "b.png", "grün, 1.webp", "image0.jpg"]
    for path in out.iterdir():
        assert read_image(path).shape == IMAGE.shape
    assert (read_image(out / "a.png") != IMAGE).any() and (IMAGE == 128).all()


def test_stills_larger_than_their_format(tmp_path: Path) -> None:
    with PictureSink(tmp_path) as sink:
        sink.write(still("a.jpg", np.zeros((4, 70000, 3), np.uint8)), NOTHING)
    assert left_behind(tmp_path) == ["a.png"]


def test_sources_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", IMAGE)[1].tobytes())
    before = path.read_bytes()
    with PictureSink(tmp_path) as sink, pytest.raises(OvyoloError, match="source itself"):
        for frame in open_source(path):
            sink.write(frame, FOUND)
    assert path.read_bytes() == before and left_behind(tmp_path) == ["a.png"]


def frames_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        frames = [frame.image for frame in source]
        assert source.errors == []
    return frames


@pytest.mark.parametrize(("count", "fps"), [(1, 25), (30, 29.833333333), (10, 0), (10, 1000), (10, 0.1), (10, 23.976)])
def test_videos(tmp_path: Path, count: int, fps: float) -> None:
    with PictureSink(tmp_path / "out") as sink:
        for frame in film("x/b.avi", count, fps=fps or 1):
            sink.write(Frame(frame.image, frame.source, frame.index, frame.path, 0, True, fps), FOUND)
        assert all(name.startswith(".") for name in left_behind(tmp_path / "out"))
    out = tmp_path / "out" / "b.mp4"
    assert left_behind(tmp_path / "out") == ["b.mp4"]
    frames = frames_of(out)
    assert len(frames) == count and frames[0].shape == (40, 60, 3)
    if 1 < fps < 100:
        assert open_source(out).fps == pytest.approx(fps, rel=1e-3)


def test_videos_side_by_side_and_again(tmp_path: Path) -> None:
    with PictureSink(tmp_path) as sink:
        for one_frame, other in zip(film("x/b.mp4", 12), film("y/b.mp4", 12), strict=True):
            sink.write(one_frame, FOUND)
            sink.write(other, NOTHING)
        for frame in film("x/b.mp4", 5):
            sink.write(frame, FOUND)
    counts = {p.name: len(frames_of(p)) for p in sorted(tmp_path.iterdir())}
    assert counts == {"b-2.mp4": 12, "b-3.mp4": 5, "b.mp4": 12}


def test_video_that_changes_size(tmp_path: Path) -> None:
    big = [Frame(np.zeros((80, 90, 3), np.uint8), f.source, f.index + 4, f.path, 0, True, 25) for f in film("b.mp4", 6)]
    with PictureSink(tmp_path) as sink:
        for frame in film("b.mp4", 4) + big:
            sink.write(frame, NOTHING)
    counts = {p.name: [f.shape for f in frames_of(p)] for p in sorted(tmp_path.iterdir())}
    assert counts == {"b-2.mp4": [(80, 90, 3)] * 6, "b.mp4": [(40, 60, 3)] * 4}


def test_many_videos_do_not_stay_open(tmp_path: Path) -> None:
    with PictureSink(tmp_path) as sink:
        for number in range(5):
            for frame in film(f"{number}.mp4", 300, size=(16, 16)):
                sink.write(frame, NOTHING)
        assert len(sink._videos) <= 3
    assert len(left_behind(tmp_path)) == 5


def test_video_broken_off_is_whole_so_far(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PictureSink(tmp_path) as sink:
        for frame in film("b.mp4", 7):
            sink.write(frame, NOTHING)
        raise KeyboardInterrupt
    assert left_behind(tmp_path) == ["b.mp4"] and len(frames_of(tmp_path / "b.mp4")) == 7


def test_video_too_small_to_encode(tmp_path: Path) -> None:
    with PictureSink(tmp_path) as sink, pytest.raises(OvyoloError, match=r"b\.mp4.*1x1"):
        sink.write(film("b.mp4", 1, size=(1, 1))[0], NOTHING)
    assert left_behind(tmp_path) == []


@LINUX_ONLY
@pytest.mark.parametrize("display", [None, "localhost:97"])
def test_no_screen(display: str | None) -> None:
    """Qt would abort the process; this must be an error of ours instead."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    if display:
        environment["DISPLAY"] = display
    code = (
        "from ovyolo.errors import DeviceError\nfrom ovyolo.io.sinks import ShowSink\n"
        "try:\n    ShowSink()\nexcept DeviceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("there is no screen") and done.stderr == ""


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """OpenCV's window functions, replaced by ones that record; ``keys`` are pressed one after the other."""
    window = SimpleNamespace(shown=[], keys=[], visible=1.0, open=False)
    monkeypatch.setattr("ovyolo.io.picture_sinks._require_screen", lambda: None)
    monkeypatch.setattr(cv2, "namedWindow", lambda *a: setattr(window, "open", True))
    monkeypatch.setattr(cv2, "destroyWindow", lambda *a: setattr(window, "open", False))
    monkeypatch.setattr(cv2, "resizeWindow", lambda *a: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: window.shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: window.keys.pop(0) if window.keys else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *a: window.visible)
    return window


def test_show(screen: SimpleNamespace) -> None:
    with ShowSink() as sink:
        screen.keys = [-1, -1, ord(" ")]
        sink.write(still(), FOUND)
        assert not sink.stopped and len(screen.shown) == 1 and (screen.shown[0] != IMAGE).any() and not screen.keys
        screen.keys = [-1, ord("q")]
        for frame in film("b.mp4", 5):
            sink.write(frame, FOUND)
        assert sink.stopped and len(screen.shown) == 3
    assert not screen.open


def test_show_ends_when_the_window_is_closed(screen: SimpleNamespace) -> None:
    with ShowSink() as sink:
        screen.visible = 0.0
        sink.write(still(), FOUND)
        assert sink.stopped


def test_show_with_an_opencv_without_windows(screen: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", fail)
    with pytest.raises(DeviceError, match="opencv-python-headless"):
        ShowSink()
