"""How a picture is cut into tiles, as a user says it."""

from __future__ import annotations

import math
import operator
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.errors import DimensionError, OvyoloWarning

__all__ = ["MERGES", "TileSettings"]

MERGES = ("nms", "nmm", "wbf", "soft")
# shrinking a picture by less than this costs fewer small objects than its seams would cost time
SHRUNK_LITTLE = 1.5


@dataclass(frozen=True)
class TileSettings:
    """How a picture is cut into tiles and what they found is merged.

    Args:
        tile: side of a tile in pixels of the picture, one number or ``(height, width)``, rounded up to the model's
            largest stride, with a warning. What is larger than the picture is cut to it. ``"auto"``: tiles of the
            model's input size, unless the whole picture needs shrinking by less than 1.5 to fit: then it is one tile.
        overlap: how much of a tile its neighbour sees again, 0 to below 1 of its side.
        full: look at the whole picture, shrunk, as well, for objects that fit in no tile.
        roi: the part of the picture that matters, in its pixels: ``(x1, y1, x2, y2)``, or a polygon of three or more
            ``(x, y)``; boxes with their centre outside are left out.
        merge: how whole boxes of several tiles become one: ``"nms"``, ``"nmm"``, ``"wbf"`` or ``"soft"``; see
            :func:`ovyolo._nms.merge`.
        skip_flat: pass over tiles whose 4x4-pixel means differ by less than this many grey levels; 0: none.

    Raises:
        DimensionError: an argument is out of range.

    Example:
        >>> TileSettings(640, overlap=0.25, full=True).tile
        (640, 640)
    """

    tile: Any = "auto"
    overlap: float = 0.2
    full: bool = False
    roi: Any = None
    merge: str = "nms"
    skip_flat: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", _size(self.tile))
        if self.roi is not None:
            object.__setattr__(self, "roi", _region(self.roi))
        if not isinstance(self.overlap, (int, float)) or not 0 <= self.overlap < 1:
            raise DimensionError(f"overlap is {self.overlap}; it takes a number from 0 to below 1, such as 0.2")
        if self.merge not in MERGES:
            raise DimensionError(f"merge is {self.merge!r}; it takes one of {', '.join(MERGES)}")
        if not isinstance(self.skip_flat, (int, float)) or not 0 <= self.skip_flat <= 255:
            raise DimensionError(f"skip_flat is {self.skip_flat}; it takes grey levels, 0 to 255")

    def fitted(self, card: Card) -> TileSettings:
        """The same with the tile's sides rounded up to the model's largest stride; a warning says so."""
        if self.tile == "auto":
            return self
        stride = max(card.head.strides, default=32)
        height, width = (math.ceil(side / stride) * stride for side in self.tile)
        if (height, width) != self.tile:
            warnings.warn(
                f"tile {self.tile[0]}x{self.tile[1]} was rounded up to {height}x{width}: "
                f"the model's largest stride is {stride} pixels",
                OvyoloWarning,
                stacklevel=3,
            )
        return replace(self, tile=(height, width))

    def tile_for(self, size: tuple[int, int], imgsz: tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` of a tile for a picture of ``size`` and a network of ``imgsz``."""
        tile = self.tile
        if tile == "auto":
            shrunk = max(size[0] / imgsz[0], size[1] / imgsz[1])
            tile = size if shrunk < SHRUNK_LITTLE else imgsz
        return min(tile[0], size[0]), min(tile[1], size[1])


def _size(tile: Any) -> tuple[int, int] | str:
    if isinstance(tile, str):
        if tile == "auto":
            return tile
        raise DimensionError(f"tile is {tile!r}; it takes pixels, one number or (height, width), or 'auto'")
    sides = list(tile) if isinstance(tile, (list, tuple, np.ndarray)) else [tile]
    try:
        numbers = [operator.index(side) for side in sides]
    except TypeError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise DimensionError(f"tile is {tile}; it takes pixels from 1 on, one number or (height, width), or 'auto'")
    return numbers[0], numbers[-1]


def _region(roi: Any) -> tuple[tuple[float, float], ...]:
    """A rectangle or polygon as the corners of a polygon."""
    try:
        points: NDArray[np.float64] = np.asarray(roi, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.shape == (4,):
        x1, y1, x2, y2 = points.tolist()
        if not (x1 < x2 and y1 < y2):
            raise DimensionError(f"roi is {points.tolist()}; a rectangle takes x1, y1, x2, y2 with x1 < x2 and y1 < y2")
        points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise DimensionError(
            f"roi is {str(roi)[:80]}; it takes a rectangle x1, y1, x2, y2, or three or more points (x, y), in pixels"
        )
    return tuple((float(x), float(y)) for x, y in points)
