"""A fresh process from its start to its first boxes, and the most memory that it took.

``python -m ovyolo.bench.coldstart`` is that process; :class:`ColdStart` starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ovyolo.errors import ModelError

__all__ = ["COLD_PARTS", "ColdStart", "peak_memory"]

COLD_PARTS = ("start", "import", "picture", "model", "first")
LIMIT = 300


class ColdStart:
    """Calling it runs one fresh process and returns its milliseconds by part; :attr:`peak_bytes` is the last one's.

    ``start`` is until Python runs our code, ``import`` ovyolo with OpenVINO and OpenCV, ``picture`` reading one
    (without a source: making a grey one), ``model`` reading and compiling the IR, ``first`` letterbox, inference and
    boxes. The files are mostly in the system's cache, and no compiled model is kept.
    """

    def __init__(
        self, path: Path, picture: Any, *, device: str, threads: int | None, precision: str | None, conf: float
    ) -> None:
        self._options = {
            "path": str(path.resolve()), "picture": None if picture is None else _absolute(picture), "device": device,
            "threads": threads, "precision": precision, "conf": conf,
        }  # fmt: skip
        self._path = path
        self.peak_bytes: int | None = None

    def __call__(self) -> dict[str, float]:
        here = str(Path(__file__).resolve().parents[2])
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        # one clock for all processes on Linux (CLOCK_MONOTONIC) and Windows (QueryPerformanceCounter)
        begin = time.perf_counter_ns()
        words = [sys.executable, "-m", "ovyolo.bench.coldstart", str(begin), json.dumps(self._options)]
        try:
            # Python looks into the working folder first, and a checkout there is not the ovyolo that runs here
            done = subprocess.run(
                words, capture_output=True, text=True, encoding="utf-8", env=environment, cwd=here, timeout=LIMIT,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{self._path}: a fresh process gave no result within {LIMIT} s") from error
        try:
            told = json.loads(done.stdout.splitlines()[-1])
            self.peak_bytes = told["peak_bytes"]
            return {part: float(told["ms"][part]) for part in (*COLD_PARTS, "total")}
        except (IndexError, ValueError, KeyError, TypeError) as error:
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ModelError(f"{self._path}: a fresh process could not detect with it: {why[:300]}") from error


def _absolute(picture: Any) -> str:
    """A file's path from wherever it is looked at; what is no file stays as it is."""
    return os.path.abspath(picture) if os.path.exists(picture) else os.fspath(picture)


def peak_memory() -> int | None:
    """The most bytes of memory that this process ever had resident; None where the system does not tell.

    On Linux not from ``getrusage``: its peak is inherited from the parent, which may have been larger.
    """
    status = Path("/proc/self/status")
    if sys.platform == "linux" and status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_peak()
    return None


def _windows_peak() -> int | None:
    import ctypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS of psapi.h
        _fields_ = (
            ("cb", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            *[(name, ctypes.c_size_t) for name in ("peak_working_set", "b", "c", "d", "e", "f", "g", "h")],
        )

    library: Any = ctypes
    kernel = library.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    counters: Any = Counters()
    counters.cb = ctypes.sizeof(Counters)
    told = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.peak_working_set) if told else None


def child(begin: int, options: dict[str, Any]) -> dict[str, Any]:
    """What the fresh process does; ``begin`` is when its parent started it."""
    marks = [begin, time.perf_counter_ns()]
    import cv2  # noqa: F401
    import numpy as np
    import openvino  # noqa: F401

    from ovyolo.bench.frames import Frames
    from ovyolo.detector import Detector

    marks.append(time.perf_counter_ns())
    frames = None if options["picture"] is None else Frames(options["picture"])
    # without a source a grey picture: drawing the synthetic one would take longer than reading any
    image = np.full((720, 1280, 3), 114, np.uint8) if frames is None else frames.next()
    marks.append(time.perf_counter_ns())
    detector = Detector(
        options["path"], options["device"], options["conf"], threads=options["threads"], precision=options["precision"]
    )
    marks.append(time.perf_counter_ns())
    detector(image)
    marks.append(time.perf_counter_ns())
    if frames is not None:
        frames.close()
    spans = [(b - a) / 1e6 for a, b in pairwise(marks)]
    ms = dict(zip((*COLD_PARTS, "total"), (*spans, (marks[-1] - begin) / 1e6), strict=True))
    return {"ms": ms, "peak_bytes": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(child(int(sys.argv[1]), json.loads(sys.argv[2]))))
