"""Whether a graph's decoding is YOLOv5's, and with which anchors: measured, not guessed.

A YOLOv5 head turns the logits ``t`` of the cell in column ``x`` and row ``y`` into a box in input pixels by
``centre = (2 sigmoid(t) - 0.5 + (x, y)) * stride`` and ``size = (2 sigmoid(t))^2 * anchor``, and into probabilities
by ``sigmoid(t)``. For logits of 0 the size is just the anchor, so that anchors can be read off; on random logits every
number has to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.export.imported.levels import Levels
from ovyolo.export.imported.misfit import Misfit

__all__ = [
    "Anchors",
    "check_rows",
    "decode_heads",
    "disagreement",
    "measure_anchors",
    "row_strides",
]

Array = NDArray[Any]
Anchors = tuple[tuple[tuple[float, float], ...], ...]


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def decode_heads(raws: Sequence[Array], levels: Levels, anchors: Anchors) -> Array:
    """Decode raw heads ``[1, na*(5+nc), H, W]`` to rows ``[R, 5+nc]`` in float64: levels, anchors, y, x."""
    rows = []
    for raw, stride, (height, width), level_anchors in zip(raws, levels.strides, levels.cells, anchors, strict=True):
        p = sigmoid(np.asarray(raw[0], np.float64).reshape(levels.anchors, levels.width, height, width))
        p = p.transpose(0, 2, 3, 1).copy()
        p[..., :2] = (2 * p[..., :2] - 0.5 + grid(height, width)) * stride
        p[..., 2:4] = (2 * p[..., 2:4]) ** 2 * np.array(level_anchors).reshape(levels.anchors, 1, 1, 2)
        rows.append(p.reshape(-1, levels.width))
    return np.concatenate(rows)


def grid(height: int, width: int) -> Array:
    """``[height, width, 2]``: column and row of each cell."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)


def row_strides(levels: Levels) -> Array:
    """The stride of each row, ``[R, 1]``."""
    counts = [levels.anchors * height * width for height, width in levels.cells]
    return np.repeat(levels.strides, counts).reshape(-1, 1)


def disagreement(
    rows: Array, expected: Array, strides: Array, tolerance: float, *, allowed: float = 0.0, rounding: float = 0.0
) -> str:
    """What of ``rows`` differs from ``expected`` by more than ``tolerance``; empty where nothing does.

    A centre may be off by ``tolerance`` strides, a size and a probability by ``tolerance`` of itself, and by a
    thousandth of that on top, so that nothing is asked of noughts; everything by ``rounding`` of itself. A share of
    ``allowed`` rows may be off by more.
    """
    if rows.shape != expected.shape:
        return "numbers of boxes"
    if not np.isfinite(rows).all():
        return "numbers, some of them not finite,"
    error = np.abs(rows - expected)
    slack = 1e-3 * tolerance
    bounds = np.concatenate(
        [
            np.broadcast_to(tolerance * strides, (len(rows), 2)),
            tolerance * np.abs(expected[:, 2:4]) + slack * strides,
            tolerance * np.abs(expected[:, 4:]) + slack,
        ],
        axis=1,
    )
    beyond = error > bounds + rounding * np.abs(expected)
    for part, what in ((slice(0, 2), "box centres"), (slice(2, 4), "box sizes"), (slice(4, None), "probabilities")):
        if beyond[:, part].any(axis=1).mean() > allowed:
            return f"{what} (by up to {error[:, part].max():.2g})"
    return ""


