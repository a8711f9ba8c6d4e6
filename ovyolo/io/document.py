"""A document that is written piece by piece and appears whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ovyolo.errors import OvyoloError
from ovyolo.io.output import Lines, temporary, writing

__all__ = ["Document"]


class Document:
    """Bytes into a file that appears when it is closed, or to standard output for ``-``.

    When a step fails, nothing half-written remains, and what was there before stays.

    Raises:
        OvyoloError: when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._target: Path | None = None
        self._part: Path | None = None
        self._lines: Lines | None = None
        self.path: Path | None
        text = os.fspath(path)
        with writing(path):
            target = Path(os.path.realpath(text))
            if target.is_dir():
                raise OvyoloError(f"{path} is a folder: name a file in it")
            if text == "-" or (target.exists() and not target.is_file()):  # never rename over a device or a pipe
                self._out: Any = io.BytesIO()
                self._lines = Lines(path)
                self.path = self._lines.path
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path, self._target, self._part = Path(path), target, temporary(target.parent)
            self._out = self._part.open("xb")

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        if self._out.closed:
            raise OvyoloError("the JSON document is closed: no more can be written to it")
        self._guarded(lambda: self._out.write(data))

    def close(self, end: bytes) -> None:
        """Append ``end`` and let the file appear. The second call does nothing."""
        if not self._out.closed:
            self._guarded(lambda: self._finish(end))

    def abort(self) -> None:
        """Throw away what was written."""
        with suppress(OSError):  # what could not be written is thrown away just below
            self._out.close()
        if self._part is not None:
            with writing(self._part):
                self._part.unlink(missing_ok=True)

    def _finish(self, end: bytes) -> None:
        self._out.write(end)
        if self._lines is not None:
            self._lines.write(self._out.getvalue())
            self._lines.close()
        self._out.close()
        if self._part is not None and self._target is not None:
            os.replace(self._part, self._target)

    def _guarded(self, action: Callable[[], Any]) -> None:
        """Run a step of writing; when it fails, nothing half-written remains."""
        try:
            with writing(self._target or "standard output"):
                action()
        except OvyoloError:
            self.abort()
            raise
