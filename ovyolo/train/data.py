"""Training samples and batches as NumPy arrays, the same ones whatever the order, the workers or the restarts."""

from __future__ import annotations

import copy
import math
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet
from ovyolo.errors import DataError, DimensionError
from ovyolo.export.api import as_imgsz
from ovyolo.train.augment import Augment, augmented, padded
from ovyolo.train.geometry import Picture
from ovyolo.train.picture_cache import PictureCache

__all__ = ["Batch", "TrainingPictures", "batch_sizes"]

AHEAD = 3
"""Batches that are made before they are asked for."""

ORDER, SAMPLE = 0, 1  # streams of chance that must not meet


class Batch(NamedTuple):
    """Pictures and their boxes.

    Args:
        pictures: u8 BGR ``(n, h, w, 3)``.
        targets: float32 ``(m, 6)``: which picture of the batch, class, then centre x, centre y, width and height in its
            pixels.
    """

    pictures: NDArray[np.uint8]
    targets: NDArray[np.float32]


class TrainingPictures:
    """A data set as samples to train on.

    All chance comes from ``(seed, epoch, index)``: a resumed run, any number of workers and any order give the same
    samples, on one machine with one version of OpenCV to the bit.

    Args:
        dataset: pictures and labels, checked. Crowds count as no objects.
        imgsz: size of the samples in pixels, one number or ``(height, width)``.
        augment: how they are varied; with None they are only letterboxed.
        seed: of all chance, from 0.
        cache, budget, folder: see :class:`~ovyolo.train.picture_cache.PictureCache`.

    Raises:
        DataError: there are no pictures.
        DimensionError: an argument is out of range.

    Example:
        >>> from ovyolo.dataset import load_dataset
        >>> from ovyolo.train.augment import Augment
        >>> from ovyolo.train.data import TrainingPictures
        >>> data = TrainingPictures(load_dataset("data.yaml", "train"), 640, Augment(), seed=0)  # doctest: +SKIP
        >>> for pictures, targets in data.batches(epoch=0, batch_size=16, workers=2):  # doctest: +SKIP
        ...     print(pictures.shape, targets.shape)
        (16, 640, 640, 3) (118, 6)
    """

    def __init__(
        self,
        dataset: DataSet,
        imgsz: int | Sequence[int],
        augment: Augment | None = None,
        seed: int = 0,
        cache: str = "ram",
        *,
        budget: int | None = None,
        folder: Path | None = None,
    ) -> None:
        if not len(dataset):
            raise DataError(f"{dataset} has no pictures to train on")
        self.dataset, self.imgsz, self.augment = dataset, as_imgsz(imgsz), augment
        self.seed = _from_zero("seed", seed)
        self.cache = PictureCache(dataset, self.imgsz, cache, budget=budget, folder=folder)

    def __len__(self) -> int:
        return len(self.dataset)

    def varied(self, augment: Augment | None) -> TrainingPictures:
        """The same pictures, with the same cache, augmented otherwise: such as None to look at them as they are."""
        other = copy.copy(self)
        other.augment = augment
        return other

    def sample(self, epoch: int, index: int) -> Picture:
        """Sample ``index`` as epoch ``epoch`` sees it: ``(image, boxes, class_id)``, the image ``imgsz`` large.

        Raises:
            ImageError: a picture cannot be read; says which.
            DataError: a picture is not of the size that its labels are for.
        """
        if not 0 <= index < len(self):
            raise DimensionError(f"there is no sample {index}: the data set has {len(self)}")
        if self.augment is None or not self.augment.active:
            return padded(self.cache(index), self.imgsz)
        rng = self._chance(SAMPLE, epoch, index)
        return augmented(rng, self.augment, self.cache, index, len(self), self.imgsz)

    def order(self, epoch: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """The indices of an epoch, shuffled; of them each of ``world`` processes gets every ``world``-th.

        All processes get equally many: where the data set does not divide, the first of the order come twice.
        """
        if world < 1 or not 0 <= rank < world:
            raise DimensionError(f"rank is {rank} of {world}: ranks are 0 to world - 1")
        order = self._chance(ORDER, epoch).permutation(len(self))
        share = math.ceil(len(self) / world)
        return np.resize(order, share * world)[rank::world].astype(np.int64)

    def batch_count(self, batch_size: int, world: int = 1) -> int:
        """How many batches each of ``world`` processes has in an epoch."""
        return len(batch_sizes(math.ceil(len(self) / world), batch_size))

    def batches(
        self, epoch: int, batch_size: int, workers: int = 2, rank: int = 0, world: int = 1, start: int = 0
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch, from number ``start``; :func:`batch_sizes` says how large they are.

        Threads make the next three batches meanwhile, and OpenCV uses none of its own. They end when the iteration
        ends, by itself, by leaving the loop, by an exception or by Ctrl-C.

        Args:
            epoch: from 0.
            batch_size: pictures a batch.
            workers: threads; with 0 the caller's own thread does the work.
            rank, world: which process of how many this is.
            start: the number of the first batch to give out; those before it cost nothing.

        Raises:
            ImageError, DataError: as :meth:`sample`, at the batch of the picture.
            DimensionError: an argument is out of range.
        """
        _from_zero("workers", workers)
        _from_zero("start", start)
        order = self.order(epoch, rank, world)
        ends = np.cumsum(batch_sizes(len(order), batch_size)).tolist()
        parts = [order[begin:end] for begin, end in zip([0, *ends], ends, strict=False)][start:]
        return (
            self._threaded(epoch, parts, workers) if workers else (_Making(self, epoch, part).now() for part in parts)
        )

    def _threaded(self, epoch: int, parts: list[NDArray[np.int64]], workers: int) -> Generator[Batch, None, None]:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="ovyolo-data")
        under_way: deque[_Making] = deque()
        waiting = deque(parts)
        with opencv_alone():
            try:
                while waiting or under_way:
                    while waiting and len(under_way) <= AHEAD:
                        under_way.append(_Making(self, epoch, waiting.popleft()).begun(pool))
                    yield under_way.popleft().done()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _chance(self, stream: int, epoch: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, _from_zero("epoch", epoch), index])


_alone_lock = threading.Lock()
_alone_depth = 0
_alone_before = 0


@contextmanager
def opencv_alone() -> Iterator[None]:
    """OpenCV without threads of its own inside the block: ours and its would only wait for each other (two of ours
    were half as fast). The setting is the process's; when the last block ends it is what it was."""
    global _alone_depth, _alone_before  # noqa: PLW0603 (OpenCV's setting is global too)
    with _alone_lock:
        if _alone_depth == 0:
            _alone_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _alone_depth += 1
    try:
        yield
    finally:
        with _alone_lock:
            _alone_depth -= 1
            if _alone_depth == 0:
                cv2.setNumThreads(_alone_before)


class _Making:
    """A batch that is being made, each of its samples by itself."""

    def __init__(self, data: TrainingPictures, epoch: int, indices: NDArray[np.int64]) -> None:
        self.data, self.epoch, self.indices = data, epoch, indices.tolist()
        self.pictures = np.empty((len(indices), *data.imgsz, 3), np.uint8)
        self.rows: list[Future[NDArray[np.float32]]] = []

    def begun(self, pool: ThreadPoolExecutor) -> _Making:
        self.rows = [pool.submit(self._make, place) for place in range(len(self.indices))]
        return self

    def done(self) -> Batch:
        """Wait for it."""
        return Batch(self.pictures, np.concatenate([row.result() for row in self.rows]))

    def now(self) -> Batch:
        """Make it here."""
        return Batch(self.pictures, np.concatenate([self._make(place) for place in range(len(self.indices))]))

    def _make(self, place: int) -> NDArray[np.float32]:
        """Sample ``place`` of the batch into its pictures; returns its targets."""
        image, boxes, class_id = self.data.sample(self.epoch, self.indices[place])
        self.pictures[place] = image
        rows = np.empty((len(boxes), 6), np.float32)
        rows[:, 0], rows[:, 1] = place, class_id
        rows[:, 2:4], rows[:, 4:] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        return rows


def batch_sizes(pictures: int, batch_size: int) -> list[int]:
    """How many pictures each batch of an epoch has: all are used, the last batch may be smaller.

    A last batch of one picture, which batch normalization cannot learn from, takes a second from the one before; where
    that has only two, it joins it.

    Example:
        >>> from ovyolo.train.data import batch_sizes
        >>> batch_sizes(10, 4), batch_sizes(9, 4), batch_sizes(5, 2), batch_sizes(3, 1)
        ([4, 4, 2], [4, 3, 2], [2, 3], [1, 1, 1])
    """
    if batch_size < 1:
        raise DimensionError(f"batch_size is {batch_size}; it takes a whole number from 1")
    whole, left = divmod(pictures, batch_size)
    sizes = [batch_size] * whole + ([left] if left else [])
    if left == 1 and whole and batch_size > 2:
        sizes[-2:] = [batch_size - 1, 2]
    elif left == 1 and whole and batch_size == 2:
        sizes[-2:] = [3]
    return sizes


def _from_zero(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise DimensionError(f"{name} is {value!r}; it takes a whole number from 0")
    return int(value)
