"""Tiles through the network: views of the frame, letterboxed straight into the slots of a session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.detections import Detections
from ovyolo.errors import ModelError
from ovyolo.letterbox import Letterbox, fitting
from ovyolo.runtime import Session
from ovyolo.tiling.merging import View, merge_views
from ovyolo.tiling.plan import Plan, plan_tiles
from ovyolo.tiling.settings import TileSettings

__all__ = ["Belt", "TiledPicture", "Tiler"]

Image = NDArray[np.uint8]
Decode = Callable[[Sequence[Any], Letterbox], Detections]
Box = tuple[int, int, int, int]
FLAT_CELL = 4  # pixels over which noise is averaged before a tile is called flat


@dataclass(eq=False)
class TiledPicture:
    """A picture, what of it the network is to look at, and what was found in that so far.

    Args:
        image: u8 BGR ``(h, w, 3)``; it must not change until all parts are done.
        plan: where its tiles lie.
        parts: boxes of what is looked at, in its pixels: tiles, then the whole region, if that is wanted.
        tiles: how many of the parts are tiles.
        found: in each part that is done, in the order of ``parts``, in pixels of the part.
    """

    image: Image
    plan: Plan
    parts: list[Box]
    tiles: int
    found: list[Detections] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether all parts were looked at."""
        return len(self.found) == len(self.parts)


class Tiler:
    """Finds objects in pictures, tile by tile.

    No tile is copied but into the network's input, and no more tiles are under way than the session has slots, so
    memory does not grow with the picture.

    Args:
        card: what the network is.
        settings: how pictures are cut.
        decode: raw outputs into boxes of a tile.
        iou, agnostic, max_det: for merging; see :func:`~ovyolo.tiling.merge_views`.
    """

    def __init__(
        self, card: Card, settings: TileSettings, decode: Decode, *, iou: float, agnostic: bool, max_det: int
    ) -> None:
        self.card = card
        self.settings = settings.fitted(card)
        self.decode = decode
        self._merging: dict[str, Any] = {
            "iou": iou, "agnostic": agnostic, "max_det": max_det, "how": self.settings.merge
        }  # fmt: skip

    def plan(self, size: tuple[int, int]) -> Plan:
        """The tiles of a picture of ``size``, ``(height, width)``.

        Raises:
            DimensionError: the region of interest lies outside the picture.
        """
        return plan_tiles(size, self.settings, self.card.imgsz)

    def __call__(self, image: Image, session: Session, timeout: float | None = None) -> Detections:
        """Find objects in a picture, all slots of ``session`` being free; they are free again afterwards.

        Args:
            image: u8 BGR ``(h, w, 3)``; it must not change meanwhile.
            session: computes.
            timeout: seconds that one inference may take.

        Raises:
            ModelError: the device failed.
            DimensionError: the region of interest lies outside the picture.
        """
        picture = self.cut(image)
        belt = Belt(self, session, timeout)
        try:
            for _ in belt.feed(picture):
                pass
            while belt.under_way:
                belt.collect()
        finally:
            belt.clear()
        return self.merged(picture)

    def cut(self, image: Image) -> TiledPicture:
        """The picture with the parts that the network is to look at; nothing computes yet.

        Raises:
            DimensionError: the region of interest lies outside the picture.
        """
        plan = self.plan((image.shape[0], image.shape[1]))
        parts: list[Box] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in plan.tiles.tolist()]
        if self.settings.skip_flat:
            parts = [box for box in parts if not self._is_flat(image[box[1] : box[3], box[0] : box[2]])]
        tiles = len(parts)
        return TiledPicture(image, plan, [*parts, plan.region] if plan.full else parts, tiles)

    def uncut(self, image: Image) -> TiledPicture:
        """The whole picture as one part, whatever the settings say."""
        height, width = image.shape[:2]
        whole = (0, 0, width, height)
        return TiledPicture(image, Plan((height, width), whole, np.array([whole], np.int64), False, ()), [whole], 1)

    def merged(self, picture: TiledPicture) -> Detections:
        """The boxes of a picture all of whose parts are done."""
        if not picture.found:
            return Detections.empty(self.card.names, picture.plan.size)
        if picture.plan.plain:
            return picture.found[0]
        views = [
            View(box, one, fitting(_size(box), self.card.imgsz).gain, number < picture.tiles)
            for number, (box, one) in enumerate(zip(picture.parts, picture.found, strict=True))
        ]
        return merge_views(views, picture.plan, **self._merging)

    def _is_flat(self, view: Image) -> bool:
        """Whether a tile has nothing in it: the means of its cells are all about the same grey."""
        import cv2

        height, width = view.shape[:2]
        size = max(1, width // FLAT_CELL), max(1, height // FLAT_CELL)
        small = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.int16)
        spread = small.max(axis=(0, 1)) - small.min(axis=(0, 1))
        return bool(spread.max() < self.settings.skip_flat)


class Belt:
    """Tiles through the slots of a session, those of the next picture right behind those of the last.

    Args:
        tiler: cuts and decodes.
        session: computes; all its slots are free.
        timeout: seconds that one inference may take.
    """

    def __init__(self, tiler: Tiler, session: Session, timeout: float | None) -> None:
        self._tiler, self._session, self._timeout = tiler, session, timeout
        self._free = deque(range(session.slots))
        self._under_way: deque[tuple[int, list[Letterbox], TiledPicture]] = deque()

    @property
    def under_way(self) -> bool:
        """Whether anything computes."""
        return bool(self._under_way)

    def feed(self, picture: TiledPicture) -> Iterator[TiledPicture]:
        """Begin with all parts of a picture; each time that one had to be waited for, the picture that it was of.

        Raises:
            ModelError: the device failed.
        """
        imgsz, batch = self._tiler.card.imgsz, self._session.input_shape[0]
        for begin in range(0, len(picture.parts), batch):
            if not self._free:
                yield self.collect()
            slot = self._free.popleft()
            target, fits = self._session.input(slot), []
            for place, box in enumerate(picture.parts[begin : begin + batch]):
                x1, y1, x2, y2 = box
                fit = fitting(_size(box), imgsz)
                fit.into(picture.image[y1:y2, x1:x2], target[place])
                fits.append(fit)
            self._session.submit(slot)
            self._under_way.append((slot, fits, picture))

    def collect(self) -> TiledPicture:
        """Wait for what was begun first; the picture that it was of.

        Raises:
            ModelError: nothing came in time, or the device failed.
        """
        slot, fits, picture = self._under_way[0]
        outputs = self._session.wait(slot, self._timeout)
        self._under_way.popleft()
        for place, fit in enumerate(fits):
            picture.found.append(self._tiler.decode([output[place : place + 1] for output in outputs], fit))
        self._free.append(slot)
        return picture

    def clear(self) -> None:
        """Wait for what is under way, and throw it away.

        A slot that is left computing would read and write what the next picture puts there.
        """
        while self._under_way:
            slot = self._under_way.popleft()[0]
            with suppress(ModelError):
                self._session.wait(slot, self._timeout)
            self._free.append(slot)


def _size(box: Box) -> tuple[int, int]:
    """``(height, width)``."""
    return box[3] - box[1], box[2] - box[0]
