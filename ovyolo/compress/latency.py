"""Latencies of several models, measured in turn, A B A B, so that a busy machine slows all alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.runtime import OpenVINOSession

__all__ = ["machine", "measure_latency"]

WARM_UP = 3


def measure_latency(
    sessions: Mapping[str, OpenVINOSession],
    picture: NDArray[np.uint8],
    *,
    rounds: int = 40,
    seconds: float = 20.0,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Time one picture through each session in turn.

    Args:
        sessions: by name; the first is what the others are compared with.
        picture: u8 ``(H, W, 3)``.
        rounds: at most so many turns.
        seconds: stop after about so long, with 5 turns at least.
        tell: called with the number of turns done.

    Returns:
        ``ms``: the median by name. ``speedup``: by name, the median over turns of the first's time over its own.
        ``rounds``, and the machine.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.input(0)[0] = picture
    began = time.perf_counter()
    for turn in range(rounds + WARM_UP):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.submit(0)
            session.wait(0)
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - start)
        tell(max(0, turn + 1 - WARM_UP))
        if turn >= WARM_UP + 4 and time.perf_counter() - began > seconds:
            break
    first = next(iter(times.values()))
    return {
        "ms": {name: round(1000 * statistics.median(taken), 2) for name, taken in times.items()},
        "speedup": {
            name: round(statistics.median(a / b for a, b in zip(first, taken, strict=True)), 3)
            for name, taken in list(times.items())[1:]
        },
        "rounds": len(first),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """This computer: its processor, and the instruction sets that matter here."""
    import os

    from ovyolo._nms import cpu_features

    return {"processor": _processor(), "cores": os.cpu_count() or 1, "instructions": " ".join(cpu_features())}


def _processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
