"""COCO JSON: what annotation tools and evaluation scripts open."""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import suppress
from typing import Any

from ovyolo.detections import Detections
from ovyolo.errors import DimensionError
from ovyolo.io.document import Document
from ovyolo.io.frame import Frame
from ovyolo.io.output import BaseSink, writing

__all__ = ["CocoSink"]

SPILL = 1 << 20  # bytes of the list of pictures that are kept in memory


class CocoSink(BaseSink):
    """One COCO document: ``images``, ``annotations`` (with ``score``) and ``categories``, numbered from 1.

    ``bbox`` is ``[x, y, width, height]`` in pixels of the picture, ``area`` its product, ``iscrowd`` 0. ``file_name``
    is the picture's name, for a frame of a video or camera its source with ``#`` and its number. Category ids are class
    numbers plus 1. The file appears whole when the sink is closed; after an exception in a ``with`` block nothing is
    left behind.

    Args:
        path: the file, or ``-`` for standard output. Folders above it are made.

    Raises:
        OvyoloError: when it cannot be written.

    Example:
        >>> import json, pathlib, tempfile, numpy as np
        >>> from ovyolo.io import Frame
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "coco.json"
        >>> with CocoSink(path) as sink:
        ...     found = Detections.from_arrays([[10, 20, 50, 80]], [0.9], [0], names=["open"])
        ...     sink.write(Frame(np.zeros((90, 90, 3), np.uint8), "a.png"), found)
        >>> json.loads(path.read_text())["annotations"][0]["bbox"]
        [10.0, 20.0, 40.0, 60.0]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._document = Document(path)
        self.path = self._document.path
        # annotations go to the document at once, pictures come after them: both may be many
        self._images: Any = tempfile.SpooledTemporaryFile(SPILL)  # noqa: SIM115
        self._pictures = self._boxes = 0
        self._names: tuple[str, ...] = ()
        self._most = -1

    def write(self, frame: Frame, detections: Detections) -> None:
        self._pictures += 1
        height, width = frame.image.shape[:2]
        name = f"{frame.source}#{frame.index}" if frame.video else frame.path.name if frame.path else frame.source
        image = {"id": self._pictures, "file_name": name, "width": width, "height": height}
        self._names = detections.names or self._names
        rows = []
        for (_, confidence, class_id), xywh in zip(detections, detections.xywh.tolist(), strict=True):
            if not all(math.isfinite(value) for value in (confidence, *xywh)):
                raise DimensionError(
                    f"{frame.source}: a box or score is not a finite number, which JSON cannot hold: check the model"
                )
            self._most = max(self._most, class_id)
            self._boxes += 1
            bbox = [round(value, 3) for value in xywh]
            rows.append(
                {
                    "id": self._boxes, "image_id": self._pictures, "category_id": class_id + 1, "bbox": bbox,
                    "area": round(bbox[2] * bbox[3], 3), "iscrowd": 0, "score": round(confidence, 5),
                }
            )  # fmt: skip
        before = self._boxes - len(rows)
        data = b"".join((b",\n" if before + i else b'{"annotations": [\n') + _bytes(row) for i, row in enumerate(rows))
        if data:
            self._document.write(data)
        with writing("the list of pictures"):
            self._images.write((b",\n" if self._pictures > 1 else b"\n") + _bytes(image))

    def close(self) -> None:
        if self._images.closed:
            return
        named = [*self._names, *(str(i) for i in range(len(self._names), self._most + 1))]
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(named)]
        with writing("the list of pictures"):
            self._images.seek(0)
            images = self._images.read()
        start = b"" if self._boxes else b'{"annotations": ['
        end = start + b'\n],\n"images": [' + images + b'\n],\n"categories": ' + _bytes(categories) + b"}\n"
        self._images.close()
        self._document.close(end)

    def abort(self) -> None:
        with suppress(OSError):
            self._images.close()
        self._document.abort()


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
