"""Sources: what they take, in which order, what they say of it, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.fresh import run_python

from ovyolo.errors import DimensionError, ImageError, OvyoloError
from ovyolo.io import open_source
from ovyolo.io.sources import Frame


def save(path: Path, value: int = 0, size: tuple[int, int] = (8, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.full((*size, 3), value, np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    return path


def film(path: Path, frames: int = 30, fps: float = 20) -> Path:
    """Frame ``i`` is grey ``8 * i``."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v")), fps, (64, 48)
    )
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 8 * i % 256, np.uint8))
    writer.release()
    return path


def names(source: Any, **options: Any) -> list[str]:
    with open_source(source, **options) as frames:
        return [Path(frame.source).name for frame in frames]


def test_one_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "ä b.png", 9)
    for given_source in (path, str(path)):
        with open_source(given_source) as source:
            (frame,) = source
            assert (source.total, source.fps, source.errors) == (1, None, [])
        assert (frame.source, frame.path, frame.index, frame.timestamp) == (str(path), path, 0, 0.0)
        assert not frame.video and frame.image.shape == (8, 12, 3) and (frame.image == 9).all()


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for name in ("part10.png", "part2.png", "Part1.PNG", "part2b.png", ".hidden.png", "x/inner.png"):
        save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    film(tmp_path / "part3.avi", 2)
    assert names(tmp_path) == ["Part1.PNG", "part2.png", "part2b.png", "part3.avi", "part3.avi", "part10.png"]
    assert open_source(tmp_path).total == 6


def test_globs(tmp_path: Path) -> None:
    for name in ("a1.png", "a[2].png", "b1.png", "x/a3.png", "x/y/a4.png"):
        save(tmp_path / name)
    assert names(str(tmp_path / "a*")) == ["a1.png", "a[2].png"]
    assert names(str(tmp_path / "a[2].png")) == ["a[2].png"]  # a file of that name comes first
    assert names(str(tmp_path / "**" / "a*.png")) == ["a1.png", "a[2].png", "a3.png", "a4.png"]
    assert names([str(tmp_path / "b*.png"), tmp_path / "a1.png", tmp_path / "x"]) == ["b1.png", "a1.png", "a3.png"]


def test_arrays() -> None:
    one, two = np.zeros((4, 5, 3), np.uint8), np.full((6, 7), 65535, np.uint16)
    (frame,) = open_source(one)
    assert frame.image is one and (frame.source, frame.path) == ("image0", None)
    frames = list(open_source([one, two]))
    assert [f.source for f in frames] == ["image0", "image1"] and (frames[1].image == 255).all()
    with pytest.raises(DimensionError, match="float64"):
        open_source([one, np.zeros((4, 5, 3))])
    with pytest.raises(DimensionError, match="list"):
        open_source(np.zeros((2, 4, 5, 3), np.uint8))


def test_list_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "ä 1.png")
    save(tmp_path / "in" / "b.png")
    save(tmp_path / "elsewhere" / "c.png")
    listing = tmp_path / "in" / "list.txt"
    listing.write_text(f"# mine\r\n\r\n  ä 1.png\r\nb*.png\r\n{tmp_path / 'elsewhere'}\r\n", encoding="utf-8-sig")
    assert names(listing) == ["ä 1.png", "b.png", "c.png"]
    monkeypatch.chdir(tmp_path)
    listing.write_text("elsewhere/c.png\n")
    assert names("in/list.txt") == ["c.png"]
    for content, words in ((b"", "lists nothing"), (b"\xff\xfe\x00", "UTF-8"), (b"list.txt", "another list"),
                           (b"no.png", "does not exist"), (b"0\n0", "named twice")):  # fmt: skip
        listing.write_bytes(content)
        with pytest.raises(ImageError, match=words):
            open_source(listing)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_video(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"fünf%02d1{suffix}")
    with open_source(path) as source:
        assert source.total == 30 and source.fps == pytest.approx(20)
        frames = list(source)
        assert source.errors == []
    assert [f.index for f in frames] == list(range(30))
    assert [f.timestamp for f in frames] == pytest.approx([i / 20 for i in range(30)], abs=0.002)
    assert all(f.video and f.path == path and f.fps == pytest.approx(20) for f in frames)
    levels = [float(f.image.mean()) for f in frames]
    assert levels == pytest.approx([8 * i for i in range(30)], abs=6)  # each frame is its own array


