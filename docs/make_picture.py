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
        bend = int(rng.integers(300, 600))
        shift = 0 if i % 2 else 0
        points = np.array([[20, y], [bend, y], [bend + shift, y + shift], [880, y + shift]], np.int32)
        cv2.polylines(board, [points], False, 0, 14)
        for x, dy in ((60, 0), (820, shift)):
            if (i + x) % 3:
                cv2.circle(board, (x, y + dy), 20, 0, -1)
                cv2.circle(board, (x, y + dy), 8, 255, -1)
            else:
                cv2.rectangle(board, (x - 20, y + dy - 17), (x + 20, y + dy + 17), 0, -1)
    cv2.line(board, (208, rows[0] - 9), (213, rows[0] + 9), 255, 9)  # open
    cv2.line(board, (150, rows[2]), (153, rows[3]), 0, 4)  # short
    cv2.circle(board, (245, rows[4] - 7), 6, 255, -1)  # mouse bite
    cv2.line(board, (700, rows[2]), (704, rows[2] - 21), 0, 5)  # spur
    cv2.circle(board, (640, rows[5] + 52), 5, 0, -1)  # spurious copper
    cv2.circle(board, (820 - 12, rows[6] + 3), 4, 255, -1)  # pin-hole
    cv2.line(board, (720, rows[5] + 16), (725, rows[5] + 32), 255, 8)  # open
    cv2.circle(board, (230, rows[6] + 8), 6, 255, -1)  # mouse bite
    ragged = cv2.GaussianBlur(board, (0, 0), 1.2).astype(np.float32)
    ragged += cv2.GaussianBlur(rng.normal(0, 60, board.shape).astype(np.float32), (0, 0), 1.0)
    return cv2.cvtColor(np.where(ragged > 128, 255, 0).astype(np.uint8), cv2.COLOR_GRAY2BGR)


if __name__ == "__main__":
    picture = draw_board()
    found = Detector(sys.argv[1])(picture)
    print(found.counts())
    cv2.imwrite(sys.argv[2] if len(sys.argv) > 2 else "docs/result.png", annotate(picture, found))
