"""The levels of a head: strides, cells, anchors a cell, numbers a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.export.imported.misfit import Misfit

__all__ = ["Levels", "levels_of", "possible_levels"]

Array = NDArray[Any]
STRIDES = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Levels:
    """The shape of a head: finest level first.

    Args:
        strides: input pixels a cell.
        cells: ``(rows, columns)`` of cells.
        anchors: anchors a cell.
        width: numbers a box: 5 + classes.
    """

    strides: tuple[int, ...]
    cells: tuple[tuple[int, int], ...]
    anchors: int
    width: int

    @property
    def rows(self) -> int:
        """Boxes in all."""
        return self.anchors * sum(height * width for height, width in self.cells)

    def split(self, rows: Array, *, coarsest_first: bool = False) -> list[Array]:
        """``[rows, width]`` as one ``[anchors, height, width, 5+nc]`` a level, finest level first."""
        order = list(range(len(self.cells)))[:: -1 if coarsest_first else 1]
        parts: dict[int, Array] = {}
        start = 0
        for level in order:
            height, width = self.cells[level]
            count = self.anchors * height * width
            parts[level] = rows[start : start + count].reshape(self.anchors, height, width, -1)
            start += count
        return [parts[level] for level in range(len(order))]

    def finest_first(self, rows: Array, *, coarsest_first: bool) -> Array:
        """``rows`` with their levels in our order."""
        return np.concatenate([p.reshape(-1, self.width) for p in self.split(rows, coarsest_first=coarsest_first)])


def strides_of(imgsz: tuple[int, int], cells: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Input pixels a cell, a level.

    Raises:
        Misfit: a level does not divide the input evenly, or two levels are alike.
    """
    strides = []
    for height, width in cells:
        if not height or not width or imgsz[0] % height or imgsz[0] // height * width != imgsz[1]:
            raise Misfit(f"a level of {height} x {width} cells does not divide an input of {imgsz[0]} x {imgsz[1]}")
        strides.append(imgsz[0] // height)
    if sorted(set(strides)) != strides:
        raise Misfit(f"its levels have the strides {strides}, where each should differ")
    return tuple(strides)


def levels_of(imgsz: tuple[int, int], heads: Sequence[Sequence[int]], width: int) -> Levels:
    """The levels that raw heads of the shapes ``heads`` make, for boxes of ``width`` numbers.

    Raises:
        Misfit: they do not fit together.
    """
    channels = {head[1] for head in heads}
    if len(channels) != 1:
        raise Misfit(f"its levels have different numbers of channels, {sorted(channels)}")
    anchors, rest = divmod(channels.pop(), width)
    if rest or width < 6 or not anchors:
        raise Misfit(f"the {heads[0][1]} channels of a level are no multiple of the {width} numbers of a box")
    cells = tuple((int(head[2]), int(head[3])) for head in heads)
    return Levels(strides_of(imgsz, cells), cells, anchors, width)


def possible_levels(imgsz: tuple[int, int], rows: int, width: int) -> list[Levels]:
    """The usual levels that make ``rows`` boxes, with 2 to 9 anchors a cell.

    Heads with one box a cell are not among them: those are of other detectors, which have no objectness or other input.
    """
    found = []
    for first in range(len(STRIDES)):
        for last in range(first + 1, len(STRIDES) + 1):
            strides = STRIDES[first:last]
            if any(side % strides[-1] for side in imgsz):
                continue
            cells = tuple((imgsz[0] // stride, imgsz[1] // stride) for stride in strides)
            anchors, rest = divmod(rows, sum(height * width for height, width in cells))
            if not rest and 2 <= anchors <= 9:
                found.append(Levels(strides, cells, anchors, width))
    return found
