"""Makes the README's picture of synthetic boards: a sheet of them, with the defects boxed and named.

python docs/make_boards_picture.py [docs/boards.jpg]
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from ovyolo.demo import CLASSES, make_board
from ovyolo.detections import Detections
from ovyolo.io.draw import annotate

SHEET = [("masked", 19), ("bare", 7), ("binary", 12), ("masked", 4), ("bare", 23), ("masked", 31)]


def tile(style: str, seed: int) -> np.ndarray:
    """One board of 320x320 with what is wrong with it."""
    picture, boxes, class_id = make_board(seed, (320, 320), style=style, defects=5)
    truth = Detections(boxes, np.ones(len(boxes), np.float32), class_id, CLASSES)
    drawn = annotate(picture, truth, confidences=False)
    return cv2.copyMakeBorder(drawn, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    tiles = [tile(style, seed) for style, seed in SHEET]
    sheet = np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])
    cv2.imwrite(sys.argv[1] if len(sys.argv) > 1 else "docs/boards.jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])