def test_real_video(shared: Path) -> None:
    with open_source(shared / "video" / "bottle-detection.mp4") as source:
        assert source.total == 1189 and source.fps == pytest.approx(29.833, abs=0.01)
        for frame in source:
            if frame.index == 50:
                break
        assert frame.image.shape == (360, 640, 3) and frame.timestamp == pytest.approx(50 / 29.8333, abs=0.02)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_truncated_video_is_told(tmp_path: Path, on_error: str) -> None:
    whole = film(tmp_path / "a.mkv", 60).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(path, on_error=on_error) as source:
        read = len(list(source))
        assert 0 < read < 55
        ((where, message),) = source.errors
        assert where == str(path) and f"{read} of 60" in message


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 50])
def test_bad_videos(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip1.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"clip1\.mp4"):
        list(open_source(path))
    assert open_source(path).total is None and open_source(path).fps is None
    with open_source(path, on_error="skip") as source:
        assert list(source) == [] and source.errors[0][0] == str(path)


def test_video_without_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "empty.avi", 0)
    with pytest.raises(ImageError, match=r"empty\.avi"):
        list(open_source(path))


def test_picture_named_as_video(tmp_path: Path) -> None:
    """Whether FFmpeg takes it as one frame or not: a frame or a sentence, nothing else."""
    path = save(tmp_path / "a.mp4")
    try:
        assert len(list(open_source(path))) == 1
    except ImageError as error:
        assert str(path) in str(error)


def test_skip_collects_what_is_bad(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "3.jpg").touch()
    save(tmp_path / "4.png")
    with pytest.raises(ImageError, match=r"2\.png"):
        names(tmp_path)
    with open_source([tmp_path, tmp_path / "no.png", tmp_path / "no*.png"], on_error="skip") as source:
        for _ in range(2):  # a second pass tells the same, once
            assert [Path(f.source).name for f in source] == ["1.png", "4.png"]
            assert [Path(where).name for where, _ in source.errors] == ["no.png", "no*.png", "2.png", "3.jpg"]
            assert all(message for _, message in source.errors)


def test_vanished_between_listing_and_reading(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1.png"), save(tmp_path / "2.png")
    with open_source(tmp_path, on_error="skip") as source:
        second.unlink()
        assert [f.path for f in source] == [first] and len(source.errors) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such.png", "does not exist"),
        ("nothing-*.png", "matches nothing"),
        ("", "no path"),
        ("a\0.png", "no path"),
        (b"a.png", "bytes"),
        (None, "NoneType"),
        (1.5, "float"),
        ([], "empty"),
        (["a.png", "rtsp://10.0.0.7/stream"], "does not exist"),
        ([["a.png"]], "flat list"),
        ("x" * 5000 + ".png", "cannot be read|does not exist"),
    ],
)
def test_refused(source: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        open_source(source)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_refused_names_the_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").touch()
    (tmp_path / "README").touch()
    for source in (tmp_path, tmp_path / "a.xyz", tmp_path / "README", str(tmp_path / "*")):
        with pytest.raises(ImageError, match=r"\.jpg.*\.mp4"):
            open_source(source)
    with pytest.raises(OvyoloError, match="on_error"):
        open_source(tmp_path, on_error="ignore")


def test_a_number_is_a_camera_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "0" / "a.png")
    monkeypatch.chdir(tmp_path)
    with open_source("0") as source, pytest.raises(ImageError, match=r"camera 0 .*\./0"):
        next(iter(source))
    assert names("./0") == ["a.png"]


def test_close_ends_iteration_and_frees_the_file(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    source = open_source(path)
    running = iter(source)
    assert isinstance(next(running), Frame)
    source.close()
    assert list(running) == []
    path.unlink()  # Windows refuses this while the file is open
    with pytest.raises(ImageError, match="closed"):
        iter(source)
    source.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.txt"])
def test_pipes_do_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ImageError, match=name):
        list(open_source(tmp_path / name))


def test_nothing_of_ffmpeg_on_the_terminal(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b1.avi").write_bytes(b"garbage")
    cut = film(tmp_path / "c.mkv").read_bytes()
    (tmp_path / "c.mkv").write_bytes(cut[: len(cut) // 2])
    code = (
        "import sys\nfrom ovyolo.io import open_source\n"
        "with open_source(sys.argv[1], on_error='skip') as source:\n    frames = list(source)\n"
        "print(len(frames) > 0, len(source.errors))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stderr, done.stdout.split()) == ("", ["True", "3"])


def test_import_is_light() -> None:
    code = (
        "import sys, ovyolo.io, ovyolo.io.sinks; print([m for m in ('cv2', 'openvino', 'torch') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


@given(source=st.text(max_size=30))
def test_any_text_is_a_source_or_a_sentence(source: str) -> None:
    try:
        open_source(source)
    except ImageError as error:
        assert "\n" not in str(error) or "\n" in source
