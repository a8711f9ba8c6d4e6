"""Many frames, many sources: everything around the network goes on while the network computes.

A thread a source reads, one thread letterboxes frames straight into the slots of a session (the ring) and submits
them, and the consumer's own thread waits for the oldest slot, decodes it and hands the result out. Memory is bounded by
the ring and a few waiting frames a source: when the consumer is slow, the ring fills, and the policy decides.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ovyolo.detections import Detections
from ovyolo.errors import DimensionError, ModelError, OvyoloError, OvyoloWarning
from ovyolo.io.frame import Frame
from ovyolo.io.images import as_bgr
from ovyolo.lanes import POLICIES, POLL, Lane, Lanes
from ovyolo.letterbox import Letterbox, fitting
from ovyolo.runtime import Session
from ovyolo.tiling import TiledFrames

__all__ = ["Result", "Stream", "StreamSettings"]

PATIENCE = 4.0  # seconds that closing waits for a source that does not come back

_abandoned: list[Session] = []
"""Sessions whose device may still write into their memory: freeing them could crash or hang."""


class Result(NamedTuple):
    """A frame and what was found in it."""

    frame: Frame
    detections: Detections


class Decode(Protocol):
    """Raw outputs and where the picture lies, into boxes."""

    def __call__(self, outputs: Sequence[Any], fit: Letterbox) -> Detections: ...


@dataclass(frozen=True)
class StreamSettings:
    """How a stream runs; :meth:`ovyolo.Detector.stream` explains each.

    Raises:
        DimensionError: a value is out of range.
    """

    policy: str | None = None
    on_error: str = "raise"
    timeout: float = 60.0
    slots: int = 2

    def __post_init__(self) -> None:
        if self.policy not in (None, *POLICIES):
            raise DimensionError(f"policy is {self.policy!r}; it takes one of {', '.join(POLICIES)}")
        if self.on_error not in ("raise", "skip"):
            raise DimensionError(f"on_error is {self.on_error!r}, but 'raise' or 'skip' is taken")
        if not 0 < self.timeout < 1e6:
            raise DimensionError(f"timeout is {self.timeout}; it takes seconds, more than 0")
        if self.slots < 1:
            raise DimensionError(f"slots is {self.slots}; it takes a whole number from 1")


@dataclass(eq=False)
class Flight:
    """A frame on its way, or an error at its place among them (then there is no slot)."""

    lane: Lane
    item: Frame | OvyoloError
    slot: int = -1
    fit: Letterbox | None = None
    failure: Exception | None = None


class Stream:
    """Frames and what was found in them, in the order in which they were read: iterate over it, once.

    Made by :meth:`ovyolo.Detector.stream`. Leaving the loop, an exception in it, or :meth:`close` ends every thread and
    closes the sources. :meth:`stop` ends reading only: what is under way still comes out.

    Args:
        source: what to read.
        open_ring: makes the session whose slots are the ring; with ``True``, from the model file, since the last one
            failed.
        decode: raw outputs into boxes.
        settings: how to run.
    """

    def __init__(
        self, source: Any, open_ring: Callable[[bool], Session], decode: Decode, settings: StreamSettings
    ) -> None:
        self._open_ring, self._decode, self._settings = open_ring, decode, settings
        self._changed = threading.Condition()
        self._ring_lock = threading.Lock()  # taken before _changed where both are needed
        self._stopping = self._begun = self._fed = self._closed = False
        self._process = os.getpid()
        self._pending: deque[Flight] = deque()
        self._free: deque[int] = deque(range(settings.slots))
        self._ring: Session | None = None
        self._failed: list[tuple[str, str]] = []
        self._crash: Exception | None = None
        self._computing: set[int] = set()
        self._broken = False  # NaN was told of
        self._feeder = threading.Thread(target=self._feed, name="ovyolo-feed", daemon=True)
        self._lanes = Lanes(source, settings.policy, settings.on_error, self._changed, lambda: self._stopping)
        self.rebuilds = 0
        """How often the model was compiled anew because the device hung or failed."""

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that were dropped so far, by source; sources that lost none are not in it."""
        with self._changed:
            return dict(sum((lane.dropped for lane in self._lanes.lanes), Counter()))

    @property
    def errors(self) -> list[tuple[str, str]]:
        """What could not be read so far, as (source, message)."""
        told = [error for lane in self._lanes.lanes for error in getattr(lane.source, "errors", ())]
        return told + self._failed

    def stop(self) -> None:
        """Read no more; results under way still come out. May be called from a signal handler."""
        self._stopping = True  # no lock: a handler may interrupt the thread that holds it

    def close(self) -> None:
        """End everything and join the threads; results under way are thrown away. The second call does nothing."""
        self._stopping = True
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        with self._changed:
            self._changed.notify_all()
        if self._feeder.is_alive():
            self._feeder.join(PATIENCE)
        left = self._lanes.close(PATIENCE)
        if self._ring is not None:
            self._retire(self._ring)
            self._ring = None
        if left:
            warnings.warn(
                f"{', '.join(left)} did not come back from a read: its thread is left behind",
                OvyoloWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        """The results. A generator, and not this object, so that leaving a ``for`` loop closes the stream."""
        if os.getpid() != self._process:
            raise ModelError("this stream was made before a fork, which the device does not survive: make one here")
        if self._begun or self._closed:
            raise DimensionError("a stream is read once: call Detector.stream again")
        self._begun = True
        return self._results()

    def _results(self) -> Iterator[Result]:
        try:
            self._lanes.start()
            self._warm()
            self._feeder.start()
            while (flight := self._next_flight()) is not None:
                error = flight.item if isinstance(flight.item, OvyoloError) else flight.failure
                if isinstance(error, OvyoloError) and not isinstance(error, ModelError):  # it, and not the device
                    self._forget(flight)
                    alone = len(self._lanes.lanes) == 1 or not flight.lane.live  # a dead camera stops no other
                    if self._settings.on_error == "raise" and alone:
                        raise error
                    self._failed.append((flight.lane.name, str(error)))
                    continue
                assert isinstance(flight.item, Frame)
                detections = self._collect(flight)
                self._forget(flight)
                self._tell_nan(flight.item, detections)
                yield Result(flight.item, detections)
            if self._crash is not None:
                raise ModelError(f"the stream broke: {self._crash!r}") from self._crash
        finally:
            self.close()

    def _next_flight(self) -> Flight | None:
        with self._changed:
            while not self._pending:
                if self._fed:
                    return None
                self._changed.wait(POLL)
            return self._pending[0]

    def _forget(self, flight: Flight) -> None:
        with self._changed:
            self._pending.popleft()
            if flight.slot >= 0:
                self._free.append(flight.slot)
            self._changed.notify_all()

    def _feed(self) -> None:
        """Frames into free slots, until the sources end or the stream stops."""
        try:
            while (flight := self._next_frame()) is not None:
                with self._ring_lock:
                    if flight.slot >= 0:
                        self._submit(flight)
                    with self._changed:
                        self._pending.append(flight)
                        self._changed.notify_all()
        except Exception as error:  # must never look like the end of the sources
            self._crash = error
        finally:
            with self._changed:
                self._fed = True
                self._changed.notify_all()

    def _next_frame(self) -> Flight | None:
        with self._changed:
            while not self._stopping:
                if self._free and (taken := self._lanes.take()) is not None:
                    lane, item = taken
                    return Flight(lane, item, self._free.popleft() if isinstance(item, Frame) else -1)
                if self._lanes.ended:
                    return None
                self._changed.wait(POLL)
            return None

    def _submit(self, flight: Flight) -> None:
        """Letterbox into the slot and begin to compute. What fails is told by the thread that collects."""
        assert self._ring is not None and isinstance(flight.item, Frame)
        try:
            image = as_bgr(flight.item.image, flight.item.source)
            if isinstance(self._ring, TiledFrames):
                flight.fit = self._ring.hold(flight.slot, image)
            else:
                ring_input = self._ring.input(flight.slot)[0]
                flight.fit = fitting((image.shape[0], image.shape[1]), (ring_input.shape[0], ring_input.shape[1]))
                flight.fit.into(image, ring_input)
                self._computing.add(flight.slot)
            self._ring.submit(flight.slot)
            flight.failure = None
        except OvyoloError as error:
            flight.failure = error
        except Exception as error:  # whatever a device's runtime raises
            flight.failure = ModelError(f"the device could not begin: {type(error).__name__}: {error}")
            flight.failure.__cause__ = error

    def _collect(self, flight: Flight) -> Detections:
        """The result of the oldest flight, with one new session when the device fails."""
        try:
            return self._result(flight)
        except ModelError as error:
            self._rebuild(error)
        return self._result(flight)

    def _result(self, flight: Flight) -> Detections:
        if flight.failure is not None:
            raise flight.failure
        assert self._ring is not None and flight.fit is not None
        outputs = self._wait(self._ring, flight.slot, self._settings.timeout)
        try:
            return self._decode(outputs, flight.fit)
        except (DimensionError, ValueError, TypeError, IndexError) as error:
            raise ModelError(f"the device {self._ring.device} returned what is no result: {error}") from error

    def _rebuild(self, error: ModelError) -> None:
        """A new session, and everything under way submitted again."""
        warnings.warn(f"{error}; compiling the model anew and computing again", OvyoloWarning, stacklevel=4)
        if not self._ring_lock.acquire(timeout=self._settings.timeout):
            raise ModelError(f"{error}; and handing it the next frame hangs") from error
        try:
            if self._ring is not None:
                self._retire(self._ring)
                self._ring = None
            self._ring = self._open_ring(True)
            self.rebuilds += 1
            for flight in list(self._pending):  # only this thread and, with the lock, the feeder change it
                if flight.slot >= 0:
                    self._submit(flight)
        finally:
            self._ring_lock.release()

    def _wait(self, ring: Session, slot: int, timeout: float) -> Sequence[Any]:
        self._computing.add(slot)
        try:
            outputs = ring.wait(slot, timeout)
        except ModelError as error:
            if isinstance(error.__cause__, RuntimeError):  # it failed, so it computes no more
                self._computing.discard(slot)
            raise
        self._computing.discard(slot)
        return outputs

    def _retire(self, ring: Session) -> None:
        """Close a session; where the device may still be writing, keep its memory for ever instead."""
        for slot in list(self._computing):
            with suppress(ModelError):
                self._wait(ring, slot, min(self._settings.timeout, PATIENCE))
            if slot in self._computing:
                break
        if self._computing or (self._feeder.is_alive() and self._closed):
            _abandoned.append(ring)
        else:
            ring.close()
        self._computing.clear()

    def _warm(self) -> None:
        """Compute one grey picture before the first frame: the first inference allocates, and shows that all works."""
        self._ring = self._open_ring(False)
        try:
            self._warm_up(self._ring)
        except ModelError as error:
            self._rebuild(error)
            self._warm_up(self._ring)

    def _warm_up(self, ring: Session) -> None:
        ring.input(0)[:] = 114
        self._computing.add(0)
        ring.submit(0)
        self._wait(ring, 0, self._settings.timeout)

    def _tell_nan(self, frame: Frame, detections: Detections) -> None:
        if detections.nonfinite and not self._broken:
            self._broken = True
            warnings.warn(
                f"the network gave NaN in {detections.nonfinite} cells for {frame.source}, frame {frame.index}: boxes "
                "may be missing, the model or its conversion is broken (told once a stream)",
                OvyoloWarning,
                stacklevel=3,
            )
