"""Sinks: what they write can be read back, and nothing is lost, replaced or left half-written in silence."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo import Detections
from ovyolo.errors import DeviceError, DimensionError, OvyoloError
from ovyolo.io import Frame, open_source, read_image
from ovyolo.io.output import Names, stem_of
from ovyolo.io.sinks import CsvSink, JsonLinesSink, JsonSink, MultiSink, PictureSink, ShowSink, TxtSink

IMAGE = np.full((40, 60, 3), 128, np.uint8)
FOUND = Detections.from_arrays([[6, 4, 30, 20.5], [0, 0, 9, 9]], [0.87654321, 0.5], [1, 0], ["open", 'Loch, "groß"'])
NOTHING = Detections.empty()
LINUX_ONLY = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses Linux's limits and devices")


def still(source: str = "a.png", image: np.ndarray = IMAGE) -> Frame:
    return Frame(image, source, path=Path(source))


def film(source: str, count: int, size: tuple[int, int] = (40, 60), fps: float = 12.5) -> list[Frame]:
    return [
        Frame(np.full((*size, 3), 5 * i % 256, np.uint8), source, i, Path(source), i / fps, True, fps)
        for i in range(count)
    ]


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def rows(data: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data, newline="")))


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ä.json"
    with JsonSink(path) as sink:
        sink.write(still("dir/ü.png"), FOUND)
        sink.write(film("b.mp4", 3)[2], NOTHING)
        assert not path.exists()
    first, second = json.loads(path.read_text("utf-8"))
    assert first == {"source": "dir/ü.png", "index": 0, "timestamp": 0.0, "width": 60, "height": 40,
                     "truncated": False, "boxes": FOUND.to_dicts()}  # fmt: skip
    assert (second["index"], second["timestamp"], second["boxes"]) == (2, 0.16, [])
    assert left_behind(path.parent) == ["ä.json"] and sink.path == path


def test_json_of_nothing(tmp_path: Path) -> None:
    JsonSink(tmp_path / "a.json").close()
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_json_aborted_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for before in (None, "earlier"):
        if before:
            path.write_text(before)
        with pytest.raises(KeyError), JsonSink(path) as sink:
            sink.write(still(), FOUND)
            raise KeyError
        assert left_behind(tmp_path) == ([] if before is None else ["a.json"])
    assert path.read_text() == "earlier"


def test_json_after_close(tmp_path: Path) -> None:
    sink = JsonSink(tmp_path / "a.json")
    sink.close()
    sink.close()
    with pytest.raises(OvyoloError, match="closed"):
        sink.write(still(), FOUND)
    assert json.loads((tmp_path / "a.json").read_text()) == []


@pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink])
def test_not_finite_is_no_json(tmp_path: Path, sink: Callable[[Path], Any]) -> None:
    broken = Detections.from_arrays([[0, 0, np.nan, 1]], [0.5], [0])
    with pytest.raises(DimensionError, match=r"a\.png.*finite"), sink(tmp_path / "a") as opened:
        opened.write(still(), broken)


def test_json_lines_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonLinesSink(path) as sink:
        for i, frame in enumerate(film("b.mp4", 3)):
            sink.write(frame, FOUND)
            lines = path.read_bytes().split(b"\n")
            assert len(lines) == i + 2 and lines[-1] == b""
            assert json.loads(lines[i])["index"] == i
    assert sink.path == path


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvSink(path) as sink:
        sink.write(still(), FOUND)
        sink.write(still("empty.png"), NOTHING)
        assert len(rows(path.read_bytes().decode())) == 3
    table = rows(path.read_bytes().decode())
    assert table[0] == ["source", "index", "timestamp", "class_id", "name", "confidence", "x1", "y1", "x2", "y2"]
    assert table[1] == ["a.png", "0", "0.0", "1", 'Loch, "groß"', "0.87654", "6.0", "4.0", "30.0", "20.5"]
    assert len(table) == 3 and b"\r" not in path.read_bytes()


# what file names may hold on Linux, bytes that are no UTF-8 (surrogates) included
odd_names = st.text(st.characters(exclude_characters="\0/", exclude_categories=())).filter(bool) | st.sampled_from(
    [
        "a,b.png",
        'say "x".png',
        "two\nlines.png",
        "crlf\r\n.png",
        "cr\r.png",
        "\r",
        "grün.png",
        "図.png",
        "'=1+1",
        "\udcff.png",
        " ",
    ]
)


@given(names=st.lists(odd_names, min_size=1, max_size=4), labels=st.lists(odd_names, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, names: list[str], labels: list[str]) -> None:
    folder = tmp_path_factory.mktemp("trip")
    found = Detections.from_arrays([[1, 2, 3, 4]] * len(labels), [0.5] * len(labels), range(len(labels)), labels)
    with MultiSink(JsonSink(folder / "j"), JsonLinesSink(folder / "l"), CsvSink(folder / "c")) as sinks:
        for name in names:
            sinks.write(Frame(IMAGE, name), found)
    documents = [
        json.loads((folder / "j").read_bytes()),
        [json.loads(x) for x in (folder / "l").read_bytes().split(b"\n") if x],
    ]
    for document in documents:
        # a pair of surrogates is one character to JSON
        assert [one(f["source"]) for f in document] == [one(n) for n in names]
        assert all([one(b["name"]) for b in f["boxes"]] == [one(x) for x in labels] for f in document)
    table = rows((folder / "c").read_bytes().decode("utf-8"))[1:]
    expected = [[escaped(name), escaped(label)] for name in names for label in labels]
    assert [[row[0], row[4]] for row in table] == expected


def one(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def test_txt(tmp_path: Path) -> None:
    with TxtSink(tmp_path / "labels") as sink:
        sink.write(still("x/a.png"), FOUND)
        sink.write(still("y/A.jpg"), NOTHING)
        for frame in film("b.mp4", 2) + film("other/b.avi", 1):
            sink.write(frame, FOUND)
    folder = tmp_path / "labels"
    assert left_behind(folder) == ["A-2.txt", "a.txt", "b-2_000000.txt", "b_000000.txt", "b_000001.txt"]
    assert (folder / "A-2.txt").read_bytes() == b""
    table = np.loadtxt(folder / "a.txt")
    np.testing.assert_allclose(
        table, [[1, 0.3, 0.30625, 0.4, 0.4125, 0.876543], [0, 0.075, 0.1125, 0.15, 0.225, 0.5]], atol=1e-6
    )
    assert sink.path == folder


def test_names_never_collide() -> None:
    names = Names()
    assert [names.claim(s, ".txt") for s in ("a", "a", "A", "a-2", "b_000001")] == [
        "a",
        "a-2",
        "A-3",
        "a-2-2",
        "b_000001",
    ]
    assert names.claim("b", ".txt", numbered=True) == "b-2"  # b_000001.txt is taken
    assert names.claim("c", ".txt", numbered=True) == "c"
    assert names.claim("c_000007", ".txt") == "c_000007-2"


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "a-2", "a_000000", "a-2_000001", "ß", "SS"]), st.booleans())))
def test_names_never_collide_whatever_comes(wanted: list[tuple[str, bool]]) -> None:
    names, taken = Names(), set()
    for stem, numbered in wanted:
        got = names.claim(stem, ".txt", numbered)
        for name in [f"{got}_{i:06d}" for i in range(3)] if numbered else [got]:
            assert name.casefold() not in taken
            taken.add(name.casefold())


@pytest.mark.parametrize(
    ("source", "stem"),
    [("image0", "image0"), ("rtsp://u:p@h/1?x", "rtsp_u_p@h_1_x"), ("../..", ".._.."), ("", "image"), ("con", "_con"),
     ("...", "image"), ("a" * 400, "a" * 100)],
)  # fmt: skip
def test_stems_of_sources_without_a_file(source: str, stem: str) -> None:
    got = stem_of(Frame(IMAGE, source))
    assert "/" not in got and "\\" not in got
    if source != "../..":
        assert got == stem


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


def test_multi_serves_and_closes_all(tmp_path: Path) -> None:
    calls: list[str] = []

    def sink(name: str, failing: bool) -> Any:
        def act(what: str) -> None:
            calls.append(f"{name} {what}")
            if failing:
                raise OvyoloError(f"{name} failed to {what}")

        return SimpleNamespace(write=lambda f, d: act("write"), close=lambda: act("close"))

    both = MultiSink(sink("a", True), sink("b", False), sink("c", True))
    with pytest.raises(OvyoloError, match="a failed to write; c failed to write"):
        both.write(still(), FOUND)
    with pytest.raises(OvyoloError, match="a failed to close; c failed to close"):
        both.close()
    assert calls == ["a write", "b write", "c write", "a close", "b close", "c close"]
    with pytest.raises(ZeroDivisionError), MultiSink(JsonSink(tmp_path / "a.json")) as sinks:
        sinks.write(still(), FOUND)
        raise ZeroDivisionError
    assert left_behind(tmp_path) == []


def test_multi_stops_with_one() -> None:
    sinks = MultiSink(SimpleNamespace(stopped=False), SimpleNamespace(stopped=True))  # type: ignore[arg-type]
    assert sinks.stopped and not MultiSink().stopped


@pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink, CsvSink, TxtSink, PictureSink])
def test_unwritable_places(tmp_path: Path, sink: Callable[[Any], Any]) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "below", tmp_path / ("x" * 300) / "y", "nul\0inside"):
        with pytest.raises(OvyoloError, match="cannot be written"):
            sink(bad)
    if sink in (JsonSink, JsonLinesSink, CsvSink):
        with pytest.raises(OvyoloError, match=r"folder|directory|Permission"):
            sink(tmp_path)
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OvyoloError, match="may write to"):
            sink(tmp_path / "locked" / "a")


@LINUX_ONLY
@pytest.mark.parametrize("sink", [JsonLinesSink, CsvSink, JsonSink])
def test_full_device(sink: Callable[[str], Any]) -> None:
    with (
        pytest.raises(OvyoloError, match=r"/dev/full cannot be written .*free some space"),
        sink("/dev/full") as opened,
    ):
        opened.write(still(), FOUND)
    assert Path("/dev/full").is_char_device()


@LINUX_ONLY
def test_json_does_not_replace_devices(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("/dev/null")
    with JsonSink(tmp_path / "link.json") as sink:
        sink.write(still(), FOUND)
    assert Path("/dev/null").is_char_device() and (tmp_path / "link.json").is_symlink()


FILL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ovyolo import Detections, OvyoloError
from ovyolo.io import Frame, sinks
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
found = Detections.from_arrays([[1, 2, 3, 4]] * 3, [.5] * 3, [0] * 3)
try:
    with getattr(sinks, sys.argv[1])(Path(sys.argv[2])) as sink:
        for i in range(200):
            sink.write(Frame(noise, "b.mp4", i, Path("b.mp4"), 0, True, 25), found)
except OvyoloError as error:
    print(error)
"""


