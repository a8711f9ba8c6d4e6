"""A split of a YOLO data set: pictures, and a ``.txt`` of labels for each."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset.description import Description, read_data_yaml
from ovyolo.dataset.headers import PICTURE_SUFFIXES, picture_size
from ovyolo.dataset.types import DataSet, Item, Problem
from ovyolo.errors import DataError, ImageError

__all__ = ["label_path", "list_pictures", "load_yolo", "outside"]

# labels are rounded, and annotation tools let boxes stick out a little
SLACK_PIXELS, SLACK_FRACTION = 2.0, 0.01
MOST_LABEL_BYTES = 64 * 2**20
Follow = Callable[[list[Path]], Iterable[Path]]


@dataclass
class _Mended:
    """What was put right without leaving a picture out: counts for the notes."""

    duplicates: int = 0
    duplicate_files: int = 0
    unlabelled: list[Path] = field(default_factory=list)


def load_yolo(
    data: str | Path, split: str = "val", *, limit: int | None = None, follow: Follow = lambda paths: paths
) -> DataSet:
    """Read one split of a ``data.yaml``: its pictures' sizes and labels; see :func:`ovyolo.dataset.load_dataset`."""
    description = read_data_yaml(data)
    paths, problems = list_pictures(description, split)
    if limit is not None and limit < len(paths):
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, limit).round().astype(int).tolist()]
    identities = _identities(paths)
    mended = _Mended()
    items, labelled = [], False
    for path, identity in zip(follow(paths), identities, strict=True):
        try:
            size = picture_size(path)
        except ImageError as error:
            problems.append(Problem(path, _without_name(error, path)))
            continue
        labels = label_path(path)
        if not labels.is_file():
            mended.unlabelled.append(labels)
            rows = np.zeros((0, 5))
        else:
            labelled = True  # also where they are wrong: that is another problem than having none
            try:
                rows = _read_labels(labels, len(description.names), size, mended)
            except DataError as error:
                problems.append(Problem(labels, str(error)))
                continue
        items.append(_item(path, identity, size, rows))
    if items and not labelled:
        raise DataError(
            f"{description.path} ({split}): none of its {len(items)} pictures has a label file; "
            f"the first was looked for at {mended.unlabelled[0]}"
        )
    return DataSet(
        names=description.names,
        items=tuple(items),
        source=description.path,
        split=split,
        category_ids=tuple(range(len(description.names))),
        problems=tuple(problems),
        notes=_notes(mended),
    )


def list_pictures(description: Description, split: str) -> tuple[list[Path], list[Problem]]:
    """The pictures of a split, sorted within each folder, each once; and the listed ones that are not there.

    Raises:
        DataError: the split is not described, its folder or list is missing, or there are no pictures.
    """
    if split not in description.splits:
        there = ", ".join(description.splits) or "no split at all"
        raise DataError(f"{description.path} has no `{split}`: it describes {there}")
    paths: list[Path] = []
    problems: list[Problem] = []
    for entry in description.splits[split]:
        if any(c in entry for c in "*?[") and not any(place.exists() for place in description.places(entry)):
            found = next((hits for place in description.places(entry) if (hits := sorted(glob.glob(str(place))))), [])
            paths += [Path(hit) for hit in found if Path(hit).suffix.lower() in PICTURE_SUFFIXES]
            continue
        place = description.find(entry)
        if place.is_dir():
            paths += _in_folder(place)
        elif place.suffix.lower() in PICTURE_SUFFIXES:
            paths.append(place)
        else:
            listed, missing = _in_list(place, description)
            paths += listed
            problems += missing
    paths = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    if not paths and not problems:
        where = ", ".join(description.splits[split])
        raise DataError(f"{description.path}: no pictures in {where} ({split})")
    return paths, problems


