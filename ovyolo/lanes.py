"""Lanes: each source of a stream is read by a thread of its own into a short queue, and they take turns."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from ovyolo.errors import DimensionError, ImageError, OvyoloError
from ovyolo.io.frame import Frame
from ovyolo.io.images import as_bgr
from ovyolo.io.live import LiveSource
from ovyolo.io.sources import open_sources

__all__ = ["POLICIES", "POLL", "Lane", "Lanes"]

POLICIES = ("block", "drop-oldest", "latest")
AHEAD = 4  # frames that wait, so that a slow one (a key frame, a disk) is not felt
POLL = 0.1  # seconds after which a waiting thread looks whether it should stop


class Lane:
    """A source, and the frames of it that wait for their turn; an error waits in its place."""

    def __init__(self, source: Any, name: str, policy: str | None) -> None:
        self.source = source
        self.live = bool(getattr(source, "live", False))
        self.name = source.name if isinstance(source, LiveSource) else name
        self.policy = policy or ("latest" if self.live else "block")
        self.room = 1 if self.policy == "latest" else AHEAD
        self.waiting: deque[Frame | OvyoloError] = deque()
        self.dropped: Counter[str] = Counter()
        self.ended = False

    def frames(self) -> Iterator[Frame]:
        """The source's frames; bare arrays become frames."""
        for index, item in enumerate(self.source):
            yield item if isinstance(item, Frame) else Frame(as_bgr(item, f"{self.name}[{index}]"), self.name, index)


class Lanes:
    """All sources of a stream.

    Args:
        source: see :meth:`ovyolo.Detector.stream`.
        policy: one of ``POLICIES``; None is ``latest`` for live sources and ``block`` for others.
        on_error: ``"raise"`` or ``"skip"``; for sources that are opened here.
        changed: guards what is shared, and is notified of every change.
        stopping: whether the threads should end.
    """

    def __init__(
        self, source: Any, policy: str | None, on_error: str, changed: threading.Condition, stopping: Callable[[], bool]
    ) -> None:
        self._changed, self._stopping = changed, stopping
        self.lanes = [Lane(one, f"source{i}", policy) for i, one in enumerate(_opened(source, on_error))]
        self._turn = 0
        self._threads = [
            threading.Thread(target=self._read, args=(lane,), name=f"ovyolo-read-{lane.name}", daemon=True)
            for lane in self.lanes
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def take(self) -> tuple[Lane, Frame | OvyoloError] | None:
        """What is next, the lanes taking turns; None when nothing waits. ``changed`` must be held."""
        for step in range(len(self.lanes)):
            lane = self.lanes[(self._turn + step) % len(self.lanes)]
            if lane.waiting:
                self._turn = (self._turn + step + 1) % len(self.lanes)
                self._changed.notify_all()
                return lane, lane.waiting.popleft()
        return None

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing will come. ``changed`` must be held."""
        return all(lane.ended and not lane.waiting for lane in self.lanes)

    def close(self, patience: float) -> list[str]:
        """Close the sources and join the threads, for ``patience`` seconds at most.

        Returns:
            The names of the sources whose thread did not come back, because they wait inside a read.
        """
        for lane in self.lanes:
            if lane.live:  # it may wait for a picture for long, and can be closed meanwhile
                lane.source.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(patience / 2)
        for lane in self.lanes:
            close = getattr(lane.source, "close", None)
            with suppress(ValueError):  # a generator that is still running: its thread ends it
                if close is not None:
                    close()
        left = []
        for lane, thread in zip(self.lanes, self._threads, strict=True):
            if thread.is_alive():
                thread.join(patience / 2)
            if thread.is_alive():
                left.append(lane.name)
        return left

    def _read(self, lane: Lane) -> None:
        last: Frame | OvyoloError
        try:
            for frame in lane.frames():
                lane.name = frame.source
                if not self._offer(lane, frame):
                    break
        except OvyoloError as error:
            last = error
            self._offer(lane, last)
        except Exception as error:  # a source of the user's own: whatever it raises must not stop the others
            last = ImageError(f"{lane.name} failed: {type(error).__name__}: {error}")
            last.__cause__ = error
            self._offer(lane, last)
        finally:
            with self._changed:
                lane.ended = True
                self._changed.notify_all()

    def _offer(self, lane: Lane, item: Frame | OvyoloError) -> bool:
        """Queue an item by the policy; False when the stream stops."""
        with self._changed:
            if lane.policy == "block":
                while len(lane.waiting) >= lane.room and not self._stopping():
                    self._changed.wait(POLL)
            elif isinstance(item, Frame) and len(lane.waiting) >= lane.room:
                oldest = lane.waiting.popleft()
                lane.dropped[oldest.source if isinstance(oldest, Frame) else lane.name] += 1
                if isinstance(oldest, Frame) and oldest.gap:  # the loss is told with the next frame instead
                    following = lane.waiting[0] if lane.waiting else item
                    if isinstance(following, Frame):
                        following = replace(following, gap=following.gap + oldest.gap)
                        if lane.waiting:
                            lane.waiting[0] = following
                        else:
                            item = following
            if self._stopping():
                return False
            lane.waiting.append(item)
            self._changed.notify_all()
            return True


def _opened(source: Any, on_error: str) -> list[Iterable[Any]]:
    """The sources that run side by side."""
    if isinstance(source, (str, PathLike, np.ndarray, int)):
        return [*open_sources(source, on_error=on_error)]
    if not isinstance(source, (list, tuple)):
        if not hasattr(source, "__iter__"):
            raise ImageError(
                f"the source is a {type(source).__name__}: give a path, a picture, a Source, or an iterable of pictures"
            )
        return [source]
    items = list(source)
    plain = [isinstance(item, (str, PathLike, np.ndarray, int)) for item in items]
    if all(plain):  # also when there are none: open_sources says that
        return [*open_sources(items, on_error=on_error)]
    if any(plain):
        raise DimensionError(
            "the list mixes paths or pictures with sources: open each path with ovyolo.io.open_source first"
        )
    if all(isinstance(item, Frame) for item in items):
        return [items]
    for item in items:
        if not hasattr(item, "__iter__"):
            raise ImageError(
                f"the list of sources holds a {type(item).__name__}: give Sources or iterables of pictures"
            )
    return items
