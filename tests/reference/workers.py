"""Detectors on ovyolo's own worker file, driven by this Python with a runtime of NumPy that misbehaves on command."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovyolo.devices
from ovyolo import Detector
from ovyolo.vpu import Environment, open_worker_session
from ovyolo.vpu.members import Limits
from ovyolo.vpu.process import WORKER_FILE
from reference.tiny_model import make_tiny_ir

FAULTY = Path(__file__).with_name("faulty_worker.py")
QUICK = Limits(timeout=2.0, start=20.0, retries=2, pause=0.05)


class Workshop:
    """Makes sessions and detectors whose workers misbehave: ``faults[i]`` is of the i-th process, ``(kind, run)``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = make_tiny_ir(folder / "tiny.xml")
        self._starts, self._patch = folder / "starts", monkeypatch

    def opener(self, *faults: tuple[str, int], workers: int = 1, limits: Limits = QUICK) -> Any:
        self._starts.write_bytes(b"")
        self._patch.setenv("OVYOLO_TEST_WORKER", str(WORKER_FILE))
        self._patch.setenv("OVYOLO_TEST_STARTS", str(self._starts))
        self._patch.setenv("OVYOLO_TEST_FAULTS", json.dumps(faults))
        environment = Environment(Path(sys.executable), "NumPy")
        return partial(open_worker_session, environment=environment, workers=workers, limits=limits, worker_file=FAULTY)

    def session(self, *faults: tuple[str, int], slots: int | None = 3, **how: Any) -> Any:
        return self.opener(*faults, **how)(self.model, "LEGACY.CPU", slots=slots)[0]

    def detector(self, *faults: tuple[str, int], fallback: str | None = None, **how: Any) -> Detector:
        self._patch.setattr(ovyolo.devices, "open_worker_session", self.opener(*faults, **how))
        return Detector(self.model, device="LEGACY.CPU", hint="throughput", fallback=fallback)

    @property
    def starts(self) -> int:
        """How many processes began."""
        return len(self._starts.read_bytes())


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def pictures(count: int) -> list[np.ndarray]:
    """Black pictures of 64x64 with white cells of 8x8, each picture with others."""
    made = []
    for index in range(count):
        cells = np.random.default_rng(index).random((8, 8)) < 0.1
        cells[index % 8, index // 8 % 8] = True
        made.append(np.kron(cells, np.ones((8, 8), np.uint8))[..., None].repeat(3, 2).astype(np.uint8) * 255)
    return made
