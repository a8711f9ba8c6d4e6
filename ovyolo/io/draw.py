"""Boxes and labels drawn on a copy of a picture."""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovyolo.detections import Detections
from ovyolo.errors import DimensionError
from ovyolo.io.images import Image, as_bgr

__all__ = ["annotate", "ascii_label", "colour_of"]

Colour = tuple[int, int, int]
Rows = NDArray[np.float64]

# Okabe and Ito, Color Universal Design (2008), without black and in an order that starts with the most vivid;
# BGR. Told apart with every common kind of colour blindness.
OKABE_ITO: tuple[Colour, ...] = (
    (0, 94, 213),  # vermilion
    (233, 180, 86),  # sky blue
    (66, 228, 240),  # yellow
    (115, 158, 0),  # bluish green
    (167, 121, 204),  # reddish purple
    (178, 114, 0),  # blue
    (0, 159, 230),  # orange
)
GOLDEN_ANGLE = 137.50776
# letters that Unicode does not decompose
LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
     "ł": "l", "Ł": "L", "þ": "th", "Þ": "Th", "ð": "d", "ı": "i", "–": "-", "—": "-", "−": "-", "‐": "-",
     "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "µ": "u", "μ": "u", "°": "deg"}
)  # fmt: skip


class _Text(NamedTuple):
    """A line of text and its plate, in pixels; ``pad`` lies left of the text, ``ascent`` above its base line."""

    text: str
    width: int
    height: int
    pad: int
    ascent: int


def annotate(
    image: Image,
    detections: Detections,
    *,
    line_width: int | None = None,
    labels: bool = True,
    confidences: bool = True,
) -> Image:
    """Draw boxes, class names and confidences on a copy of ``image``.

    Lines and letters grow with the picture. A class has the same colour in every picture; the first seven are told
    apart with every common kind of colour blindness. A label stands where it hides least: outside its box where there
    is room, never over the picture's edge; one that does not fit the picture is shortened, then left out.

    OpenCV draws ASCII only, so names are transliterated ("Lötbrücke" becomes "Lotbrucke"); where letters are
    lost, the class number stands in for them ("划痕 deep" of class 3 becomes "#3 deep").

    Args:
        image: u8 BGR ``(h, w, 3)``, or what :func:`~ovyolo.io.images.as_bgr` converts.
        detections: what to draw, in pixels of ``image``. Boxes that are not finite are not drawn.
        line_width: of the boxes, in pixels; the default follows the picture's size (2 at 640 × 640;
            OpenCV draws even widths a pixel wider).
        labels: write class names.
        confidences: write confidences.

    Returns:
        A new u8 ``(h, w, 3)`` picture; ``image`` is not changed.

    Raises:
        DimensionError: when ``image`` is not such an array, or ``line_width`` is below 1.

    Example:
        >>> import numpy as np
        >>> from ovyolo import Detections
        >>> found = Detections.from_arrays([[20, 30, 60, 70]], [0.9], [0], names=["scratch"])
        >>> annotate(np.zeros((100, 120, 3), np.uint8), found).shape
        (100, 120, 3)
    """
    import cv2

    canvas: Image = as_bgr(image).copy()
    height, width = canvas.shape[:2]
    if line_width is None:
        line_width = max(1, round(math.sqrt(height * width) / 400))
    elif line_width < 1:
        raise DimensionError(f"line_width is {line_width}, but at least 1 pixel is taken")

    shown = np.flatnonzero(np.isfinite(detections.xyxy).all(axis=1))
    limits = np.array([width - 1, height - 1] * 2, np.float64)
    boxes = np.rint(np.clip(detections.xyxy[shown].astype(np.float64), 0, limits)).astype(np.int64)
    colours = [colour_of(int(detections.class_id[i])) for i in shown]

    # a thin dark rim keeps a line visible on a ground of its own colour; the best box is drawn last, on top
    rim = line_width + 2 * max(1, line_width // 3) if line_width > 1 else 0
    for (x1, y1, x2, y2), colour in zip(boxes[::-1].tolist(), colours[::-1], strict=True):
        if rim:
            cv2.rectangle(canvas, (x1, y1), (x2, y2), (32, 32, 32), rim)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line_width)

    if labels or confidences:
        _draw_labels(canvas, detections, shown, boxes, colours, line_width, labels, confidences)
    return canvas


def colour_of(class_id: int) -> Colour:
    """The BGR colour of a class; the same for ever.

    Example:
        >>> colour_of(0)
        (0, 94, 213)
    """
    if 0 <= class_id < len(OKABE_ITO):
        return OKABE_ITO[class_id]
    # beyond the palette: hues a golden angle apart, in three lightnesses, in Oklch (Ottosson, 2020)
    lightness, chroma = ((0.72, 0.15), (0.55, 0.17), (0.85, 0.11))[class_id % 3]
    angle = math.radians((class_id * GOLDEN_ANGLE + 65) % 360)
    a, b = chroma * math.cos(angle), chroma * math.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    return _srgb(blue), _srgb(green), _srgb(red)


