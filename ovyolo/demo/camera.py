"""Where the points of a layout come to lie in a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.layout import Point

__all__ = ["SCALE", "Camera"]

SCALE = 2
"""Pixels of a drawing to one of the picture."""


class Camera:
    """A view of a board: scaled, turned a little, in slight perspective.

    Args:
        rng: source of chance.
        size: height and width of the picture in pixels.

    ``columns`` and ``rows`` are how many grid nodes a layout needs to fill the picture; ``pitch`` is their distance
    in pixels of the picture.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self.size = size
        self.pitch = 20.0 + 18.0 * float(rng.random()) ** 1.5
        tilt = 0.0 if rng.random() < 0.15 else 0.035 * float(rng.random() + rng.random() - 1)
        # a rotation in rational numbers is the same on every machine
        self.cos, self.sin = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
        skew = 0.0 if rng.random() < 0.3 else 0.04
        self.px, self.py = (float(v) * skew / max(size) for v in rng.random(2) * 2 - 1)
        self.turned = bool(rng.random() < 0.5)
        # the corners move by the sine of the angle times the other side, and by half the perspective
        slack = abs(self.sin) + skew / 2
        across = (width + slack * (width + height)) / self.pitch
        down = (height + slack * (width + height)) / self.pitch
        if self.turned:
            across, down = down, across
        self.columns, self.rows = math.ceil(across) + 3, math.ceil(down) + 3

    def __call__(self, lines: Sequence[Sequence[Point]]) -> list[NDArray[np.float64]]:
        """Polylines or polygons of the layout in pixels of the drawing, float64 (n, 2) each."""
        if not lines:
            return []
        points = np.array([point for line in lines for point in line], np.float64)
        x = (points[:, 0] - (self.columns - 1) / 2) * self.pitch
        y = (points[:, 1] - (self.rows - 1) / 2) * self.pitch
        if self.turned:
            x, y = -y, x
        x, y = x * self.cos - y * self.sin, x * self.sin + y * self.cos
        depth = 1 + x * self.px + y * self.py
        height, width = self.size
        seen = np.stack([(x / depth + width / 2) * SCALE, (y / depth + height / 2) * SCALE], 1)
        ends = np.cumsum([len(line) for line in lines]).tolist()
        return [seen[start:end] for start, end in zip([0, *ends], ends, strict=False)]
