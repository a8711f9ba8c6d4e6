"""Four pictures around one point, seen through a window: the mosaic of YOLOv4 (Bochkovskiy et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovyolo.letterbox import PAD_VALUE
from ovyolo.train.geometry import Boxes, Picture, area, clipped, visible

__all__ = ["canvas_of_four"]


def canvas_of_four(
    rng: np.random.Generator, pictures: Sequence[Picture], imgsz: tuple[int, int]
) -> tuple[Picture, NDArray[np.float32]]:
    """Lay four pictures corner to corner around a random point of a canvas of twice ``imgsz`` in each direction.

    The point lies in the canvas' middle half; the pictures keep their size, what does not fit is cut off, the rest is
    grey.

    Returns:
        The canvas with its boxes clipped to what is to be seen of them, those without any left out; and for each box
        the share of its area that is left.
    """
    height, width = imgsz
    canvas = np.full((2 * height, 2 * width, 3), PAD_VALUE, np.uint8)
    across, down = rng.integers(width // 2, width + width // 2 + 1), rng.integers(height // 2, height + height // 2 + 1)
    boxes: list[Boxes] = []
    shares: list[NDArray[np.float32]] = []
    classes: list[NDArray[np.int64]] = []
    for place, picture in enumerate(pictures):
        h, w = picture.image.shape[:2]
        left = int(across) if place % 2 else int(across) - w
        top = int(down) if place // 2 else int(down) - h
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, 2 * width), min(top + h, 2 * height)
        canvas[y1:y2, x1:x2] = picture.image[y1 - top : y2 - top, x1 - left : x2 - left]
        whole = picture.boxes + np.array([left, top, left, top], np.float32)
        part = clipped(whole, x1, y1, x2, y2)
        seen = area(part) > 0
        boxes.append(part[seen])
        shares.append(visible(whole, part)[seen])
        classes.append(picture.class_id[seen])
    return Picture(canvas, np.concatenate(boxes), np.concatenate(classes)), np.concatenate(shares)