def ascii_label(name: str, class_id: int) -> str:
    """What is left of a class name in ASCII; ``#class_id`` stands for letters that have no ASCII form.

    Example:
        >>> ascii_label("Lötbrücke", 0), ascii_label("划痕 deep", 3), ascii_label("царапина", 4)
        ('Lotbrucke', '#3 deep', '#4')
    """
    plain, lost = [], False
    for letter in unicodedata.normalize("NFKD", name.translate(LETTERS)).translate(LETTERS):
        if " " <= letter <= "~":
            plain.append(letter)
        elif letter.isspace():
            plain.append(" ")
        elif not unicodedata.combining(letter):
            lost = True
    text = " ".join("".join(plain).split())
    return f"#{class_id} {text}".strip() if lost or not text else text


def _srgb(linear: float) -> int:
    """Linear light to an sRGB byte (IEC 61966-2-1)."""
    linear = min(1.0, max(0.0, linear))
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast on ``colour`` (relative luminance, WCAG 2)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _draw_labels(
    canvas: Image,
    detections: Detections,
    shown: NDArray[np.intp],
    boxes: NDArray[np.int64],
    colours: list[Colour],
    line_width: int,
    names: bool,
    confidences: bool,
) -> None:
    """Write a label for each box, best first, each where it hides least of what is there already."""
    import cv2

    height, width = canvas.shape[:2]
    scale = max(0.35, math.sqrt(height * width) / 1400)
    thickness = max(1, round(scale * 1.4))
    taken = boxes.astype(np.float64)
    placed = np.empty_like(taken)
    plates: list[tuple[_Text, int, int, Colour]] = []
    for row, index in enumerate(shown.tolist()):
        class_id = int(detections.class_id[index])
        name = ascii_label(detections.name_of(index), class_id) if names else ""
        confidence = f"{detections.confidence[index]:.2f}" if confidences else ""
        for text in dict.fromkeys((f"{name} {confidence}".strip(), name or confidence)):
            line = _measure(text, scale, thickness)
            spot = _place(line, boxes[row].tolist(), width, height, line_width, taken, placed[: len(plates)])
            if spot is not None:
                placed[len(plates)] = (*spot, spot[0] + line.width, spot[1] + line.height)
                plates.append((line, *spot, colours[row]))
                break
    for line, x, y, colour in reversed(plates):  # where labels must overlap, the better one is on top
        cv2.rectangle(canvas, (x, y), (x + line.width - 1, y + line.height - 1), colour, cv2.FILLED)
        origin, ink = (x + line.pad, y + line.ascent), _ink_on(colour)
        cv2.putText(canvas, line.text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def _measure(text: str, scale: float, thickness: int) -> _Text:
    """How large the text and the plate behind it are."""
    import cv2

    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(2, height // 3)
    descent = round(0.3 * height) if any(letter in "gjpqy,;@Q_()[]{}|" for letter in text) else 0
    return _Text(text, width + 2 * pad, height + 2 * pad + descent, pad, height + pad)


def _place(
    line: _Text,
    box: list[int],
    width: int,
    height: int,
    line_width: int,
    boxes: Rows,
    placed: Rows,
) -> tuple[int, int] | None:
    """The left top corner of a label for ``box``, wholly inside the picture, or None when it does not fit.

    Of the places around the box and in its corner, the one that covers least: each box that it overlaps costs the
    share that is hidden (so that tiny objects stay visible), each earlier label twice that, and earlier places in the
    list are liked a little better.
    """
    if line.width > width or line.height > height:
        return None
    half = (line_width + 1) // 2
    x1, y1, x2, y2 = box[0] - half, box[1] - half, box[2] + half + 1, box[3] + half + 1
    above, below, left, right = y1 - line.height, y2, x1 - line.width, x2
    spots = np.array(
        [
            (x1, above),
            (x2 - line.width, above),
            (x1, below),
            (x2 - line.width, below),
            (right, y1),
            (left, y1),
            (right, y2 - line.height),
            (left, y2 - line.height),
            (x1, y1),  # inside: only a large box loses little by it
            (x1, above - line.height),
            (x1, below + line.height),
        ],
        np.float64,
    )
    inside = np.clip(spots, 0, (width - line.width, height - line.height))
    cost = 0.01 * np.arange(len(spots)) + _share_hidden(inside, line, boxes) + 2 * _share_hidden(inside, line, placed)
    x, y = inside[int(np.argmin(cost))]
    return int(x), int(y)


def _share_hidden(spots: Rows, line: _Text, boxes: Rows) -> Rows:
    """For each spot, the sum over ``boxes`` of the share of each that a label there covers."""
    x, y = spots[:, :1], spots[:, 1:]
    x1, y1, x2, y2 = boxes.T
    wide = np.minimum(x + line.width, x2) - np.maximum(x, x1)
    high = np.minimum(y + line.height, y2) - np.maximum(y, y1)
    overlap = np.maximum(wide, 0) * np.maximum(high, 0)
    shares: Rows = overlap @ (1 / np.maximum(1, (x2 - x1) * (y2 - y1)))
    return shares
