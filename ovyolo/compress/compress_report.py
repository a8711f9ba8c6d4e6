"""What a compression won and lost, as text and as an HTML page that needs nothing else."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovyolo.compress.quantize_report import SIZES
from ovyolo.compress.tries import table_of
from ovyolo.evaluate.predictions import write_text
from ovyolo.report.pictures import MarkedPicture
from ovyolo.report.style import GALLERY, STYLE, new_environment, points

__all__ = ["text_table", "write_page"]

LABEL_WIDTH, LABEL_HEIGHT = 80, 12  # typographic points
KINDS = (("lost", "lost"), ("gained", "gained"), ("kept", "found by both"))


def text_table(report: dict[str, Any]) -> str:
    """The report as lines for a terminal."""
    lines = [
        f"{report['model']} on {report['data']}: {report['pictures']} pictures, {report['objects']} objects",
        f"  {'step':<14}{'AP':>7}{'AP50':>7}{'small':>7}{'ms':>8}{'faster':>8}{'MACs':>7}{'params':>8}{'MB':>7}{'zipped':>8}",
    ]
    first = report["steps"][0]
    for step in report["steps"]:
        lines.append(
            f"  {step['name']:<14}{points(step['ap']):>7}{points(step['ap50']):>7}{points(step['ap_small']):>7}"
            f"{step['ms']:>8.2f}{step['speedup']:>7.2f}x{step['macs'] / first['macs']:>7.2f}"
            f"{step['params'] / first['params']:>8.2f}{step['bytes'] / 1e6:>7.2f}{step['zipped'] / 1e6:>8.2f}"
        )
    executed = ", ".join(f"{count} {name}" for name, count in report["steps"][-1]["precisions"].items())
    changes = report["changes"]
    lines += [
        f"  lost {report['drop']:.2f} points of AP against {report['reference']!r}, {report['speedup']:.2f} times faster",
        f"  of the objects that {report['reference']!r} finds at confidence {changes['conf']:g}, {changes['lost']} are lost; "
        f"{changes['gained']} others are found",
        f"  on {report['machine']['processor']}, {report['machine']['instructions']}; convolutions run in: {executed}",
    ]
    if len(report["tries"]) > 1:
        lines += table_of(report["tries"])
    return "\n".join([*lines, *(f"  {note}" for note in report["notes"])])


def write_page(path: Path, report: dict[str, Any], pictures: Sequence[MarkedPicture] = ()) -> Path | None:
    """Write the HTML page, with ``pictures`` of what was lost and gained; None where Jinja2 is not installed.

    Raises:
        DataError: it cannot be written.
    """
    try:
        environment = new_environment()
        from markupsafe import Markup
    except ImportError:
        return None
    by_name = {step["name"]: step for step in report["steps"]}
    last = report["steps"][-1]
    classes = [
        (
            name, ap, by_name[report["reference"]]["classes"].get(name), last["classes"].get(name),
            *report["changes"]["classes"].get(name, (0, 0)),
        )
        for name, ap in report["steps"][0]["classes"].items()
    ]  # fmt: skip
    page = environment.from_string(PAGE).render(
        report=report,
        last=last,
        first=report["steps"][0],
        classes=classes,
        sizes=SIZES,
        kinds=KINDS,
        pictures=pictures,
        most_channels=max((row[1] for row in report["layers"]), default=1),
        plot=Markup(_pareto(report)),
    )
    write_text(path, page)
    return path


def _pareto(report: dict[str, Any]) -> str:
    """AP over latency by step, as an SVG; empty where matplotlib is not installed."""
    try:
        from ovyolo.report.plots import BLUE, GREY, new_figure, styled, svg
    except ImportError:
        return ""
    with styled():
        figure, axes = new_figure(9, 4)
        steps = [step for step in report["steps"] if step["ap"] is not None]
        # what no other step beats in both
        best = [
            one for one in steps
            if not any(o["ms"] <= one["ms"] and o["ap"] >= one["ap"] and (o["ms"], o["ap"]) != (one["ms"], one["ap"]) for o in steps)
        ]  # fmt: skip
        best.sort(key=lambda step: step["ms"])
        axes.step([step["ms"] for step in best], [step["ap"] for step in best], where="post", color=GREY, zorder=1)
        for step in steps:
            axes.scatter(step["ms"], step["ap"], s=52, color=BLUE if step in best else GREY, zorder=2)
        axes.set(xlabel="latency, ms (in turn)", ylabel="AP, points")
        axes.margins(0.15, 0.2)
        _name_points(axes, steps)
        return svg(figure, "AP over latency by step")


def _name_points(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    """Write each step's name right of its point, moved down where another's would be in the way."""
    scale = 72 / axes.figure.dpi  # points a pixel
    placed: list[tuple[float, float]] = []
    for step in sorted(steps, key=lambda step: -step["ap"]):
        x, y = (axes.transData.transform((step["ms"], step["ap"])) * scale).tolist()
        near = [other for at, other in placed if abs(at - x) < LABEL_WIDTH]
        low = min([y, *(other - LABEL_HEIGHT for other in near if other - LABEL_HEIGHT < y)])
        placed.append((x, low))
        axes.annotate(
            step["name"],
            (step["ms"], step["ap"]),
            xytext=(9, low - y),
            textcoords="offset points",
            fontsize=9,
            va="center",
        )


PAGE = (
    GALLERY
    + """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.output }}: what compression cost</title>
