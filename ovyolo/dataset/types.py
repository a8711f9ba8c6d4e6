"""What a data set is, wherever it came from: pictures with boxes and classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DataError

__all__ = ["DataSet", "Item", "Problem"]

SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used as it is, and why: a sentence without the file's name."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Item:
    """One picture and what is in it.

    Args:
        path: the picture.
        image_id: what COCO-format predictions call it.
        size: ``(height, width)`` in pixels, as OpenCV reads the picture.
        boxes: float64 ``(n, 4)``: left, top, right, bottom in pixels.
        class_id: int32 ``(n,)``: index into the data set's ``names``.
        crowd: bool ``(n,)``: regions of many objects; boxes found there are neither right nor wrong.
        area: float64 ``(n,)``: square pixels, by which an object counts as small, medium or large.
    """

    path: Path
    image_id: int | str
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    class_id: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.class_id)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Pictures with labels, and what was wrong with those that had to be left out.

    Args:
        names: class names by index.
        items: the pictures that can be used.
        source: the ``data.yaml`` or ``.json`` that describes it.
        split: which part: ``train``, ``val``, ``test``; for COCO JSON whatever the caller called it.
        category_ids: what COCO-format predictions call class ``i``.
        problems: the files that were left out, and why.
        notes: sentences on what was mended without leaving a picture out.
        coco: whether it was described by COCO JSON.

    Example:
        >>> from ovyolo.dataset import load_dataset
        >>> data = load_dataset("data.yaml", "val").checked()  # doctest: +SKIP
        >>> len(data), data.objects, data.items[0].boxes.shape  # doctest: +SKIP
        (128, 898, (20, 4))
    """

    names: tuple[str, ...]
    items: tuple[Item, ...]
    source: Path
    split: str
    category_ids: tuple[int, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    coco: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return f"{self.source}" if self.coco else f"{self.source} ({self.split})"

    @property
    def objects(self) -> int:
        """How many objects are labelled, crowds left out."""
        return sum(int((~item.crowd).sum()) for item in self.items)

    def subset(self, indices: Iterable[int]) -> DataSet:
        """The same data set with only these pictures, in this order."""
        return replace(self, items=tuple(self.items[i] for i in indices))

    def spread(self, count: int) -> DataSet:
        """At most ``count`` pictures, evenly spread over the data set."""
        if count >= len(self):
            return self
        return self.subset(np.linspace(0, len(self) - 1, count).round().astype(int).tolist())

    def problem_lines(self, limit: int = SHOWN_PROBLEMS) -> list[str]:
        """The first ``limit`` problems, a line each, and a line that counts the rest."""
        return lines_of(self.problems, limit)

    def checked(self, skip_bad: bool = False) -> DataSet:
        """The data set itself, when work may begin.

        Args:
            skip_bad: go on without the files that have problems.

        Raises:
            DataError: files have problems (how many, and the first ten), or no picture is left.
        """
        if self.problems and not skip_bad:
            raise DataError(
                f"{count_of(self.problems)} of {self} cannot be used: {'; '.join(self.problem_lines())}. "
                "Mend them, or go on without them with --skip-bad (skip_bad=True)"
            )
        if not self.items:
            why = f": all have problems, the first is {self.problems[0]}" if self.problems else ""
            raise DataError(f"{self} has no pictures to work with{why}")
        return self


def lines_of(problems: Sequence[Problem], limit: int = SHOWN_PROBLEMS) -> list[str]:
    """The first ``limit`` problems, a line each, and a line that counts the rest."""
    lines = [str(problem) for problem in problems[:limit]]
    return [*lines, f"and {len(problems) - limit} more"] if len(problems) > limit else lines


def count_of(problems: Sequence[Problem]) -> str:
    """``1 file`` or ``n files``."""
    files = len({problem.path for problem in problems})
    return f"{files} file{'' if files == 1 else 's'}"
