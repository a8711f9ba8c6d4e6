"""A progress bar for long work, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress"]

T = TypeVar("T")


def progress(
    items: Iterable[T], *, total: int | None, unit: str, quiet: bool = False, title: str | None = None
) -> Iterator[T]:
    """Iterate over ``items`` with a bar on standard error: ``title``, count, rate and time left.

    No bar when ``quiet``, when standard error is not a terminal, or when there is only one item.
    """
    if quiet or total == 1 or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=title, total=total, unit=unit, dynamic_ncols=True, leave=False)
