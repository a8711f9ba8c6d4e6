"""Boxes for every picture of a data set: reading and letterboxing go on while the network computes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.dataset import DataSet
from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.devices import open_device
from ovyolo.errors import DimensionError, ImageError, OvyoloWarning
from ovyolo.evaluate.predictions import Predictions
from ovyolo.letterbox import Letterbox, letterbox
from ovyolo.progress import progress
from ovyolo.runtime import Session

__all__ = ["Pictures", "predict", "predict_rect", "read_ahead", "rect_shape", "warn_of_nan"]

SLOTS = 2
READERS = 2
Prepared = tuple[NDArray[np.uint8], Letterbox]
T_co = TypeVar("T_co", covariant=True)


class Pictures:
    """The pictures of a data set, letterboxed; kept in memory for the next round while they fit.

    Args:
        dataset: whose pictures.
        imgsz: ``(height, width)`` of the network's input in pixels.
        keep_bytes: so much may be kept; a picture at 640x640 takes 1.2 MB. By default nothing is kept.

    Example:
        >>> pictures = Pictures(data, (640, 640), keep_bytes=2 * 2**30)  # doctest: +SKIP
        >>> first = predict(fp32, card, pictures)  # reads the files   # doctest: +SKIP
        >>> second = predict(int8, card, pictures)  # reads none        # doctest: +SKIP
    """

    def __init__(self, dataset: DataSet, imgsz: tuple[int, int], keep_bytes: int = 0) -> None:
        self.dataset = dataset
        self.imgsz = imgsz
        self._keep = keep_bytes // (imgsz[0] * imgsz[1] * 3)
        self._kept: dict[int, Prepared] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Prepared:
        """Picture ``index``: u8 ``(H, W, 3)`` BGR, not to be written to, and where the source lies in it.

        Raises:
            ImageError: it cannot be read.
        """
        from ovyolo.io.images import read_image

        with self._lock:
            kept = self._kept.get(index)
        if kept is not None:
            return kept
        made = letterbox(read_image(self.dataset.items[index].path), self.imgsz)
        with self._lock:
            if len(self._kept) < self._keep:
                self._kept[index] = made
        return made


def predict(
    session: Session,
    card: Card,
    pictures: Pictures,
    *,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    multi_label: bool = True,
    skip_bad: bool = False,
    quiet: bool = True,
) -> Predictions:
    """Run the network over all pictures, at the setting that YOLO's own ``val`` uses unless told otherwise.

    Args:
        session: the compiled network, any static batch size; two slots or more keep the device busy.
        card: what the network is.
        pictures: of the size that the session takes.
        conf: boxes need more confidence than this. AP needs the long tail of weak boxes.
        iou: of two boxes of a class that overlap by more than this, the better one stays.
        max_det: at most so many boxes a picture.
        multi_label: every class above ``conf`` makes a box, not only a cell's best.
        skip_bad: go on after a picture that cannot be read; the result's ``failed`` names it.
        quiet: no progress bar.

    Raises:
        DimensionError: sizes differ, or an argument is out of range.
        ImageError: a picture cannot be read.
        ModelError: the device failed.
    """
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise DimensionError(f"{name} is {value}; it takes a number from 0 to 1")
    if max_det < 1:
        raise DimensionError(f"max_det is {max_det}; it takes a whole number from 1")
    batch, *size = session.input_shape[:3]
    if tuple(size) != pictures.imgsz:
        height, width = pictures.imgsz
        raise DimensionError(f"the network takes {size[1]}x{size[0]} pixels, but the pictures are {width}x{height}")
    decode = Decoder(card)
    found = [Detections.empty(card.names)] * len(pictures)
    failed: dict[int, str] = {}
    under_way: dict[int, list[tuple[int, Letterbox]]] = {}
    turn = 0

    def collect(slot: int) -> None:
        """Wait for a slot and decode what it computed."""
        chunk = under_way[slot]
        outputs = session.wait(slot)
        del under_way[slot]
        for place, (index, fit) in enumerate(chunk):
            one = [output[place : place + 1] for output in outputs] if batch > 1 else outputs
            found[index] = decode(
                one, fit, conf=conf, iou=iou, max_det=max_det, multi_label=multi_label, device=session.device
            )

    def submit(slot: int, chunk: list[tuple[int, Prepared]]) -> None:
        target = session.input(slot)
        for place, (_, (image, _)) in enumerate(chunk):
            target[place] = image
        session.submit(slot)
        under_way[slot] = [(index, fit) for index, (_, fit) in chunk]

    try:
        with closing(read_ahead(pictures, READERS + SLOTS * batch)) as ready:
            chunk: list[tuple[int, Prepared]] = []
            for index, prepared in progress(ready, total=len(pictures), unit="picture", quiet=quiet):
                if isinstance(prepared, ImageError):
                    if not skip_bad:
                        raise prepared
                    failed[index] = str(prepared)
                    continue
                chunk.append((index, prepared))
                if len(chunk) == batch:
                    if turn in under_way:
                        collect(turn)
                    submit(turn, chunk)
                    turn, chunk = (turn + 1) % session.slots, []
            if chunk:
                if turn in under_way:
                    collect(turn)
                submit(turn, chunk)
            for slot in list(under_way):
                collect(slot)
    finally:
        # a slot that is left computing would write into memory that is gone
        for slot in under_way:
            session.wait(slot)
    warn_of_nan(found)
    made = {"device": session.device, "imgsz": "x".join(map(str, size)), "conf": conf, "iou": iou, "max_det": max_det}
    return replace(Predictions.from_detections(found, **made), failed=failed)


class ByIndex(Protocol[T_co]):
    """Pictures, in whatever form."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


