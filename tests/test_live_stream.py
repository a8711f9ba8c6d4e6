"""Live sources in streams and in the command: several at once, slow consumers, signals, gaps in what is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.cameras import FPS, MjpegCamera, Pulse, RtspCamera, picture, wait_until
from reference.spots import left_threads, number_of
from reference.tiny_model import make_tiny_ir

from ovyolo import Detections, Detector
from ovyolo.errors import ImageError, OvyoloWarning
from ovyolo.io import Frame, LiveSource


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


@pytest.fixture(autouse=True)
def _no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ovyolo.io.live.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("ovyolo.io.capture.GRACE", 0.2)
    yield
    assert not left_threads(4)


@pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")
def test_of_four_sources_one_is_dead(tiny: Path, tmp_path: Path) -> None:
    """One more dies in mid-stream, and one stalls: the fourth never notices."""
    with MjpegCamera() as a, RtspCamera(tmp_path) as b, MjpegCamera() as c, MjpegCamera() as dead:
        dead.deaf = True  # worse than nobody: it accepts, and never answers
        sources = [LiveSource(one.url, open_timeout=1, read_timeout=0.5, persist=True) for one in (a, b, c, dead)]
        names = [source.name for source in sources]
        counts, back, slowest, last = Counter[str](), Counter[str](), 0.0, time.monotonic()
        broken = 0
        with Pulse() as pulse, Detector(tiny) as detector, detector.stream(sources) as stream:
            for frame, found in stream:
                counts[frame.source] += 1
                back[frame.source] += frame.gap > 0 or back[frame.source] > 0
                if frame.source == names[0]:
                    assert (a.now - number_of(found_at(found, frame.image.shape[0]))) % 64 < late(40, pulse)
                    slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
                    if not broken and min(counts[name] for name in names[1:3]) > 10:
                        b.stop()
                        c.stalled = True
                        broken = counts[names[0]]
                    if broken and counts[names[0]] == broken + 80:
                        b.start()
                        c.stalled = False
                if min(back[name] for name in names[1:3]) > 10 or counts[names[0]] > 3000:
                    break
            assert slowest < 1 + 4 * pulse.worst and not counts[names[3]]
            assert min(back[name] for name in names[1:3]) > 10 and counts[names[0]] > broken + 80
            assert {name for name, _ in stream.errors} == set(names[1:])
        dead.deaf = False


def late(pictures: float, pulse: Pulse) -> float:
    """How many pictures of the camera one may be old, on a machine as busy as this one is."""
    return min(pictures + 4 * pulse.worst * FPS, 62)


def found_at(found: Detections, side: int) -> Detections:
    """Boxes as if the picture had been 64 pixels large."""
    return replace(found, xyxy=(found.xyxy * (64 / side)).astype(np.float32))


@pytest.mark.parametrize("policy", [None, "latest", "drop-oldest", "block"])
def test_a_consumer_slower_than_the_camera(tiny: Path, policy: str | None) -> None:
    seen, ages = [], []
    with MjpegCamera() as camera, Pulse() as pulse, Detector(tiny) as detector:
        stream = detector.stream(LiveSource(camera.url), policy=policy)
        for _, found in stream:
            number = number_of(found_at(found, 128))
            ages.append((camera.now - number) % 64)
            seen.append(number)
            time.sleep(0.08)  # four pictures of the camera
            if len(seen) == 14:
                break
        dropped, sent = stream.dropped, [number % 64 for number in camera.sent]
    steps = np.diff(np.unwrap(seen, period=64))
    if policy == "block":  # the camera waits, or drops itself
        assert dropped == {} and seen == sent[: len(seen)]
    else:
        assert sum(dropped.values()) > 10 and (steps > 0).all() and steps.mean() > 2
        # what is under way and what waits: two and one pictures of four steps, or two and four
        assert max(ages[5:]) < late(24 if policy != "drop-oldest" else 40, pulse)


@pytest.mark.parametrize("policy", ["latest", "drop-oldest"])
def test_a_gap_is_told_although_its_frame_is_dropped(tiny: Path, policy: str) -> None:
    ready = threading.Event()

    def frames() -> Iterator[Frame]:
        for index in range(60):
            yield Frame(picture(index, 64), "line3", index, gap=0.25)  # whichever are dropped
        ready.set()

    with Detector(tiny) as detector:
        gaps, seen = [], []
        for frame, _ in detector.stream(frames(), policy=policy):
            ready.wait(10)
            gaps.append(frame.gap)
            seen.append(frame.index)
    assert len(seen) < 40 and sum(gaps) == 60 * 0.25


@pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")
def test_a_dead_camera_ends_alone(tiny: Path) -> None:
    """With ``give_up`` it ends; the others go on, and only a stream of its own raises."""
    with MjpegCamera() as good, MjpegCamera() as bad, Detector(tiny) as detector:
        bad.stop()
        limits = {"persist": True, "give_up": 0.3}
        stream = detector.stream([LiveSource(good.url), LiveSource(bad.url, **limits)])  # type: ignore[arg-type]
        for count, (frame, _) in enumerate(stream):
            assert frame.source == LiveSource(good.url).name
            if count > 60 and stream.errors:
                break
        assert "no picture for 0.3 s" in dict(stream.errors)[LiveSource(bad.url).name]
        with pytest.raises(ImageError, match=r"no picture for 0\.3 s"):
            list(detector.stream(LiveSource(bad.url, **limits)))  # type: ignore[arg-type]


def test_leaving_a_stalled_stream_is_quick(tiny: Path) -> None:
    with MjpegCamera() as camera, Detector(tiny) as detector:
        stream = detector.stream(LiveSource(camera.url, read_timeout=30))
        for count, _ in enumerate(stream):
            if count == 5:
                camera.stalled = True
                begun = time.monotonic()
                break
        stream.close()
        assert time.monotonic() - begun < 2
        camera.stalled = False


# the command


def command(tiny: Path, *words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "ovyolo", "detect", "--model", str(tiny), *words]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="signals to other processes are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stalled", [False, True])
def test_a_signal_in_mid_stream(tiny: Path, tmp_path: Path, number: signal.Signals, stalled: bool) -> None:
    lines, out = tmp_path / "found.jsonl", tmp_path / "out"
    with MjpegCamera() as camera, RtspCamera(tmp_path) as second:
        process = command(
            tiny, "--source", camera.url, second.url, "--jsonl", str(lines), "-o", str(out),
            "--json", str(tmp_path / "all.json"),
        )  # fmt: skip
        try:
            wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 20)
            if stalled:
                camera.stalled = second.stalled = True
                time.sleep(0.3)
            process.send_signal(number)
            begun = time.monotonic()
            _, err = process.communicate(timeout=20)
            assert time.monotonic() - begun < 10
        finally:
            process.kill()
    assert process.returncode == 128 + number and "Traceback" not in err and "interrupted" in err, err
    frames = [json.loads(line) for line in lines.read_text().splitlines()]
    assert json.loads((tmp_path / "all.json").read_text()) == frames
    assert len({frame["source"] for frame in frames}) == 2 and "s3cret" not in lines.read_text() + err
    import cv2

    films = sorted(out.glob("*.mp4"))
    assert len(films) == 2 and len(list(out.iterdir())) == 2
    assert all(cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) > 5 for film in films)


def test_the_gap_is_written_and_told(tiny: Path, tmp_path: Path) -> None:
    lines = tmp_path / "found.jsonl"
    with MjpegCamera() as camera:
        process = command(
            tiny, "--source", camera.url, "--jsonl", str(lines), "--no-save", "--read-timeout", "0.5", "--give-up", "4"
        )  # fmt: skip
        try:
            wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 10)
            camera.stop()
            threading.Timer(0.5, camera.start).start()
            wait_until(lambda: b'"gap"' in lines.read_bytes())
            camera.stop()  # for ever
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 2 and "Traceback" not in err and "s3cret" not in err, err
    told = [line.split(": ", 1)[0] for line in err.splitlines() if "line1" in line]
    assert told == ["warning"] * 4 + ["error"], err  # lost, back, lost, the sum of it
    frames = [json.loads(line) for line in lines.read_text().splitlines()]
    gaps = [frame["gap"] for frame in frames if "gap" in frame]
    assert len(gaps) == 1 and 0.4 < gaps[0] < 3
    assert [frame["index"] for frame in frames] == sorted({frame["index"] for frame in frames})


def test_dropped_frames_are_told(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink of the user's own that is slow, and ends the run after 20 frames."""
    from ovyolo.cli import detect, main
    from ovyolo.io.sinks import CallbackSink

    seen = []

    def slow(frame: Frame, _: Detections) -> bool:
        time.sleep(0.08)
        seen.append(frame.index)
        return len(seen) < 20

    monkeypatch.setattr(detect, "open_sinks", lambda options, stack: [CallbackSink(slow)])
    with MjpegCamera() as camera:
        assert main(["detect", "--model", str(tiny), "--source", camera.url]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "dropped" in line]
    assert len(told) == 1 and int(told[0].split(": ")[1].split()[0]) >= seen[-1] - len(seen) - 1


