"""Where the tiles of a picture lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError
from ovyolo.tiling.settings import TileSettings

__all__ = ["Plan", "plan_tiles"]

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """The tiles of a picture. Boxes are x1, y1, x2, y2 in pixels of the picture.

    Args:
        size: ``(height, width)`` of the picture.
        region: what the tiles cover: the picture, or the part of it that matters.
        tiles: int64 ``(n, 4)``: all of one size, from top left to bottom right.
        full: whether the whole region is looked at as well.
        polygon: boxes with their centre outside are left out; empty: all stay.
    """

    size: tuple[int, int]
    region: tuple[int, int, int, int]
    tiles: NDArray[np.int64]
    full: bool
    polygon: Points = ()

    @property
    def plain(self) -> bool:
        """Whether this is nothing but the picture as a whole."""
        return (
            len(self.tiles) == 1 and not self.polygon and self.tiles[0].tolist() == [0, 0, self.size[1], self.size[0]]
        )

    @property
    def views(self) -> int:
        """How often the network computes."""
        return len(self.tiles) + self.full

    def holds(self, xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which boxes lie whole in some tile: bool ``(n,)``."""
        inside = np.ones(len(xyxy), np.bool_)
        for axis in (0, 1):
            begins = np.unique(self.tiles[:, axis])
            side = self.tiles[0, 2 + axis] - self.tiles[0, axis]
            last = begins[np.maximum(np.searchsorted(begins, xyxy[:, axis], side="right") - 1, 0)]
            inside &= xyxy[:, 2 + axis] <= last + side
        return inside

    def wanted(self, xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which boxes have their centre in the region that matters: bool ``(n,)``."""
        if not self.polygon:
            return np.ones(len(xyxy), np.bool_)
        centres = (xyxy[:, :2].astype(np.float64) + xyxy[:, 2:]) / 2
        return _inside(centres, self.polygon)


def plan_tiles(size: tuple[int, int], settings: TileSettings, imgsz: tuple[int, int]) -> Plan:
    """Cut a picture into tiles that are all full: the last of a row or column is shifted inwards.

    Args:
        size: ``(height, width)`` of the picture in pixels.
        settings: how.
        imgsz: ``(height, width)`` of the network's input in pixels.

    Raises:
        DimensionError: the region of interest lies outside the picture.

    Example:
        >>> plan = plan_tiles((640, 1280), TileSettings(640, overlap=0.2), (640, 640))
        >>> plan.tiles.tolist()
        [[0, 0, 640, 640], [512, 0, 1152, 640], [640, 0, 1280, 640]]
    """
    height, width = size
    left, top, right, bottom = 0, 0, width, height
    polygon: Points = ()
    if settings.roi is not None:
        seen = _cut(settings.roi, (0, 0, width, height))
        if _area(seen) <= 0:
            raise DimensionError(
                f"the region of interest {_some(settings.roi)} has no part in the picture of {width}x{height} pixels: "
                "give its corners in pixels of the picture"
            )
        xs, ys = [x for x, _ in seen], [y for _, y in seen]
        left, top, right, bottom = math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))
        if (left, top, right, bottom) != (0, 0, width, height) or not _is_rectangle(settings.roi):
            polygon = settings.roi
    tile = settings.tile_for((bottom - top, right - left), imgsz)
    rows = [top + y for y in _begins(bottom - top, tile[0], settings.overlap)]
    columns = [left + x for x in _begins(right - left, tile[1], settings.overlap)]
    tiles = [(x, y, x + tile[1], y + tile[0]) for y in rows for x in columns]
    if polygon:
        tiles = [one for one in tiles if _area(_cut(polygon, one)) > 0]
    many = len(rows) * len(columns) > 1
    return Plan(
        size, (left, top, right, bottom), np.array(tiles, np.int64).reshape(-1, 4), settings.full and many, polygon
    )


def _begins(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one side."""
    step = max(1, tile - int(overlap * tile))
    return [*range(0, length - tile, step), length - tile]


def _cut(polygon: Points, box: tuple[int, int, int, int]) -> Points:
    """The part of a polygon inside a box, corner by corner (Sutherland and Hodgman, 1974)."""
    for axis, limit, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        kept: list[tuple[float, float]] = []
        for here, there in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            a, b = sign * (here[axis] - limit), sign * (there[axis] - limit)
            if a >= 0:
                kept.append(here)
            if (a > 0 > b) or (a < 0 < b):
                share = a / (a - b)
                across = here[1 - axis] + share * (there[1 - axis] - here[1 - axis])
                kept.append((limit, across) if axis == 0 else (across, limit))
        polygon = tuple(kept)
        if not polygon:
            return ()
    return polygon


def _area(polygon: Points) -> float:
    """The area of a polygon, whichever way round."""
    following = polygon[1:] + polygon[:1]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, following, strict=True))) / 2


def _is_rectangle(polygon: Points) -> bool:
    xs, ys = {x for x, _ in polygon}, {y for _, y in polygon}
    return len(polygon) == 4 and len(xs) == len(ys) == 2 and _area(polygon) > 0


def _inside(points: NDArray[np.float64], polygon: Points) -> NDArray[np.bool_]:
    """Which points lie in a polygon: those whose ray to the right crosses its sides an odd number of times."""
    odd = np.zeros(len(points), np.bool_)
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if y1 != y2:
            crosses = (points[:, 1] < y1) != (points[:, 1] < y2)
            odd ^= crosses & (points[:, 0] < x1 + (points[:, 1] - y1) * (x2 - x1) / (y2 - y1))
    return odd


def _some(points: Points) -> str:
    shown = ", ".join(f"({x:g}, {y:g})" for x, y in points[:4])
    return shown + (", …" if len(points) > 4 else "")
