"""A device that hangs, fails or talks nonsense: the stream starts anew and loses nothing, or says what is wrong."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from ovyolo import Detections
from ovyolo.errors import DimensionError, ModelError, OvyoloWarning
from ovyolo.stream import Stream, StreamSettings


class FakeSession:
    """Adds up its input; misbehaves at the submits whose numbers are in ``trouble``."""

    input_shape = (1, 64, 64, 3)
    device = "FAKE"

    def __init__(self, slots: int, trouble: dict[int, str]) -> None:
        self.slots = slots
        self.closed = False
        self._inputs = [np.zeros(self.input_shape, np.uint8) for _ in range(slots)]
        self._kinds = ["ok"] * slots
        self._trouble, self._count = trouble, 0

    def input(self, slot: int) -> np.ndarray:
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        self._kinds[slot] = self._trouble.get(self._count, "ok")
        self._count += 1
        if self._kinds[slot] == "refuse":
            raise RuntimeError("device lost")

    def wait(self, slot: int, timeout: float | None = None) -> list[np.ndarray]:
        if self._kinds[slot] == "hang":
            time.sleep(min(timeout or 60, 60))
            raise ModelError(f"the device FAKE gave no result within {timeout:g} s")
        if self._kinds[slot] == "raise":
            raise ModelError("the device FAKE failed while computing: overheated") from RuntimeError("overheated")
        shape = (3,) if self._kinds[slot] == "garbage" else (1,)
        return [np.full(shape, self._inputs[slot].astype(np.float32).max(), np.float32)]

    def close(self) -> None:
        self.closed = True


def fake_decode(outputs: Any, fit: Any) -> Detections:
    if outputs[0].shape != (1,):
        raise DimensionError("output 0 has shape (3,)")
    return Detections.from_arrays([[0, 0, 1, 1]], outputs[0], [0])


def fake_stream(*troubles: dict[int, str], frames: int = 20) -> tuple[Stream, list[FakeSession]]:
    """A stream over pictures of the values 1, 2, …; each session misbehaves in its own way (warming is submit 0)."""
    made: list[FakeSession] = []

    def open_ring(anew: bool) -> FakeSession:
        assert anew == bool(made)
        made.append(FakeSession(3, troubles[len(made)]))
        return made[-1]

    pictures = (np.full((64, 64, 3), i + 1, np.uint8) for i in range(frames))
    return Stream(pictures, open_ring, fake_decode, StreamSettings(timeout=0.2, slots=3)), made


@pytest.mark.parametrize(
    ("kind", "at"),
    [(kind, at) for kind in ("hang", "raise", "garbage", "refuse") for at in (1, 5, 20)] + [("hang", 0), ("raise", 0)],
)
def test_one_failure_loses_nothing(kind: str, at: int) -> None:
    stream, made = fake_stream({at: kind}, {})
    with pytest.warns(OvyoloWarning, match="compiling the model anew"):
        values = [int(found.confidence[0]) for _, found in stream]
    assert values == list(range(1, 21))
    assert stream.rebuilds == 1 and len(made) == 2 and made[1].closed
    assert made[0].closed == (kind != "hang")  # what hangs may still write: its memory is kept


@pytest.mark.parametrize("kind", ["hang", "raise", "garbage", "refuse"])
def test_failing_twice_is_an_error(kind: str) -> None:
    message = {
        "hang": "no result within",
        "raise": "overheated",
        "garbage": "no result: output 0",
        "refuse": "device lost",
    }
    stream, made = fake_stream({6: kind}, dict.fromkeys(range(10), kind))
    seen, start = [], time.monotonic()
    with pytest.warns(OvyoloWarning), pytest.raises(ModelError, match=message[kind]):
        for _, found in stream:
            seen.append(int(found.confidence[0]))
    assert seen == [1, 2, 3, 4, 5] and len(made) == 2 and time.monotonic() - start < 5


def test_failures_far_apart_are_survived() -> None:
    stream, made = fake_stream({6: "raise"}, {8: "raise"}, {3: "hang"}, {})
    with pytest.warns(OvyoloWarning):
        assert [int(found.confidence[0]) for _, found in stream] == list(range(1, 21))
    assert stream.rebuilds == 3 and len(made) == 4