def read_ahead(pictures: ByIndex[T_co], ahead: int) -> Generator[tuple[int, T_co | ImageError], None, None]:
    """The pictures in order, read by threads a little before they are needed."""

    def read(index: int) -> T_co | ImageError:
        try:
            return pictures[index]
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor(READERS, thread_name_prefix="ovyolo-read")
    try:
        waiting: dict[int, Future[T_co | ImageError]] = {}
        for index in range(len(pictures)):
            for coming in range(index, min(index + ahead, len(pictures))):
                if coming not in waiting:
                    waiting[coming] = pool.submit(read, coming)
            yield index, waiting.pop(index).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def warn_of_nan(found: Sequence[Detections]) -> None:
    """Say how many pictures the network gave NaN for."""
    broken = sum(one.nonfinite > 0 for one in found)
    if broken:
        warnings.warn(
            f"the network gave NaN for {broken} of {len(found)} pictures: the model or its conversion is broken",
            OvyoloWarning,
            stacklevel=3,
        )


def rect_shape(size: tuple[int, int], imgsz: int, stride: int) -> tuple[int, int]:
    """The input ``(height, width)`` for a picture of ``size`` when its longer side becomes ``imgsz``: each side rounded
    up to whole strides after half a stride of room, as YOLO's own rectangular ``val`` pads.

    Example:
        >>> rect_shape((426, 640), 640, 32), rect_shape((640, 640), 640, 32)
        ((448, 672), (672, 672))
    """
    gain = imgsz / max(size)
    height, width = (math.ceil(round(side * gain) / stride + 0.5) * stride for side in size)
    return height, width


def predict_rect(
    source: Path,
    card: Card,
    dataset: DataSet,
    *,
    imgsz: int = 640,
    device: str = "CPU",
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
    skip_bad: bool = False,
    quiet: bool = True,
    **setting: Any,
) -> Predictions:
    """Run a checkpoint over all pictures, each at the smallest input that holds it: a model a shape, exported to the
    cache. Pictures of one shape go together.

    Args:
        source: a ``.pt``.
        card: what it becomes, at whatever size.
        dataset: whose pictures.
        imgsz: what the longer side of every picture becomes.
        device, precision, threads, cache_dir: as for :class:`~ovyolo.Detector`.
        skip_bad, quiet, setting: as for :func:`predict`.

    Raises:
        OvyoloError: as :func:`predict`, and as :func:`ovyolo.export`.
    """
    from ovyolo.detector import model_file

    stride = max(card.head.strides, default=32)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(dataset.items):
        groups.setdefault(rect_shape(item.size, imgsz, stride), []).append(index)
    parts: list[Predictions] = []
    failed: dict[int, str] = {}
    for shape, members in progress(groups.items(), total=len(groups), unit="shape", quiet=quiet):
        path = model_file(source, shape, cache_dir)
        session, _ = open_device(path, device, precision=precision, slots=SLOTS, threads=threads, cache_dir=cache_dir)
        with closing(session):
            pictures = Pictures(dataset.subset(members), shape)
            part = predict(session, card, pictures, skip_bad=skip_bad, **setting)
        failed |= {members[index]: why for index, why in part.failed.items()}
        parts.append(replace(part, image=np.array(members, np.int64)[part.image]))
    joined = Predictions(
        image=np.concatenate([part.image for part in parts]),
        xywh=np.concatenate([part.xywh for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        class_id=np.concatenate([part.class_id for part in parts]),
        made={**parts[0].made, "imgsz": f"{imgsz}, rect, {len(groups)} shapes"},
        failed=failed,
    )
    return joined.take(np.argsort(joined.image, kind="stable"))
