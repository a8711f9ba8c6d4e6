"""The models that come with the package: trained on synthetic boards by ``benchmarks/demo_model.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ovyolo.errors import ModelError

__all__ = ["DEFECTS", "FOLDER", "IMGSZ", "TRAINING_SEED", "Shipped", "shipped_models"]

FOLDER = Path(__file__).with_name("model")
IMGSZ = 320
DEFECTS = 5
"""Defects a board, in training and in the demo: at this size a board of its own has one or two."""
TRAINING_SEED = 20261
"""Of the boards that the models were trained and chosen on; the demo draws others."""


@dataclass(frozen=True)
class Shipped:
    """The files of a model that comes in two forms.

    Args:
        dense: the ``.xml`` as trained, FP16 weights, computed in FP32.
        compressed: the ``.xml`` after ``compress``, in INT8.
        report: what compressing did, as JSON.
    """

    dense: Path
    compressed: Path
    report: Path

    @classmethod
    def of(cls, folder: Path) -> Shipped:
        """The names that the files have in ``folder``."""
        return cls(folder / "boards.xml", folder / "boards-int8.xml", folder / "boards-int8.compress.json")

    def files(self) -> tuple[Path, ...]:
        """All of them."""
        models = (self.dense, self.compressed)
        return (*models, *(path.with_suffix(".bin") for path in models), self.report)


def shipped_models() -> Shipped:
    """The models of this installation.

    Raises:
        ModelError: they are not there; says which file, and what to do.

    Example:
        >>> from ovyolo import Detector
        >>> detector = Detector(shipped_models().compressed)  # doctest: +SKIP
    """
    shipped = Shipped.of(FOLDER)
    if missing := [path for path in shipped.files() if not path.is_file()]:
        raise ModelError(
            f"{missing[0]} is missing, the model that `ovyolo demo` shows: install ovyolo anew, or in a checkout make "
            "it with `python benchmarks/demo_model.py`"
        )
    return shipped
