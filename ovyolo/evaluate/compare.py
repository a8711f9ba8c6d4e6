"""Ways to look at the same pictures, side by side: what each finds, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.dataset import DataSet
from ovyolo.detections import Detections
from ovyolo.devices import open_device
from ovyolo.errors import DimensionError, ImageError
from ovyolo.evaluate.api import class_mapping
from ovyolo.evaluate.inference import read_ahead, warn_of_nan
from ovyolo.evaluate.metrics import score
from ovyolo.evaluate.predictions import Predictions
from ovyolo.evaluate.scores import Scores
from ovyolo.evaluate.sizes import SizeEdges, score_by_size
from ovyolo.evaluate.tiled import AHEAD, Frames, described, pieces_note, val_tiler
from ovyolo.progress import progress
from ovyolo.runtime import Session
from ovyolo.tiling import Tiler, TileSettings

__all__ = ["Compared", "Variant", "compare", "table"]

WHOLE_PICTURE = 2**20  # a tile that no picture exceeds, and a multiple of every stride
SLOTS = 2


@dataclass(frozen=True)
class Variant:
    """One way: ``plain``, or some of ``tile=640``, ``overlap=0.2``, ``full``, ``merge=nms``, ``skip_flat=8``, and
    ``imgsz=1280`` for a model that is exported first.

    Example:
        >>> Variant.parse("tile=640,full").words
        {'tile': 640, 'full': True}
    """

    name: str
    words: dict[str, Any] = field(default_factory=dict)
    imgsz: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read what a user typed.

        Raises:
            DimensionError: a word is none of those above, or its value cannot be read.
        """
        words: dict[str, Any] = {}
        imgsz: tuple[int, ...] | None = None
        for part in (piece.strip() for piece in text.split(",")):
            key, _, value = part.partition("=")
            try:
                if part == "full":
                    words["full"] = True
                elif key == "tile":
                    words["tile"] = value if value == "auto" else _sides(value)
                elif key == "imgsz":
                    imgsz = tuple(int(side) for side in value.split("x"))
                elif key in ("overlap", "skip_flat"):
                    words[key] = float(value)
                elif key == "merge":
                    words[key] = value
                elif part != "plain":
                    raise ValueError
            except ValueError:
                raise DimensionError(
                    f"{text!r} cannot be compared: {part!r} is not plain, tile=640, tile=480x640, tile=auto, "
                    "overlap=0.2, full, merge=nms, skip_flat=8 or imgsz=1280"
                ) from None
        if words and "tile" not in words:
            raise DimensionError(f"{text!r} cannot be compared: {next(iter(words))} needs tile=... beside it")
        variant = cls(text, words, imgsz)
        variant.settings  # noqa: B018 (checks the values before work begins)
        return variant

    @property
    def settings(self) -> TileSettings:
        """How pictures are cut: not at all, in the plain case."""
        return TileSettings(**self.words) if self.words else TileSettings(WHOLE_PICTURE)


def _sides(text: str) -> int | tuple[int, ...]:
    sides = tuple(int(side) for side in text.split("x"))
    return sides[0] if len(sides) == 1 else sides


