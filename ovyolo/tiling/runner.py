"""Tiles through the network: views of the frame, letterboxed straight into the slots of a session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.detections import Detections
from ovyolo.errors import ModelError
from ovyolo.letterbox import Letterbox
from ovyolo.runtime import Session
from ovyolo.tiling.merging import View, merge_views
from ovyolo.tiling.plan import Plan, plan_tiles
from ovyolo.tiling.settings import TileSettings

__all__ = ["TiledFrames", "Tiler"]

Image = NDArray[np.uint8]
Decode = Callable[[Sequence[Any], Letterbox], Detections]
Box = tuple[int, int, int, int]
FLAT_CELL = 4  # pixels over which noise is averaged before a tile is called flat


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
        self._decode = decode
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
        plan = self.plan((image.shape[0], image.shape[1]))
        boxes: list[Box] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in plan.tiles.tolist()]
        if self.settings.skip_flat:
            boxes = [box for box in boxes if not self._is_flat(image[box[1] : box[3], box[0] : box[2]])]
        tiles = len(boxes)
        if plan.full:
            boxes.append(plan.region)
        found = self._computed(image, boxes, session, timeout)
        if not found:
            return Detections.empty(self.card.names, plan.size)
        if plan.plain:
            return found[0]
        imgsz = self.card.imgsz
        views = [
            View(box, one, Letterbox((box[3] - box[1], box[2] - box[0]), imgsz).gain, number < tiles)
            for number, (box, one) in enumerate(zip(boxes, found, strict=True))
        ]
        return merge_views(views, plan, **self._merging)

    def _computed(self, image: Image, boxes: list[Box], session: Session, timeout: float | None) -> list[Detections]:
        """What was found in each part of the picture, in its own pixels."""
        found: list[Detections] = []
        free = deque(range(session.slots))
        under_way: deque[tuple[int, list[Letterbox]]] = deque()
        batch = session.input_shape[0]

        def collect() -> None:
            slot, fits = under_way[0]
            outputs = session.wait(slot, timeout)
            under_way.popleft()
            for place, fit in enumerate(fits):
                found.append(self._decode([output[place : place + 1] for output in outputs], fit))
            free.append(slot)

        try:
            for begin in range(0, len(boxes), batch):
                if not free:
                    collect()
                slot = free.popleft()
                target, fits = session.input(slot), []
                for place, (x1, y1, x2, y2) in enumerate(boxes[begin : begin + batch]):
                    fit = Letterbox((y2 - y1, x2 - x1), self.card.imgsz)
                    fit.into(image[y1:y2, x1:x2], target[place])
                    fits.append(fit)
                session.submit(slot)
                under_way.append((slot, fits))
            while under_way:
                collect()
        finally:
            # a slot that is left computing would read and write what the next picture puts there
            for slot, _ in under_way:
                with suppress(ModelError):
                    session.wait(slot, timeout)
        return found

    def _is_flat(self, view: Image) -> bool:
        """Whether a tile has nothing in it: the means of its cells are all about the same grey."""
        import cv2

        height, width = view.shape[:2]
        size = max(1, width // FLAT_CELL), max(1, height // FLAT_CELL)
        small = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.int16)
        spread = small.max(axis=(0, 1)) - small.min(axis=(0, 1))
        return bool(spread.max() < self.settings.skip_flat)


class TiledFrames:
    """A :class:`~ovyolo.runtime.Session` whose pictures are whole frames: what a stream needs to cut them into tiles.

    ``hold`` takes the place of writing into a slot's input. The tiles of a frame are computed side by side when its
    turn comes to be waited for, frames one after the other.

    Args:
        tiler: cuts, computes and merges.
        session: computes tiles; closed with this one.
        slots: how many frames can wait.
    """

    def __init__(self, tiler: Tiler, session: Session, slots: int) -> None:
        self._tiler, self._session = tiler, session
        self.input_shape = session.input_shape
        self.device = session.device
        self.slots = slots
        self._blank = np.zeros(self.input_shape, np.uint8)
        self._frames: dict[int, Image] = {}
        self._broken: ModelError | None = None

    def hold(self, slot: int, image: Image) -> Letterbox:
        """Take the slot's frame; where it lies in the network's input as a whole (nobody's concern here)."""
        self._frames[slot] = image
        return Letterbox((image.shape[0], image.shape[1]), self._tiler.card.imgsz)

    def input(self, slot: int) -> Image:
        """A picture of the network's own size, for who has no frame."""
        return self._blank

    def submit(self, slot: int) -> None:
        """See :class:`~ovyolo.runtime.Session`; nothing computes before it is waited for."""
        self._frames.setdefault(slot, self._blank[0])

    def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
        """The slot's one output: its :class:`~ovyolo.Detections`. ``timeout`` is for one tile.

        Raises:
            ModelError: when a tile was not computed within ``timeout`` seconds, or the device failed.
        """
        if self._broken is not None:  # a tile may still compute: nothing more is begun
            raise self._broken
        image = self._frames.pop(slot, None)
        if image is None:
            return []
        try:
            return [self._tiler(image, self._session, timeout)]
        except ModelError as error:
            self._broken = error
            raise

    def close(self) -> None:
        """See :class:`~ovyolo.runtime.Session`."""
        self._frames.clear()
        self._session.close()
