"""The network alone, as many requests under way as the device wants: what OpenVINO's benchmark_app measures."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ovyolo.bench.latency import read_back
from ovyolo.runtime import open_session

__all__ = ["Throughput"]

PATIENCE = 60.0  # seconds for one inference; a device that takes longer hangs


class Throughput:
    """A model with the hint THROUGHPUT; calling it keeps its requests full for a while and returns pictures a second.

    Inputs are random bytes, and nothing happens before or after the network.
    """

    def __init__(self, path: Path, seconds: float, *, device: str, threads: int | None, precision: str | None) -> None:
        self._session, _ = open_session(
            path, device, slots=None, threads=threads, precision=precision, hint="throughput"
        )  # fmt: skip
        self._seconds = seconds
        self.requests = self._session.slots
        self._batch = self._session.input_shape[0]
        self.executed = read_back(self._session.compiled, self._session.device)
        rng = np.random.default_rng(0)
        for slot in range(self.requests):
            self._session.input(slot)[:] = rng.integers(0, 256, self._session.input_shape, np.uint8)
            self._session.submit(slot)  # one at a time: the first inference of a request allocates
            self._session.wait(slot, PATIENCE)

    def __call__(self) -> dict[str, float]:
        session = self._session
        done = turn = 0
        begin = time.perf_counter()
        until = begin + self._seconds
        for slot in range(self.requests):
            session.submit(slot)
        while time.perf_counter() < until:
            session.wait(turn, PATIENCE)
            session.submit(turn)
            done += 1
            turn = (turn + 1) % self.requests
        for slot in range(self.requests):
            session.wait(slot, PATIENCE)
            done += 1
        return {"pictures/s": done * self._batch / (time.perf_counter() - begin)}

    def close(self) -> None:
        """Give the device back."""
        self._session.close()
