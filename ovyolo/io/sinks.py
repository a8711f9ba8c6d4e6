"""Where results go: JSON, JSON Lines, CSV, YOLO text, annotated pictures and videos, the screen; or several at once."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ovyolo.detections import Detections
from ovyolo.errors import DimensionError, OvyoloError
from ovyolo.io.coco_sink import CocoSink
from ovyolo.io.document import Document
from ovyolo.io.frame import Frame
from ovyolo.io.output import BaseSink, Lines, Names, make_folder, replacing, stem_of
from ovyolo.io.picture_sinks import PictureSink, ShowSink

__all__ = [
    "CallbackSink",
    "CocoSink",
    "CsvSink",
    "JsonLinesSink",
    "JsonSink",
    "MultiSink",
    "PictureSink",
    "ShowSink",
    "Sink",
    "TxtSink",
]


class Sink(Protocol):
    """Takes frames with what was found in them, until it is closed."""

    def write(self, frame: Frame, detections: Detections) -> None:
        """Take one frame and what was found in it."""

    def close(self) -> None:
        """Finish what was begun."""


class JsonSink(BaseSink):
    """One JSON document: a list with an object a frame.

    An object holds ``source``, ``index``, ``timestamp`` (seconds), ``width`` and ``height`` of the picture in pixels,
    ``truncated``, and ``boxes`` as :meth:`~ovyolo.Detections.to_dicts` makes them; the first one after the loss of a
    live source also ``gap``, the seconds missing. The file appears whole when the sink is closed; after an exception
    in a ``with`` block nothing is left behind.

    Args:
        path: the file, or ``-`` for standard output. Folders above it are made.

    Raises:
        OvyoloError: when it cannot be written.

    Example:
        >>> import json, pathlib, tempfile, numpy as np
        >>> from ovyolo import Detections
        >>> from ovyolo.io import Frame
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "found.json"
        >>> with JsonSink(path) as sink:
        ...     sink.write(Frame(np.zeros((4, 6, 3), np.uint8), "a.png"), Detections.empty())
        >>> json.loads(path.read_text())[0]["width"]
        6
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._document = Document(path)
        self._count = 0
        self.path = self._document.path

    def write(self, frame: Frame, detections: Detections) -> None:
        self._document.write((b",\n" if self._count else b"[\n") + _json(frame, detections))
        self._count += 1

    def close(self) -> None:
        self._document.close(b"\n]\n" if self._count else b"[]\n")

    def abort(self) -> None:
        self._document.abort()


class JsonLinesSink(BaseSink):
    """JSON Lines: an object a line and frame, with the keys of :class:`JsonSink`, handed over at once.

    After a crash the file is whole up to its last line.

    Args:
        path: the file, or ``-`` for standard output. Folders above it are made.

    Raises:
        OvyoloError: when it cannot be written (disk full, reader gone, …).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lines = Lines(path)
        self.path = self._lines.path

    def write(self, frame: Frame, detections: Detections) -> None:
        self._lines.write(_json(frame, detections) + b"\n")

    def close(self) -> None:
        self._lines.close()


class CsvSink(BaseSink):
    """CSV (RFC 4180, but LF at line ends): a header, then a row a box, handed over after each frame.

    Columns: ``source, index, timestamp, class_id, name, confidence, x1, y1, x2, y2``; boxes in pixels of the picture.
    A frame in which nothing was found has no row.

    Args:
        path: the file, or ``-`` for standard output. Folders above it are made.

    Raises:
        OvyoloError: when it cannot be written (disk full, reader gone, …).
    """

    HEADER = ("source", "index", "timestamp", "class_id", "name", "confidence", "x1", "y1", "x2", "y2")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lines = Lines(path)
        self.path = self._lines.path
        self._rows([self.HEADER])

    def write(self, frame: Frame, detections: Detections) -> None:
        start = (frame.source, frame.index, round(frame.timestamp, 6))
        boxes = detections.to_dicts()
        if boxes:
            self._rows([(*start, b["class_id"], b["name"], b["confidence"], *b["xyxy"]) for b in boxes])

    def close(self) -> None:
        self._lines.close()

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        lines = []
        for row in rows:
            text = io.StringIO(newline="")
            csv.writer(text).writerow(row)  # with its own line end, CR LF, it quotes values that hold a CR or an LF
            lines.append(text.getvalue().removesuffix("\r\n") + "\n")
        self._lines.write(_bytes("".join(lines)))


class TxtSink(BaseSink):
    """YOLO text files: one a picture, a line ``class cx cy w h confidence`` a box, as fractions of the picture.

    ``a.jpg`` becomes ``a.txt``, empty when nothing was found; frame 123 of ``b.mp4`` becomes ``b_000123.txt``. A second
    source of the same name gets ``-2``. Files of earlier runs are replaced.

    Args:
        folder: made where it is missing.

    Raises:
        OvyoloError: when it cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path: Path = make_folder(folder)
        self._names = Names()
        self._series: dict[str, tuple[str, int]] = {}

    def write(self, frame: Frame, detections: Detections) -> None:
        if detections.image_shape is None:
            detections = replace(detections, image_shape=(frame.image.shape[0], frame.image.shape[1]))
        lines = [
            f"{class_id} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f} {confidence:.6f}\n"
            for (_, confidence, class_id), (cx, cy, w, h) in zip(detections, detections.cxcywhn, strict=True)
        ]
        with replacing(self.path / f"{self._stem(frame)}.txt") as part:
            part.write_bytes("".join(lines).encode("ascii"))

    def _stem(self, frame: Frame) -> str:
        if not frame.video:
            return self._names.claim(stem_of(frame), ".txt")
        stem, last = self._series.get(frame.source, ("", frame.index))
        if frame.index <= last:  # the video is new, or is read a second time
            stem = self._names.claim(stem_of(frame), ".txt", numbered=True)
        self._series[frame.source] = (stem, frame.index)
        return f"{stem}_{frame.index:06d}"


