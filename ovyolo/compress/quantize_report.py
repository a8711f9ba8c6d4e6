"""What a quantization lost and won, as text and as an HTML page that needs nothing else."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

from pathlib import Path
from typing import Any

from ovyolo.evaluate.predictions import write_text
from ovyolo.report.style import STYLE, new_environment, points

__all__ = ["text_table", "write_page"]

SIZES = (
    ("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"), ("ap_small", "small"), ("ap_medium", "medium"), ("ap_large", "large"),
)  # fmt: skip


def text_table(report: dict[str, Any]) -> str:
    """The report as lines for a terminal."""
    before, after = report["before"], report["after"]
    lines = [
        f"{report['source']} on {report['data']}: {report['pictures']} pictures, {report['objects']} objects",
        "            " + "".join(f"{label:>8}" for _, label in SIZES),
        "  before    " + "".join(_cell(before[name]) for name, _ in SIZES),
        f"  {report['precision']:<10}" + "".join(_cell(after[name]) for name, _ in SIZES),
        "  drop      " + "".join(_cell(_minus(before[name], after[name])) for name, _ in SIZES),
    ]
    error = report.get("drop_error")
    if error is not None:
        lines.append(
            f"  the drop of AP is {report['drop']:.2f} points here, and on other such pictures that give or take {error:.2f}"
        )
    latency = report["latency"]
    times = ", ".join(f"{name} {value:.1f} ms" for name, value in latency["ms"].items())
    ratios = ", ".join(f"{name} {value:.2f}x" for name, value in latency["speedup"].items())
    lines.append(f"  latency   {times}; faster than FP32: {ratios} ({latency['rounds']} rounds in turn)")
    lines.append(f"  on        {latency['processor']}, {latency['instructions']}")
    lines += [
        f"  {name:<9} drop {one['drop']:.2f}, without quantizing: `--precision {name.lower()}` when detecting"
        for name, one in report["alternatives"].items()
    ]
    size = report["size"]
    lines.append(f"  size      {size[report['precision']] / 1e6:.2f} MB, FP16 {size['FP16'] / 1e6:.2f} MB")
    calibration = report["calibration"]
    lines.append(f"  calibrated on {calibration['pictures']} pictures of {calibration['source']}")
    if report["float_layers"]:
        lines.append(f"  in floating point: {', '.join(report['float_layers'])}")
    checked = report["instruction_sets"]["checked"]
    if checked:
        lines.append("  checked on " + ", ".join(f"{name}: {found}" for name, found in checked.items()))
    overflowing = report["instruction_sets"]["layers_that_can_overflow"]
    if overflowing:
        lines.append(f"  CAUTION: without VNNI, products of {len(overflowing)} layers can saturate")
    return "\n".join([*lines, *(f"  note: {note}" for note in report["notes"])])


def _minus(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _cell(value: float | None) -> str:
    return f"{points(value):>8}"


def write_page(path: Path, report: dict[str, Any]) -> Path | None:
    """Write the HTML page; None where Jinja2 is not installed.

    Raises:
        DataError: it cannot be written.
    """
    try:
        environment = new_environment()
    except ImportError:
        return None
    classes = [(name, ap, report["after"]["classes"].get(name)) for name, ap in report["before"]["classes"].items()]
    classes.sort(key=lambda row: (row[2] or 0) - (row[1] or 0))
    figures = [(label, report["before"][name], report["after"][name]) for name, label in SIZES]
    page = environment.from_string(PAGE).render(report=report, figures=figures, classes=classes, minus=_minus)
    write_text(path, page)
    return path


PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.output }}: what {{ report.precision }} costs</title>
"""
    + STYLE
    + """</head><body><main>
<h1>{{ report.output }}</h1>
<p class="soft">{{ report.source }} as {{ report.precision }}, measured on {{ report.data }}: {{ report.pictures }} pictures,
{{ report.objects }} objects</p>
{% for note in report.notes %}<div class="notes{{ ' caution' if 'CAUTION' in note }}"><p>{{ note }}</p></div>
{% endfor %}
<div class="tiles">
<div class="tile"><span>drop of AP, points</span><b>{{ report.drop|points }}</b>
{% if report.drop_error is not none %}<span>± {{ report.drop_error|points }} on other such pictures</span>{% endif %}</div>
<div class="tile"><span>times faster than FP32</span><b>{{ report.latency.speedup[report.precision]|points }}</b>
<span>{{ report.latency.ms.FP32|points }} → {{ report.latency.ms[report.precision]|points }} ms</span></div>
<div class="tile"><span>size, MB</span><b>{{ (report.size[report.precision] / 1e6)|points }}</b>
<span>FP16: {{ (report.size.FP16 / 1e6)|points }}</span></div>
<div class="tile"><span>layers in floating point</span><b>{{ report.float_layers|length }}</b>
<span>of {{ report.layers_in_all }}</span></div></div>
<h2>AP before and after, in points</h2><div class="card"><table>
<tr><th></th><th>before</th><th>{{ report.precision }}</th><th>drop</th></tr>
{% for label, before, after in figures %}<tr><td>{{ label }}</td><td>{{ before|points }}</td><td>{{ after|points }}</td><td>{{ minus(before, after)|points }}</td></tr>
{% endfor %}</table></div>
<h2>What was tried</h2><div class="card"><table>
<tr><th></th><th>AP</th><th>drop</th><th>within {{ 'any budget' if report.max_drop is none else report.max_drop|string + ' points' }}</th></tr>
{% for trial in report.trials %}<tr><td>{{ trial.what }}</td><td>{{ trial.ap|points }}</td><td>{{ trial.drop|points }}</td><td>{{ 'yes' if trial.fits else 'no' }}</td></tr>
{% endfor %}
{% for name, one in report.alternatives.items() %}<tr><td>{{ name }}, not quantized</td><td>{{ one.ap|points }}</td><td>{{ one.drop|points }}</td><td>{{ report.latency.speedup[name]|points }} times faster</td></tr>
{% endfor %}</table></div>
{% if report.layers %}<h2>Layers, those first that are worth most in floating point</h2>
<p>Harm is the share of the raw heads' squared error that goes away when only this layer computes in floating point; cost
is what that takes, as a share of all multiplications.</p>
<div class="card"><table><tr><th>layer</th><th>harm, %</th><th>cost, %</th><th>put back</th></tr>
{% for name, harm, cost in report.layers %}<tr><td>{{ name }}</td><td>{{ (100 * harm)|points }}</td><td>{{ (100 * cost)|points }}</td><td>{{ 'yes' if name in report.float_layers }}</td></tr>
{% endfor %}</table></div>{% endif %}
<h2>AP by class, in points</h2><div class="card"><table><tr><th>class</th><th>before</th><th>{{ report.precision }}</th><th>drop</th></tr>
{% for name, before, after in classes %}<tr><td>{{ name }}</td><td>{{ before|points }}</td><td>{{ after|points }}</td><td>{{ minus(before, after)|points }}</td></tr>
{% endfor %}</table></div>
<h2>How it was made</h2><div class="card"><table class="facts">
<tr><td>scheme</td><td>{% for name, value in report.scheme.items() %}{{ name }} {{ value }}{{ ', ' if not loop.last }}{% endfor %}</td></tr>
<tr><td>calibration</td><td>{{ report.calibration.pictures }} pictures of {{ report.calibration.source }}, SHA-256 {{ report.calibration.sha256[:16] }}…</td></tr>
<tr><td>instruction sets</td><td>{% for name, found in report.instruction_sets.checked.items() %}{{ name }}: {{ found }}{{ ', ' if not loop.last }}{% endfor %}; {{ report.instruction_sets.layers_that_can_overflow|length }} layers can saturate without VNNI</td></tr>
<tr><td>machine</td><td>{{ report.machine.processor }}, {{ report.machine.cores }} cores, {{ report.machine.instructions }}</td></tr>
<tr><td>versions</td><td>{% for name, value in report.versions.items() %}{{ name }} {{ value }}{{ ', ' if not loop.last }}{% endfor %}</td></tr>
</table></div>
</main></body></html>
"""
)
