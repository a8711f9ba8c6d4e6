"""Colour, and pictures mixed into each other: HSV jitter, mixup, copy-paste of small objects by their boxes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovyolo.train.geometry import Boxes, Image, Picture, area, flip

__all__ = ["SMALL_AREA", "copy_paste", "hsv_jitter", "mixup"]

SMALL_AREA = 32.0**2
"""Square pixels below which COCO calls an object small."""

TRIES = 30


def hsv_jitter(rng: np.random.Generator, image: Image, hue: float, saturation: float, value: float) -> Image:
    """Turn the hue by up to ``hue`` half circles, scale saturation and value by up to ``1 ± gain``; a new picture.

    Three tables of 256 entries do it. With all gains 0 the picture itself is returned.
    """
    if not (hue or saturation or value):
        return image
    turn, strength, light = rng.uniform(-1, 1, 3) * (hue, saturation, value)
    steps = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = np.round(steps + turn * 180) % 180  # OpenCV's hue has 180 steps
    table[0, :, 1] = np.clip(np.round(steps * (1 + strength)), 0, 255)
    table[0, :, 2] = np.clip(np.round(steps * (1 + light)), 0, 255)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    jittered: Any = cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2BGR)
    return jittered


def mixup(rng: np.random.Generator, first: Picture, second: Picture) -> Picture:
    """Lay two pictures of one size over each other, about half and half (Beta(32, 32)); the boxes of both count.

    Zhang et al., 2018; for detection Zhang et al., "Bag of Freebies", 2019.
    """
    part = float(rng.beta(32.0, 32.0))
    image: Any = cv2.addWeighted(first.image, part, second.image, 1 - part, 0)
    return Picture(
        image,
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.class_id, second.class_id]),
    )


def copy_paste(rng: np.random.Generator, picture: Picture, probability: float) -> Picture:
    """Paste small objects once more where nothing is (after Kisantal et al., "Augmentation for small object
    detection", 2019).

    Each object below :data:`SMALL_AREA` is copied with ``probability``, with a margin around its box that fades into
    the new surroundings, mirrored at random, to a place where the copy and its margin meet no box. An object with
    another one in its margin is not copied, nor is one for which 30 tries find no place. There are only boxes, so what
    surrounds an object comes along.

    Returns:
        A new picture with the copies' boxes after the others; the same picture when nothing was pasted.
    """
    size = picture.image.shape[0], picture.image.shape[1]
    small = np.flatnonzero((area(picture.boxes) < SMALL_AREA) & (area(picture.boxes) > 0))
    chosen = small[rng.random(len(small)) < probability]
    image, boxes, classes = picture.image, picture.boxes, [picture.class_id]
    for index in chosen:
        copy, fade, left, top = _cut_out(picture, index)
        for sideways in (True, False):
            if rng.random() < 0.5:
                copy, fade = flip(copy, sideways=sideways), fade[:, ::-1] if sideways else fade[::-1]
        h, w = copy.image.shape[:2]
        alone = _meets(picture.boxes, np.array([left]), np.array([top]), (h, w)).sum() == 1
        place = _free_place(rng, boxes, (h, w), size) if alone else None
        if place is None:
            continue
        if image is picture.image:
            image = picture.image.copy()
        x, y = place
        under = image[y : y + h, x : x + w]
        image[y : y + h, x : x + w] = np.round(copy.image * fade + under * (1 - fade))
        boxes = np.concatenate([boxes, copy.boxes + np.array([x, y, x, y], np.float32)])
        classes.append(copy.class_id)
    return Picture(image, boxes, np.concatenate(classes))


def _cut_out(picture: Picture, index: int) -> tuple[Picture, NDArray[np.float32], int, int]:
    """An object with its margin, how it fades (float32 ``(h, w, 1)``, 1 in the box, to 0 at the margin's edge), and
    left and top of the patch."""
    height, width = picture.image.shape[:2]
    x1, y1 = np.floor(picture.boxes[index, :2]).astype(int).tolist()
    x2, y2 = np.ceil(picture.boxes[index, 2:]).astype(int).tolist()
    margin = max(2, round(0.25 * max(x2 - x1, y2 - y1)))
    left, top, right, bottom = (
        max(0, x1 - margin),
        max(0, y1 - margin),
        min(width, x2 + margin),
        min(height, y2 + margin),
    )
    across, down = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    beside = np.maximum(0, np.maximum(x1 - across, across - x2))[None]
    above = np.maximum(0, np.maximum(y1 - down, down - y2))[:, None]
    fade = 1 - np.minimum(1, np.maximum(beside, above) / margin)
    box = picture.boxes[index : index + 1] - np.array([left, top, left, top], np.float32)
    patch = Picture(picture.image[top:bottom, left:right], box, picture.class_id[index : index + 1])
    return patch, fade[:, :, None].astype(np.float32), left, top


def _meets(boxes: Boxes, x: NDArray[Any], y: NDArray[Any], patch: tuple[int, int]) -> NDArray[np.bool_]:
    """``(places, boxes)``: whether a patch at ``x``, ``y`` covers part of a box."""
    h, w = patch
    x, y = x[:, None], y[:, None]
    met: NDArray[np.bool_] = (boxes[:, 0] < x + w) & (boxes[:, 2] > x) & (boxes[:, 1] < y + h) & (boxes[:, 3] > y)
    return met


def _free_place(
    rng: np.random.Generator, boxes: Boxes, patch: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int] | None:
    """``(left, top)`` for a patch where it meets no box; None when ``TRIES`` tries found none."""
    x = rng.integers(0, size[1] - patch[1] + 1, TRIES)
    y = rng.integers(0, size[0] - patch[0] + 1, TRIES)
    free = np.flatnonzero(~_meets(boxes, x, y, patch).any(axis=1))
    return (int(x[free[0]]), int(y[free[0]])) if len(free) else None
