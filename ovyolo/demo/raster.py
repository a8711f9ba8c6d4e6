"""A layout drawn: which net holds which pixel, at twice the picture's resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.layout import Layout, Point, Trace

__all__ = ["SCALE", "Camera", "Drawing", "draw", "fill"]

SCALE = 2
"""Pixels of a drawing to one of the picture."""

BITS = 4  # fractional bits of the coordinates that OpenCV draws with
CIRCLE = [(math.cos(i * math.pi / 16), math.sin(i * math.pi / 16)) for i in range(32)]

Array = NDArray[Any]


class Camera:
    """Where a point of the layout comes to lie in the drawing: scaled, turned a little, in slight perspective."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self.pitch = 18.0 + 14.0 * float(rng.random()) ** 1.5
        tilt = 0.0 if rng.random() < 0.15 else 0.035 * float(rng.random() + rng.random() - 1)
        # a rotation in rational numbers is the same on every machine
        self.cos, self.sin = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
        skew = 0.0 if rng.random() < 0.3 else 0.04
        self.px, self.py = (float(v) * skew / max(size) for v in rng.random(2) * 2 - 1)
        self.turned = bool(rng.random() < 0.5)
        reach = (1.0 + 2 * abs(self.sin) + skew) / self.pitch
        self.columns, self.rows = math.ceil(width * reach) + 3, math.ceil(height * reach) + 3
        if self.turned:
            self.columns, self.rows = math.ceil(height * reach) + 3, math.ceil(width * reach) + 3
        self.size = size

    def __call__(self, points: Any) -> Array:
        """Layout points (n, 2) as drawing pixels, float64 (n, 2)."""
        points = np.asarray(points, np.float64)
        x = (points[:, 0] - (self.columns - 1) / 2) * self.pitch
        y = (points[:, 1] - (self.rows - 1) / 2) * self.pitch
        if self.turned:
            x, y = -y, x
        x, y = x * self.cos - y * self.sin, x * self.sin + y * self.cos
        depth = 1 + x * self.px + y * self.py
        height, width = self.size
        return np.stack([(x / depth + width / 2) * SCALE, (y / depth + height / 2) * SCALE], 1)


@dataclass
class Drawing:
    """What :func:`draw` makes; all arrays are (SCALE * h, SCALE * w).

    Args:
        nets: int16, the number of the net that holds a pixel; 0 is no copper.
        opening, silk, hole: u8, 255 where there is no solder mask, silk screen, or a drilled hole.
        outlines: the polygon of every pad that is not drilled, with its net.
        tracks: straight pieces of traces: the two ends, width in drawing pixels, net.
        pour, lettering: the first net number of poured copper (each island has its own), and of text in copper; 0: none.
        pitch: pixels of the drawing between two grid nodes.
    """

    nets: NDArray[np.int16]
    opening: NDArray[np.uint8]
    silk: NDArray[np.uint8]
    hole: NDArray[np.uint8]
    outlines: list[tuple[Array, int]]
    tracks: list[tuple[Array, Array, float, int]]
    pour: int
    lettering: int
    pitch: float


def fill(canvas: Array, polygon: Array, value: int) -> None:
    """Fill a polygon of float pixels (n, 2); pixel centres have whole numbers."""
    import cv2

    cv2.fillPoly(canvas, [np.rint(polygon * (1 << BITS)).astype(np.int32)], value, cv2.LINE_8, BITS)


def line(canvas: Array, points: Array, value: int, width: float) -> None:
    """Draw a polyline of float pixels (n, 2)."""
    import cv2

    whole = np.rint(points * (1 << BITS)).astype(np.int32)
    cv2.polylines(canvas, [whole], False, value, max(1, round(width)), cv2.LINE_8, BITS)


def circle(centre: Point, radius: float) -> list[Point]:
    """A polygon for a circle."""
    return [(centre[0] + c * radius, centre[1] + s * radius) for c, s in CIRCLE]


