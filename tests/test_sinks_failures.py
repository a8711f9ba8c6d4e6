"""Sinks that cannot write: nothing is lost, replaced or left half-written in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference.sinks import FOUND, LINUX_ONLY, left_behind, rows, still

from ovyolo.errors import OvyoloError
from ovyolo.io.sinks import CocoSink, CsvSink, JsonLinesSink, JsonSink, PictureSink, TxtSink


@pytest.mark.parametrize("sink", [JsonSink, CocoSink, JsonLinesSink, CsvSink, TxtSink, PictureSink])
def test_unwritable_places(tmp_path: Path, sink: Callable[[Any], Any]) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "below", tmp_path / ("x" * 300) / "y", "nul\0inside"):
        with pytest.raises(OvyoloError, match="cannot be written"):
            sink(bad)
    if sink in (JsonSink, CocoSink, JsonLinesSink, CsvSink):
        with pytest.raises(OvyoloError, match=r"folder|directory|Permission"):
            sink(tmp_path)
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OvyoloError, match="may write to"):
            sink(tmp_path / "locked" / "a")


@LINUX_ONLY
@pytest.mark.parametrize("sink", [JsonLinesSink, CsvSink, JsonSink, CocoSink])
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
@pytest.mark.parametrize("sink", ["JsonLinesSink", "CsvSink", "JsonSink", "CocoSink", "PictureSink"])
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
    elif sink in ("JsonSink", "CocoSink"):
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