def test_nobody_there_is_one_line(tiny: Path) -> None:
    with MjpegCamera() as camera:
        camera.stop()
        process = command(tiny, "--source", camera.url, "--no-save", "--quiet")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert "cannot be reached" in err and "s3cret" not in err


def test_a_loss_is_a_warning(tiny: Path) -> None:
    with MjpegCamera() as camera, Detector(tiny) as detector, detector.stream(LiveSource(camera.url)) as stream:
        results = iter(stream)
        assert next(results).frame.image.shape == picture(0).shape
        with pytest.warns(OvyoloWarning, match="trying again"):
            camera.stop()
            threading.Timer(0.3, camera.start).start()
            assert any(frame.gap > 0 for frame, _ in results)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_ends_cleanly(tiny: Path, tmp_path: Path) -> None:
    """The sink that fails is told in one line; what the others were given is whole."""
    with MjpegCamera() as camera:
        process = command(
            tiny, "--source", camera.url, "--csv", "/dev/full", "--json", str(tmp_path / "a.json"), "--no-save",
            "--quiet",
        )  # fmt: skip
        _, err = process.communicate(timeout=30)
        assert process.returncode == 2 and err.count("\n") == 1 and "/dev/full cannot be written" in err, err
        assert not list(tmp_path.iterdir())  # the table's header failed, before any frame
        limited = LIMITED.format(tiny=tiny, url=camera.url, folder=tmp_path)
        process = subprocess.Popen([sys.executable, "-c", limited], stderr=subprocess.PIPE, text=True)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2 and err.count("error: ") == 1 and "Traceback" not in err, err
    lines = (tmp_path / "found.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 3 and all(line.endswith(b"}\n") for line in lines)
    rows = (tmp_path / "found.csv").read_text().splitlines()
    assert len(rows) - 1 >= len(lines)  # a box a frame; the table was served to the end


LIMITED = """
import resource, signal, sys
from ovyolo.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
sys.exit(main(["detect", "--model", "{tiny}", "--source", "{url}", "--jsonl", "{folder}/found.jsonl", "--csv",
               "{folder}/found.csv", "--no-save", "--quiet"]))
"""
