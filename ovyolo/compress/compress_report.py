"""What a compression won and lost, as text and as an HTML page that needs nothing else."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

from pathlib import Path
from typing import Any

from ovyolo.compress.quantize_report import PAGE as QUANTIZE_PAGE
from ovyolo.compress.quantize_report import SIZES
from ovyolo.evaluate.predictions import write_text

__all__ = ["text_table", "write_page"]

STYLE = QUANTIZE_PAGE[QUANTIZE_PAGE.index("<style>") : QUANTIZE_PAGE.index("</head>")]


def text_table(report: dict[str, Any]) -> str:
    """The report as lines for a terminal."""
    lines = [
        f"{report['model']} on {report['data']}: {report['pictures']} pictures, {report['objects']} objects",
        f"  {'step':<14}{'AP':>7}{'AP50':>7}{'small':>7}{'ms':>8}{'faster':>8}{'MACs':>7}{'params':>8}{'MB':>7}{'zipped':>8}",
    ]
    first = report["steps"][0]
    for step in report["steps"]:
        lines.append(
            f"  {step['name']:<14}{_points(step['ap']):>7}{_points(step['ap50']):>7}{_points(step['ap_small']):>7}"
            f"{step['ms']:>8.2f}{step['speedup']:>7.2f}x{step['macs'] / first['macs']:>7.2f}"
            f"{step['params'] / first['params']:>8.2f}{step['bytes'] / 1e6:>7.2f}{step['zipped'] / 1e6:>8.2f}"
        )
    executed = ", ".join(f"{count} {name}" for name, count in report["steps"][-1]["precisions"].items())
    lines.append(
        f"  lost {report['drop']:.2f} points of AP against {report['reference']!r}, {report['speedup']:.2f} times faster"
    )
    lines.append(
        f"  on {report['machine']['processor']}, {report['machine']['instructions']}; convolutions run in: {executed}"
    )
    return "\n".join(lines)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write_page(path: Path, report: dict[str, Any]) -> Path | None:
    """Write the HTML page; None where Jinja2 is not installed.

    Raises:
        DataError: it cannot be written.
    """
    try:
        import jinja2
    except ImportError:
        return None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["points"] = _points
    by_name = {step["name"]: step for step in report["steps"]}
    last = report["steps"][-1]
    classes = [
        (name, ap, by_name[report["reference"]]["classes"].get(name), last["classes"].get(name))
        for name, ap in report["steps"][0]["classes"].items()
    ]
    page = environment.from_string(PAGE).render(
        report=report,
        last=last,
        first=report["steps"][0],
        classes=classes,
        sizes=SIZES,
        plot=jinja_safe(_pareto(report)),
    )
    write_text(path, page)
    return path


def jinja_safe(markup: str) -> Any:
    """Our own markup, which is not to be escaped."""
    from markupsafe import Markup

    return Markup(markup)


def _pareto(report: dict[str, Any]) -> str:
    """AP over latency by step, as an SVG; empty where matplotlib is not installed."""
    try:
        from ovyolo.report.plots import new_figure, styled, svg
    except ImportError:
        return ""
    with styled():
        figure, axes = new_figure(7.2, 3.6)
        steps = [step for step in report["steps"] if step["ap"] is not None]
        axes.plot([step["ms"] for step in steps], [step["ap"] for step in steps], color="#b9c4cd", zorder=1)
        for number, step in enumerate(steps):
            axes.scatter(step["ms"], step["ap"], s=46, zorder=2)
            above = 8 if number % 2 else -15
            axes.annotate(
                step["name"],
                (step["ms"], step["ap"]),
                xytext=(0, above),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set(xlabel="latency, ms (in turn)", ylabel="AP, points")
        axes.margins(0.12, 0.25)
        return svg(figure, "AP over latency by step")


PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.output }}: what compression cost</title>
"""
    + STYLE
    + """</head><body><main>
<h1>{{ report.output }}</h1>
<p class="soft">{{ report.model }}, compressed; judged on {{ report.pictures }} pictures with {{ report.objects }} objects,
trained on {{ report.training_pictures }}. Latency in turn on {{ report.machine.processor }}
({{ report.machine.cores }} cores, {{ report.machine.instructions }}).</p>
<div class="tiles">
<div class="card"><span>times faster</span><b>{{ report.speedup|points }}</b><span>{{ first.ms|points }} → {{ last.ms|points }} ms</span></div>
<div class="card"><span>points of AP lost against “{{ report.reference }}”</span><b>{{ report.drop|points }}</b></div>
<div class="card"><span>size, MB</span><b>{{ (last.bytes / 1e6)|points }}</b><span>FP16 original {{ (first.bytes / 1e6)|points }}; zipped {{ (last.zipped / 1e6)|points }}</span></div>
<div class="card"><span>multiplications left</span><b>{{ (100 * last.macs / first.macs)|points }} %</b></div></div>
{{ plot }}
<h2>Step by step</h2><div class="card"><table>
<tr><th>step</th>{% for _, label in sizes %}<th>{{ label }}</th>{% endfor %}<th>ms</th><th>faster</th><th>MACs</th><th>params</th><th>zeros</th><th>MB</th><th>zipped</th></tr>
{% for step in report.steps %}<tr><td>{{ step.name }}</td>{% for key, _ in sizes %}<td>{{ step[key]|points }}</td>{% endfor %}<td>{{ step.ms|points }}</td><td>{{ step.speedup|points }}</td><td>{{ (step.macs / first.macs)|points }}</td><td>{{ (step.params / first.params)|points }}</td><td>{{ step.zeros|points }}</td><td>{{ (step.bytes / 1e6)|points }}</td><td>{{ (step.zipped / 1e6)|points }}</td></tr>
{% endfor %}</table></div>
<h2>AP by class, in points</h2><div class="card"><table><tr><th>class</th><th>original</th>{% if report.reference != first.name %}<th>{{ report.reference }}</th>{% endif %}<th>result</th></tr>
{% for name, a, b, c in classes %}<tr><td>{{ name }}</td><td>{{ a|points }}</td>{% if report.reference != first.name %}<td>{{ b|points }}</td>{% endif %}<td>{{ c|points }}</td></tr>
{% endfor %}</table></div>
<h2>Layers, before and after</h2><div class="card"><table><tr><th>layer</th><th>channels</th><th>now</th><th>million MACs</th><th>now</th></tr>
{% for name, before, after, macs, left in report.layers %}<tr><td>{{ name }}</td><td>{{ before }}</td><td>{{ after }}</td><td>{{ (macs / 1e6)|points }}</td><td>{{ (left / 1e6)|points }}</td></tr>
{% endfor %}</table></div>
<h2>How it was made and checked</h2><div class="card"><table>
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
