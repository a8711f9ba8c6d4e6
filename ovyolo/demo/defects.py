"""The six defects, each made in a drawing of the copper and checked to be what its name says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ovyolo.demo.camera import SCALE
from ovyolo.demo.masks import grown, holes, near, parts, shrink
from ovyolo.demo.surface import LEAST, Surface, direction

__all__ = ["CLASSES", "Workshop"]

CLASSES = ("open", "short", "mouse bite", "spur", "spurious copper", "pin-hole")

CLEARANCE = 5  # drawing pixels that stay between a defect and copper that it must not touch


@dataclass
class Workshop(Surface):
    """A drawing in which defects are made.

    Args:
        kinds: the class ids of what was made, beside ``boxes``.
        shorted: nets that a short has joined: a second one could close a loop, and would join nothing.
    """

    kinds: list[int] = field(default_factory=list)
    shorted: set[int] = field(default_factory=set)

    def make(self, kind: int, attempts: int = 40) -> bool:
        """Make a defect of class ``kind`` somewhere; False when no place was found."""
        makers: tuple[Callable[[], bool], ...] = (
            self._open, self._short, self._bite, self._spur, self._spurious, self._pinhole,
        )  # fmt: skip
        if not self.drawing.tracks:
            return False
        for _ in range(attempts):
            if makers[kind]():
                self.kinds.append(kind)
                return True
        return False

    def _open(self) -> bool:
        a, b, width, net = self._track()
        along, length = direction(a, b)
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
        if any(parts(grown(here & ~gone, by)) != parts(grown(here, by)) + 1 for by in (0, 2)):
            return False
        return self._commit(window, gone, 0)

    def _short(self) -> bool:
        a, b, width, net = self._track()
        along, length = direction(a, b)
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
        if self._touched(window, new, 1) != {net, target} or parts(new) != 1 or near(self.avoid[window] > 0, new, 1):
            return False
        both = (nets == net) | (nets == target)
        if parts(both | new) != parts(both) - 1:
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
        before, after = shrink(here, 3), shrink(left, 3)
        if parts(gone) != 1 or parts(left) != parts(here) or holes(left) != holes(here):
            return False
        if parts(after) != parts(before):
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
        if self._touched(window, new, CLEARANCE) != {net} or near(self.avoid[window] > 0, new, 2) or parts(new) != 1:
            return False
        if parts(here | new) != parts(here) or holes(here | new) != holes(here):
            return False
        return self._commit(window, new, net)

    def _spurious(self) -> bool:
        radius = self._between(LEAST / 2, min(11 * SCALE, 0.5 * self.drawing.pitch))
        long = radius * (self._between(1, 2.2) if self.rng.random() < 0.4 else self._between(0.9, 1.1))
        centre = self._clear(radius + CLEARANCE)
        if centre is None:
            return False
        window, shape = self._shape(self._blob(centre, radius, long, 0.28))
        if shape is None or self._touched(window, shape, CLEARANCE) or near(self.avoid[window] > 0, shape, 2):
            return False
        if parts(shape) != 1:
            return False
        return self._commit(window, shape, int(self.drawing.nets.max()) + 1)

    def _pinhole(self) -> bool:
        where = self.rng.random()
        if where < 0.4:
            point, net = self._anywhere(), 0
        elif where < 0.75 and self.drawing.outlines:
            polygon, net = self.drawing.outlines[int(self.rng.integers(len(self.drawing.outlines)))]
            middle, corner = polygon.mean(0), polygon[int(self.rng.integers(len(polygon)))]
            point = middle + (corner - middle) * self._between(0, 0.6)
        else:
            a, b, _, net = self._track()
            point = a + (b - a) * float(self.rng.random())
        radius = self._between(LEAST / 2, 6 * SCALE)
        window, shape = self._shape(self._blob(point, radius, radius * self._between(0.8, 1.3), 0.2))
        if shape is None:
            return False
        nets = self.drawing.nets[window]
        net = net or int(nets[shape][0])
        ring = grown(shape, 2 * SCALE)
        if net in (0, self.drawing.lettering) or (nets[ring] != net).any() or near(self.avoid[window] > 0, shape, 3):
            return False
        return self._commit(window, shape, 0)
