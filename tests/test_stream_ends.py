"""How streams end: early, by an exception, a signal, a fork, a stalled source; and what is left then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.fresh import run_python
from reference.spots import left_threads, number_of, spots
from reference.tiny_model import make_tiny_ir

from ovyolo import Detector
from ovyolo.cli import main
from ovyolo.errors import DimensionError, ModelError, OvyoloWarning
from ovyolo.io import open_source


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not left_threads()


class Watched:
    """A source that says whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Iterator[np.ndarray]:
        index = 0
        while not self.closed:
            yield spots(index)
            index += 1

    def close(self) -> None:
        self.closed = True


def test_leaving_the_loop_closes_everything(tiny: Path) -> None:
    with Detector(tiny) as detector:
        source = Watched()
        for frame, _ in detector.stream(source):
            if frame.index == 20:
                break
        assert source.closed and not [t for t in threading.enumerate() if t.name.startswith("ovyolo-")]


def test_an_exception_in_the_loop_closes_everything(tiny: Path) -> None:
    source = Watched()

    def consume(detector: Detector) -> None:
        with detector.stream(source) as stream:
            for frame, _ in stream:
                if frame.index == 20:
                    raise KeyError("mine")

    with Detector(tiny) as detector, pytest.raises(KeyError, match="mine"):
        consume(detector)
    assert source.closed


def test_a_stream_never_begun(tiny: Path) -> None:
    source = Watched()
    with Detector(tiny) as detector, detector.stream(source) as stream:
        pass
    assert source.closed
    with pytest.raises(DimensionError):
        iter(stream)


def test_stop_hands_out_what_is_under_way(tiny: Path) -> None:
    seen = []
    with Detector(tiny) as detector:
        stream = detector.stream(Watched(), slots=5)
        for frame, _ in stream:
            seen.append(frame.index)
            if frame.index == 10:
                time.sleep(0.1)  # the ring fills
                stream.stop()
    assert seen == list(range(len(seen))) and 14 <= len(seen) <= 16


def test_a_source_that_stalls_does_not_hang_the_end(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovyolo.stream.PATIENCE", 0.2)
    release = threading.Event()

    def stalling() -> Iterator[np.ndarray]:
        yield spots(0)
        release.wait(30)

    with Detector(tiny) as detector, pytest.warns(OvyoloWarning, match="source0 did not come back"):
        stream = detector.stream([stalling(), map(spots, range(20))])
        for seen, _ in enumerate(stream, 1):
            if seen == 21:
                break
    release.set()


def test_closed_detector(tiny: Path) -> None:
    detector = Detector(tiny)
    detector.close()
    detector.close()
    for use in (lambda: detector(spots(0)), lambda: detector.stream([spots(0)]), lambda: detector.effective):
        with pytest.raises(ModelError, match="closed"):
            use()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_there_is_a_message(tiny: Path) -> None:
    code = """
import os, sys
import numpy as np
from ovyolo import Detector, OvyoloError
detector, picture = Detector(sys.argv[1]), np.zeros((8, 8, 3), np.uint8)
detector(picture)
stream = detector.stream([picture])
if os.fork() == 0:
    for use in (lambda: detector(picture), lambda: detector.stream([picture]), lambda: list(stream)):
        try:
            use()
        except OvyoloError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
print(len(list(stream)))
"""
    lines = run_python(code, tiny, timeout=30).splitlines()
    assert len(lines) == 4 and all("fork" in line for line in lines[:3]) and lines[3] == "1"


# the command


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(os.name == "nt", reason="signals to other processes are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_found(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spots(3))
    listing = tmp_path / "many.txt"
    listing.write_text("a.png\n" * 20_000)
    table, document = tmp_path / "found.csv", tmp_path / "found.json"
    command = [sys.executable, "-m", "ovyolo", "detect", "--model", str(tiny), "--source", str(listing), "--no-save"]
    process = subprocess.Popen(
        [*command, "--csv", str(table), "--json", str(document)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: table.exists() and table.stat().st_size > 2000)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "Traceback" not in err and "interrupted" in err
    rows = table.read_text().splitlines()
    frames = json.loads(document.read_text())
    assert len(rows) - 1 == len(frames) > 10 and all(row.count(",") == 9 for row in rows)


def test_the_command_finds_the_same_in_every_mode(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(20):
        cv2.imwrite(str(folder / f"{index}.png"), spots(index))
    with Detector(tiny) as detector:
        alone = [detector(folder / f"{index}.png").to_dicts() for index in range(20)]
    for number, words in enumerate([[], ["--hint", "latency"], ["--hint", "throughput", "--streams", "1"]]):
        document = tmp_path / f"{number}.json"
        source = ["--model", str(tiny), "--source", str(folder), "--no-save", "--quiet"]
        assert main(["detect", *source, "--json", str(document), *words]) == 0
        assert [frame["boxes"] for frame in json.loads(document.read_text())] == alone


def test_the_effective_settings_are_read_back(tiny: Path) -> None:
    with Detector(tiny, threads=1, hint="throughput", streams=1, pin=False) as detector:
        found = detector.effective
        assert found["NUM_STREAMS"] == "1" and found["INFERENCE_NUM_THREADS"] == "1"
        assert found["PERFORMANCE_HINT"] == "THROUGHPUT" and found["INFERENCE_PRECISION_HINT"] == "f32"
        assert found["ENABLE_CPU_PINNING"] == "False"
    for argument in ({"hint": "fast"}, {"streams": 0}, {"slots": 0}, {"core_type": "big"}):
        with pytest.raises(DimensionError, match=next(iter(argument))):
            Detector(tiny, **argument)


@pytest.mark.parametrize("frames", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_memory_stays(tiny: Path, frames: int) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    picture = np.zeros((720, 1280, 3), np.uint8)
    early = 0
    with Detector(tiny, hint="throughput") as detector:
        for frame, _ in detector.stream(picture.copy() for _ in range(frames)):
            if frame.index == 500:
                early = process.memory_info().rss
    assert process.memory_info().rss < 1.02 * early + 8 * picture.nbytes


def test_a_source_is_taken_as_it_is(tiny: Path) -> None:
    with Detector(tiny) as detector, open_source([spots(1), spots(2)]) as source:
        assert [(frame.source, number_of(found)) for frame, found in detector.stream(source)] == [
            ("image0", 1),
            ("image1", 2),
        ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send itself a Ctrl-C")
def test_ctrl_c_after_a_detector_was_let_go_in_another_thread(tmp_path: Path) -> None:
    """OpenVINO frees the stack on which the main thread's signals are handled when a core ends elsewhere."""
    model = make_tiny_ir(tmp_path / "tiny.xml")
    code = """
import gc, os, signal, sys, threading, time
from ovyolo import Detector
held = [Detector(sys.argv[1])]
def let_go():
    held.pop().close()
    gc.collect()
thread = threading.Thread(target=let_go)
thread.start()
thread.join()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_python(code, model).strip() == "interrupted"