def rectangle(centre: Point, half: tuple[float, float], corner: float) -> list[Point]:
    """A polygon for a rectangle whose corners are cut."""
    (x, y), (hx, hy), c = centre, half, corner
    return [
        (x - hx + c, y - hy), (x + hx - c, y - hy), (x + hx, y - hy + c), (x + hx, y + hy - c),
        (x + hx - c, y + hy), (x - hx + c, y + hy), (x - hx, y + hy - c), (x - hx, y - hy + c),
    ]  # fmt: skip


def draw(rng: np.random.Generator, layout: Layout, camera: Camera) -> Drawing:
    """Draw a layout. The copper of two nets never touches, nor that of the pour and a net."""
    import cv2

    shape = (camera.size[0] * SCALE, camera.size[1] * SCALE)
    nets = np.zeros(shape, np.int16)
    opening, silk, hole = (np.zeros(shape, np.uint8) for _ in range(3))
    unit = camera.pitch * SCALE
    corner = 0.04 + 0.2 * float(rng.random())
    gap, ring = 0.22 + 0.12 * float(rng.random()), 0.06 + 0.06 * float(rng.random())
    slip = (rng.random(2) - 0.5) * 0.12 * unit  # how far solder mask and silk screen are off
    poured = rng.random() < 0.5
    covers_drills = rng.random() < 0.3

    def outline(pad_half: tuple[float, float], pad: Any, more: float) -> Array:
        if pad.round:
            return camera(circle(pad.centre, pad_half[0] + more))
        half = (pad_half[0] + more, pad_half[1] + more)
        return camera(rectangle(pad.centre, half, min(corner, 0.5 * min(half))))

    routes: list[tuple[Trace, Array]] = [(trace, camera(trace.points)) for trace in layout.traces]
    letters = [camera(stroke) for stroke in layout.lettering]
    lettering = layout.nets + 1 if letters else 0
    pour = 0
    if poured:
        nets[:] = 1
        for trace, points in routes:
            line(nets, points, 0, (trace.width + 2 * gap) * unit)
        for pad in layout.pads:
            fill(nets, outline(pad.half, pad, gap), 0)
        for points in letters:
            line(nets, points, 0, unit)
        # no slivers, no islands too small to matter
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(unit * 0.3) | 1,) * 2)
        opened = cv2.morphologyEx(nets.astype(np.uint8), cv2.MORPH_OPEN, kernel)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8, ltype=cv2.CV_16U)
        pour = layout.nets + 2
        keep = np.zeros(count, np.int16)
        large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] > 6 * unit * unit]
        for number, i in enumerate(large):
            keep[i] = pour + number
        nets = keep[labels]
    for trace, points in routes:
        line(nets, points, trace.net, trace.width * unit)
    for points in letters:
        line(nets, points, lettering, 0.22 * unit)
    outlines = []
    for pad in layout.pads:
        polygon = outline(pad.half, pad, 0.0)
        fill(nets, polygon, pad.net)
        if not pad.drill:
            outlines.append((polygon, pad.net))
        if not (pad.covered and covers_drills):
            fill(opening, outline(pad.half, pad, ring) + slip, 255)
    for pad in layout.pads:
        if pad.drill:
            polygon = camera(circle(pad.centre, pad.drill)) + slip * 0.5
            fill(nets, polygon, 0)
            fill(hole, polygon, 255)
    for stroke in layout.silk:
        line(silk, camera(stroke) + slip, 255, max(2.0, 0.11 * unit))
    silk[cv2.dilate(opening, np.ones((5, 5), np.uint8)) > 0] = 0  # never printed on a pad
    tracks = [
        (a, b, trace.width * unit, trace.net)
        for trace, points in routes
        for a, b in zip(points, points[1:], strict=False)
    ]
    return Drawing(nets, opening, silk, hole, outlines, tracks, pour, lettering, unit)