def measure_anchors(
    decode: Callable[[list[Array]], Array], heads: Sequence[Sequence[int]], levels: Levels
) -> tuple[Anchors, bool]:
    """The anchors of a decoder, and whether it returns the coarsest level first.

    Args:
        decode: raw heads ``[N, na*(5+nc), H, W]`` in, rows ``[R, 5+nc]`` of the first picture out.
        heads: shapes of the raw heads.
        levels: how many of what.

    Raises:
        Misfit: it computes something else than a YOLOv5 head does.
    """
    zero = decode([np.zeros(shape, np.float32) for shape in heads])
    if zero.shape != (levels.rows, levels.width) or not np.isfinite(zero).all():
        raise Misfit("its rows are not one for each anchor of each cell")
    coarsest_first = False
    if not _at_cells(levels.split(zero), levels):
        coarsest_first = True
        if not _at_cells(levels.split(zero, coarsest_first=True), levels):
            raise Misfit("its box centres do not lie at the cells, in pixels, where YOLOv5 puts them")
    anchors = tuple(_anchors_of(part) for part in levels.split(zero, coarsest_first=coarsest_first))
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0, 3, shape).astype(np.float32) for shape in heads]
    for factor in (1.0, -1.0, 0.3):  # both signs everywhere, so that a bound on either side shows in every number
        raws = [raw * np.float32(factor) for raw in drawn]
        rows = levels.finest_first(decode(raws), coarsest_first=coarsest_first)
        wrong = disagreement(rows, decode_heads(raws, levels, anchors), row_strides(levels), 1e-3)
        if wrong:
            raise Misfit(f"it computes other {wrong} than YOLOv5 does")
    return anchors, coarsest_first


def _at_cells(parts: Sequence[Array], levels: Levels, reach: float = 1e-3) -> bool:
    """Whether every box centre lies within ``reach`` strides of the middle of its cell."""
    return all(
        bool(np.abs(part[..., :2] - (grid(*cells) + 0.5) * stride).max() <= reach * stride)
        for part, cells, stride in zip(parts, levels.cells, levels.strides, strict=True)
    )


def _anchors_of(part: Array) -> tuple[tuple[float, float], ...]:
    """The sizes at logits of 0, ``[na, H, W, 5+nc]``, which have to be the same in all cells."""
    sizes = part[..., 2:4].astype(np.float64)
    middle = np.median(sizes.reshape(sizes.shape[0], -1, 2), axis=1)
    if (middle <= 0).any() or (np.abs(sizes - middle[:, None, None]) > 1e-4 * middle[:, None, None]).any():
        raise Misfit("its box sizes at logits of 0 are not one anchor for all cells")
    return tuple((tidy_number(float(w)), tidy_number(float(h))) for w, h in middle)


def tidy_number(value: float) -> float:
    """``value`` without the rounding of 32 bits: 10.3 for 10.300000190734863."""
    rounded = round(value, 4)
    return rounded if abs(rounded - value) <= 1e-6 * abs(value) else value


def check_rows(rows: Array, imgsz: tuple[int, int], candidates: Sequence[Levels]) -> None:
    """Whether decoded ``rows`` ``[R, 5+nc]`` are what the row decoder takes, in the layout of one of ``candidates``.

    Raises:
        Misfit: they are not centre, size, objectness and class probabilities, boxes in pixels.
    """
    if not candidates:
        raise Misfit(f"{len(rows)} rows are not the boxes of any set of levels with at least 2 anchors a cell")
    if not np.isfinite(rows).all():
        raise Misfit("it returns numbers that are not finite")
    probabilities = rows[:, 4:]
    if probabilities.min() < -1e-4 or probabilities.max() > 1 + 1e-4:
        raise Misfit("its objectness and class columns are not all between 0 and 1")
    if (probabilities[:, 1:].max(axis=1) <= probabilities[:, 0] + 1e-6).all():
        raise Misfit("its class columns look multiplied by the objectness already")
    if (rows[:, 2:4] >= rows[:, :2]).all():
        raise Misfit("its boxes look like corners: the second pair of numbers is never below the first")
    if not any(
        _at_cells(levels.split(rows, coarsest_first=order), levels, 1.01)
        for levels in candidates
        for order in (False, True)
    ):
        raise Misfit("its box centres do not lie at their cells in pixels: boxes may be normalised")
    sizes = rows[:, 2:4]
    if sizes.min() < 0 or np.median(sizes) < 1 or np.median(sizes) > 4 * max(imgsz):
        raise Misfit("its box widths and heights are not plausible in pixels")
