"""How training pictures are varied: the settings, and the whole way from some pictures to one sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError
from ovyolo.letterbox import PAD_VALUE
from ovyolo.train.blend import copy_paste, hsv_jitter, mixup
from ovyolo.train.geometry import Boxes, Picture, flip, linear, warp
from ovyolo.train.mosaic import canvas_of_four

__all__ = ["Augment", "augmented", "padded"]

Load = Callable[[int], Picture]

RANGES: dict[str, tuple[float, float]] = {
    "scale": (0, 0.95),
    "translate": (0, 1),
    "degrees": (0, 180),
    "shear": (0, 60),
    "small": (0, 1024),
}  # all others are 0 to 1


@dataclass(frozen=True)
class Augment:
    """How strongly training pictures are varied; every 0 turns something off.

    Args:
        mosaic: probability that a sample is made of four pictures.
        scale: size changes by a factor of up to ``1 ± scale``.
        translate: moved by up to this fraction of the sides.
        sharp: probability that a sample keeps its pixels: neither scaled, turned nor sheared, and moved by whole ones.
            Whatever is resampled gets softer edges, and a network that has seen nothing else draws boxes a pixel too
            small around the sharp ones of pictures as they are.
        degrees: turned by up to so many degrees either way. Boxes grow to hold the turned ones.
        shear: sheared by up to so many degrees in each direction.
        hsv_h: hue turned by up to this fraction of a half circle.
        hsv_s: saturation scaled by up to ``1 ± hsv_s``.
        hsv_v: brightness scaled by up to ``1 ± hsv_v``.
        fliplr: probability of mirroring left and right.
        flipud: probability of mirroring top and bottom.
        mixup: probability of laying a second sample over it.
        copy_paste: probability, for each small object, of its being pasted once more where nothing is.
        small: pixels (root of the box's area) below which three quarters of a sample's objects are not scaled down;
            where ``scale`` alone would do that, the sample shrinks less, and a mosaic's window is laid around one of
            its small objects, so that they are neither shrunk away nor cut. Data sets of larger objects never notice.
        min_visible: share of an object's area that must be left after cuts for its box to stay.

    Raises:
        DimensionError: a value is out of range.

    Example:
        >>> from ovyolo.train.augment import Augment
        >>> Augment(flipud=0.5).mosaic, Augment.off().active
        (1.0, False)
    """

    mosaic: float = 1.0
    scale: float = 0.5
    translate: float = 0.1
    sharp: float = 0.5
    degrees: float = 0.0
    shear: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    fliplr: float = 0.5
    flipud: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    small: float = 8.0
    min_visible: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = RANGES.get(field.name, (0, 1))
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                raise DimensionError(f"{field.name} is {value!r}; augmentation takes a number from {low:g} to {high:g}")

    @classmethod
    def off(cls) -> Augment:
        """Nothing is varied."""
        return cls(**{field.name: 0.0 for field in fields(cls)})

    @property
    def active(self) -> bool:
        """Whether anything is varied at all."""
        return any(
            getattr(self, field.name) for field in fields(self) if field.name not in ("sharp", "small", "min_visible")
        )


def padded(picture: Picture, imgsz: tuple[int, int]) -> Picture:
    """A picture that fits into ``imgsz`` ``(h, w)`` laid in its middle, grey around it, as letterboxing does."""
    height, width = picture.image.shape[:2]
    left, top = (imgsz[1] - width) // 2, (imgsz[0] - height) // 2
    image = np.full((*imgsz, 3), PAD_VALUE, np.uint8)
    image[top : top + height, left : left + width] = picture.image
    return Picture(image, picture.boxes + np.array([left, top, left, top], np.float32), picture.class_id)


def augmented(
    rng: np.random.Generator, settings: Augment, load: Load, index: int, count: int, imgsz: tuple[int, int]
) -> Picture:
    """One sample: picture ``index`` and, for mosaics and mixup, others.

    Args:
        rng: all chance comes from it.
        load: gives picture ``i`` of ``count``, scaled to fit into ``imgsz`` but without padding; must not be changed.
        imgsz: ``(height, width)`` of the sample in pixels.

    Returns:
        A new picture of ``imgsz``; boxes lie inside it.
    """
    picture = _placed(rng, settings, load, index, count, imgsz)
    if settings.mixup and rng.random() < settings.mixup:
        picture = mixup(rng, picture, _placed(rng, settings, load, int(rng.integers(count)), count, imgsz))
    image = hsv_jitter(rng, picture.image, settings.hsv_h, settings.hsv_s, settings.hsv_v)
    picture = Picture(image, picture.boxes, picture.class_id)
    if settings.fliplr and rng.random() < settings.fliplr:
        picture = flip(picture, sideways=True)
    if settings.flipud and rng.random() < settings.flipud:
        picture = flip(picture, sideways=False)
    return picture


def _placed(
    rng: np.random.Generator, settings: Augment, load: Load, index: int, count: int, imgsz: tuple[int, int]
) -> Picture:
    """One picture or four, moved and scaled into ``imgsz``."""

    def source(one: int) -> Picture:
        return copy_paste(rng, load(one), settings.copy_paste) if settings.copy_paste else load(one)

    if settings.mosaic and rng.random() < settings.mosaic:
        four = [source(one) for one in (index, *rng.integers(count, size=3).tolist())]
        canvas, share = canvas_of_four(rng, four, imgsz)
        matrix = _matrix(rng, settings, canvas, canvas.boxes[share > 0.99], imgsz, aim=True)
        return warp(canvas, matrix, imgsz, share=share, min_visible=settings.min_visible)
    picture = padded(source(index), imgsz)
    if not (settings.scale or settings.translate or settings.degrees or settings.shear):
        return picture
    matrix = _matrix(rng, settings, picture, picture.boxes, imgsz, aim=False)
    return warp(picture, matrix, imgsz, min_visible=settings.min_visible)


def _matrix(
    rng: np.random.Generator, settings: Augment, picture: Picture, whole: Boxes, imgsz: tuple[int, int], *, aim: bool
) -> NDArray[np.float64]:
    """The random affine map from a picture into a window of ``imgsz``, in coordinates of edges.

    The picture's middle comes to the window's middle, give or take ``translate``. With ``aim``, where small objects
    would have been shrunk too far, one of them comes to a random place inside the window instead. ``whole`` are the
    boxes that nothing was cut off.
    """
    height, width = imgsz
    low, few = _least_gain(settings, whole)
    gain = rng.uniform(low, 1 + settings.scale)
    degrees = rng.uniform(-settings.degrees, settings.degrees)
    along_x, along_y = rng.uniform(-settings.shear, settings.shear, 2)
    if keep := rng.random() < settings.sharp:
        gain, degrees, along_x, along_y = 1.0, 0.0, 0.0, 0.0
    shift = rng.uniform(0.5 - settings.translate, 0.5 + settings.translate, 2) * (width, height)
    middle = np.array([picture.image.shape[1], picture.image.shape[0]]) / 2
    turn = linear(gain, degrees, (along_x, along_y))
    if aim and low > 1 - settings.scale:
        window = np.array([width, height]) / gain
        box = few[int(rng.integers(len(few)))].astype(np.float64)
        slack = np.maximum(window - (box[2:] - box[:2]), 0)
        corner = box[:2] - rng.uniform(0, 1, 2) * slack
        corner = np.clip(corner, 0, np.maximum(2 * middle - window, 0))
        middle, shift = corner + window / 2, np.array([width, height]) / 2
    moved = shift - turn @ middle
    return np.concatenate([turn, (np.round(moved) if keep else moved)[:, None]], axis=1)


def _least_gain(settings: Augment, boxes: Boxes) -> tuple[float, Boxes]:
    """The lower end of the change of size, and the small boxes that it protects."""
    usual = 1 - settings.scale
    if not settings.small or not len(boxes):
        return usual, boxes
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    quarter = float(np.quantile(sides, 0.25))
    return max(usual, min(1.0, settings.small / max(quarter, 1e-6))), boxes[sides <= quarter]
