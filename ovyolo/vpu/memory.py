"""Memory that this process and its workers share: a file that both map, cut into the slots of a session."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import ModelError

__all__ = ["Bank"]

ALIGNMENT = 4096
MARK = 0x7FC0_DEAD  # a NaN that no arithmetic makes: where it still stands, nothing was written


class Bank:
    """``slots`` times an input, outputs and a stamp, in a file that is removed with :meth:`close`.

    Args:
        number: what messages call it.
        slots: how many.
        input_shape: of the u8 input.
        outputs: shapes of the f32 outputs by name.

    Raises:
        ModelError: there is no room for it.
    """

    def __init__(
        self, number: int, slots: int, input_shape: tuple[int, ...], outputs: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.number = number
        self.slots = slots
        places: list[dict[str, Any]] = []
        end = _aligned(int(np.prod(input_shape)))
        for name, shape in outputs.items():
            places.append({"name": name, "shape": list(shape), "offset": end})
            end = _aligned(end + 4 * int(np.prod(shape)))
        stride = end + ALIGNMENT
        self.path = _make_file(slots * stride)
        self.layout: dict[str, Any] = {
            "bank": number, "path": str(self.path), "size": slots * stride, "slots": slots, "stride": stride,
            "input": {"shape": list(input_shape), "offset": 0}, "outputs": places, "stamp": end,
        }  # fmt: skip
        """What the worker is told of it."""
        with open(self.path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), slots * stride)

        def array(slot: int, dtype: Any, shape: Any, offset: int) -> NDArray[Any]:
            return np.ndarray(tuple(shape), dtype, memory, slot * stride + offset)

        self.inputs: list[NDArray[np.uint8]] = [array(slot, np.uint8, input_shape, 0) for slot in range(slots)]
        self.outputs: list[list[NDArray[np.float32]]] = [
            [array(slot, np.float32, place["shape"], place["offset"]) for place in places] for slot in range(slots)
        ]
        self._stamps = [array(slot, np.uint64, (1,), end) for slot in range(slots)]
        self._ends = [
            [array(slot, np.uint32, (int(np.prod(place["shape"])),), place["offset"]) for place in places]
            for slot in range(slots)
        ]

    def arm(self, slot: int) -> None:
        """Mark the slot's outputs as not written."""
        self._stamps[slot][0] = 0
        for words in self._ends[slot]:
            words[0] = words[-1] = MARK

    def is_whole(self, slot: int, seq: int) -> bool:
        """Whether the worker wrote every output of the slot for the run ``seq``."""
        marked = any(words[0] == MARK or words[-1] == MARK for words in self._ends[slot])
        return int(self._stamps[slot][0]) == seq and not marked

    def close(self) -> None:
        """Remove the file; arrays that somebody still holds stay valid."""
        with suppress(OSError):  # on Windows while it is mapped; the worker tries, too
            self.path.unlink()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _make_file(size: int) -> Path:
    """A file of ``size`` bytes that really has them: a hole that cannot be filled later would end the process."""
    problem: OSError | None = None
    for folder in ("/dev/shm", tempfile.gettempdir()):  # the first never reaches a disk
        if not os.path.isdir(folder):
            continue
        try:
            number, name = tempfile.mkstemp(prefix=f"ovyolo-vpu-{os.getpid()}-", dir=folder)
        except OSError as error:
            problem = error
            continue
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(number, 0, size)
            else:
                os.truncate(number, size)
            return Path(name)
        except OSError as error:
            problem = error
            os.unlink(name)
        finally:
            os.close(number)
    raise ModelError(
        f"there is no room for {size / 1e6:.0f} MB of shared memory ({problem}): free some, or use fewer slots"
    ) from problem
