"""A layout drawn: which net holds which pixel, at twice the picture's resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.camera import SCALE, Camera
from ovyolo.demo.layout import Layout, Pad, Point

__all__ = ["Drawing", "draw", "inside"]

BITS = 4  # fractional bits of the coordinates that OpenCV draws with
CIRCLE = [(math.cos(i * math.pi / 16), math.sin(i * math.pi / 16)) for i in range(32)]

Array = NDArray[Any]


@dataclass
class Drawing:
    """What :func:`draw` makes; all arrays are (SCALE * h, SCALE * w).

    Args:
        nets: int16, the number of the net that holds a pixel; 0 is no copper.
        opening, silk, hole: u8, 255 where there is no solder mask, silk screen, or a drilled hole.
        outlines: the polygon of every pad that is not drilled, with its net.
        tracks: straight pieces of traces: the two ends, width in drawing pixels, net.
        pour, lettering: the first net number of poured copper, of which each island has its own, and that of text in
            copper; 0 where there is none.
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


def inside(polygon: Array, height: int, width: int) -> NDArray[np.bool_]:
    """Which pixels have their centre inside any polygon of float pixels (n, 2), by the even-odd rule."""
    x0, y0 = polygon[:, :1], polygon[:, 1:]
    x1, y1 = np.roll(x0, -1, 0), np.roll(y0, -1, 0)
    y = np.arange(height)[None]
    crossed = (y0 <= y) != (y1 <= y)
    at = np.where(crossed, x0 + (y - y0) * ((x1 - x0) / np.where(y1 == y0, 1.0, y1 - y0)), np.inf)
    return (at[:, :, None] <= np.arange(width)).sum(0, dtype=np.uint8) % 2 == 1


def draw(rng: np.random.Generator, layout: Layout, camera: Camera) -> Drawing:
    """Draw a layout. The copper of two nets never touches, nor that of a pour and a net."""
    import cv2

    shape = (camera.size[0] * SCALE, camera.size[1] * SCALE)
    opening, silk, hole = (np.zeros(shape, np.uint8) for _ in range(3))
    unit = camera.pitch * SCALE
    corner = 0.04 + 0.2 * float(rng.random())
    gap, ring = 0.22 + 0.12 * float(rng.random()), 0.06 + 0.06 * float(rng.random())
    slip = (rng.random(2) - 0.5) * 0.12 * unit  # how far solder mask and silk screen are off
    poured, tented = rng.random() < 0.5, rng.random() < 0.3

    pads, traces = layout.pads, layout.traces
    drilled = [pad for pad in pads if pad.drill]
    shapes = camera([_outline(pad, 0.0, corner) for pad in pads])
    routes = camera([trace.points for trace in traces])
    letters = camera(layout.lettering)
    lettering = layout.nets + 1 if letters else 0
    pour = layout.nets + 2 if poured else 0
    if poured:
        area = np.full(shape, 255, np.uint8)
        for trace, points in zip(traces, routes, strict=True):
            _line(area, points, 0, (trace.width + 2 * gap) * unit)
        for polygon in camera([_outline(pad, gap, corner) for pad in pads]):
            _fill(area, polygon, 0)
        for points in letters:
            _line(area, points, 0, unit)
        nets = _islands(area, unit, pour)
    else:
        nets = np.zeros(shape, np.int16)
    for trace, points in zip(traces, routes, strict=True):
        _line(nets, points, trace.net, trace.width * unit)
    for points in letters:
        _line(nets, points, lettering, 0.22 * unit)
    for pad, polygon in zip(pads, shapes, strict=True):
        _fill(nets, polygon, pad.net)
    for pad, polygon in zip(pads, camera([_outline(pad, ring, corner) for pad in pads]), strict=True):
        if not (pad.covered and tented):
            _fill(opening, polygon + slip, 255)
    for polygon in camera([_circle(pad.centre, pad.drill) for pad in drilled]):
        _fill(nets, polygon + slip * 0.5, 0)
        _fill(hole, polygon + slip * 0.5, 255)
    for points in camera(layout.silk):
        _line(silk, points + slip, 255, max(2.0, 0.11 * unit))
    silk[cv2.dilate(opening, np.ones((5, 5), np.uint8)) > 0] = 0  # never printed on a pad
    outlines = [(polygon, pad.net) for pad, polygon in zip(pads, shapes, strict=True) if not pad.drill]
    tracks = [
        (points[i], points[i + 1], trace.width * unit, trace.net)
        for trace, points in zip(traces, routes, strict=True)
        for i in range(len(points) - 1)
    ]
    return Drawing(nets, opening, silk, hole, outlines, tracks, pour, lettering, unit)


def _fill(canvas: Array, polygon: Array, value: int) -> None:
    """Fill a convex polygon of float pixels (n, 2); the centres of pixels have whole numbers."""
    import cv2

    # OpenCV's fillPoly rounds otherwise from version to version; this one does not
    cv2.fillConvexPoly(canvas, np.rint(polygon * (1 << BITS)).astype(np.int32), value, cv2.LINE_8, BITS)


def _line(canvas: Array, points: Array, value: int, width: float) -> None:
    """Draw a polyline of float pixels (n, 2)."""
    import cv2

    whole = np.rint(points * (1 << BITS)).astype(np.int32)
    cv2.polylines(canvas, [whole], False, value, max(1, round(width)), cv2.LINE_8, BITS)


def _circle(centre: Point, radius: float) -> list[Point]:
    return [(centre[0] + c * radius, centre[1] + s * radius) for c, s in CIRCLE]


def _outline(pad: Pad, more: float, corner: float) -> list[Point]:
    """A pad's polygon, larger by ``more`` all around; the corners of rectangles are cut by ``corner``."""
    if pad.round:
        return _circle(pad.centre, pad.half[0] + more)
    (x, y), hx, hy = pad.centre, pad.half[0] + more, pad.half[1] + more
    c = min(corner, 0.5 * min(hx, hy))
    return [
        (x - hx + c, y - hy), (x + hx - c, y - hy), (x + hx, y - hy + c), (x + hx, y + hy - c),
        (x + hx - c, y + hy), (x - hx + c, y + hy), (x - hx, y + hy - c), (x - hx, y - hy + c),
    ]  # fmt: skip


def _islands(area: NDArray[np.uint8], unit: float, first: int) -> NDArray[np.int16]:
    """Poured copper without slivers and crumbs, a net number from ``first`` on for each island.

    Worked out at the picture's resolution, which is four times as fast and leaves the clearance one pixel uneven.
    """
    import cv2

    width = round(unit * 0.3 / SCALE) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (width, width))
    opened = cv2.morphologyEx(np.ascontiguousarray(area[::SCALE, ::SCALE]), cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8, ltype=cv2.CV_16U)
    numbers = np.zeros(count, np.int16)
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] > 6 * (unit / SCALE) ** 2) + 1
    numbers[large] = first + np.arange(len(large), dtype=np.int16)
    nets = np.empty(area.shape, np.int16)
    nets.reshape(labels.shape[0], SCALE, labels.shape[1], SCALE)[:] = numbers[labels][:, None, :, None]
    return nets
