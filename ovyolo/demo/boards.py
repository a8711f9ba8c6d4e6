"""Synthetic circuit boards with labelled defects, drawn from a seed.

The boards are our own drawing from first principles; no picture of anybody's board is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.demo.appearance import STYLES, Appearance
from ovyolo.demo.camera import SCALE, Camera
from ovyolo.demo.defects import CLASSES, Workshop
from ovyolo.demo.plan import random_layout
from ovyolo.demo.raster import draw
from ovyolo.errors import DimensionError

__all__ = ["CLASSES", "MIXTURE", "Board", "draw_board", "make_board"]

MIXTURE = {"masked": 0.5, "bare": 0.3, "binary": 0.2}
"""How often each style comes when none is asked for."""

SMALLEST, LARGEST = 128, 4096  # a larger one could have more nets than int16 can number


@dataclass(frozen=True)
class Board:
    """A board, and what it would be without its defects.

    Args:
        picture: u8 BGR (h, w, 3).
        clean: the same board, light and noise without the defects; None unless asked for.
        boxes: float32 (n, 4), xyxy in pixels of the picture, tight around the copper that was added or is missing.
        class_id: int64 (n,), places in :data:`CLASSES`.
        nets: int16 (2h, 2w): which net holds each pixel of the drawing, 0 where there is no copper; with the defects.
        clean_nets: the same without them; None unless asked for.
        style: ``masked``, ``bare`` or ``binary``.
    """

    picture: NDArray[np.uint8]
    clean: NDArray[np.uint8] | None
    boxes: NDArray[np.float32]
    class_id: NDArray[np.int64]
    nets: NDArray[np.int16]
    clean_nets: NDArray[np.int16] | None
    style: str


def make_board(
    seed: int | Sequence[int],
    size: tuple[int, int] = (640, 640),
    *,
    style: str | None = None,
    defects: int | None = None,
    classes: Sequence[int] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Draw a board.

    Args:
        seed: a whole number from 0, or several; the same seed and arguments give the same board on every machine.
        size: height and width in pixels, 128 to 4096. Traces and defects keep their size in pixels: a larger picture
            shows more of a board.
        style: ``masked`` (a finished board), ``bare`` (etched copper before solder mask), ``binary`` (black and white,
            as an inspection machine thresholds it); None draws one by :data:`MIXTURE`.
        defects: how many to make; fewer where there is no room. None: 2 to 10 on 640x640, in proportion to the area,
            and on every twelfth board none.
        classes: the class ids to make defects of; None is all six.

    Returns:
        The picture, u8 BGR (h, w, 3); boxes, float32 (n, 4), xyxy in its pixels; class ids, int64 (n,).

    Raises:
        DimensionError: an argument is out of range.

    Example:
        >>> picture, boxes, class_id = make_board(7, (256, 320))
        >>> picture.shape, picture.dtype.name, boxes.shape[1] == 4, len(boxes) == len(class_id)
        ((256, 320, 3), 'uint8', True, True)
        >>> CLASSES
        ('open', 'short', 'mouse bite', 'spur', 'spurious copper', 'pin-hole')
    """
    board = draw_board(seed, size, style=style, defects=defects, classes=classes)
    return board.picture, board.boxes, board.class_id


def draw_board(
    seed: int | Sequence[int],
    size: tuple[int, int] = (640, 640),
    *,
    style: str | None = None,
    defects: int | None = None,
    classes: Sequence[int] | None = None,
    clean: bool = False,
) -> Board:
    """As :func:`make_board`, with the copper of each net and, if ``clean``, everything also without the defects."""
    _check(seed, size, style, defects, classes)
    height, width = size
    plan, looks, damage = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    camera = Camera(plan, size)
    drawing = draw(plan, random_layout(plan, camera.columns, camera.rows), camera)
    names, shares = zip(*MIXTURE.items(), strict=True)
    drawn = names[int(np.searchsorted(np.cumsum(shares), looks.random() * sum(shares), side="right"))]
    look = Appearance(looks, size, style or drawn)

    before = drawing.nets.copy() if clean else None
    picture = look.render(drawing) if clean else None
    avoid = drawing.hole if look.style != "masked" else np.maximum(drawing.hole, drawing.silk)
    shop = Workshop(damage, drawing, avoid)
    if defects is None:
        area = height * width / 640**2
        defects = 0 if damage.random() < 1 / 12 else max(1, round(int(damage.integers(2, 11)) * area))
    kinds = list(range(len(CLASSES))) if classes is None else list(classes)
    for place in range(defects):
        if place % len(kinds) == 0:
            damage.shuffle(kinds)
        shop.make(kinds[place % len(kinds)])
    boxes = np.array(shop.boxes, np.float32).reshape(-1, 4) / np.float32(SCALE)
    return Board(look.render(drawing), picture, boxes, np.array(shop.kinds, np.int64), drawing.nets, before, look.style)


def _check(
    seed: int | Sequence[int], size: tuple[int, int], style: str | None, defects: int | None,
    classes: Sequence[int] | None,
) -> None:  # fmt: skip
    """Raise for what cannot be drawn."""
    if not (_whole(seed) or (_whole(seed, several=True) and len(seed))):  # type: ignore[arg-type]
        raise DimensionError(f"seed is {seed!r}: give a whole number from 0, or several")
    check_size("size", size)
    if style is not None and style not in STYLES:
        raise DimensionError(f"style is {style!r}: give one of {', '.join(STYLES)}, or None for a mixture")
    if defects is not None and not _whole(defects):
        raise DimensionError(f"defects is {defects!r}: give a whole number from 0, or None")
    if classes is not None and not (_whole(classes, several=True) and len(classes) and max(classes) < len(CLASSES)):
        raise DimensionError(f"classes is {classes!r}: give class ids from 0 to {len(CLASSES) - 1}, or None")


def check_size(name: str, size: Any) -> None:
    """Raise when ``size`` is no height and width of a board that can be drawn."""
    if not (_whole(size, several=True) and len(size) == 2 and all(SMALLEST <= side <= LARGEST for side in size)):
        raise DimensionError(f"{name} is {size!r}: give height and width, whole numbers from {SMALLEST} to {LARGEST}")


def _whole(value: Any, several: bool = False) -> bool:
    """Whether this is a whole number from 0, or ``several``."""
    if several:
        return isinstance(value, (list, tuple, np.ndarray)) and all(_whole(one) for one in value)
    return isinstance(value, (int, np.integer)) and int(value) >= 0
