"""The page of a comparison: accuracy against time, and recall by object size, of several ways to look."""

# ruff: noqa: E501 (markup and styles)

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovyolo.evaluate.compare import Compared
from ovyolo.evaluate.predictions import write_text
from ovyolo.report.page import check_installed, digits
from ovyolo.report.plots import SIZE_EDGES, labels_of, new_figure, styled, svg
from ovyolo.report.style import STYLE, new_environment
from ovyolo.version import __version__

__all__ = ["accuracy_plot", "recall_plot", "write_comparison"]

# told apart by those who do not see colours as most do (Okabe and Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="generator" content="ovyolo {{ version }}">
"""
    + STYLE
    + """</head><body><main>
<h1>{{ title }}</h1>
<p class="soft">{{ pictures }} pictures, {{ objects }} objects. Every picture was looked at in every way, in turn;
times are from a picture in memory to its boxes, median.</p>
<div class="card"><table class="numbers">
<tr><th></th><th>AP</th><th>AP50</th><th>AP small</th><th>medium</th><th>large</th>
{% for label in sizes %}<th>AP {{ label }}</th>{% endfor %}<th>ms a picture</th><th>views</th></tr>
{% for one in compared %}
<tr><td>{{ one.name }}</td><td>{{ one.scores.ap|digits }}</td><td>{{ one.scores.ap50|digits }}</td>
<td>{{ one.scores.ap_small|digits }}</td><td>{{ one.scores.ap_medium|digits }}</td><td>{{ one.scores.ap_large|digits }}</td>
{% for size in one.scores.sizes %}<td>{{ size.ap|digits }}</td>{% endfor %}
<td>{{ '%.1f'|format(one.median) }}</td><td>{{ '%.1f'|format(one.views) }}</td></tr>
{% endfor %}</table></div>
<div class="two"><div class="card"><h2>Accuracy against time</h2>{{ accuracy }}</div>
<div class="card"><h2>Recall by object size</h2>{{ recall }}</div></div>
{% for note in notes %}<p class="soft">{{ note }}</p>{% endfor %}
</main></body></html>
"""
)


def accuracy_plot(compared: Sequence[Compared]) -> str:
    """AP and AP of small objects over milliseconds a picture, a point a way."""
    from matplotlib.ticker import FuncFormatter

    with styled():
        figure, axes = new_figure(5.4, 4)
        for number, one in enumerate(compared):
            colour = COLOURS[number % len(COLOURS)]
            small = one.scores.ap_small
            axes.plot([one.median], [one.scores.ap], "o", color=colour, ms=7)
            if not math.isnan(small):
                axes.plot([one.median], [small], "^", color=colour, ms=7, mfc="none")
            axes.annotate(
                one.name, (one.median, one.scores.ap), (6, 4), textcoords="offset points", fontsize=8, color=colour
            )
        axes.plot([], [], "o", color="#5b6875", label="AP")
        axes.plot([], [], "^", color="#5b6875", mfc="none", label="AP small")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9, ncols=2)
        axes.set_xscale("log")
        # plain numbers: the usual 10² needs math text, which class names must not be read as
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else ""))
        axes.margins(x=0.25, y=0.15)
        axes.set(xlabel="milliseconds a picture", ylabel="AP")
        axes.set_ylim(bottom=0)
        return svg(figure, "Accuracy against time")


def recall_plot(compared: Sequence[Compared]) -> str:
    """Share of the objects of each size that some box of their class found at IoU 0.5, a line a way."""
    with styled():
        figure, axes = new_figure(5.4, 4)
        first = compared[0].scores.detail
        assert first is not None
        side = np.sqrt(first.matches.object_area)
        bins = np.clip(np.digitize(side, SIZE_EDGES) - 1, 0, len(SIZE_EDGES) - 2)
        used = np.unique(bins[~first.matches.object_crowd])
        place = np.arange(len(used))
        for number, one in enumerate(compared):
            assert one.scores.detail is not None
            matches = one.scores.detail.matches
            real = ~matches.object_crowd
            found = [float((matches.score_of[real & (bins == row)] >= 0).mean()) for row in used]
            axes.plot(place, found, "o-", color=COLOURS[number % len(COLOURS)], lw=1.8, ms=4, label=one.name)
        counts = [int((bins[~first.matches.object_crowd] == row).sum()) for row in used]
        names = [f"{label}\n{count}" for label, count in zip(labels_of(used.tolist()), counts, strict=True)]
        axes.set_xticks(place, names, fontsize=7, rotation=40 if len(used) > 7 else 0)
        axes.set(xlabel="√area of the label in pixels; below: objects", ylabel="recall, any confidence", ylim=(0, 1.02))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8, ncols=min(3, len(compared)))
        return svg(figure, "Recall by object size")


def write_comparison(path: str | Path, compared: Sequence[Compared]) -> Path:
    """Write an HTML page on a comparison: one file that loads nothing.

    Raises:
        OvyoloError: matplotlib or Jinja2 is not installed.
        DataError: the file cannot be written.
    """
    check_installed()
    import markupsafe

    first = compared[0].scores
    environment = new_environment()
    environment.filters["digits"] = digits
    text = environment.from_string(PAGE).render(
        version=__version__,
        title=f"{first.made.get('model', 'model')} on {first.made.get('data', 'data set')}",
        pictures=first.pictures,
        objects=first.objects,
        sizes=[one.label for one in first.sizes],
        compared=compared,
        accuracy=markupsafe.Markup(accuracy_plot(compared)),
        recall=markupsafe.Markup(recall_plot(compared)),
        notes=list(dict.fromkeys(note for one in compared for note in one.scores.notes)),
    )
    path = Path(path)
    write_text(path, text)
    return path