@LINUX_ONLY
@pytest.mark.parametrize("sink", ["JsonLinesSink", "CsvSink", "JsonSink", "PictureSink"])
def test_disk_that_fills_up(tmp_path: Path, sink: str) -> None:
    """A limit on file sizes stands in for the full disk: the write that crosses it is cut in the middle."""
    target = tmp_path / "out"
    limit = "20001" if sink == "PictureSink" else "3001"
    done = subprocess.run(
        [sys.executable, "-c", FILL, sink, str(target), limit], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout and done.stdout.count("\n") == 1 and done.stderr == ""
    if sink == "PictureSink":
        assert left_behind(target) == []
    elif sink == "JsonSink":
        assert left_behind(tmp_path) == []
    else:
        data = target.read_bytes()
        assert 2000 < len(data) <= 3001 and data.endswith(b"\n")
        if sink == "CsvSink":
            assert len(rows(data.decode())) % 3 == 1  # the header and whole frames
        else:
            assert all(len(json.loads(line)["boxes"]) == 3 for line in data.splitlines())


STREAM = """
import sys
import numpy as np
from ovyolo import Detections, OvyoloError
from ovyolo.io import Frame, sinks
found = Detections.from_arrays([[1, 2, 3, 4]], [.5], [0], ["grün\\n"])
try:
    with getattr(sinks, sys.argv[1])("-") as sink:
        for i in range(int(sys.argv[2])):
            sink.write(Frame(np.zeros((2, 2, 3), np.uint8), "ä.png"), found)
except OvyoloError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.parametrize("sink", ["JsonLinesSink", "CsvSink", "JsonSink"])
def test_standard_output(sink: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", STREAM, sink, "3"], capture_output=True, env=environment, check=True)
    assert b"\r" not in done.stdout and done.stderr == b""
    text = done.stdout.decode("utf-8")
    if sink == "CsvSink":
        assert [row[4] for row in rows(text)[1:]] == ["grün\n"] * 3
    else:
        document = json.loads(text) if sink == "JsonSink" else [json.loads(line) for line in text.splitlines()]
        assert [entry["source"] for entry in document] == ["ä.png"] * 3


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("sink", ["JsonLinesSink", "CsvSink", "JsonSink"])
def test_reader_that_goes_away(sink: str, unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    child = subprocess.Popen(
        [sys.executable, "-c", STREAM, sink, "20000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.read(10)
    child.stdout.close()
    error = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(60) == 2
    assert error.startswith("standard output cannot be written") and error.count("\n") == 1


def test_captured_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with CsvSink("-") as sink:
        sink.write(still("ü.png"), FOUND)
    assert rows(capsys.readouterr().out)[1][0] == "ü.png" and sink.path is None


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