@dataclass(frozen=True, eq=False)
class Compared:
    """What one way came to.

    Args:
        name: as the user typed it.
        scores: what it found.
        ms: float64 ``(pictures,)``: milliseconds from a picture in memory to its boxes.
        views: how often the network computed, a picture.
    """

    name: str
    scores: Scores
    ms: NDArray[np.float64]
    views: float

    @property
    def median(self) -> float:
        """Milliseconds of the median picture."""
        return float(np.median(self.ms))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and mappings, for JSON."""
        times = {"median": round(self.median, 3), "mean": round(float(self.ms.mean()), 3)}
        return {"name": self.name, "ms": times, "views": round(self.views, 2), "scores": self.scores.to_dict()}


@dataclass(eq=False)
class _Lane:
    variant: Variant
    session: Session
    tiler: Tiler
    found: list[Detections]
    ms: list[float]
    views: int = 0


def compare(
    model: str | Path,
    dataset: DataSet,
    variants: Sequence[Variant],
    *,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    device: str = "CPU",
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    sizes: SizeEdges | None = None,
    quiet: bool = True,
) -> list[Compared]:
    """Look at every picture in every way, in turn, so that the machine's weather is the same for all.

    Args:
        model: as for :func:`~ovyolo.evaluate.evaluate`.
        dataset: whose pictures; all must be readable.
        variants: the ways.
        conf, iou, max_det, device, threads, cache_dir, quiet: as for :func:`~ovyolo.evaluate.evaluate`.
        sizes: buckets of object size to be judged by themselves.

    Returns:
        One for each variant, in their order.

    Raises:
        DataError: the classes of model and data set do not fit together.
        ImageError: a picture cannot be read.
        OvyoloError: the model cannot be read or run.
    """
    from ovyolo.detector import model_file

    path, cache = Path(model), Path(cache_dir) if cache_dir is not None else None
    with ExitStack() as stack:
        opened: dict[Path, tuple[Session, Card]] = {}
        lanes: list[_Lane] = []
        for variant in variants:
            file = model_file(path, variant.imgsz, cache)
            if file not in opened:
                opened[file] = open_device(file, device, slots=SLOTS, threads=threads, cache_dir=cache)
                stack.callback(opened[file][0].close)
            session, card = opened[file]
            tiler = val_tiler(card, variant.settings, conf=conf, iou=iou, max_det=max_det, device=session.device)
            tiler(np.full((*card.imgsz, 3), 114, np.uint8), session)  # the first inference allocates
            lanes.append(_Lane(variant, session, tiler, [], []))
        mapping, note = class_mapping(lanes[0].tiler.card, dataset, path.name)
        ready = read_ahead(Frames(dataset), AHEAD)
        for turn, image in progress(ready, total=len(dataset), unit="picture", quiet=quiet):
            if isinstance(image, ImageError):
                raise image
            for step in range(len(lanes)):
                lane = lanes[(turn + step) % len(lanes)]
                begin = time.perf_counter()
                found = lane.tiler(image, lane.session)
                lane.ms.append(1000 * (time.perf_counter() - begin))
                lane.found.append(found)
                lane.views += lane.tiler.plan((image.shape[0], image.shape[1])).views
    made = []
    for lane in lanes:
        warn_of_nan(lane.found)
        words = described(lane.tiler.settings) if lane.variant.words else {}
        predictions = Predictions.from_detections(
            lane.found, model=path.name, device=device, imgsz="x".join(map(str, lane.tiler.card.imgsz)), conf=conf,
            iou=iou, max_det=max_det, **words,
        )  # fmt: skip
        if mapping is not None:
            predictions = predictions.classes_as(mapping)
        if note:
            predictions = replace(predictions, notes=(*predictions.notes, note))
        if (pieces := pieces_note(lane.tiler, dataset)) is not None:
            predictions = replace(predictions, notes=(*predictions.notes, f"{lane.variant.name}: {pieces}"))
        scores = score(dataset, predictions)
        if sizes is not None:
            scores = score_by_size(scores, dataset, predictions, sizes)
        made.append(Compared(lane.variant.name, scores, np.array(lane.ms), lane.views / len(dataset)))
    return made


def table(compared: Sequence[Compared]) -> str:
    """The ways as lines of text: accuracy and time side by side."""
    width = max(5, *(len(one.name) for one in compared))
    labels = [one.label for one in compared[0].scores.sizes]
    first = compared[0].scores
    lines = [
        f"{first.made.get('data', 'data set')}: {first.pictures} pictures, {first.objects} objects; "
        f"{first.made.get('model', 'model')}",
        "",
        f"{'':<{width}}     AP   AP50  small medium  large"
        + "".join(f"  {label:>10}" for label in labels)
        + "    ms a picture  views",
    ]
    for one in compared:
        scores = one.scores
        figures = (scores.ap, scores.ap50, scores.ap_small, scores.ap_medium, scores.ap_large)
        lines.append(
            f"{one.name:<{width}}"
            + "".join(f" {value:>6.3f}" for value in figures)
            + "".join(f"  {size.ap:>10.3f}" for size in scores.sizes)
            + f"  {one.median:>14.1f} {one.views:>6.1f}"
        )
    notes = dict.fromkeys(note for one in compared for note in one.scores.notes)
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])
