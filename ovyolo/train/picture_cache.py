"""Labelled pictures scaled to fit the network's input, read once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovyolo.dataset import DataSet
from ovyolo.errors import DataError, DimensionError, OvyoloWarning
from ovyolo.export.cached import cache_folder
from ovyolo.io.images import read_image
from ovyolo.letterbox import Letterbox
from ovyolo.train.geometry import Image, Picture, area, clipped

__all__ = ["CACHES", "PictureCache"]

CACHES = ("ram", "disk", "none")
BUDGET = 4 * 2**30


class PictureCache:
    """The pictures of a data set as the network sees them, but without the grey around them; safe to use from threads.

    What comes out is the same whatever is cached. Objects in crowds are left out: a crowd's box is none to learn.

    Args:
        dataset: the pictures; their labels must be those of the files on disk.
        imgsz: ``(height, width)`` to fit into, as :mod:`ovyolo.letterbox` does.
        cache: ``"ram"`` keeps pictures in memory as long as they fit ``budget``, and reads the others anew each time;
            ``"disk"`` keeps them as ``.npy`` files in ``folder`` for later runs, too; ``"none"`` reads each time.
        budget: bytes of memory; by default 4 GiB or half of the machine's memory, whichever is less.
        folder: where ``"disk"`` writes; by default ``pictures`` in the user's cache folder for ovyolo.

    Raises:
        DimensionError: ``cache`` or ``budget`` is none of these.
    """

    def __init__(
        self,
        dataset: DataSet,
        imgsz: tuple[int, int],
        cache: str = "ram",
        *,
        budget: int | None = None,
        folder: Path | None = None,
    ) -> None:
        if cache not in CACHES:
            raise DimensionError(f"cache is {cache!r}; it takes one of {', '.join(CACHES)}")
        if budget is not None and budget < 0:
            raise DimensionError(f"the cache's budget is {budget}; it takes bytes, from 0")
        self.dataset, self.imgsz, self.cache = dataset, imgsz, cache
        self.folder = folder or cache_folder() / "pictures"
        self.budget = default_budget() if budget is None else budget
        self.used = 0
        """Bytes that are kept in memory."""
        self._kept: dict[int, Image] = {}
        self._lock = threading.Lock()
        self._writes = cache == "disk"

    def __len__(self) -> int:
        return len(self.dataset)

    def __call__(self, index: int) -> Picture:
        """Picture ``index``; its image must not be changed.

        Raises:
            ImageError: the file cannot be read.
            DataError: it is not of the size that the labels are for.
        """
        item = self.dataset.items[index]
        fit = Letterbox(item.size, self.imgsz)
        height, width = fit.resized
        # by the sizes in whole pixels, where the pixels really come to lie
        scale = np.array([width / item.size[1], height / item.size[0]] * 2)
        boxes = clipped((item.boxes[~item.crowd] * scale).astype(np.float32), 0, 0, width, height)
        there = area(boxes) > 0
        return Picture(self._image(index, fit), boxes[there], item.class_id[~item.crowd][there].astype(np.int64))

    def _image(self, index: int, fit: Letterbox) -> Image:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = self._from_disk(index, fit) if self.cache == "disk" else self._read(index, fit)
        image.setflags(write=False)
        if self.cache == "ram":
            with self._lock:
                if index not in self._kept and self.used + image.nbytes <= self.budget:
                    self._kept[index] = image
                    self.used += image.nbytes
        return image

    def _read(self, index: int, fit: Letterbox) -> Image:
        """The picture from its file, scaled."""
        path = self.dataset.items[index].path
        image = read_image(path)
        if image.shape[:2] != fit.source:
            raise DataError(
                f"{path} is now {image.shape[1]}x{image.shape[0]} pixels, but was {fit.source[1]}x{fit.source[0]} when "
                "its labels were read: leave the data alone while training"
            )
        if fit.resized == fit.source:
            return image
        scaled: Any = cv2.resize(image, (fit.resized[1], fit.resized[0]), interpolation=cv2.INTER_LINEAR)
        return scaled

    def _from_disk(self, index: int, fit: Letterbox) -> Image:
        """The scaled picture from its ``.npy``, which is written first where it is missing, damaged, or of another
        state of the picture's file."""
        path = self.dataset.items[index].path
        try:
            state = path.stat()
        except OSError:
            return self._read(index, fit)  # says what is wrong
        # another OpenCV may decode and scale otherwise
        key = f"{path.absolute()} {state.st_size} {state.st_mtime_ns} {fit.resized} {cv2.__version__}"
        place = self.folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npy"
        try:
            image: Image = np.load(place, allow_pickle=False)
            if image.shape == (*fit.resized, 3) and image.dtype == np.uint8:
                return image
        except (OSError, ValueError, EOFError, MemoryError):
            pass  # it is made anew
        image = self._read(index, fit)
        if self._writes:
            self._write(place, image)
        return image

    def _write(self, place: Path, image: Image) -> None:
        """Write whole or not at all; after the first failure (a full disk) no more is tried."""
        part = place.with_name(f"{place.stem}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, image)
            os.replace(part, place)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            with self._lock:
                told, self._writes = not self._writes, False
            if not told and not place.exists():
                warnings.warn(
                    f"{place.parent} takes no more cached pictures ({error.strerror or error}): those that are missing "
                    "there are read anew each time",
                    OvyoloWarning,
                    stacklevel=2,
                )


def default_budget() -> int:
    """4 GiB, or half of the machine's memory where that is less (where the system does not say, 4 GiB)."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return BUDGET
    return min(BUDGET, memory // 2) if memory > 0 else BUDGET
