"""Data sets for measuring and calibrating: YOLO's ``data.yaml`` with label files, and COCO JSON, as one type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ovyolo.dataset.coco import load_coco
from ovyolo.dataset.description import Description, read_data_yaml
from ovyolo.dataset.headers import picture_size
from ovyolo.dataset.types import DataSet, Item, Problem
from ovyolo.dataset.yolo import label_path, load_yolo
from ovyolo.errors import DataError, DimensionError

__all__ = [
    "DataSet",
    "Description",
    "Item",
    "Problem",
    "label_path",
    "load_dataset",
    "picture_size",
    "read_data_yaml",
]


def load_dataset(
    data: str | Path,
    split: str = "val",
    *,
    images: str | Path | None = None,
    limit: int | None = None,
    open_pictures: bool = True,
    follow: Callable[[list[Path]], Iterable[Path]] = lambda paths: paths,
) -> DataSet:
    """Read a split's pictures (their headers only) and labels, and find what is wrong with each file.

    A file that cannot be used becomes one of the result's ``problems`` and its picture is left out; call
    :meth:`DataSet.checked` before work begins. A picture without a label file, or with an empty one, is background.
    Polygons become the boxes around them.

    Args:
        data: a YOLO ``data.yaml`` (or the folder that has it), or a COCO ``.json``.
        split: ``train``, ``val`` or ``test`` of a ``data.yaml``; a COCO JSON is one split and ignores it.
        images: the folder of a COCO JSON's pictures; by default likely places near it are tried.
        limit: read at most so many pictures, evenly spread.
        open_pictures: without it the pictures of a COCO JSON that gives their sizes are not looked at, nor need they be
            there: enough to judge predictions. YOLO labels always need their pictures' sizes.
        follow: wraps the list of pictures while they are read, for a progress bar.

    Raises:
        DataError: the description itself is missing or wrong, or describes no pictures.

    Example:
        >>> from ovyolo.dataset import load_dataset
        >>> data = load_dataset("instances.json", images="val2017")  # doctest: +SKIP
        >>> data.names[:2], data.items[0].size, data.problem_lines()  # doctest: +SKIP
        (('person', 'bicycle'), (426, 640), [])
    """
    if limit is not None and limit < 1:
        raise DimensionError(f"limit is {limit}; it takes a whole number from 1")
    path = Path(data)
    if path.suffix.lower() == ".json":
        return load_coco(path, split, images, limit=limit, open_pictures=open_pictures, follow=follow)
    if images is not None:
        raise DataError(f"{path} says itself where its pictures are: --images is for COCO .json files")
    return load_yolo(path, split, limit=limit, follow=follow)
