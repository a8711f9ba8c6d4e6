"""What is being done now, on standard error: a line a stage, and while it lasts a bar that counts real work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stages"]

Tell = Callable[[int], None]


class Stages:
    """Tells the user how far a long run is. On a terminal each stage has a bar; elsewhere only lines are written.

    Args:
        quiet: say nothing.

    Example:
        >>> with Stages(quiet=True).stage("reading", 3, "picture") as tell:
        ...     for done in range(1, 4):
        ...         tell(done)
    """

    def __init__(self, quiet: bool = True) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """A line about a result."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, title: str, total: int | None = None, unit: str = "step") -> Iterator[Tell]:
        """A stage of ``total`` units; the block calls what it is given with the number that is done."""
        if self.quiet:
            yield lambda done: None
            return
        began = time.perf_counter()
        if not sys.stderr.isatty():
            yield lambda done: None
        else:
            from tqdm import tqdm

            with tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True, leave=False) as bar:
                yield _teller(bar)
        self.say(f"{title}: {time.perf_counter() - began:.1f} s")


def _teller(bar: Any) -> Tell:
    def tell(done: int) -> None:
        if done < bar.n:  # another pass over the same pictures
            bar.reset(total=bar.total)
        bar.update(done - bar.n)

    return tell
