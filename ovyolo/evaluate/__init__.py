"""Measuring: a model, or anybody's predictions, against a labelled data set by COCO's metrics.

:func:`evaluate` does it all. Its halves are there for whoever judges many models on one data set: :func:`predict` runs
a compiled session over letterboxed :class:`Pictures` that stay in memory, :func:`score` judges.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ovyolo.evaluate.api import class_mapping, evaluate, predict_dataset
from ovyolo.evaluate.inference import Pictures, predict
from ovyolo.evaluate.metrics import score
from ovyolo.evaluate.predictions import Predictions, read_predictions, write_predictions
from ovyolo.evaluate.scores import ClassScores, Scores, SizeScores
from ovyolo.evaluate.sizes import SizeEdges, score_by_size
from ovyolo.evaluate.tiled import predict_tiled

__all__ = [
    "ClassScores",
    "Pictures",
    "Predictions",
    "Scores",
    "SizeEdges",
    "SizeScores",
    "class_mapping",
    "evaluate",
    "predict",
    "predict_dataset",
    "predict_tiled",
    "read_predictions",
    "score",
    "score_by_size",
    "write_predictions",
]


class _Room(ModuleType):
    """Lets ``ovyolo.evaluate(...)`` mean :func:`evaluate`, whether or not this package was imported before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Scores:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
