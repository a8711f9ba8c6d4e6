"""A data set described by COCO JSON (https://cocodataset.org/#format-data): images, annotations, categories."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.dataset.headers import picture_size
from ovyolo.dataset.types import DataSet, Item, Problem
from ovyolo.dataset.yolo import outside
from ovyolo.errors import DataError, ImageError

__all__ = ["load_coco"]

Annotation = tuple[tuple[float, float, float, float], int, bool, float]


def load_coco(
    path: Path,
    split: str = "val",
    images: str | Path | None = None,
    *,
    limit: int | None = None,
    open_pictures: bool = True,
    follow: Callable[[list[Path]], Iterable[Path]] = lambda paths: paths,
) -> DataSet:
    """Read a COCO JSON; see :func:`ovyolo.dataset.load_dataset`. Class ``i`` is the category with the ``i``-th id."""
    data = _load(path)
    categories = _categories(data["categories"], path)
    class_of = {category: index for index, category in enumerate(categories)}
    records = _images(data["images"], path)
    folder = _folder(path, Path(images) if images is not None else None, records, split, open_pictures)
    found, wrong, problems, ignored = _annotations(data["annotations"], path, class_of, set(records))

    chosen = list(records)
    if limit is not None and limit < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, limit).round().astype(int).tolist()]
    items = []
    paths = [folder / records[image]["file_name"] for image in chosen]
    for image, picture in zip(chosen, follow(paths), strict=True):
        try:
            if image in wrong:
                raise DataError(wrong[image])
            known = _said_size(records[image])
            size = known if known is not None and not open_pictures else picture_size(picture)
            items.append(_item(image, picture, size, records[image], found[image]))
        except (DataError, ImageError) as error:
            problems.append(Problem(picture, str(error).removeprefix(str(picture)).strip()))
    notes = [f"{ignored} annotation(s) have `ignore` without `iscrowd`; as in COCO's own tools it has no effect"]
    return DataSet(
        names=tuple(categories.values()),
        items=tuple(items),
        source=path,
        split=split,
        category_ids=tuple(categories),
        problems=tuple(problems),
        notes=tuple(notes if ignored else []),
        coco=True,
    )


def _load(path: Path) -> dict[str, list[Any]]:
    """The three lists of a COCO JSON."""
    if not path.is_file():
        raise DataError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give the path of a COCO .json")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): is it whole?") from error
    if not isinstance(data, dict):
        hint = " (a list looks like predictions: those go to --predictions)" if isinstance(data, list) else ""
        raise DataError(f"{path} is not a COCO data set{hint}: it needs images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list) or not all(isinstance(one, dict) for one in data[key]):
            raise DataError(f"{path} is not a COCO data set: `{key}` must be a list of objects")
    return data


def _categories(rows: list[dict[str, Any]], path: Path) -> dict[int, str]:
    """Category id → name, in the order of the ids."""
    categories: dict[int, str] = {}
    for row in rows:
        number: Any = row.get("id")
        name = row.get("name")
        if not _whole(number) or not isinstance(name, str):
            raise DataError(f"{path}: a category needs a whole number `id` and a `name`, not {str(row)[:80]}")
        if number in categories:
            raise DataError(f"{path}: two categories have the id {number}")
        categories[int(number)] = name
    if not categories:
        raise DataError(f"{path} has no categories")
    return dict(sorted(categories.items()))


def _images(rows: list[dict[str, Any]], path: Path) -> dict[int, dict[str, Any]]:
    """Image id → its record, in the file's order."""
    records: dict[int, dict[str, Any]] = {}
    for row in rows:
        if not _whole(row.get("id")) or not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise DataError(f"{path}: an image needs a whole number `id` and a `file_name`, not {str(row)[:80]}")
        if row["id"] in records:
            raise DataError(f"{path}: two images have the id {row['id']}")
        records[row["id"]] = row
    if not records:
        raise DataError(f"{path} has no images")
    return records


