"""Letterboxing: a picture of any size into the network's input, aspect ratio kept, the rest grey.

Bit-compatible with what YOLOv5's users compare with: scaled by ``min(H/h, W/w)``, sides rounded to whole pixels
(half to even, as Python does), ``INTER_LINEAR``, centred with an odd pixel of padding going to the bottom or right,
padded with 114.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError

__all__ = ["PAD_VALUE", "Letterbox", "fitting", "letterbox"]

PAD_VALUE = 114
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Letterbox:
    """Where a ``source`` picture lies in a ``target`` picture; all sizes ``(height, width)`` in pixels.

    Example:
        >>> fit = Letterbox((720, 1280), (640, 640))
        >>> fit.gain, fit.resized, fit.top, fit.left
        (0.5, (360, 640), 140, 0)
    """

    source: tuple[int, int]
    target: tuple[int, int]

    def __post_init__(self) -> None:
        if min(*self.source, *self.target) < 1:
            raise DimensionError(f"a picture of {self.source} cannot be letterboxed to {self.target}: both need pixels")

    @cached_property
    def gain(self) -> float:
        """Target pixels a source pixel."""
        return min(self.target[0] / self.source[0], self.target[1] / self.source[1])

    @cached_property
    def resized(self) -> tuple[int, int]:
        """``(height, width)`` of the picture inside the target; at least one pixel each."""
        return max(1, round(self.source[0] * self.gain)), max(1, round(self.source[1] * self.gain))

    @cached_property
    def top(self) -> int:
        """Rows of padding above the picture."""
        return (self.target[0] - self.resized[0]) // 2

    @cached_property
    def left(self) -> int:
        """Columns of padding left of the picture."""
        return (self.target[1] - self.resized[1]) // 2

    @cached_property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """``(gain_x, gain_y, pad_x, pad_y, width, height)`` for the kernels: ``source = (target - pad) / gain``.

        The unrounded gain and padding, as YOLOv5's users know it. Where a side was rounded to whole pixels this differs
        from where the pixels lie by less than one input pixel.
        """
        height, width = self.source
        gain = self.gain
        return gain, gain, (self.target[1] - width * gain) / 2, (self.target[0] - height * gain) / 2, width, height

    def into(self, image: Image, out: Image) -> None:
        """Write the letterboxed ``image`` (u8 ``source + (3,)``) into ``out`` (u8 ``target + (3,)``), no copy between.

        Raises:
            DimensionError: when a shape or dtype is not the promised one.
        """
        import cv2

        if image.shape != (*self.source, 3) or out.shape != (*self.target, 3):
            raise DimensionError(
                f"letterbox takes a picture {(*self.source, 3)} and an output {(*self.target, 3)}, "
                f"got {image.shape} and {out.shape}"
            )
        if image.dtype != np.uint8 or out.dtype != np.uint8:
            raise DimensionError(f"letterbox takes u8 arrays, got {image.dtype} and {out.dtype}")
        height, width = self.resized
        top, left = self.top, self.left
        view = out
        if height < self.target[0]:
            out[:top] = PAD_VALUE
            out[top + height :] = PAD_VALUE
            view = out[top : top + height]
        if width < self.target[1]:
            view[:, :left] = PAD_VALUE
            view[:, left + width :] = PAD_VALUE
            view = view[:, left : left + width]
        if (height, width) == self.source:
            view[:] = image
            return
        resized: Any = cv2.resize(image, (width, height), dst=view, interpolation=cv2.INTER_LINEAR)
        if resized is not view and not np.shares_memory(resized, out):  # OpenCV could not write through the view
            view[:] = resized


@lru_cache(maxsize=256)
def fitting(source: tuple[int, int], target: tuple[int, int]) -> Letterbox:
    """The letterbox of pictures of a size, kept: frame after frame is of the same.

    Example:
        >>> fitting((720, 1280), (640, 640)) is fitting((720, 1280), (640, 640))
        True
    """
    return Letterbox(source, target)


def letterbox(image: Image, imgsz: tuple[int, int]) -> tuple[Image, Letterbox]:
    """Letterbox a u8 BGR ``(h, w, 3)`` picture to ``imgsz`` ``(height, width)``.

    Returns:
        The new u8 ``(H, W, 3)`` picture, and where the old one lies in it.

    Example:
        >>> import numpy as np
        >>> picture, fit = letterbox(np.zeros((720, 1280, 3), np.uint8), (640, 640))
        >>> picture.shape, int(picture[0, 0, 0]), int(picture[320, 320, 0])
        ((640, 640, 3), 114, 0)
    """
    fit = fitting((image.shape[0], image.shape[1]), imgsz)
    out = np.empty((*imgsz, 3), np.uint8)
    fit.into(image, out)
    return out, fit
