"""Streams of frames that are cut into tiles: the next frame's tiles compute while the last one's are merged."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.detections import Detections
from ovyolo.errors import ModelError
from ovyolo.letterbox import Letterbox, fitting
from ovyolo.runtime import Session
from ovyolo.tiling.runner import Belt, TiledPicture, Tiler

__all__ = ["TiledFrames"]

Image = NDArray[np.uint8]
POLL = 0.1  # seconds after which a waiting thread looks around, so that Ctrl-C is heard
PATIENCE = 4.0  # seconds that closing waits for a device that does not come back


class TiledFrames:
    """A :class:`~ovyolo.runtime.Session` whose pictures are whole frames: what a stream needs to cut them into tiles.

    ``hold`` takes the place of writing into a slot's input. A thread of its own begins with a frame's tiles when it is
    submitted, behind those of the frames before, so that the device does not idle between frames. No more than the
    slots' frames are held, and no more tiles are under way than ``session`` has slots.

    Args:
        tiler: cuts, decodes and merges.
        session: computes tiles; closed with this one.
        slots: how many frames can wait.
        timeout: seconds that one tile may take.
    """

    def __init__(self, tiler: Tiler, session: Session, slots: int, timeout: float | None = None) -> None:
        self._tiler, self._session, self._timeout = tiler, session, timeout
        self.input_shape = session.input_shape
        self.device = session.device
        self.slots = slots
        self._blank = np.zeros(self.input_shape, np.uint8)
        # guarded by _changed, which is notified of every tile that is done
        self._changed = threading.Condition()
        self._pictures: dict[int, TiledPicture] = {}
        self._submitted: deque[int] = deque()
        self._results: dict[int, Detections] = {}
        self._tiles_done = 0
        self._broken: ModelError | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def hold(self, slot: int, image: Image) -> Letterbox:
        """Take the slot's frame; where it lies in the network's input as a whole (nobody's concern here).

        Raises:
            DimensionError: the region of interest lies outside the frame.
        """
        self._pictures[slot] = self._tiler.cut(image)
        return fitting((image.shape[0], image.shape[1]), self._tiler.card.imgsz)

    def input(self, slot: int) -> Image:
        """A picture of the network's own size, for who has no frame."""
        return self._blank

    def submit(self, slot: int) -> None:
        """See :class:`~ovyolo.runtime.Session`."""
        if slot not in self._pictures:  # the region of interest is one of frames, and may lie outside
            self._pictures[slot] = self._tiler.uncut(self._blank[0])
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ovyolo-tiles", daemon=True)
            self._thread.start()
        with self._changed:
            self._submitted.append(slot)
            self._changed.notify_all()

    def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
        """The slot's one output: its :class:`~ovyolo.Detections`. ``timeout`` is for one tile.

        Raises:
            ModelError: when a tile was not computed within ``timeout`` seconds, or the device failed.
        """
        with self._changed:
            seen, since = self._tiles_done, time.monotonic()
            while slot in self._pictures and slot not in self._results:
                if self._broken is not None:  # a tile may still compute: nothing more is begun
                    raise self._broken
                self._changed.wait(POLL)
                if self._tiles_done != seen:
                    seen, since = self._tiles_done, time.monotonic()
                elif timeout is not None and time.monotonic() - since >= timeout:
                    self._broken = ModelError(f"the device {self.device} gave no result within {timeout:g} s")
                    self._changed.notify_all()
            if self._pictures.pop(slot, None) is None:
                return []
            return [self._results.pop(slot)]

    def close(self) -> None:
        """See :class:`~ovyolo.runtime.Session`; a device that hangs for ``PATIENCE`` seconds is left to its thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                return
        self._pictures.clear()
        self._session.close()

    def _work(self) -> None:
        """Frames onto the belt, in the order in which they were submitted, until closed or broken."""
        belt = Belt(self._tiler, self._session, self._timeout)
        begun: deque[int] = deque()
        try:
            while not self._over:
                slot = self._next(idle=not belt.under_way)
                if slot is not None:
                    begun.append(slot)
                    for _ in belt.feed(self._pictures[slot]):
                        self._tell(begun)
                        if self._over:
                            return
                elif belt.under_way:
                    belt.collect()
                self._tell(begun)
        except Exception as error:  # it is told by whoever waits
            if not isinstance(error, ModelError):
                told = ModelError(f"the device {self.device} returned what is no result: {error}")
                told.__cause__, error = error, told
            with self._changed:
                self._broken = self._broken or error
                self._changed.notify_all()
        finally:
            belt.clear()

    @property
    def _over(self) -> bool:
        return self._closing or self._broken is not None

    def _next(self, *, idle: bool) -> int | None:
        """The slot to begin with; None when none waits. When nothing computes it waits for one."""
        with self._changed:
            while idle and not self._submitted and not self._over:
                self._changed.wait()
            return self._submitted.popleft() if self._submitted else None

    def _tell(self, begun: deque[int]) -> None:
        """That a tile is done, and the results of frames all of whose tiles are."""
        done: dict[int, Detections] = {}
        while begun and self._pictures[begun[0]].done:
            slot = begun.popleft()
            done[slot] = self._tiler.merged(self._pictures[slot])
        with self._changed:
            self._tiles_done += 1
            self._results.update(done)
            self._changed.notify_all()
