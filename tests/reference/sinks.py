"""What tests of sinks write, and how they look at what was written."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from ovyolo import Detections
from ovyolo.io import Frame

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
