"""The report's page: figures, plots and pictures put into the template."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import numpy as np

from ovyolo.dataset import DataSet
from ovyolo.errors import DimensionError, OvyoloError
from ovyolo.evaluate.predictions import Predictions, write_text
from ovyolo.evaluate.scores import Detail, Scores
from ovyolo.report.style import new_environment
from ovyolo.report.template import PAGE
from ovyolo.version import __version__

__all__ = ["check_installed", "digits", "write_report"]

MOST_CONFUSIONS = 12
KINDS = (
    ("missed", "missed"), ("false", "false"), ("wrong", "wrong class (true → predicted)"), ("right", "right"),
)  # fmt: skip


def write_report(
    path: str | Path, dataset: DataSet, predictions: Predictions, scores: Scores, *, worst: int = 12
) -> Path:
    """Write an HTML page on a measurement: one file that needs nothing else and loads nothing.

    It shows the figures, precision over recall, F1 over confidence, recall by object size, figures by class, the
    confusion matrix, and the pictures with the most errors, with missed, false and wrongly classed boxes.

    Args:
        path: the ``.html`` to write.
        dataset: what was measured on.
        predictions: what was measured.
        scores: from :func:`ovyolo.evaluate.score` with its detail.
        worst: how many pictures to show.

    Returns:
        ``path``.

    Raises:
        OvyoloError: matplotlib or Jinja2 is not installed.
        DataError: the file cannot be written.
        DimensionError: ``scores`` came without detail.

    Example:
        >>> from ovyolo.report import write_report
        >>> write_report("report.html", data, predictions, score(data, predictions))  # doctest: +SKIP
        PosixPath('report.html')
    """
    check_installed()
    import markupsafe

    from ovyolo.report import plots
    from ovyolo.report.pictures import worst_pictures

    detail = scores.detail
    if detail is None:
        raise DimensionError("the report needs scores with detail: call score(..., detail=True)")
    environment = new_environment()
    environment.filters["digits"] = digits
    environment.filters["percent"] = lambda value: 0 if math.isnan(value) else round(100 * value, 1)
    confusion, others, width = plots.confusion_plot(scores, detail)
    present = sorted((one for one in scores.classes if one.objects), key=lambda one: -one.ap)
    text = environment.from_string(PAGE).render(
        version=__version__,
        title=_title(scores, dataset),
        scores=scores,
        tiles=_tiles(scores),
        working=_working(scores),
        precision_recall=markupsafe.Markup(plots.precision_recall_plot(scores, detail)),
        confidence=markupsafe.Markup(plots.confidence_plot(scores, detail)),
        sizes=markupsafe.Markup(plots.size_plot(scores, detail)),
        confusion=markupsafe.Markup(confusion),
        confusions=_confusions(scores, detail),
        others=others,
        confusion_width=width,
        classes=present,
        absent=[one.name for one in scores.classes if not one.objects],
        kinds=KINDS,
        pictures=worst_pictures(dataset, predictions, scores, detail, worst),
        made=_made(scores),
    )
    path = Path(path)
    write_text(path, text)
    return path


def check_installed() -> None:
    """Raise OvyoloError, before long work, where what the report needs is not installed."""
    try:
        for module in ("jinja2", "matplotlib"):
            import_module(module)
    except ImportError as error:
        raise OvyoloError(f"the report needs jinja2 and matplotlib ({error}): `pip install 'ovyolo[val]'`") from error


def _title(scores: Scores, dataset: DataSet) -> str:
    what = scores.made.get("model") or scores.made.get("predictions") or "Predictions"
    source = dataset.source.absolute()
    return f"{what} on {source.parent.name}/{source.name}" + ("" if dataset.coco else f" ({dataset.split})")


def _tiles(scores: Scores) -> list[tuple[str, float, str]]:
    return [
        ("AP", scores.ap, "mean over classes and IoU 0.50 to 0.95"),
        ("AP50", scores.ap50, "at IoU 0.50"),
        ("AP75", scores.ap75, "at IoU 0.75"),
        ("AP small", scores.ap_small, "labels below 32×32 pixels in area"),
        ("AP medium", scores.ap_medium, "labels from 32×32 to 96×96 pixels"),
        ("AP large", scores.ap_large, "labels from 96×96 pixels"),
        ("AR100", scores.ar100, "mean recall with at most 100 boxes a class and picture"),
    ]


def _working(scores: Scores) -> list[tuple[str, float | int, str]]:
    return [
        ("precision", scores.precision, "mean over classes that have boxes"),
        ("recall", scores.recall, "mean over classes that have objects"),
        ("F1", scores.f1, "mean over classes that have objects"),
        ("found", scores.hits, "objects found"),
        ("missed", scores.missed, "objects that no box of their class found"),
        ("false", scores.false, "boxes that found no object of their class, crowds left out"),
    ]


def _confusions(scores: Scores, detail: Detail) -> list[tuple[str, str, int, float]]:
    """Pairs of classes, most frequent first: true, taken for, objects, share of the true class's objects."""
    names = [one.name for one in scores.classes]
    matrix = detail.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    rows, columns = np.nonzero(matrix)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:MOST_CONFUSIONS]
    return [
        (names[row], names[column], int(matrix[row, column]), matrix[row, column] / max(1, scores.classes[row].objects))
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]


def _made(scores: Scores) -> list[tuple[str, str]]:
    words = {"conf": "confidence above", "iou": "NMS IoU", "max_det": "boxes a picture at most", "imgsz": "input size"}
    return [(words.get(key, key), str(value)) for key, value in {**scores.made, "ovyolo": __version__}.items()]


def digits(value: float | int) -> str:
    """Three decimals for shares, counts as they are, a dash for what is not known."""
    if isinstance(value, int):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"