def _folder(path: Path, given: Path | None, records: dict[int, dict[str, Any]], split: str, needed: bool) -> Path:
    """The folder that ``file_name`` counts from: the one given, or the first likely one that has a picture."""
    if given is not None:
        if not given.is_dir():
            raise DataError(
                f"{given} {'is not a folder' if given.exists() else 'does not exist'}: name it with --images"
            )
        return given.absolute()
    base = path.absolute().parent
    part = path.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    places = [
        root / inner
        for root in (base, base.parent)
        for inner in ("images", part, f"images/{part}", f"images/{split}", split, ".")
    ]
    few = [record["file_name"] for record in list(records.values())[:20]]
    for place in places:
        if any((place / name).is_file() for name in few):
            return place
    if not needed:
        return base
    raise DataError(f"{path}: its pictures (such as {few[0]}) were not found near it: name their folder with --images")


def _annotations(
    rows: list[dict[str, Any]], path: Path, class_of: dict[int, int], images: set[int]
) -> tuple[dict[int, list[Annotation]], dict[int, str], list[Problem], int]:
    """Annotations by image; what is wrong with those of an image; those of no image; how many have a bare `ignore`."""
    found: dict[int, list[Annotation]] = defaultdict(list)
    wrong: dict[int, str] = {}
    problems: list[Problem] = []
    ignored = 0
    for index, row in enumerate(rows):
        label = f"annotation {row.get('id', f'at place {index}')}"
        image: Any = row.get("image_id")
        if not _whole(image) or image not in images:
            problems.append(
                Problem(path, f"{label} belongs to image_id {str(image)[:40]}, which is not among its images")
            )
            continue
        try:
            found[int(image)].append(_annotation(row, class_of))
        except DataError as error:
            wrong.setdefault(int(image), f"{label} in {path.name} {error}")
        ignored += bool(row.get("ignore")) and not row.get("iscrowd")
    return found, wrong, problems, ignored


def _annotation(row: dict[str, Any], class_of: dict[int, int]) -> Annotation:
    """One annotation as ``xywh``, class, crowd, area."""
    category: Any = row.get("category_id")
    if not _whole(category) or category not in class_of:
        raise DataError(f"has category_id {str(category)[:40]}, which is not among the categories")
    box = row.get("bbox")
    if box is None and isinstance(row.get("segmentation"), list):
        box = _polygon_box(row["segmentation"])
    try:
        x, y, w, h = (float(v) for v in box)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise DataError(f"has the bbox {str(box)[:60]}; it takes [left, top, width, height]") from None
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise DataError(f"has the bbox {str(box)[:60]}: its numbers must be finite, width and height more than 0")
    area = row.get("area")
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not math.isfinite(area) or area < 0:
        area = w * h
    return (x, y, w, h), class_of[int(category)], bool(row.get("iscrowd")), float(area)


def _polygon_box(polygons: list[Any]) -> list[float] | None:
    """``[left, top, width, height]`` around polygons; None where there are none."""
    try:
        flat = [float(v) for polygon in polygons for v in polygon]
    except (TypeError, ValueError):
        return None
    if len(flat) < 6:
        return None
    left, top = min(flat[::2]), min(flat[1::2])
    return [left, top, max(flat[::2]) - left, max(flat[1::2]) - top]


def _item(image: int, path: Path, size: tuple[int, int], record: dict[str, Any], rows: list[Annotation]) -> Item:
    said = _said_size(record)
    if said is not None and said != size:
        raise DataError(
            f"is {size[1]}x{size[0]} pixels, but the JSON says {said[1]}x{said[0]}: another picture, or turned by EXIF"
        )
    xywh = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    if (out := outside(boxes, size)).any():
        box = xywh[int(np.argmax(out))].round(1).tolist()
        raise DataError(f"has an annotation outside the picture: bbox {box} in {size[1]}x{size[0]} pixels")
    return Item(
        path=path,
        image_id=image,
        size=size,
        boxes=boxes,
        class_id=np.array([row[1] for row in rows], np.int32),
        crowd=np.array([row[2] for row in rows], np.bool_),
        area=np.array([row[3] for row in rows], np.float64),
    )


def _said_size(record: dict[str, Any]) -> tuple[int, int] | None:
    """``(height, width)`` as the JSON says; None when it does not."""
    height: Any = record.get("height")
    width: Any = record.get("width")
    return (int(height), int(width)) if _whole(height) and _whole(width) and height > 0 and width > 0 else None


def _whole(value: Any) -> bool:
    """Whether ``value`` is a whole number (JSON's true is none)."""
    return isinstance(value, int) and not isinstance(value, bool)