"""
    + STYLE
    + """</head><body><main>
<h1>{{ report.output }}</h1>
<p class="soft">{{ report.model }}, compressed; judged on {{ report.pictures }} pictures with {{ report.objects }} objects,
trained on {{ report.training_pictures }}. Latency in turn on {{ report.machine.processor }}
({{ report.machine.cores }} cores, {{ report.machine.instructions }}).</p>
{% for note in report.notes %}<div class="notes{{ ' caution' if 'CAUTION' in note }}"><p>{{ note }}</p></div>
{% endfor %}
<div class="tiles">
<div class="tile main"><span>times faster</span><b>{{ report.speedup|points }}</b><span>{{ first.ms|points }} → {{ last.ms|points }} ms</span></div>
<div class="tile main"><span>points of AP lost</span><b>{{ report.drop|points }}</b><span>against “{{ report.reference }}”</span></div>
<div class="tile"><span>size, MB</span><b>{{ (last.bytes / 1e6)|points }}</b><span>FP16 original {{ (first.bytes / 1e6)|points }}; zipped {{ (last.zipped / 1e6)|points }}</span></div>
<div class="tile"><span>multiplications left</span><b>{{ '%.0f'|format(100 * last.macs / first.macs) }} %</b><span>of {{ '%.2f'|format(first.macs / 1e9) }} billion</span></div>
<div class="tile"><span>objects lost, gained</span><b>{{ report.changes.lost }}, {{ report.changes.gained }}</b><span>of {{ report.objects }}, at confidence {{ report.changes.conf }}</span></div></div>
{% if plot %}<h2>Accuracy over latency</h2>
<p class="soft">Blue: no other step is both faster and more accurate.</p><div class="card">{{ plot }}</div>{% endif %}
<h2>Step by step</h2><div class="card"><table class="numbers">
<tr><th>step</th>{% for _, label in sizes %}<th>{{ label }}</th>{% endfor %}<th>ms</th><th>faster</th><th>MACs</th><th>params</th><th>zeros</th><th>MB</th><th>zipped</th></tr>
{% for step in report.steps %}<tr><td>{{ step.name }}</td>{% for key, _ in sizes %}<td>{{ step[key]|points }}</td>{% endfor %}<td>{{ step.ms|points }}</td><td>{{ step.speedup|points }}</td><td>{{ (step.macs / first.macs)|points }}</td><td>{{ (step.params / first.params)|points }}</td><td>{{ step.zeros|points }}</td><td>{{ (step.bytes / 1e6)|points }}</td><td>{{ (step.zipped / 1e6)|points }}</td></tr>
{% endfor %}</table></div>
{% if report.tries|length > 1 %}<h2>What was tried to lose at most {{ report.recipe.max_drop }} points</h2><div class="card"><table class="numbers">
<tr><th></th><th>AP</th><th>lost</th><th>times faster, as planned</th></tr>
{% for one in report.tries %}<tr><td>{{ one.name }}</td><td>{{ one.ap|points }}</td><td>{{ one.drop|points }}</td><td>{{ one.speedup|points }}</td></tr>
{% endfor %}</table></div>{% endif %}
<h2>By class</h2><div class="card"><table class="numbers"><tr><th>class</th><th>AP of the original</th>{% if report.reference != first.name %}<th>{{ report.reference }}</th>{% endif %}<th>result</th><th>objects lost</th><th>gained</th></tr>
{% for name, a, b, c, lost, gained in classes %}<tr><td>{{ name }}</td><td>{{ a|points }}</td>{% if report.reference != first.name %}<td>{{ b|points }}</td>{% endif %}<td>{{ c|points }}</td><td>{{ lost or '–' }}</td><td>{{ gained or '–' }}</td></tr>
{% endfor %}</table></div>
<h2>Objects lost and gained</h2>
<p class="soft">At confidence {{ report.changes.conf }} and IoU {{ report.changes.iou }}: “{{ report.reference }}” and the result both find {{ report.changes.kept }} objects,
neither finds {{ report.changes.missed }}; {{ report.changes.lost }} are lost and {{ report.changes.gained }} gained. Boxes on nothing: {{ report.changes.false_before }} before, {{ report.changes.false_after }} now.
{% if pictures %}The {{ pictures|length }} pictures with the most; numbers are confidences before → now.{% endif %}</p>
{% if pictures %}{{ legend(kinds) }}{{ gallery(pictures, kinds) }}{% endif %}
<h2>Layers, before and after</h2><div class="card"><table class="numbers"><tr><th>layer</th><th></th><th>channels</th><th>now</th><th>million MACs</th><th>now</th></tr>
{% for name, before, after, macs, left in report.layers %}<tr><td>{{ name }}</td><td class="bar"><div><i style="width:{{ '%.1f'|format(100 * before / most_channels) }}%"></i><i style="width:{{ '%.1f'|format(100 * after / most_channels) }}%"></i></div></td><td>{{ before }}</td><td>{{ after }}</td><td>{{ (macs / 1e6)|points }}</td><td>{{ (left / 1e6)|points }}</td></tr>
{% endfor %}</table></div>
<h2>How it was made and checked</h2><div class="card"><table class="facts">
<tr><td>recipe</td><td>{% for name, value in report.recipe.items() %}{{ name }} {{ value }}{{ ', ' if not loop.last }}{% endfor %}</td></tr>
<tr><td>convolutions run in</td><td>{% for name, count in last.precisions.items() %}{{ count }} {{ name }}{{ ', ' if not loop.last }}{% endfor %}</td></tr>
<tr><td>IR against PyTorch: error of the heads (of confidences and boxes)</td><td>{{ '%.2g'|format(report.check.executed_error) }} as executed, {{ '%.2g'|format(report.check.float_error) }} with quantizers in floating point</td></tr>
<tr><td>stored zeros</td><td>{{ (100 * report.check.zeros)|points }} %{% if report.check.lost_zeros %}; CAUTION: masked weights that are not zero in {{ report.check.lost_zeros|join(', ') }}{% endif %}</td></tr>
<tr><td>layers that can saturate without VNNI</td><td>{{ report.check.overflowing|join(', ') or 'none' }}</td></tr>
<tr><td>versions</td><td>{% for name, value in report.versions.items() %}{{ name }} {{ value }}{{ ', ' if not loop.last }}{% endfor %}</td></tr>
</table></div>
</main></body></html>
"""
)
