"""A drawing of copper in which places are found and pixels changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.camera import SCALE
from ovyolo.demo.masks import Mask, grown
from ovyolo.demo.raster import Drawing, inside

__all__ = ["LEAST", "Array", "Surface", "Window", "direction"]

Array = NDArray[Any]
Window = tuple[slice, slice]

LEAST, MOST = 6 * SCALE, 50 * SCALE  # sides of a defect's box, in drawing pixels
MARGIN = 6 * SCALE  # no defect lies nearer to the picture's border
ROOM = 8 * SCALE  # between the boxes of two defects
CORNERS = 14  # of an uneven blob
ROUND = np.array([(math.cos(i * 2 * math.pi / CORNERS), math.sin(i * 2 * math.pi / CORNERS)) for i in range(CORNERS)])


@dataclass
class Surface:
    """A drawing, and what was changed in it.

    Args:
        rng: source of chance.
        drawing: its ``nets`` are changed.
        avoid: u8, 255 where nothing may be changed (holes, silk screen).
        boxes: what was changed: (x0, y0, x1, y1) in drawing pixels, ends exclusive.
    """

    rng: np.random.Generator
    drawing: Drawing
    avoid: NDArray[np.uint8]
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def _anywhere(self) -> Array:
        height, width = self.drawing.nets.shape
        return self.rng.random(2) * (width, height)

    def _clear(self, radius: float) -> Array | None:
        """A point that seems to have no copper within ``radius``; None when none of those tried has."""
        height, width = self.drawing.nets.shape
        points = radius + self.rng.random((48, 2)) * (width - 2 * radius - 1, height - 2 * radius - 1)
        around = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7)]
        tested = np.rint(points[:, None] + np.array(around) * radius).astype(np.int64)
        found = np.flatnonzero(~self.drawing.nets[tested[..., 1], tested[..., 0]].any(1))
        return points[found[0]] if found.size else None

    def _track(self) -> tuple[Array, Array, float, int]:
        tracks = self.drawing.tracks
        return tracks[int(self.rng.integers(len(tracks)))]

    def _edge(self) -> tuple[Array, Array, float, int]:
        """A point on the border of a trace or pad, the way outward, how thick the copper is there, and its net."""
        if self.rng.random() < 0.8 or not self.drawing.outlines:
            a, b, width, net = self._track()
            along, length = direction(a, b)
            side = 1 if self.rng.random() < 0.5 else -1
            outward = np.array([-along[1], along[0]]) * side
            return a + along * (length * float(self.rng.random())) + outward * (width / 2), outward, width, net
        polygon, net = self.drawing.outlines[int(self.rng.integers(len(self.drawing.outlines)))]
        first = int(self.rng.integers(len(polygon)))
        point = (polygon[first] + polygon[(first + 1) % len(polygon)]) / 2
        outward, thick = direction(polygon.mean(0), point)
        return point, outward, thick, net

    def _along(self, start: Array, direction: Array, reach: Array) -> Array:
        """The nets along a ray; empty where it leaves the picture."""
        points = np.rint(start + direction * reach[:, None]).astype(np.int64)
        height, width = self.drawing.nets.shape
        if (points < 0).any() or (points >= (width, height)).any():
            return np.zeros(0, np.int16)
        return self.drawing.nets[points[:, 1], points[:, 0]]

    def _blob(self, centre: Array, radius: float, long: float, rough: float) -> Array:
        """An uneven closed curve around ``centre``, turned anyhow."""
        random = self.rng.random(CORNERS + 1)
        uneven = 1 + rough * (random[:-1] + np.roll(random[:-1], 1) - 1)
        x, y = ROUND[:, 0] * uneven * long, ROUND[:, 1] * uneven * radius
        turn = float(random[-1]) * math.pi
        c, s = math.cos(turn), math.sin(turn)
        return np.stack([centre[0] + x * c - y * s, centre[1] + x * s + y * c], 1)

    def _shape(self, polygon: Array) -> tuple[Window, Mask | None]:
        """The polygon as a mask, in a window with room around it; None where it does not fit or would meet another."""
        height, width = self.drawing.nets.shape
        x0, y0 = (int(v) for v in np.floor(polygon.min(0)))
        x1, y1 = (int(v) + 1 for v in np.ceil(polygon.max(0)))
        window = (slice(max(0, y0 - ROOM), y1 + ROOM), slice(max(0, x0 - ROOM), x1 + ROOM))
        if x0 < MARGIN or y0 < MARGIN or x1 > width - MARGIN or y1 > height - MARGIN:
            return window, None
        for left, top, right, bottom in self.boxes:
            if x0 - ROOM < right and left < x1 + ROOM and y0 - ROOM < bottom and top < y1 + ROOM:
                return window, None
        corner = (window[1].start, window[0].start)
        return window, inside(polygon - corner, min(height, y1 + ROOM) - corner[1], min(width, x1 + ROOM) - corner[0])

    def _touched(self, window: Window, shape: Mask, distance: int) -> set[int]:
        """The nets within ``distance`` of a shape."""
        return set(np.unique(self.drawing.nets[window][grown(shape, distance)]).tolist()) - {0}

    def _commit(self, window: Window, changed: Mask, net: int) -> bool:
        """Make it so, unless the changed pixels are too small or too large to be seen as a defect."""
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if rows.size == 0:
            return False
        x0, y0 = window[1].start + int(columns[0]), window[0].start + int(rows[0])
        x1, y1 = window[1].start + int(columns[-1]) + 1, window[0].start + int(rows[-1]) + 1
        sides = (x1 - x0, y1 - y0)
        if min(sides) < LEAST or max(sides) < 9 * SCALE or max(sides) > MOST:
            return False
        if self.avoid[y0:y1, x0:x1].any():
            return False
        self.drawing.nets[window][changed] = net
        self.boxes.append((x0, y0, x1, y1))
        return True


def direction(a: Array, b: Array) -> tuple[Array, float]:
    """The unit vector from ``a`` to ``b``, and their distance."""
    delta = b - a
    length = math.sqrt(float(delta[0]) ** 2 + float(delta[1]) ** 2)
    return delta / max(length, 1e-9), length
