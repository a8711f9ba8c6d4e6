"""Whether a decoding whose own constants were stored in 8 bits is YOLOv5's with the anchors that the user gives.

Its anchors and cells cannot be read off to the digit: they are rounded to a 255th of the largest. Whether they are
meant can be told all the same, in any order of rows, and in pixels or as shares of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.export.imported.heads import Anchors, decode_heads, row_strides
from ovyolo.export.imported.levels import Levels
from ovyolo.export.imported.misfit import Misfit

__all__ = ["check_given"]

Array = NDArray[Any]
ROUNDING = 1 / 254  # of the largest of constants that are stored in 8 bits
SLACK = 2.0  # times that: other constants are rounded, too
PROBABILITY = 0.01
OUTLIERS = 0.02


def check_given(
    decode: Callable[[list[Array]], Array],
    heads: Sequence[Sequence[int]],
    levels: Levels,
    anchors: Anchors,
    imgsz: tuple[int, int],
) -> None:
    """Compare a decoder with YOLOv5's for random heads.

    Args:
        decode: raw heads ``[N, na*(5+nc), H, W]`` in, rows ``[R, 5+nc]`` of the first picture out.
        heads: shapes of the raw heads, finest level first.
        levels: how many of what.
        anchors: in input pixels.
        imgsz: ``(height, width)`` of the input in pixels.

    Raises:
        Misfit: it computes something else.
    """
    rng = np.random.default_rng(0)
    raws = [rng.normal(0, 2, shape).astype(np.float32) for shape in heads]
    rows = np.asarray(decode(raws), np.float64)
    if rows.shape != (levels.rows, levels.width) or not np.isfinite(rows).all():
        raise Misfit("its rows are not one for each anchor of each cell")
    expected = decode_heads(raws, levels, anchors)
    counts = [levels.anchors * height * width for height, width in levels.cells]
    # cells are counted from 0, sizes are up to 4 times the anchors
    centre = row_strides(levels)[:, 0] * np.repeat([max(cells) * ROUNDING * SLACK for cells in levels.cells], counts)
    size = np.repeat([4 * max(max(pair) for pair in level) * ROUNDING * SLACK for level in anchors], counts)
    share = np.array([imgsz[1], imgsz[0], imgsz[1], imgsz[0]], np.float64)
    for coarsest_first, cell_by_cell, normalised in product((False, True), repeat=3):
        order = _order(levels, coarsest_first=coarsest_first, cell_by_cell=cell_by_cell)
        boxes = rows[:, :4] * (share if normalised else 1.0)
        wanted = expected[order]
        off = np.stack(
            [
                np.abs(boxes[:, :2] - wanted[:, :2]).max(axis=1) / centre[order],
                np.abs(boxes[:, 2:] - wanted[:, 2:4]).max(axis=1) / size[order],
                np.abs(rows[:, 4:] - wanted[:, 4:]).max(axis=1) / PROBABILITY,
            ]
        )
        if (off.max(axis=0) > 1).mean() <= OUTLIERS:
            return
    raise Misfit("it does not decode its heads as YOLOv5 does with these anchors")


def _order(levels: Levels, *, coarsest_first: bool, cell_by_cell: bool) -> Array:
    """Where each row of another order lies in ours: levels, anchors, y, x."""
    start, parts = 0, []
    for height, width in levels.cells:
        count = levels.anchors * height * width
        index = np.arange(start, start + count).reshape(levels.anchors, -1)
        parts.append((index.T if cell_by_cell else index).reshape(-1))
        start += count
    return np.concatenate(parts[::-1] if coarsest_first else parts)
