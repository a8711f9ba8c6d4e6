"""Moving a picture and its boxes together: affine maps, flips, and which boxes are left after a cut.

Coordinates are those of edges: pixel ``i`` covers ``i`` to ``i + 1``, so a box around pixels 3, 4 and 5 goes from 3 to
6, and boxes follow the pixels exactly. (OpenCV counts from pixel centres; :func:`warp` translates.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ovyolo.letterbox import PAD_VALUE

__all__ = [
    "LEAST_SIDE",
    "Boxes",
    "Image",
    "Picture",
    "area",
    "clipped",
    "flip",
    "linear",
    "move_boxes",
    "visible",
    "warp",
]

LEAST_SIDE = 2.0
"""Pixels that a side of a box must have left after a cut or a change of size."""

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Matrix = NDArray[np.float64]


class Picture(NamedTuple):
    """A picture and what is in it.

    Args:
        image: u8 BGR ``(h, w, 3)``.
        boxes: float32 ``(n, 4)``: left, top, right, bottom in pixels of ``image``.
        class_id: int64 ``(n,)``.
    """

    image: Image
    boxes: Boxes
    class_id: NDArray[np.int64]


def clipped(boxes: Boxes, left: float, top: float, right: float, bottom: float) -> Boxes:
    """The part of each box inside a rectangle; what lies outside becomes empty at its edge."""
    low = np.array([left, top, left, top], np.float32)
    high = np.array([right, bottom, right, bottom], np.float32)
    return np.clip(boxes, low, high)


def area(boxes: Boxes) -> NDArray[np.float32]:
    """Square pixels of each box."""
    sides: NDArray[np.float32] = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def visible(whole: Boxes, part: Boxes) -> NDArray[np.float32]:
    """Which share of each box's area is left in ``part``, from 0 to 1."""
    share: NDArray[np.float32] = area(part) / np.maximum(area(whole), np.float32(1e-9))
    return share


def move_boxes(boxes: Boxes, matrix: Matrix) -> Boxes:
    """The upright boxes around boxes moved by a 2x3 matrix (in coordinates of edges)."""
    corners = boxes.astype(np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def linear(gain: float, degrees: float = 0.0, shear: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    """The 2x2 part: scaled by ``gain``, turned counter-clockwise, then sheared by two angles in degrees."""
    angle, (along_x, along_y) = np.radians(degrees), np.tan(np.radians(shear))
    turn = gain * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array([[1.0, along_x], [along_y, 1.0]]) @ turn


def warp(
    picture: Picture,
    matrix: Matrix,
    size: tuple[int, int],
    *,
    share: NDArray[np.float32] | None = None,
    min_visible: float = 0.1,
) -> Picture:
    """Move a picture by a 2x3 matrix (in coordinates of edges) into one of ``size`` ``(h, w)``; around it is grey.

    Boxes are clipped to the new picture. A box stays when at least ``min_visible`` of its area is left and both its
    sides have :data:`LEAST_SIDE` pixels: less could not be told from background.

    Args:
        share: what earlier cuts have left of each box, if there were any.
    """
    height, width = size
    # edges are half a pixel before centres
    centred = np.concatenate([matrix[:, :2], (matrix[:, 2] + matrix[:, :2].sum(axis=1) / 2 - 0.5)[:, None]], axis=1)
    image: Any = cv2.warpAffine(
        picture.image, centred, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PAD_VALUE,) * 3
    )
    whole = move_boxes(picture.boxes, matrix)
    boxes = clipped(whole, 0, 0, width, height)
    left = visible(whole, boxes) * (1 if share is None else share)
    stay = (left >= min_visible) & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= LEAST_SIDE)
    return Picture(image, boxes[stay], picture.class_id[stay])


def flip(picture: Picture, *, sideways: bool) -> Picture:
    """Mirror left and right (``sideways``) or top and bottom."""
    height, width = picture.image.shape[:2]
    boxes = picture.boxes.copy()
    if sideways:
        boxes[:, [0, 2]] = width - picture.boxes[:, [2, 0]]
    else:
        boxes[:, [1, 3]] = height - picture.boxes[:, [3, 1]]
    image: Any = cv2.flip(picture.image, 1 if sideways else 0)
    return Picture(image, boxes, picture.class_id)
