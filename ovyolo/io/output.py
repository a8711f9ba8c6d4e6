"""What all sinks share: files that appear whole or not at all, names that never collide, failures in one sentence."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ovyolo.errors import OvyoloError

if TYPE_CHECKING:
    from ovyolo.detections import Detections
    from ovyolo.io.frame import Frame

__all__ = [
    "BaseSink",
    "Lines",
    "Names",
    "copy_file",
    "make_folder",
    "reason_of",
    "replacing",
    "stem_of",
    "temporary",
    "writing",
]

Self = TypeVar("Self", bound="BaseSink")

REMEDIES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC: "free some space or choose another place",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.EPIPE: "its reader has gone",
}
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
NUMBERED = re.compile(r"(.*)_[0-9]{6,}", re.DOTALL)


class BaseSink:
    """A sink that is a context manager.

    ``stopped`` turns True when the user wants to end; ``path`` is the file or folder that it writes, if any.
    """

    stopped = False
    path: Path | None = None

    def write(self, frame: Frame, detections: Detections) -> None:
        """Take one frame and what was found in it."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish what was begun. Calling it again does nothing."""

    def abort(self) -> None:
        """Stop because something failed: like :meth:`close`, but a file that would be half a document is dropped."""
        self.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class Names:
    """File names for sources, of which no two are equal, whatever the case of their letters.

    A still takes one name; a series (``numbered=True``) takes a stem and with it all names ``stem_000000`` on.

    Example:
        >>> names = Names()
        >>> names.claim("bus", ".jpg"), names.claim("Bus", ".jpg"), names.claim("bus", ".png")
        ('bus', 'Bus-2', 'bus')
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._series: set[str] = set()
        self._numbered_stills: set[str] = set()
        self._next: dict[str, int] = {}

    def claim(self, stem: str, suffix: str = "", numbered: bool = False) -> str:
        """The stem to use: ``stem``, or with ``-2``, ``-3``, … where that is taken."""
        wanted = (stem + "\0" + suffix).casefold()
        for number in count(self._next.get(wanted, 1)):
            candidate = stem if number == 1 else f"{stem}-{number}"
            low = candidate.casefold()
            match = NUMBERED.fullmatch(low)
            if numbered:
                free = low not in self._series and low not in self._numbered_stills
            else:
                free = low + suffix.casefold() not in self._used and not (match and match[1] in self._series)
            if free:
                break
        self._next[wanted] = number + 1
        if numbered:
            self._series.add(low)
        else:
            self._used.add(low + suffix.casefold())
            if match:
                self._numbered_stills.add(match[1])
        return candidate


class Lines:
    """Bytes to a file, or to standard output for ``-``, each write at once and whole.

    When a write fails half-way, a file is cut back to what was whole before. A failure is raised once; after it, the
    stream is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = None if os.fspath(path) == "-" else Path(path)
        self.name = "standard output" if self.path is None else str(path)
        self._whole = 0
        self._closed = False
        self._file = None
        if self.path is not None:
            with writing(path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Write ``data`` and hand it to the operating system."""
        if self._closed:
            raise OvyoloError(f"{self.name} is closed: no more can be written to it")
        try:
            if self._file is None:
                _write_standard_output(data)
            else:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._whole += len(data)
        except OSError as error:
            self._give_up()
            raise OvyoloError(reason_of(self.name, error)) from error

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._closed = True
        if self._file is not None:
            with writing(self.name):
                self._file.close()

    def _give_up(self) -> None:
        self._closed = True
        if self._file is None:
            return
        try:
            if self.path is not None and self.path.is_file():  # not a device
                self._file.truncate(self._whole)
            self._file.close()
        except OSError:
            # the first failure is what the caller is told
            self._file = None


def _write_standard_output(data: bytes) -> None:
    """Bytes as they are: no translation of line ends or encoding on any system."""
    stream: Any = sys.stdout
    if stream is None:  # a program without a console
        raise OSError(errno.EBADF, "there is none")
    try:
        if hasattr(stream, "buffer"):
            stream.flush()
            rest = memoryview(data)
            while rest:  # with PYTHONUNBUFFERED a write may take a part only
                taken = stream.buffer.write(rest)
                if taken is None:
                    raise BlockingIOError(errno.EAGAIN, "it does not wait for its reader")
                rest = rest[taken:]
            stream.buffer.flush()
        else:
            stream.write(data.decode("utf-8"))
            stream.flush()
    except OSError as error:
        own = id(stream) == id(sys.__stdout__)
        if own and error.errno in (errno.EPIPE, errno.EINVAL):
            # what is still buffered goes nowhere: Python would complain about it once more at exit
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, stream.fileno())
            os.close(sink)
        raise


def reason_of(name: str | os.PathLike[str], error: OSError) -> str:
    """One sentence that says what could not be written, why, and what to do."""
    remedy = REMEDIES.get(error.errno or 0, "check the path")
    return f"{os.fspath(name)!s:.500} cannot be written ({error.strerror or error}): {remedy}"


@contextmanager
def writing(name: str | os.PathLike[str]) -> Iterator[None]:
    """Turn failures of the operating system inside the block into an OvyoloError that names ``name``."""
    try:
        yield
    except OSError as error:
        raise OvyoloError(reason_of(name, error)) from error
    except ValueError as error:  # a NUL in a path
        raise OvyoloError(f"{os.fspath(name)!r:.500} cannot be written ({error}): check the path") from error


def temporary(folder: Path, suffix: str = ".tmp") -> Path:
    """A new name in ``folder`` for a file that will be renamed when it is whole."""
    return folder / f".ovyolo-{secrets.token_hex(6)}{suffix}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends well, removed when it does not."""
    part = temporary(path.parent)
    try:
        with writing(path):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with replacing(target) as part:
        shutil.copyfile(source, part)


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` where it is missing, and find out now, not after an hour, whether it can be written to."""
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary(folder)
        probe.write_bytes(b"")
        probe.unlink()
    return folder


def stem_of(frame: Frame) -> str:
    """A file name for what was found in ``frame``, without its suffix, that every file system takes.

    Example:
        >>> import numpy as np
        >>> from ovyolo.io import Frame
        >>> stem_of(Frame(np.zeros((1, 1, 3), np.uint8), "rtsp://10.0.0.7/line 1?x=2"))
        'rtsp_10.0.0.7_line 1_x=2'
    """
    if frame.path is not None:
        return frame.path.stem
    stem = re.sub("_{2,}", "_", FORBIDDEN.sub("_", frame.source))[:100].strip(" .") or "image"
    return f"_{stem}" if RESERVED.fullmatch(stem) else stem
