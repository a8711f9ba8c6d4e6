"""Live sources: a camera that drops is connected anew, and whoever waits for pictures never waits for ever."""

from __future__ import annotations

import atexit
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from ovyolo.errors import DimensionError, ImageError, OvyoloError, OvyoloWarning
from ovyolo.io.address import Address, address_of
from ovyolo.io.frame import Frame
from ovyolo.io.images import Image, as_bgr

__all__ = ["LiveSource"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts; each pause is twice the one before
PATIENCE = 1.0  # seconds that closing waits for a read that is under way

_reading: set[_Link] = set()
"""Connections whose threads have not ended yet."""


def _wait_for_reads() -> None:
    """Let threads come back from C++ before the interpreter ends: one that comes back later aborts the process."""
    until = time.monotonic() + PATIENCE
    for link in list(_reading):
        link.leave()
    for link in list(_reading):
        link.join(max(0.0, until - time.monotonic()))


atexit.register(_wait_for_reads)


class LiveSource:
    """Frames of one camera, for as long as it lasts: a :class:`~ovyolo.io.sources.Source` that never ends by itself.

    A thread of its own reads each connection. When no picture comes for ``read_timeout`` seconds, or the connection
    breaks, it is given up, the loss is told (an OvyoloWarning, and ``errors``), and a new one is tried after 0.5 s,
    1 s, 2 s, … at most 30 s. The first frame after a loss says in ``gap`` how many seconds are missing.

    Nothing that an old connection still gives is handed out, nor is a picture that was cut short; each frame has the
    size that the camera gives it. (A change of size inside an RTSP session is an exception: OpenCV scales to the size
    at its beginning.)

    ``index`` of the frames goes on after a loss; ``timestamp`` is seconds since the first frame, by this machine's
    clock. A recording that is read through a URL ends where it ends.

    Args:
        address: a camera's number; a URL (``rtsp://``, ``http://``, and what else FFmpeg reads); a GStreamer pipeline
            that ends in ``appsink`` (with an OpenCV that was built with GStreamer); or a function that connects and
            returns an iterable of u8 BGR arrays ``(h, w, 3)``, for cameras with a library of their own.
        name: of the source in frames and messages; by default the address without its password.
        open_timeout: seconds to connect.
        read_timeout: seconds to wait for a picture.
        give_up: seconds without a picture after which iteration ends with an ImageError; None is never.
        persist: also keep trying when the very first connection fails, instead of raising.

    Raises:
        ImageError: ``address`` is no live source. While iterating: the first connection fails (without ``persist``), or
            the source was lost for ``give_up`` seconds.
        DimensionError: a number is out of range.

    Example:
        >>> from ovyolo.io import LiveSource
        >>> camera = LiveSource("rtsp://operator:s3cret@10.0.0.7/line1", read_timeout=2)
        >>> camera.name
        'rtsp://10.0.0.7/line1'
        >>> for frame in camera:  # doctest: +SKIP
        ...     print(frame.index, frame.image.shape, frame.gap)
    """

    live = True
    total = None

    def __init__(
        self,
        address: int | str | Address | Callable[[], Iterable[Any]],
        *,
        name: str | None = None,
        open_timeout: float = 10.0,
        read_timeout: float = 5.0,
        give_up: float | None = None,
        persist: bool = False,
    ) -> None:
        for argument, value in (("open_timeout", open_timeout), ("read_timeout", read_timeout), ("give_up", give_up)):
            if value is not None and not 0 < value < 1e6:
                raise DimensionError(f"{argument} is {value}; it takes seconds, more than 0")
        found = address_of(address) if isinstance(address, (int, str)) else address
        if isinstance(found, Address):
            self._connect: Callable[[], Any] = partial(_connect, found, open_timeout, read_timeout)
            self.name = name or found.name
        elif callable(found):
            self._connect = found
            self.name = name or str(getattr(found, "__name__", "camera"))
        else:
            raise ImageError(
                f"{address!r} is no live source: give a camera's number, a URL or a function that connects"
            )
        self._open_timeout, self._read_timeout, self._give_up = open_timeout, read_timeout, give_up
        self._persist = persist
        self._closed = threading.Event()
        self._link: _Link | None = None
        self._lost_at: float | None = None
        self._missing = 0.0
        self._reason = ""
        self.losses = 0
        """How often the source was lost."""

    @property
    def fps(self) -> float | None:
        """Pictures a second, as the camera says; None before it is connected, or when it does not."""
        link = self._link
        return (link.fps or None) if link is not None else None

    @property
    def errors(self) -> list[tuple[str, str]]:
        """One entry when the source was ever lost: how often, and for how long in all."""
        if not self.losses:
            return []
        lost_at = self._lost_at
        missing = self._missing + (time.monotonic() - lost_at if lost_at is not None else 0.0)
        times = "once" if self.losses == 1 else f"{self.losses} times"
        return [(self.name, f"{self.name} was lost {times}, for {missing:.1f} s in all ({self._reason})")]

    def __iter__(self) -> Iterator[Frame]:
        """The frames, as they come."""
        if self._closed.is_set():
            raise ImageError(f"{self.name} is closed: open it again")
        return self._frames()

    def close(self) -> None:
        """End iteration, also in another thread that waits for a picture."""
        self._closed.set()
        link = self._link
        if link is not None:
            link.leave()
            link.join(PATIENCE)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frames(self) -> Iterator[Frame]:
        index, began, last, pause = 0, 0.0, time.monotonic(), FIRST_PAUSE
        while not self._closed.is_set():
            link = self._link = _Link(self._connect, self.name, self._open_timeout, self._read_timeout)
            if self._closed.is_set():  # between the two lines above
                link.leave()
            try:
                while (image := link.take()) is not None:
                    last, before = time.monotonic(), last
                    began = began if index else last
                    gap = self._found_again(last - before) if self._lost_at is not None else 0.0
                    pause = FIRST_PAUSE
                    yield Frame(image, self.name, index, None, last - began, True, link.fps, gap)
                    index += 1
                    last = time.monotonic()  # the time that the consumer took is no gap
            except _LostError as lost:
                self._reason = str(lost)
            finally:
                link.leave()
            if self._closed.is_set() or link.ended:
                return
            if index == 0 and not self._persist:
                raise ImageError(self._reason)
            if self._lost_at is None:
                self._lost_at = last
                self.losses += 1
                warnings.warn(f"{self._reason}; trying again", OvyoloWarning, stacklevel=2)
            if self._give_up is not None and time.monotonic() - last >= self._give_up:
                raise ImageError(f"{self.name} has given no picture for {self._give_up:g} s: {self._reason}")
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _found_again(self, gap: float) -> float:
        self._lost_at = None
        self._missing += gap
        warnings.warn(f"{self.name} is back after {gap:.1f} s", OvyoloWarning, stacklevel=3)
        return gap


def _connect(address: Address, open_timeout: float, read_timeout: float) -> Any:
    from ovyolo.io.capture import connect  # brings in HTTP: not for those who read files

    return connect(address, open_timeout, read_timeout)


class _LostError(Exception):
    """No picture will come of a connection any more."""


class _Link:
    """One connection, read by a thread of its own: a read that never returns cannot hold up whoever waits for it.

    One picture at most lies between that thread and :meth:`take`; what to drop is the stream's decision.
    """

    def __init__(self, connect: Callable[[], Any], name: str, open_timeout: float, read_timeout: float) -> None:
        self._connect, self._name = connect, name
        self._open_timeout, self._read_timeout = open_timeout, read_timeout
        self._changed = threading.Condition()
        self._image: Image | None = None
        self._left = False
        self._broken: str | None = None
        self._begun = time.monotonic()
        self._opened: float | None = None
        self.fps = 0.0
        self.ended = False
        """Whether it was a recording, and came to its end."""
        self._capture: Any = None
        self._thread = threading.Thread(target=self._read, name=f"ovyolo-link-{name}", daemon=True)
        _reading.add(self)
        self._thread.start()

    def take(self) -> Image | None:
        """The next picture; None when the connection was left.

        Raises:
            _LostError: it broke, or nothing came in time.
        """
        since = time.monotonic()
        with self._changed:
            while not self._left:
                if self._image is not None:
                    image, self._image = self._image, None
                    self._changed.notify_all()
                    return image
                if self.ended:
                    return None
                if self._broken is not None:
                    raise _LostError(self._broken)
                now = time.monotonic()
                if self._opened is None:
                    rest = self._begun + self._open_timeout + 1 - now  # what opens has the limit itself: this is a net
                    if rest <= 0:
                        raise _LostError(f"{self._name} could not be opened within {self._open_timeout:g} s")
                else:
                    rest = max(since, self._opened) + self._read_timeout - now
                    if rest <= 0:
                        raise _LostError(f"{self._name} gave no picture for {self._read_timeout:g} s")
                self._changed.wait(rest)
            return None

    def leave(self) -> None:
        """Want no more of it. Its thread frees the connection as soon as the read that it is in returns."""
        with self._changed:
            self._left = True
            self._image = None
            self._changed.notify_all()
            capture = self._capture
        if hasattr(capture, "interrupt"):
            capture.interrupt()

    def join(self, seconds: float) -> None:
        """Wait for its thread to end, for so long at most."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _read(self) -> None:
        capture: Any = None
        broken = f"{self._name} ended the connection"
        try:
            capture = self._connect()
            with self._changed:
                self._opened, self._capture = time.monotonic(), capture
                self.fps = float(getattr(capture, "fps", 0.0) or 0.0)
                self._changed.notify_all()
            for picture in capture:
                if not self._offer(as_bgr(np.asarray(picture), self._name)):
                    return
        except OvyoloError as error:
            broken = str(error)
        except Exception as error:  # a camera library of the user's own: whatever it raises is a loss
            broken = f"{self._name} failed: {type(error).__name__}: {error}"
        finally:
            ended = bool(getattr(capture, "ends", False))
            with suppress(Exception):  # what is broken may not close either, and is left in any case
                if hasattr(capture, "close"):
                    capture.close()
            with self._changed:
                self.ended = ended
                self._broken = broken
                self._capture = None
                self._changed.notify_all()
            _reading.discard(self)

    def _offer(self, image: Image) -> bool:
        """Lay a picture ready and wait until it is taken; False when no more are wanted."""
        with self._changed:
            if self._left:
                return False
            self._image = image
            self._changed.notify_all()
            while self._image is not None and not self._left:
                self._changed.wait()
            return not self._left
