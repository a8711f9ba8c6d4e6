"""Where frames come from: pictures, folders, globs, lists, videos and arrays, one after the other; or a live source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ovyolo.errors import DimensionError, ImageError
from ovyolo.io.address import Address
from ovyolo.io.frame import Frame
from ovyolo.io.images import read_image
from ovyolo.io.listing import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Listing, is_video
from ovyolo.io.live import LiveSource
from ovyolo.io.video import open_video

__all__ = ["PICTURE_SUFFIXES", "VIDEO_SUFFIXES", "Frame", "Source", "open_source", "open_sources"]


class Source(Protocol):
    """Frames in order, and what is known of them beforehand. A context manager; :meth:`close` frees what it holds.

    A source with an attribute ``live`` that is true is never waited with: its :meth:`close` may be called while another
    thread iterates, and a stream hands out its newest frame unless told otherwise.
    """

    @property
    def total(self) -> int | None:
        """How many frames there are (for videos, as their files announce), or None when unknown."""

    @property
    def fps(self) -> float | None:
        """Frames a second where the source is a single video, else None."""

    @property
    def errors(self) -> list[tuple[str, str]]:
        """What could not be read so far, as (path, message). The caller reports it."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames, from the first."""

    def close(self) -> None:
        """Free what is held; iteration ends."""

    def __enter__(self) -> Source:
        """The source itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


def open_source(source: Any, *, on_error: str = "raise") -> Source:
    """Frames from ``source``, whatever it is.

    Args:
        source: a path of a picture or video; a folder (the pictures and videos in it, not those in folders below;
            ``part2`` comes before ``part10``); a glob pattern (``**`` goes into folders below); a ``.txt`` file that
            lists any of these, one a line (paths relative to that file or else to the working folder; empty lines and
            lines that start with ``#`` are skipped); a u8 BGR array ``(h, w, 3)``, or what
            :func:`~ovyolo.io.images.as_bgr` converts; or a list of any of these. Hidden files in folders are
            passed over. Or a live source, alone: what :class:`~ovyolo.io.live.LiveSource` takes.
        on_error: ``"raise"``, or ``"skip"``: pictures and videos that cannot be read are passed over and
            recorded in ``errors`` of the result. Either way a video that ends well before its announced end
            is recorded there.

    Raises:
        ImageError: when there is nothing to read: no such file, an empty folder, a pattern that matches nothing, a
            suffix that is not known, a live source among others. While iterating, when a picture or video cannot
            be read or a live source not be connected, and ``on_error`` is ``"raise"``.
        DimensionError: when an array is no picture, or ``on_error`` is another word.

    Example:
        >>> import numpy as np
        >>> with open_source([np.zeros((4, 6, 3), np.uint8), np.zeros((8, 8), np.uint8)]) as frames:
        ...     [(frame.source, frame.image.shape) for frame in frames]
        [('image0', (4, 6, 3)), ('image1', (8, 8, 3))]
    """
    opened = open_sources(source, on_error=on_error)
    if len(opened) == 1:
        return opened[0]
    raise ImageError(
        "a live source does not end, so what is listed with it would not be read: Detector.stream and `ovyolo detect` "
        "read such lists side by side"
    )


def open_sources(source: Any, *, on_error: str = "raise", **limits: Any) -> list[Source]:
    """What runs side by side: each live source that ``source`` names, and everything else together as one.

    Args:
        source: what :func:`open_source` takes, live sources in lists included.
        on_error: as there. Where several run side by side, a live source is tried for ever (``persist``).
        limits: ``open_timeout``, ``read_timeout`` and ``give_up`` of :class:`~ovyolo.io.live.LiveSource`.

    Raises:
        ImageError: as there.
        DimensionError: as there, or a limit is out of range.
    """
    if on_error not in ("raise", "skip"):
        raise DimensionError(f"on_error is {on_error!r}, but 'raise' or 'skip' is taken")
    found = Listing(skip=on_error == "skip", live=True)
    found.add(source)
    if not found.items and not found.errors:
        raise ImageError("the list of sources is empty: give a picture, a video, a folder, an array or a live source")
    live = [item for item in found.items if isinstance(item, Address)]
    found.items = [item for item in found.items if not isinstance(item, Address)]
    files: list[Source] = [_Listed(found)] if found.items or found.errors or not live else []
    persist = found.skip or len(files) + len(live) > 1
    opened: list[Source] = [LiveSource(address, persist=persist, **limits) for address in live]
    return files + opened


class _Listed:
    """A :class:`Source` of files and arrays, in order."""

    def __init__(self, found: Listing) -> None:
        self.errors: list[tuple[str, str]] = list(found.errors)
        self._found = found
        self._total: int | None = None
        self._running: Iterator[Frame] | None = None
        self._closed = False

    @property
    def total(self) -> int | None:
        if self._total is None:
            counts = [_announced(item)[0] if is_video(item) else 1 for item in self._found.items]
            if 0 in counts:
                return None
            self._total = sum(counts)
        return self._total

    @property
    def fps(self) -> float | None:
        items = self._found.items
        return (_announced(items[0])[1] or None) if len(items) == 1 and is_video(items[0]) else None

    def __iter__(self) -> Iterator[Frame]:
        if self._closed:
            raise ImageError("the source is closed: open it again with open_source")
        self.errors[:] = self._found.errors
        self._running = self._frames()
        return self._running

    def _frames(self) -> Iterator[Frame]:
        arrays = 0
        for item in self._found.items:
            if self._closed or isinstance(item, Address):  # open_sources has taken those out
                return
            if isinstance(item, np.ndarray):
                yield Frame(item, f"image{arrays}")
                arrays += 1
                continue
            try:
                if is_video(item):
                    yield from self._video(item)
                    continue
                image = read_image(item)
            except ImageError as error:
                if not self._found.skip:
                    raise
                self.errors.append((str(item), str(error)))
                continue
            yield Frame(image, str(item), path=item)

    def _video(self, path: Path) -> Iterator[Frame]:
        with open_video(path) as video:
            index = -1
            for index, (image, timestamp) in enumerate(video.frames()):
                yield Frame(image, str(path), index, path, timestamp, True, video.fps)
                if self._closed:
                    return
            read = index + 1
            # containers announce a rounded or estimated number: only a clear gap is told
            if video.count - read > max(3, 0.02 * video.count):
                self.errors.append(
                    (str(path), f"{path} ends after {read} of {video.count} frames: it is cut off, copy it again")
                )

    def close(self) -> None:
        self._closed = True
        running, self._running = self._running, None
        if running is not None:
            try:
                running.close()  # type: ignore[attr-defined]
            except ValueError:  # another thread is inside it: it sees the flag when it comes out
                return

    def __enter__(self) -> _Listed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _announced(item: Any) -> tuple[int, float]:
    """Frames and frames a second of a video; 0 where it does not say. That it cannot be opened is said when read."""
    try:
        with open_video(item) as video:
            return video.count, video.fps
    except ImageError:
        return 0, 0.0