def label_path(picture: Path) -> Path:
    """Where a picture's labels are: the last ``/images/`` of its path becomes ``/labels/``, its suffix ``.txt``.

    Example:
        >>> label_path(Path("/data/images/val/a.b.jpg")).as_posix()
        '/data/labels/val/a.b.txt'
    """
    parts = list(picture.parts)
    for index in range(len(parts) - 2, 0, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def outside(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes (xyxy in pixels) stick out of a picture by more than 2 pixels and 1 % of its side."""
    height, width = size
    slack = np.maximum(SLACK_PIXELS, SLACK_FRACTION * np.array([width, height]))
    limit = np.array([width, height]) + slack
    return np.asarray(((boxes[:, :2] < -slack) | (boxes[:, 2:] > limit)).any(axis=1))


def _in_folder(folder: Path) -> list[Path]:
    """Every picture in a folder and the folders in it, sorted."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        found += [Path(parent, name) for name in sorted(files) if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES]
    return found


def _in_list(path: Path, description: Description) -> tuple[list[Path], list[Problem]]:
    """The pictures that a list file names, a line each: beside the list, or wherever `data.yaml` may mean."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a list of pictures ({error}): it takes a path a line") from error
    found, problems = [], []
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        entry = line if os.sep == "\\" else line.replace("\\", "/")
        places = [path.absolute().parent / entry, *description.places(entry)]
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            problems.append(Problem(places[0], f"is listed in {path.name} but does not exist"))
        else:
            found.append(place)
    return found, problems


def _identities(paths: list[Path]) -> list[int | str]:
    """What COCO-format predictions call the pictures: the number that is the file's name, or the name without suffix;
    where names repeat, the path below the common folder."""
    stems = [path.stem for path in paths]
    named: list[int | str] = [int(s) if s.isascii() and s.isdigit() and len(s) < 19 else s for s in stems]
    if len(set(named)) == len(named):
        return named
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(common).as_posix() for path in paths]


def _read_labels(path: Path, classes: int, size: tuple[int, int], mended: _Mended) -> NDArray[np.float64]:
    """Rows ``class, left, top, right, bottom`` in pixels.

    Raises:
        DataError: says which line is wrong and how, without the file's name.
    """
    try:
        if path.stat().st_size > MOST_LABEL_BYTES:
            raise DataError(f"has {path.stat().st_size / 2**20:.0f} MiB: that is no label file")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as text ({error})") from error
    rows: dict[tuple[float, ...], None] = {}
    wrong: list[str] = []
    given = 0
    for number, line in enumerate(lines, 1):
        if words := line.split():
            given += 1
            try:
                rows[_row(words, classes, size)] = None
            except DataError as error:
                wrong.append(f"line {number} {error}")
    if wrong:
        more = f" (and {len(wrong) - 1} more lines like it)" if len(wrong) > 1 else ""
        raise DataError(wrong[0] + more)
    if len(rows) < given:
        mended.duplicates += given - len(rows)
        mended.duplicate_files += 1
    return np.array(list(rows), np.float64).reshape(-1, 5)


def _row(words: list[str], classes: int, size: tuple[int, int]) -> tuple[float, ...]:
    """One label as ``class, left, top, right, bottom`` in pixels."""
    try:
        class_id, *numbers = map(float, words)
    except ValueError:
        raise DataError(f"is {' '.join(words)[:60]!r}, but numbers are needed") from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise DataError(
            f"has {len(words)} columns; a box has 5 (class, centre x, centre y, width, height), "
            "a polygon a class and at least three points"
        )
    if not all(map(math.isfinite, (class_id, *numbers))):
        raise DataError("holds a number that is not finite")
    if class_id != int(class_id) or not 0 <= class_id < classes:
        raise DataError(f"names class {words[0][:20]}, but the classes are 0 to {classes - 1}")
    height, width = size
    if len(numbers) == 4:
        x, y, w, h = numbers
        if w <= 0 or h <= 0:
            raise DataError(f"has a box of width {w:g} and height {h:g}: both must be more than 0")
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    else:
        left, right = min(numbers[::2]), max(numbers[::2])
        top, bottom = min(numbers[1::2]), max(numbers[1::2])
        if left >= right or top >= bottom:
            raise DataError("has a polygon without an area")
    box = left * width, top * height, right * width, bottom * height
    if outside(np.array([box]), size)[0]:
        raise DataError(
            f"lies outside the picture: {left:.4g} {top:.4g} to {right:.4g} {bottom:.4g} in fractions of its sides; "
            "are the labels in pixels, or of another picture?"
        )
    return (class_id, *box)


def _item(path: Path, identity: int | str, size: tuple[int, int], rows: NDArray[np.float64]) -> Item:
    boxes = np.ascontiguousarray(rows[:, 1:])
    return Item(
        path=path,
        image_id=identity,
        size=size,
        boxes=boxes,
        class_id=rows[:, 0].astype(np.int32),
        crowd=np.zeros(len(rows), np.bool_),
        area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )


def _notes(mended: _Mended) -> tuple[str, ...]:
    notes = []
    if count := mended.duplicates:
        notes.append(f"{count} label(s) stood twice in {mended.duplicate_files} file(s) and count once")
    if mended.unlabelled:
        notes.append(f"{len(mended.unlabelled)} picture(s) have no label file and count as background")
    return tuple(notes)


def _without_name(error: ImageError, path: Path) -> str:
    """The message without the file's name in front, which the problem has already."""
    return str(error).removeprefix(str(path)).strip()
