"""A folder of synthetic boards as a YOLO data set."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ovyolo.demo.appearance import STYLES
from ovyolo.demo.boards import CLASSES, check_size, make_board
from ovyolo.errors import DataError, DimensionError
from ovyolo.io.output import make_folder, replacing, writing
from ovyolo.progress import progress

__all__ = ["make_dataset", "seed_of"]

VERSION = 1
"""Goes up when the same seed gives other boards; a folder begun by another version is not continued."""

SPLITS = ("train", "val")
SUFFIXES = (".jpg", ".png")
NOTE = "boards.json"
TEMPORARY = re.compile(r"\.ovyolo-[0-9a-f]+\.tmp")


def seed_of(seed: int, split: str, index: int) -> tuple[int, int, int]:
    """The seed of board ``index`` of a split, whatever the number of boards."""
    return seed, SPLITS.index(split), index


def make_dataset(
    folder: str | os.PathLike[str],
    *,
    train: int = 1000,
    val: int = 200,
    seed: int = 0,
    imgsz: int | tuple[int, int] = 640,
    style: str | None = None,
    defects: int | None = None,
    suffix: str = ".jpg",
    quiet: bool = False,
) -> Path:
    """Write synthetic boards with labels into ``folder``.

    Makes ``images/train``, ``images/val``, ``labels/train``, ``labels/val``, ``data.yaml``, and ``boards.json``, which
    says how they were made; ``data.yaml`` comes last. Board ``i`` depends on ``seed``, the split and ``i`` only. Files
    appear whole or not at all; called again after an interruption, or for more boards, it makes what is missing.

    Args:
        folder: made where it is missing; otherwise empty, or begun by the same call.
        train, val: how many boards.
        seed: a whole number from 0.
        imgsz: side of the pictures in pixels, or height and width.
        style, defects: as in :func:`~ovyolo.demo.boards.make_board`.
        suffix: ``.jpg`` (quality 95) or ``.png`` (exact, five times as large).
        quiet: no progress bar.

    Returns:
        The path of ``data.yaml``.

    Raises:
        DimensionError: an argument is out of range.
        DataError: the folder holds something else, or boards made otherwise, or more of them.
        OvyoloError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> data = make_dataset(tempfile.mkdtemp(), train=2, val=1, imgsz=160)
        >>> data.name, len(list(data.parent.glob("images/train/*.jpg")))
        ('data.yaml', 2)
    """
    size = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    counts = {"train": train, "val": val}
    _check(counts, seed, size, style, suffix, defects)
    folder = Path(folder)
    made = {"version": VERSION, "seed": seed, "size": list(size), "style": style, "suffix": suffix}
    made |= {} if defects is None else {"defects": defects}
    _begin(folder, made, counts, suffix)
    parts = [make_folder(folder / kind / split) for kind in ("images", "labels") for split in SPLITS]
    for part in (folder, *parts):  # a run that was killed may have left an unfinished file
        for path in part.glob(".ovyolo-*.tmp"):
            path.unlink(missing_ok=True)
    wanted = [(split, index) for split in SPLITS for index in range(counts[split])]
    missing = [one for one in wanted if not all(path.is_file() for path in _paths(folder, *one, suffix))]
    for split, index in progress(missing, total=len(missing), unit="board", quiet=quiet):
        picture, boxes, class_id = make_board(seed_of(seed, split, index), size, style=style, defects=defects)
        image, label = _paths(folder, split, index, suffix)
        _write(label, _label_text(boxes, class_id, size).encode())
        _write(image, _encoded(picture, suffix))
    places = {split: f"images/{split}" for split in SPLITS if counts[split]}
    description = {"path": ".", **places, "names": dict(enumerate(CLASSES))}
    data = folder / "data.yaml"
    _write(data, yaml.safe_dump(description, sort_keys=False).encode())
    return data


def _paths(folder: Path, split: str, index: int, suffix: str) -> tuple[Path, Path]:
    name = f"board{index:06d}"
    return folder / "images" / split / f"{name}{suffix}", folder / "labels" / split / f"{name}.txt"


def _label_text(boxes: NDArray[np.float32], class_id: NDArray[np.int64], size: tuple[int, int]) -> str:
    """YOLO's label lines: class, centre and size as shares of the picture."""
    height, width = size
    lines = []
    for (x0, y0, x1, y1), number in zip(boxes.astype(np.float64), class_id, strict=True):
        shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(f"{number} " + " ".join(f"{share:.8f}" for share in shares) + "\n")
    return "".join(lines)


def _encoded(picture: NDArray[np.uint8], suffix: str) -> bytes:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    return bytes(cv2.imencode(suffix, picture, options)[1].tobytes())


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)


def _begin(folder: Path, made: dict[str, Any], counts: dict[str, int], suffix: str) -> None:
    """Note in the folder how its boards are made, or check that it says the same.

    Raises:
        DataError: it does not.
    """
    note = folder / NOTE
    if note.is_file():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before != made:
            raise DataError(f"{folder} holds boards that were made otherwise (see {NOTE} in it): name another folder")
        for split, count in counts.items():
            if _paths(folder, split, count, suffix)[0].exists():
                raise DataError(
                    f"{folder} holds more than {count} {split} boards: ask for more, or name another folder"
                )
        return
    if folder.is_dir() and any(not TEMPORARY.fullmatch(path.name) for path in folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no boards of ours: name a new folder")
    make_folder(folder)
    with writing(note):
        _write(note, json.dumps(made).encode())


def _check(
    counts: dict[str, int], seed: int, size: tuple[int, int], style: str | None, suffix: str, defects: int | None
) -> None:
    for split, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise DimensionError(f"{split} is {count!r}: give how many boards, a whole number from 0")
    if not any(counts.values()):
        raise DimensionError("train and val are both 0: ask for a board at least")
    if not isinstance(seed, int) or seed < 0:
        raise DimensionError(f"seed is {seed!r}: give a whole number from 0")
    check_size("imgsz", size)
    if style is not None and style not in STYLES:
        raise DimensionError(f"style is {style!r}: give one of {', '.join(STYLES)}, or None for a mixture")
    if defects is not None and (not isinstance(defects, int) or defects < 0):
        raise DimensionError(f"defects is {defects!r}: give a whole number from 0, or None")
    if suffix not in SUFFIXES:
        raise DimensionError(f"suffix is {suffix!r}: give one of {', '.join(SUFFIXES)}")
