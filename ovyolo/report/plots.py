"""The report's plots, as SVG text."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.evaluate.scores import Detail, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "SIZE_EDGES",
    "confidence_plot",
    "confusion_plot",
    "labels_of",
    "new_figure",
    "precision_recall_plot",
    "size_plot",
    "styled",
    "svg",
]

BLUE, ORANGE, GREEN, GREY, INK = "#0072b2", "#d55e00", "#009e73", "#b8c0c8", "#22303c"
STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ovyolo",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#8894a0",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "xtick.color": "#54616d",
    "ytick.color": "#54616d",
    "legend.frameon": False,
}
FEW_CLASSES = 12
MOST_ROWS = 30
# sides in pixels; a label of area 32² is COCO's limit between small and medium, 96² between medium and large
SIZE_EDGES = (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, math.inf)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A drawing of so many inches on transparent ground."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot()


def svg(figure: Figure, title: str) -> str:
    """The drawing as an ``<svg>`` element that scales with its column and has a name for screen readers."""
    text = io.StringIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: the browser has others
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg, count=2).replace(
        "<svg ", f'<svg role="img" aria-label="{title}" ', 1
    )


def styled() -> Any:
    """A context in which drawings look like ours."""
    import matplotlib as mpl

    settings: Any = STYLE
    return mpl.rc_context(settings)


def precision_recall_plot(scores: Scores, detail: Detail) -> str:
    """Precision over recall at IoU 0.50: the mean over classes, and each class where they are few."""
    with styled():
        figure, axes = new_figure(5.4, 4)
        recall = np.linspace(0, 1, len(detail.precision_at_recall))
        present = [i for i, one in enumerate(scores.classes) if one.objects]
        for index in present:
            few = len(present) <= FEW_CLASSES
            one = scores.classes[index]
            # without the leading space a name that begins with _ would be hidden
            axes.plot(
                recall, detail.precision_at_recall[:, index], lw=1.2 if few else 0.5, alpha=0.9 if few else 0.5,
                color=None if few else GREY, label=f" {one.name[:24]} {one.ap50:.3f}" if few else None,
            )  # fmt: skip
        if present:
            mean = detail.precision_at_recall[:, present].mean(axis=1)
            axes.plot(recall, mean, color=INK, lw=2.4, label=f"mean of {len(present)} classes {mean.mean():.3f}")
            axes.legend(loc="lower left", fontsize=8)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        return svg(figure, "Precision over recall at IoU 0.50")


def confidence_plot(scores: Scores, detail: Detail) -> str:
    """Mean precision, recall and F1 over the confidence threshold, and the working point."""
    curves = detail.curves
    present = curves.objects > 0
    with styled():
        figure, axes = new_figure(5.4, 4)
        if present.any():
            precision = curves.precision[present]
            known = ~np.isnan(precision)
            total = np.where(known, precision, 0).sum(axis=0)
            mean = np.divide(total, known.sum(axis=0), out=np.full(len(curves.grid), np.nan), where=known.any(axis=0))
            axes.plot(curves.grid, mean, color=GREEN, lw=1.4, label="precision")
            axes.plot(curves.grid, curves.recall[present].mean(axis=0), color=BLUE, lw=1.4, label="recall")
            axes.plot(curves.grid, curves.f1[present].mean(axis=0), color=ORANGE, lw=2.4, label="F1")
            axes.axvline(scores.confidence, color=INK, lw=1, ls="--")
            right = scores.confidence < 0.6
            axes.annotate(
                f"{scores.confidence:.3f}: F1 {scores.f1:.3f}", (scores.confidence, 0.02), (4 if right else -4, 0),
                textcoords="offset points", ha="left" if right else "right", fontsize=9,
            )  # fmt: skip
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9, ncols=3)
        axes.set(xlabel="confidence threshold", ylabel="mean over classes", xlim=(0, 1), ylim=(0, 1.02))
        return svg(figure, "Precision, recall and F1 over confidence")


def size_plot(scores: Scores, detail: Detail) -> str:
    """Recall by object size: at the working point, and with every box that was predicted.

    The sizes are those that the user asked for, if any.
    """
    if scores.sizes:
        labels = [one.label for one in scores.sizes]
        counts = [one.objects for one in scores.sizes]
        ever = [np.nan_to_num(one.recall_any) for one in scores.sizes]
        now = [np.nan_to_num(one.recall) for one in scores.sizes]
    else:
        labels, counts, ever, now = _recall_by_size(scores, detail)
    with styled():
        figure, axes = new_figure(5.4, 4)
        place = np.arange(len(labels))
        axes.bar(place, ever, 0.8, color=GREY, label="found at any confidence")
        axes.bar(place, now, 0.8, color=BLUE, label=f"found at confidence {scores.confidence:.3f}")
        for x, y, count in zip(place, ever, counts, strict=True):
            axes.annotate(str(count), (x, y), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(place, labels, rotation=30 if len(labels) > 5 else 0, fontsize=8)
        unit = "as a share of the picture's" if scores.sizes and "%" in scores.sizes[0].label else "in pixels"
        axes.set(xlabel=f"√area of the label {unit}; above each bar: objects", ylabel="recall", ylim=(0, 1.08))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9, ncols=2)
        return svg(figure, "Recall by object size")


def _recall_by_size(scores: Scores, detail: Detail) -> tuple[list[str], list[int], list[Any], list[Any]]:
    """Labels of sizes, objects of each, and which share was found at any confidence and at the working one."""
    matches = detail.matches
    real = ~matches.object_crowd
    side = np.sqrt(matches.object_area[real])
    score_of = matches.score_of[real]
    bins = np.clip(np.digitize(side, SIZE_EDGES) - 1, 0, len(SIZE_EDGES) - 2)
    used = np.unique(bins)
    rows = list(range(int(used[0]), int(used[-1]) + 1) if len(used) else range(0))
    counts = [int((bins == row).sum()) for row in rows]
    found = (score_of >= 0) & (score_of >= scores.confidence)
    ever, now = (
        [chosen[bins == row].mean() if (bins == row).any() else 0 for row in rows] for chosen in (score_of >= 0, found)
    )
    return labels_of(rows), counts, ever, now


def labels_of(rows: Sequence[int]) -> list[str]:
    """What rows of ``SIZE_EDGES`` are called."""
    return [
        f"{SIZE_EDGES[row]}–{SIZE_EDGES[row + 1]}" if math.isfinite(SIZE_EDGES[row + 1]) else f"≥ {SIZE_EDGES[row]}"
        for row in rows
    ]


def confusion_plot(scores: Scores, detail: Detail) -> tuple[str, int, int]:
    """The confusion matrix, each row as shares of its true class; how many classes were put together as others; and
    the drawing's natural width in pixels."""
    names = [one.name for one in scores.classes]
    matrix, shown, others = shortened(detail.confusion, MOST_ROWS)
    labels = [names[i][:22] for i in shown] + ([f"{others} others"] if others else [])
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    size = len(labels) + 1
    with styled():
        side = min(10.0, max(4.6, 1.6 + 0.42 * size))
        figure, axes = new_figure(side + 0.8, side)
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
        small = 8 if size <= 16 else 6.5
        for row, column in np.argwhere(matrix > 0).tolist():
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", fontsize=small if size <= 22 else 5,
                color="white" if share[row, column] > 0.55 else INK,
            )  # fmt: skip
        axes.set_xticks(range(size), [*labels, "missed"], rotation=90 if size > 6 else 30, fontsize=small)
        axes.set_yticks(range(size), [*labels, "nothing there"], fontsize=small)
        axes.set(xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        axes.axhline(size - 1.5, color=INK, lw=0.8)
        axes.axvline(size - 1.5, color=INK, lw=0.8)
        figure.colorbar(image, ax=axes, shrink=0.6, label="share of the row")
        return svg(figure, "Confusion matrix"), others, round(110 * (side + 0.8))


def shortened(matrix: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], list[int], int]:
    """A confusion matrix of at most ``most`` classes and background: those with the most objects and boxes stay, in
    their order, the rest is summed up in a row and column before background.

    Returns:
        The matrix, the classes that stayed, and how many were summed up.
    """
    classes = len(matrix) - 1
    if classes <= most:
        return matrix, list(range(classes)), 0
    weight = matrix[:classes].sum(axis=1) + matrix[:, :classes].sum(axis=0)
    stay = sorted(np.argsort(-weight, kind="stable")[: most - 1].tolist())
    group = np.full(classes + 1, len(stay))
    group[stay] = np.arange(len(stay))
    group[classes] = len(stay) + 1
    short = np.zeros((len(stay) + 2, len(stay) + 2), np.int64)
    np.add.at(short, (group[:, None], group[None, :]), matrix)
    return short, stay, classes - len(stay)
