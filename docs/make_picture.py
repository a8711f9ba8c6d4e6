"""Makes the README's picture: a board drawn here, with defects, annotated by ``ovyolo``.

    python docs/make_picture.py MODEL [docs/result.png]

MODEL is a detector of board defects. The board is our own drawing; no data set is needed.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from ovyolo import Detector
from ovyolo.io.draw import annotate


def draw_board(seed: int = 5) -> np.ndarray:
    """A black-on-white inspection image, u8 BGR (480, 900, 3), with opens, shorts, bites, spurs and pin-holes."""
    rng = np.random.default_rng(seed)
    board = np.full((480, 900), 255, np.uint8)
    rows = list(range(50, 460, 60))
    for i, y in enumerate(rows):
        turn = 430 + 45 * (i % 3)
        points = np.array([[60, y], [turn, y], [turn + 30, y + 30], [820, y + 30]], np.int32)
        cv2.polylines(board, [points], False, 0, 14)
        cv2.rectangle(board, (800, y + 13), (850, y + 47), 0, -1)
        cv2.circle(board, (60, y), 22, 0, -1)
        cv2.circle(board, (60, y), 10, 255, -1)
    cv2.line(board, (208, rows[0] - 9), (213, rows[0] + 9), 255, 9)  # open
    cv2.line(board, (150, rows[2]), (153, rows[3]), 0, 4)  # short
    cv2.circle(board, (265, rows[4] - 7), 6, 255, -1)  # mouse bite
    cv2.line(board, (700, rows[1] + 30), (702, rows[1] + 15), 0, 6)  # spur
    cv2.circle(board, (640, rows[3] + 58), 6, 0, -1)  # spurious copper
    cv2.circle(board, (824, rows[4] + 30), 4, 255, -1)  # pin-hole
    cv2.line(board, (720, rows[5] + 22), (725, rows[5] + 38), 255, 9)  # open
    cv2.circle(board, (330, rows[6] + 8), 6, 255, -1)  # mouse bite
    ragged = cv2.GaussianBlur(board, (0, 0), 1.2).astype(np.float32)
    ragged += cv2.GaussianBlur(rng.normal(0, 60, board.shape).astype(np.float32), (0, 0), 1.0)
    return cv2.cvtColor(np.where(ragged > 128, 255, 0).astype(np.uint8), cv2.COLOR_GRAY2BGR)


if __name__ == "__main__":
    picture = draw_board()
    found = Detector(sys.argv[1], conf=0.4, agnostic=True)(picture)
    print(found.counts())
    cv2.imwrite(sys.argv[2] if len(sys.argv) > 2 else "docs/result.png", annotate(picture, found))
