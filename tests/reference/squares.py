"""A data set that a network learns in seconds: bright squares and dark squares on grey noise, two classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("bright", "dark")


def write_squares(folder: Path, train: int = 8, val: int = 4, size: int = 64, seed: int = 0) -> Path:
    """Write pictures, labels and a ``data.yaml``; returns its path."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture = rng.integers(100, 150, (size, size, 3), np.uint8)
            rows = []
            for number in range(2):
                side = int(rng.integers(size // 6, size // 3))
                x = int(rng.integers(0, size // 2 - side // 2)) + number * (size // 2 - side // 2)
                y = int(rng.integers(0, size - side))
                kind = int(rng.integers(0, 2))
                picture[y : y + side, x : x + side] = 235 if kind == 0 else 15
                rows.append(f"{kind} {(x + side / 2) / size} {(y + side / 2) / size} {side / size} {side / size}")
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), picture)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(rows))
    data = folder / "data.yaml"
    data.write_text(f"path: {folder.as_posix()}\ntrain: images/train\nval: images/val\nnames: [bright, dark]\n")
    return data
