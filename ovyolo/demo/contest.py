"""The shipped model in its two forms, side by side on fresh boards: accuracy, time, size."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.bench.api import within
from ovyolo.bench.frames import Frames
from ovyolo.bench.latency import Latency
from ovyolo.bench.turns import Ratio, take_turns
from ovyolo.dataset import DataSet, load_dataset
from ovyolo.demo.dataset import make_dataset
from ovyolo.demo.shipped import DEFECTS, TRAINING_SEED, shipped_models
from ovyolo.errors import DimensionError, OvyoloError
from ovyolo.evaluate import Pictures, Predictions, predict, score
from ovyolo.evaluate.matching import FALSE, match
from ovyolo.evaluate.metrics import evaluator
from ovyolo.export.portable import file_sizes
from ovyolo.runtime import open_session

__all__ = ["NAMES", "Contest", "Form", "hold_contest"]

NAMES = ("FP32", "compressed INT8")
CONF, IOU = 0.25, 0.45
MATCH_IOU = 0.5
KEEP_BYTES = 256 * 2**20
HOW_TO_AP = "AP is judged by faster-coco-eval: `pip install 'ovyolo[val]'`, then run this again"


@dataclass(frozen=True, eq=False)
class Form:
    """One form of the model, and what it did.

    Args:
        name: one of :data:`NAMES`.
        path: the ``.xml``.
        found: boxes above confidence 0.25, as ``detect`` gives them.
        matched: for each of these the object that it found at IoU 0.5, negative when it is false.
        hits: objects found.
        false: boxes that found none.
        ap, ap50: in points, 0 to 100; None where faster-coco-eval is not installed.
        ms: median milliseconds of the network alone, in turn with the other.
        bytes, zipped: of ``.xml`` and ``.bin``, and when packed.
    """

    name: str
    path: Path
    found: Predictions
    matched: NDArray[np.int64]
    hits: int
    false: int
    ap: float | None
    ap50: float | None
    ms: float
    bytes: int
    zipped: int


@dataclass(frozen=True, eq=False)
class Contest:
    """Two forms on the same boards.

    Args:
        dataset: the boards.
        forms: as trained, then compressed.
        ratio: how many times as long the first takes, network alone.
        notes: what the figures lack.
    """

    dataset: DataSet
    forms: tuple[Form, Form]
    ratio: Ratio
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what it is, and each form's figure."""
        first, second = self.forms

        def row(label: str, cell: Callable[[Form], str]) -> tuple[str, str, str]:
            return label, cell(first), cell(second)

        return [
            row("AP", lambda one: _points(one.ap)),
            row("AP50", lambda one: _points(one.ap50)),
            row("defects found", lambda one: f"{one.hits} of {self.dataset.objects}"),
            row("false alarms", lambda one: str(one.false)),
            row("latency", lambda one: f"{one.ms:.2f} ms"),
            row("size", lambda one: f"{one.bytes / 1e6:.2f} MB"),
            row("zipped", lambda one: f"{one.zipped / 1e6:.2f} MB"),
        ]

    def table(self) -> str:
        """As lines for a terminal."""
        rows = [("", *(form.name for form in self.forms)), *self.rows()]
        lines = [f"  {label:<15}{a:>13}{b:>18}" for label, a, b in rows]
        return "\n".join([*lines, f"  {self.speed}", *(f"  {note}" for note in self.notes)])

    @property
    def speed(self) -> str:
        """The ratio as a sentence."""
        ratio = self.ratio
        bounds = f"({ratio.low:.2f} to {ratio.high:.2f}, {ratio.rounds} rounds in turn)"
        return f"{ratio.first} takes {ratio.value:.2f} times as long as {ratio.second} {bounds}"


def _points(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.1f}"


def hold_contest(
    folder: Path,
    *,
    boards: int = 60,
    seed: int = 1,
    threads: int | None = None,
    seconds: float = 4.0,
    quiet: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Contest:
    """Draw boards into ``folder`` and let both forms of the shipped model find their defects.

    Args:
        folder: for the boards, a data set that ``ovyolo val`` reads, too.
        boards: how many, at least 1.
        seed: of the boards; not the one that the model was trained with.
        threads: CPU threads; by default OpenVINO decides.
        seconds: how long each form is timed.
        quiet: no progress bar.
        say: called with a line before each part.

    Raises:
        DimensionError: an argument is out of range.
        ModelError: the models are missing or damaged.
        OvyoloError: the boards cannot be written.
    """
    if seed == TRAINING_SEED:
        raise DimensionError(f"seed {seed} gives the boards that the model was trained on: give another seed")
    shipped = shipped_models()
    paths = dict(zip(NAMES, (shipped.dense, shipped.compressed), strict=True))
    with ExitStack() as stack:
        opened = {name: open_session(path, slots=2, threads=threads) for name, path in paths.items()}
        for session, _ in opened.values():
            stack.enter_context(closing(session))
        size = opened[NAMES[0]][1].imgsz
        say(f"drawing {boards} boards of {size[1]}x{size[0]} pixels, seed {seed}")
        data = make_dataset(folder, train=0, val=boards, seed=seed, imgsz=size, defects=DEFECTS, quiet=quiet)
        dataset = load_dataset(data, "val").checked()
        say("looking for defects")
        pictures = Pictures(dataset, size, keep_bytes=KEEP_BYTES)
        judged = {name: _judge(session, card, pictures, dataset) for name, (session, card) in opened.items()}
    say("timing both in turn")
    source = str(dataset.items[0].path)
    with ExitStack() as stack:
        ways = {
            name: stack.enter_context(
                closing(Latency(path, Frames(source), device="CPU", threads=threads, precision=None, conf=CONF))
            )
            for name, path in paths.items()
        }
        turns = take_turns(ways, within(None, seconds * len(ways)), warm_up=5)
    forms = []
    for name, path in paths.items():
        total, zipped = file_sizes(path)
        forms.append(
            Form(
                name=name, path=path, ms=float(np.median(turns.samples(name, "infer"))), bytes=total,
                zipped=zipped, **judged[name],
            )
        )  # fmt: skip
    notes = () if forms[0].ap is not None else (HOW_TO_AP,)
    return Contest(dataset, (forms[0], forms[1]), turns.ratio(*NAMES, "infer"), notes)


def _judge(session: Any, card: Any, pictures: Pictures, dataset: DataSet) -> dict[str, Any]:
    """What a form finds, and how much of it is right."""
    found = predict(session, card, pictures, conf=CONF, iou=IOU, multi_label=False)
    matched = match(dataset, found, MATCH_IOU).found
    told: dict[str, Any] = {
        "found": found, "matched": matched, "hits": int((matched >= 0).sum()), "false": int((matched == FALSE).sum()),
        "ap": None, "ap50": None,
    }  # fmt: skip
    try:
        evaluator()
    except OvyoloError:  # the table says how to get it
        return told
    scores = score(dataset, predict(session, card, pictures), detail=False)
    return {**told, "ap": 100 * scores.ap, "ap50": 100 * scores.ap50}
