"""Judging many variants of a model on one data set: pictures are read once, figures are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.core import shared_core
from ovyolo.dataset import DataSet
from ovyolo.evaluate import Pictures, Predictions, Scores, predict, score
from ovyolo.evaluate.api import class_mapping
from ovyolo.runtime import OpenVINOSession

if TYPE_CHECKING:
    import openvino

__all__ = ["FIGURES", "Judge", "compile_session", "figures_of", "run_pictures"]

KEEP_BYTES = 2 * 2**30
FOLDS = 10
MOST_FOR_UNCERTAINTY = 1000
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def compile_session(
    model: openvino.Model, card: Card, slots: int = 1, precision: str = "f32", *, quantized: bool = True
) -> OpenVINOSession:
    """A session of a model in memory, with the settings of :func:`ovyolo.runtime.open_session`; without ``quantized``
    an INT8 model is computed in floating point, each quantizer where it stands."""

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if not quantized:
        config["LP_TRANSFORMS_MODE"] = "NO"
    return OpenVINOSession(shared_core().compile_model(model, "CPU", config), card.head.outputs, slots)


def run_pictures(
    model: openvino.Model, card: Card, pictures: Sequence[NDArray[np.uint8]], *, quantized: bool = True
) -> list[list[NDArray[np.float32]]]:
    """The raw outputs for letterboxed pictures."""
    with closing(compile_session(model, card, quantized=quantized)) as session:
        found = []
        for picture in pictures:
            session.input(0)[0] = picture
            session.submit(0)
            found.append([output.copy() for output in session.wait(0)])
        return found


def figures_of(scores: Scores) -> dict[str, Any]:
    """AP in points (0 to 100) overall, by size and by class; None where it is not known."""
    figures: dict[str, Any] = {name: _points(getattr(scores, name)) for name in FIGURES}
    figures["classes"] = {one.name: _points(one.ap) for one in scores.classes if one.objects}
    return figures


def _points(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 3)


class Judge:
    """Measures models of one card on one data set.

    Args:
        dataset: checked, with objects.
        card: what all models are.
        skip_bad: go on without pictures that cannot be read.

    Raises:
        DataError: the classes do not fit together.
    """

    def __init__(self, dataset: DataSet, card: Card, *, skip_bad: bool = False) -> None:
        self.dataset = dataset
        self.card = card
        self.mapping, self.note = class_mapping(card, dataset)
        self._pictures = Pictures(dataset, card.imgsz, keep_bytes=KEEP_BYTES)
        self._skip_bad = skip_bad
        self._found: WeakKeyDictionary[openvino.Model, Predictions] = WeakKeyDictionary()

    def predict(
        self,
        model: openvino.Model,
        precision: str = "f32",
        tell: Callable[[int], None] = lambda done: None,
        keep: bool = False,
        card: Card | None = None,
    ) -> Predictions:
        """The boxes that ``model`` finds; ``tell`` is called with the number of pictures done. With ``keep`` they are
        remembered, for as long as the model lives, and not found again. A model with another head than the others, but
        their classes and input, brings its own ``card``."""
        card = card or self.card
        if model in self._found and precision == "f32":
            return self._found[model]
        with closing(compile_session(model, card, 2, precision)) as session:
            counted = _Counted(session, tell)
            found = predict(counted, card, self._pictures, skip_bad=self._skip_bad, quiet=True)
        found = found if self.mapping is None else found.classes_as(self.mapping)
        if keep:
            self._found[model] = found
        return found

    def score(self, predictions: Predictions) -> dict[str, Any]:
        """Figures in points."""
        dataset, left = predictions.without_failed(self.dataset)
        return figures_of(score(dataset, left, detail=False))

    def uncertainty(self, before: Predictions, after: Predictions) -> float | None:
        """The standard error of the drop of AP in points, by the grouped jackknife (Efron & Tibshirani, 1993, ch. 11):
        what the drop would vary by on other pictures of the same kind. None where pictures are too few or too many."""
        count = len(self.dataset)
        if not 3 * FOLDS <= count <= MOST_FOR_UNCERTAINTY or before.failed or after.failed:
            return None
        drops = []
        for fold in range(FOLDS):
            kept = [index for index in range(count) if index % FOLDS != fold]
            subset = self.dataset.subset(kept)
            both = [score(subset, _only(predictions, kept, count), detail=False).ap for predictions in (before, after)]
            drops.append(100 * (both[0] - both[1]))
        spread = np.array(drops) - np.mean(drops)
        error = float(np.sqrt((FOLDS - 1) / FOLDS * (spread**2).sum()))
        return None if math.isnan(error) else round(error, 3)


def _only(predictions: Predictions, kept: list[int], count: int) -> Predictions:
    """The boxes of the pictures ``kept``, renumbered."""
    renumber = np.full(count, -1, np.int64)
    renumber[kept] = np.arange(len(kept))
    moved = replace(predictions, image=renumber[predictions.image])
    return moved.take(moved.image >= 0)


class _Counted:
    """A session that tells how many pictures it was given."""

    def __init__(self, session: OpenVINOSession, tell: Callable[[int], None]) -> None:
        self._session, self._tell, self._done = session, tell, 0
        self.input_shape, self.device, self.slots = session.input_shape, session.device, session.slots
        self.input, self.wait, self.close = session.input, session.wait, session.close

    def submit(self, slot: int) -> None:
        """Begin computing."""
        self._session.submit(slot)
        self._done += 1
        self._tell(self._done)
