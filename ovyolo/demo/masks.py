"""Small questions about masks of a few hundred pixels a side, bool (h, w)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask", "grown", "holes", "near", "parts", "shrink"]

Mask = NDArray[np.bool_]


def parts(mask: Mask) -> int:
    """The number of connected parts."""
    import cv2

    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def holes(mask: Mask) -> int:
    """The number of connected parts of what is not in the mask."""
    import cv2

    return int(cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0]) - 1


def grown(mask: Mask, distance: int) -> Mask:
    """The mask and what is within ``distance`` of it."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * distance + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def shrink(mask: Mask, distance: int) -> Mask:
    """What of the mask is farther than ``distance`` from its border."""
    return ~grown(~mask, distance)


def near(avoid: Mask, mask: Mask, distance: int) -> bool:
    """Whether the mask comes within ``distance`` of what is to be avoided."""
    return bool((avoid & grown(mask, distance)).any())
