"""The six defects, each made in a drawing of the copper and checked to be what its name says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.camera import SCALE
from ovyolo.demo.raster import Drawing, inside

__all__ = ["CLASSES", "Workshop"]

CLASSES = ("open", "short", "mouse bite", "spur", "spurious copper", "pin-hole")

Array = NDArray[Any]
Window = tuple[slice, slice]

CLEARANCE = 5  # drawing pixels that stay between a defect and copper that it must not touch
LEAST, MOST = 6 * SCALE, 50 * SCALE  # sides of a defect's box, in drawing pixels
MARGIN = 6 * SCALE  # no defect lies nearer to the picture's border


@dataclass
class Workshop:
    """A drawing in which defects are made.

    Args:
        rng: source of chance.
        drawing: its ``nets`` are changed.
        avoid: u8, 255 where nothing may be changed (holes, silk screen).
        boxes, kinds: what was made: boxes (x0, y0, x1, y1) in drawing pixels, ends exclusive, and class ids.
    """

    rng: np.random.Generator
    drawing: Drawing
    avoid: NDArray[np.uint8]
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    shorted: set[int] = field(default_factory=set)

    def make(self, kind: int, attempts: int = 40) -> bool:
        """Make a defect of class ``kind`` somewhere; False when no place was found."""
        makers: tuple[Callable[[], bool], ...] = (
            self._open, self._short, self._bite, self._spur, self._spurious, self._pinhole,
        )  # fmt: skip
        for _ in range(attempts):
            if makers[kind]():
                self.kinds.append(kind)
                return True
        return False

    # ---- the six

    def _open(self) -> bool:
        a, b, width, net = self._track()
        along, length = _direction(a, b)
        if length < 2.5 * width:
            return False
        middle = a + along * (length * self._between(0.2, 0.8))
        gap = self._between(LEAST if width < LEAST else 2.5 * SCALE, max(1.1 * width, LEAST + 2))
        across = np.array([-along[1], along[0]])
        places = np.linspace(-0.75, 0.75, 6) * width
        slant = self._between(-0.4, 0.4)
        ends = [
            [
                middle + across * u + along * (side * gap / 2 + slant * u + self._between(-0.15, 0.15) * width)
                for u in way
            ]
            for side, way in ((-1, places), (1, places[::-1]))
        ]
        window, shape = self._shape(np.array(ends[0] + ends[1]))
        if shape is None:
            return False
        here = self.drawing.nets[window] == net
        gone = shape & here
        # the gap is no hairline: the ends stay apart when they are grown a little
        if any(_parts(_grown(here & ~gone, by)) != _parts(_grown(here, by)) + 1 for by in (0, 2)):
            return False
        return self._commit(window, gone, 0)

    def _short(self) -> bool:
        a, b, width, net = self._track()
        along, length = _direction(a, b)
        start = a + along * (length * float(self.rng.random()))
        across = np.array([-along[1], along[0]]) * (1 if self.rng.random() < 0.5 else -1)
        reach = np.arange(width / 2, 1.6 * self.drawing.pitch)
        held = self._along(start, across, reach)
        other = np.flatnonzero((held != net) & (held != 0))
        if held.size == 0 or other.size == 0 or net in self.shorted:
            return False
        target = int(held[other[0]])
        gap = float(reach[other[0]] - width / 2)
        if gap < 3 * SCALE or target == self.drawing.lettering or target in self.shorted:
            return False
        half = self._between(1.5 * SCALE, max(2.5 * SCALE, 0.45 * width))
        lean = self._between(-0.5, 0.5) * gap
        inner, outer = width / 2 - 0.3 * width, width / 2 + gap + 0.25 * width
        steps = np.linspace(inner, outer, 6)
        sides = [
            [
                start
                + across * u
                + along * (lean * (u - inner) / (outer - inner) + side * half * self._between(0.7, 1.5))
                for u in way
            ]
            for side, way in ((-1, steps), (1, steps[::-1]))
        ]
        window, shape = self._shape(np.array(sides[0] + sides[1]))
        if shape is None:
            return False
        nets = self.drawing.nets[window]
        new = shape & (nets == 0)
        if self._touched(window, new, 1) != {net, target} or _parts(new) != 1 or _near(self.avoid[window] > 0, new, 1):
            return False
        both = (nets == net) | (nets == target)
        if _parts(both | new) != _parts(both) - 1:
            return False
        if not self._commit(window, new, net):
            return False
        self.shorted |= {net, target}
        return True

    def _bite(self) -> bool:
        point, outward, thick, net = self._edge()
        depth = self._between(max(2.2 * SCALE, 0.25 * thick), 0.62 * thick)
        if depth > thick - 2.5 * SCALE or depth > 14 * SCALE:
            return False
        radius = max(depth * self._between(0.6, 1.3), LEAST / 2)
        window, shape = self._shape(self._blob(point - outward * (depth - radius), radius, radius, 0.22))
        if shape is None:
            return False
        here = self.drawing.nets[window] == net
        gone = shape & here
        left = here & ~gone
        before, after = _shrink(here, 3), _shrink(left, 3)
        if _parts(gone) != 1 or _parts(left) != _parts(here) or _holes(left) != _holes(here):
            return False
        if _parts(after) != _parts(before):
            return False
        return self._commit(window, gone, 0)

    def _spur(self) -> bool:
        point, outward, _, net = self._edge()
        reach = np.arange(1.5, 1.5 * self.drawing.pitch)
        held = self._along(point, outward, reach)
        if held.size == 0 or held[0] != 0:
            return False
        other = np.flatnonzero(held)
        room = float(reach[other[0]] if other.size else reach[-1]) - CLEARANCE
        length = self._between(max(0.3 * room, 3.5 * SCALE), 0.95 * room)
        if room < 4 * SCALE or length > 22 * SCALE:
            return False
        along = np.array([-outward[1], outward[0]])
        base = self._between(LEAST / 2, max(LEAST / 2 + 1, 0.6 * length))
        lean = self._between(-0.5, 0.5) * length
        tip = self._between(0.25, 0.9)
        steps = np.linspace(0, 1, 6)
        sides = [
            [
                point
                + outward * (u * length * 1.1 - 0.1 * length)
                + along * (lean * u * u + side * base * (1 - u * (1 - tip) * self._between(0.8, 1.2)))
                for u in way
            ]
            for side, way in ((-1, steps), (1, steps[::-1]))
        ]
        window, shape = self._shape(np.array(sides[0] + sides[1]))
        if shape is None:
            return False
        here = self.drawing.nets[window] == net
        new = shape & (self.drawing.nets[window] == 0)
        if self._touched(window, new, CLEARANCE) != {net} or _near(self.avoid[window] > 0, new, 2) or _parts(new) != 1:
            return False
        if _parts(here | new) != _parts(here) or _holes(here | new) != _holes(here):
            return False
        return self._commit(window, new, net)

    def _spurious(self) -> bool:
        radius = self._between(LEAST / 2, min(11 * SCALE, 0.5 * self.drawing.pitch))
        long = radius * (self._between(1, 2.2) if self.rng.random() < 0.4 else self._between(0.9, 1.1))
        centre = self._clear(radius + CLEARANCE)
        if centre is None:
            return False
        window, shape = self._shape(self._blob(centre, radius, long, 0.28))
        if shape is None or self._touched(window, shape, CLEARANCE) or _near(self.avoid[window] > 0, shape, 2):
            return False
        if _parts(shape) != 1:
            return False
        return self._commit(window, shape, int(self.drawing.nets.max()) + 1)

    def _pinhole(self) -> bool:
        where = self.rng.random()
        if where < 0.4:
            point, net = self._anywhere(), 0
        elif where < 0.75 and self.drawing.outlines:
            polygon, net = self.drawing.outlines[int(self.rng.integers(len(self.drawing.outlines)))]
            point = polygon.mean(0) + (polygon[int(self.rng.integers(len(polygon)))] - polygon.mean(0)) * self._between(
                0, 0.6
            )
        else:
            a, b, _, net = self._track()
            point = a + (b - a) * float(self.rng.random())
        radius = self._between(LEAST / 2, 6 * SCALE)
        window, shape = self._shape(self._blob(point, radius, radius * self._between(0.8, 1.3), 0.2))
        if shape is None:
            return False
        nets = self.drawing.nets[window]
        net = net or int(nets[nets.shape[0] // 2, nets.shape[1] // 2])
        ring = _grown(shape, 2 * SCALE)
        if net in (0, self.drawing.lettering) or (nets[ring] != net).any() or _near(self.avoid[window] > 0, shape, 3):
            return False
        return self._commit(window, shape, 0)

    # ---- where

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
            along, length = _direction(a, b)
            side = 1 if self.rng.random() < 0.5 else -1
            outward = np.array([-along[1], along[0]]) * side
            return a + along * (length * float(self.rng.random())) + outward * (width / 2), outward, width, net
        polygon, net = self.drawing.outlines[int(self.rng.integers(len(self.drawing.outlines)))]
        first = int(self.rng.integers(len(polygon)))
        point = (polygon[first] + polygon[(first + 1) % len(polygon)]) / 2
        outward, thick = _direction(polygon.mean(0), point)
        return point, outward, thick, net

    def _along(self, start: Array, direction: Array, reach: Array) -> Array:
        """The nets along a ray; empty where it leaves the picture."""
        points = np.rint(start + direction * reach[:, None]).astype(np.int64)
        height, width = self.drawing.nets.shape
        if (points < 0).any() or (points >= (width, height)).any():
            return np.zeros(0, np.int16)
        return self.drawing.nets[points[:, 1], points[:, 0]]

    # ---- what

    def _blob(self, centre: Array, radius: float, long: float, rough: float) -> Array:
        """An uneven closed curve around ``centre``, turned anyhow."""
        count = 14
        random = self.rng.random(count + 1)
        uneven = 1 + rough * (random[:count] + np.roll(random[:count], 1) - 1)
        angle = np.arange(count) * (2 * math.pi / count)
        x, y = np.cos(angle) * uneven * long, np.sin(angle) * uneven * radius
        turn = float(random[count]) * math.pi
        c, s = math.cos(turn), math.sin(turn)
        return np.stack([centre[0] + x * c - y * s, centre[1] + x * s + y * c], 1)

    def _shape(self, polygon: Array) -> tuple[Window, NDArray[np.bool_] | None]:
        """The polygon as a mask, in a window with room around it; None where it does not fit or would meet another."""
        height, width = self.drawing.nets.shape
        x0, y0 = (int(v) for v in np.floor(polygon.min(0)))
        x1, y1 = (int(v) + 1 for v in np.ceil(polygon.max(0)))
        room = 8 * SCALE
        window = (slice(max(0, y0 - room), y1 + room), slice(max(0, x0 - room), x1 + room))
        if x0 < MARGIN or y0 < MARGIN or x1 > width - MARGIN or y1 > height - MARGIN:
            return window, None
        for left, top, right, bottom in self.boxes:
            if x0 - room < right and left < x1 + room and y0 - room < bottom and top < y1 + room:
                return window, None
        corner = (window[1].start, window[0].start)
        return window, inside(polygon - corner, min(height, y1 + room) - corner[1], min(width, x1 + room) - corner[0])

    def _touched(self, window: Window, shape: NDArray[np.bool_], distance: int) -> set[int]:
        """The nets within ``distance`` of a shape."""
        return set(np.unique(self.drawing.nets[window][_grown(shape, distance)]).tolist()) - {0}

    def _commit(self, window: Window, changed: NDArray[np.bool_], net: int) -> bool:
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


def _direction(a: Array, b: Array) -> tuple[Array, float]:
    """The unit vector from ``a`` to ``b``, and their distance."""
    delta = b - a
    length = math.sqrt(float(delta[0]) ** 2 + float(delta[1]) ** 2)
    return delta / max(length, 1e-9), length


def _parts(mask: NDArray[np.bool_]) -> int:
    """The number of connected parts."""
    import cv2

    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def _holes(mask: NDArray[np.bool_]) -> int:
    """The number of connected parts of what is not in the mask."""
    import cv2

    return int(cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0]) - 1


def _grown(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The mask and what is within ``distance`` of it."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * distance + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _shrink(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    return ~_grown(~mask, distance)


def _near(avoid: NDArray[np.bool_], mask: NDArray[np.bool_], distance: int) -> bool:
    """Whether the mask comes within ``distance`` of what is to be avoided."""
    return bool((avoid & _grown(mask, distance)).any())