class CallbackSink(BaseSink):
    """Calls a function with each frame and its detections. ``stopped`` turns True when it returns False.

    Args:
        function: takes a Frame and Detections. What it raises goes to the caller, who closes all sinks.

    Example:
        >>> import numpy as np
        >>> from ovyolo import Detections
        >>> from ovyolo.io import Frame
        >>> sink = CallbackSink(lambda frame, found: print(frame.source, len(found)))
        >>> sink.write(Frame(np.zeros((4, 6, 3), np.uint8), "a.png"), Detections.empty())
        a.png 0
    """

    def __init__(self, function: Callable[[Frame, Detections], Any]) -> None:
        self._function = function

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._function(frame, detections) is False:
            self.stopped = True


class MultiSink(BaseSink):
    """Several sinks as one. Each is served and each is closed, even where another fails.

    Raises:
        OvyoloError: with all that failed, after the others were served.

    Example:
        >>> with MultiSink() as sinks:
        ...     sinks.stopped
        False
    """

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        """Whether the user ended one of them."""
        return any(getattr(sink, "stopped", False) for sink in self.sinks)

    def write(self, frame: Frame, detections: Detections) -> None:
        self._each(lambda sink: sink.write(frame, detections))

    def close(self) -> None:
        self._each(lambda sink: sink.close())

    def abort(self) -> None:
        self._each(lambda sink: sink.abort() if isinstance(sink, BaseSink) else sink.close())

    def _each(self, action: Callable[[Sink], None]) -> None:
        failures: list[Exception] = []
        for sink in self.sinks:
            try:
                action(sink)
            except Exception as error:  # raised below, after the others
                failures.append(error)
        if len(failures) == 1 or any(not isinstance(f, OvyoloError) for f in failures):
            raise next((f for f in failures if not isinstance(f, OvyoloError)), failures[0])
        if failures:
            raise OvyoloError("; ".join(str(f) for f in failures)) from failures[0]


def _json(frame: Frame, detections: Detections) -> bytes:
    height, width = frame.image.shape[:2]
    gap = {"gap": round(frame.gap, 3)} if frame.gap else {}
    found = {
        "source": frame.source,
        "index": frame.index,
        "timestamp": round(frame.timestamp, 6),
        **gap,
        "width": width,
        "height": height,
        "truncated": detections.truncated,
        "boxes": detections.to_dicts(),
    }
    try:
        return _bytes(json.dumps(found, ensure_ascii=False, allow_nan=False))
    except ValueError as error:
        raise DimensionError(
            f"{frame.source}: a box or confidence is not a finite number, which JSON cannot hold: check the model"
        ) from error


def _bytes(text: str) -> bytes:
    """UTF-8. Bytes of a file name that are no UTF-8 appear as ``\\udc80`` and the like, in JSON a valid escape."""
    return text.encode("utf-8", "backslashreplace")
