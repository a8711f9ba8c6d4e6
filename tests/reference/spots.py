"""Pictures whose one spot says which they are, for the network of ``tiny_model``; and threads that should be gone."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np

from ovyolo import Detections


def left_threads(seconds: float = 3) -> list[str]:
    """Threads of ovyolo that are still there after so long."""
    gc.collect()
    deadline = time.monotonic() + seconds
    while (left := [t.name for t in threading.enumerate() if t.name.startswith("ovyolo-")]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    return left


def spots(number: int) -> np.ndarray:
    """A picture whose one spot says which it is."""
    image = np.zeros((64, 64, 3), np.uint8)
    y, x = divmod(number % 64, 8)
    image[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255
    return image


def number_of(found: Detections) -> int:
    ((x, y, _, _),) = found.xyxy.round()
    return int(y // 8 * 8 + x // 8)
