"""How a drawing looks to a camera: materials, light, relief, dirt, blur and noise.

Blurs work on u8 and everything else on single float operations, so that all machines compute the same picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.camera import SCALE
from ovyolo.demo.raster import Drawing

__all__ = ["STYLES", "Appearance"]

STYLES = ("masked", "bare", "binary")
ROWS = 64

Plane = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]

# BGR of solder mask over laminate, and over copper
MASKS: tuple[tuple[Colour, Colour], ...] = (
    ((38, 62, 18), (72, 118, 44)), ((30, 80, 30), (60, 140, 70)), ((50, 70, 10), (100, 125, 50)),  # greens
    ((74, 34, 14), (134, 76, 34)), ((96, 48, 20), (160, 96, 50)),  # blues
    ((24, 22, 92), (52, 50, 158)),  # red
    ((24, 24, 24), (54, 56, 58)),  # black
    ((172, 180, 184), (214, 222, 226)),  # white
    ((60, 20, 52), (110, 56, 100)),  # purple
    ((36, 132, 160), (70, 172, 204)),  # yellow
)  # fmt: skip
FINISHES: tuple[Colour, ...] = (
    (92, 178, 218),  # gold
    (196, 200, 202),  # tin
    (206, 212, 216),  # silver
    (112, 150, 206),  # bare copper, protected
)
LAMINATES: tuple[Colour, ...] = ((108, 150, 158), (96, 128, 134), (120, 160, 150), (70, 100, 96))
COPPERS: tuple[Colour, ...] = ((104, 146, 210), (88, 124, 190), (128, 168, 222), (96, 130, 176))


class Appearance:
    """A look, drawn at random once; :meth:`render` gives it to any drawing of the same size.

    Args:
        rng: source of chance; all of it is used here, none in :meth:`render`.
        size: height and width of the picture.
        style: one of :data:`STYLES`.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], style: str) -> None:
        self.size, self.style = size, style
        import cv2

        height, width = size
        self.light = _light(rng, height, width)
        # triangular noise in whole numbers, -255 to 255
        pair = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        self.noise = np.subtract(pair[0], pair[1], dtype=np.int16)
        rough = cv2.GaussianBlur((self.noise[:, :, 0] // 2 + 128).astype(np.uint8), (0, 0), 1.6)
        self.rough = rough.astype(np.float32) - np.float32(128)
        self.fine = self.noise[:, :, 1] * np.float32(1 / 255)
        self.cloud = _cloud(rng, height, width)
        self.dirt = _dirt(rng, height, width)
        self.ragged = 0.3 + 1.7 * float(rng.random())
        self.soften = 0.7 + 0.5 * float(rng.random())
        self.blur = 0.4 + 0.9 * float(rng.random()) ** 2
        self.grain = round(4 + 14 * float(rng.random()) ** 2)
        self.relief = (rng.random(2) - 0.5) * 0.25
        self.gains = 0.93 + 0.14 * rng.random(3)
        self.exposure = 0.8 + 0.35 * float(rng.random())
        self.mask = MASKS[int(rng.integers(len(MASKS))) if rng.random() < 0.6 else int(rng.integers(3))]
        self.finish = FINISHES[int(rng.integers(len(FINISHES)))]
        self.laminate = LAMINATES[int(rng.integers(len(LAMINATES)))]
        self.copper = COPPERS[int(rng.integers(len(COPPERS)))]
        self.ink: Colour = (
            (40, 36, 34) if self.mask[0][0] > 150 else ((226, 232, 232) if rng.random() < 0.85 else (70, 190, 214))
        )
        self.through: Colour = (20, 18, 16) if rng.random() < 0.7 else (228, 232, 230)  # holes, or a light behind them
        self.contrast = 0.75 + 0.25 * float(rng.random())
        self.inverted = bool(rng.random() < 0.5)
        self.tint = 0.9 + 0.2 * rng.random(3)

    def render(self, drawing: Drawing) -> Bytes:
        """The picture, u8 BGR (h, w, 3)."""
        import cv2

        copper = _half((drawing.nets != 0).view(np.uint8) * np.uint8(255))
        copper = np.asarray(cv2.GaussianBlur(copper, (0, 0), self.soften), np.uint8)
        if self.style == "binary":
            return np.repeat(
                np.where((self._level(copper) > 128) != self.inverted, 0, 255).astype(np.uint8)[..., None], 3, 2
            )
        layers = [_half(layer) for layer in (drawing.opening, drawing.silk, drawing.hole)]
        framed = np.pad(copper, 1, mode="edge")
        picture = np.empty((*self.size, 3), np.uint8)
        # a few rows at a time stay in the processor's cache
        for top in range(0, self.size[0], ROWS):
            rows = slice(top, min(top + ROWS, self.size[0]))
            self._compose(picture[rows], rows, framed[rows.start : rows.stop + 2], [layer[rows] for layer in layers])
        blurred = cv2.GaussianBlur(picture, (0, 0), self.blur)
        # whole numbers; the first channel's noise goes into all three, as brightness
        shot = (self.noise + self.noise[:, :, :1]) * np.int16(self.grain) // np.int16(256)
        return np.asarray(cv2.add(blurred, shot, dtype=cv2.CV_8U), np.uint8)

    def _level(self, copper: Bytes, rows: slice = slice(None)) -> Plane:
        """Etching leaves uneven edges: noise moves the level at which the soft edge is cut."""
        return copper.astype(np.float32) + self.rough[rows] * np.float32(self.ragged)

    def _compose(self, out: Bytes, rows: slice, framed: Bytes, layers: list[Bytes]) -> None:
        """Materials, relief, dirt and light, without blur and noise, into ``out``."""
        metal = np.clip(
            (self._level(framed[1:-1, 1:-1], rows) - np.float32(128)) * np.float32(1 / 110) + np.float32(0.5), 0, 1
        )
        opening, silk, hole = (_unit(layer) for layer in layers)
        down = np.subtract(framed[2:, 1:-1], framed[:-2, 1:-1], dtype=np.float32) * np.float32(self.relief[0])
        right = np.subtract(framed[1:-1, 2:], framed[1:-1, :-2], dtype=np.float32) * np.float32(self.relief[1])
        over_all = down + right + self.dirt[rows]
        shading = self.light[rows] * np.float32(self.exposure)
        if self.style == "masked":
            silk *= np.float32(0.86) + self.cloud[rows] * np.float32(0.12)
            sheen = np.float32(1) + self.cloud[rows] * np.float32(0.08)
            over_pads = self.fine[rows] * np.float32(9)
        else:
            sheen = np.float32(1) + self.cloud[rows] * np.float32(0.12) + self.fine[rows] * np.float32(0.05)
        for c in range(3):
            if self.style == "masked":  # solder mask, finish on the pads, silk screen
                under, over = self.mask[0][c], self.mask[1][c]
                plane = _mix(under, under + (over - under) * self.contrast, metal) * sheen
                plane += (_mix(self.laminate[c] * 0.9, self.finish[c], metal) + over_pads - plane) * opening
                plane += (np.float32(self.ink[c]) - plane) * silk
            else:  # etched copper on laminate
                plane = _mix(self.laminate[c] * self.tint[c] * 0.62, self.copper[c] * self.tint[c], metal) * sheen
            plane += (np.float32(self.through[c]) - plane) * hole
            out[:, :, c] = _bytes((plane + over_all) * (shading * np.float32(self.gains[c])))


def _mix(a: float, b: float, share: Plane) -> Plane:
    return np.float32(a) + share * np.float32(b - a)


def _half(mask: Bytes) -> Bytes:
    """The mean of each 2x2 pixels."""
    import cv2

    height, width = mask.shape
    return np.asarray(cv2.resize(mask, (width // SCALE, height // SCALE), interpolation=cv2.INTER_AREA), np.uint8)


def _unit(mask: Bytes) -> Plane:
    return mask.astype(np.float32) * np.float32(1 / 255)


def _bytes(values: Any) -> Bytes:
    return np.asarray(np.clip(values + np.float32(0.5), 0, 255)).astype(np.uint8)


def _light(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Uneven light: a slope, a bright spot, darker corners."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    a, b, sx, sy = ((rng.random(4) - 0.5) * (0.45, 0.45, 2, 2)).astype(np.float32)
    spot, corners = (rng.random(2) * (0.25, 0.22)).astype(np.float32)
    near = np.float32(1) / (np.float32(1) + ((x - sx) * (x - sx) + (y - sy) * (y - sy)) * np.float32(4))
    light = np.float32(1) + a * x + b * y + spot * near - corners * (x * x + y * y) * np.float32(0.5)
    return np.asarray(light, np.float32)


def _cloud(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Slow variation, about -1 to 1."""
    import cv2

    few = rng.integers(0, 256, (height // 90 + 3, width // 90 + 3), np.uint8)
    wide = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return (wide.astype(np.float32) - np.float32(128)) * np.float32(1 / 128)


def _dirt(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Dust, fibres and scratches: bright or dark, faint, and no defect."""
    import cv2

    canvas = np.full((height, width), 128, np.uint8)
    for _ in range(int(rng.integers(0, 2 + 6 * height * width // 640**2))):
        x, y = rng.random(2) * (width, height)
        strength = int(128 + rng.choice((-1, 1)) * rng.integers(30, 110))
        if rng.random() < 0.5:
            cv2.circle(canvas, (int(x), int(y)), int(rng.integers(1, 3)), strength, -1)
            continue
        steps = (rng.random((6, 2)) - 0.5) * 14 + (rng.random(2) - 0.5) * 24
        points = np.cumsum(np.concatenate([[[x, y]], steps]), 0)
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, strength, 1)
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.8)
    return (soft.astype(np.float32) - np.float32(128)) * np.float32(0.45)
