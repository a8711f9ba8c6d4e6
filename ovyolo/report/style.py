"""What the pages have in common: a style, pictures with boxes that can be switched off, and how numbers are written."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

__all__ = ["GALLERY", "STYLE", "new_environment", "points"]

STYLE = """<style>
:root { color-scheme: light; --ink: #22303c; --soft: #5b6875; --line: #dfe5ea; --blue: #0072b2;
  --right: #00b484; --missed: #d97a00; --false: #e0202d; --wrong: #9a3ee0; }
* { box-sizing: border-box }
body { margin: 0; background: #f5f7f9; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 28px 22px 60px }
h1 { font-size: 25px; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 18px; margin: 38px 0 10px }
p { margin: 4px 0 10px; max-width: 78ch }
.soft { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 10px; margin: 18px 0 10px }
.tile, .card { background: #fff; border: 1px solid var(--line); border-radius: 8px }
.tile { padding: 10px 14px }
.tile b { display: block; font-size: 24px; font-weight: 650; font-variant-numeric: tabular-nums }
.tile.main { background: #e8f2f9; border-color: #b9d7ea }
.tile span { color: var(--soft); font-size: 13px }
.card { padding: 14px 16px; margin-bottom: 14px; overflow-x: auto }
.card h3 { margin: 0 0 6px; font-size: 15px }
.card svg { width: 100%; height: auto; display: block }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 14px }
.two .card { margin: 0 }
.notes { border-left: 4px solid #8fb6cf; background: #eef5f9; padding: 8px 14px; margin: 14px 0; border-radius: 0 6px 6px 0 }
.notes.caution { border-color: var(--false); background: #fff0f0 }
.notes p { margin: 2px 0; max-width: none }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.numbers td + td { white-space: nowrap }
.facts td + td { text-align: left; overflow-wrap: anywhere }
details summary { cursor: pointer; color: var(--soft) }
td.bar { width: 26%; min-width: 120px }
.bar div { position: relative; background: #e9eef2; height: 13px; border-radius: 3px; overflow: hidden }
.bar i { position: absolute; left: 0; top: 0; bottom: 0; background: #a9cfe6; border-radius: 3px }
.bar i + i { background: var(--blue) }
.legend label { margin-right: 18px; cursor: pointer; white-space: nowrap }
.legend i { display: inline-block; width: 22px; height: 13px; border: 3px solid; border-radius: 2px; vertical-align: -1px; margin: 0 4px }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 14px; align-items: start }
figure.card { margin: 0; padding: 0; overflow: hidden }
figure.card svg { max-height: 520px; background: #eceff2 }
figcaption { padding: 8px 12px; font-size: 13px; overflow-wrap: anywhere }
.mark rect { fill: none; stroke: currentColor; stroke-width: 2.5px; vector-effect: non-scaling-stroke; pointer-events: all }
.mark:hover rect { stroke-width: 5px }
.mark text { fill: #fff; stroke: currentColor; stroke-width: .32em; stroke-linejoin: round; paint-order: stroke;
  font-weight: 600; font-family: system-ui, sans-serif }
.right, .gained { color: var(--right) } .missed { color: var(--missed) } .false, .lost { color: var(--false) } .wrong { color: var(--wrong) }
.kept { color: #5d7f95 }
.mark.plain rect { stroke-width: 1.5px } .mark.dashed rect { stroke-dasharray: 7 4 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; font-size: 14px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.dense .mark:not(:hover) text { display: none }
@media print { body { background: #fff } .card, .tile { break-inside: avoid } }
</style>
"""
"""For the head of every page."""

GALLERY = """{% macro legend(kinds) %}
<style>
{% for kind, _ in kinds %}body:has(#show-{{ kind }}:not(:checked)) .mark.{{ kind }} { display: none }
{% endfor %}body:has(#show-labels:not(:checked)) .mark text { display: none }
</style>
<p class="legend">
{% for kind, text in kinds %}
<label><input type="checkbox" id="show-{{ kind }}" checked><i class="{{ kind }}"{% if kind in dashed %} style="border-style:dashed"{% endif %}></i>{{ text }}</label>
{% endfor %}
<label><input type="checkbox" id="show-labels" checked>labels</label>
</p>
{% endmacro %}
{% macro gallery(pictures, kinds) %}
<div class="gallery">
{% for picture in pictures %}
{% set crowded = picture.labelled > 12 %}
<figure class="card{{ ' dense' if crowded }}">
<svg viewBox="0 0 {{ picture.width }} {{ picture.height }}" role="img" aria-label="{{ picture.name }}">
<image href="{{ picture.data }}" width="{{ picture.width }}" height="{{ picture.height }}"/>
{% set unit = [picture.width, picture.height]|max / 28 %}
{% for mark in picture.marks %}
<g class="mark {{ mark.kind }}{{ ' plain' if mark.plain }}{{ ' dashed' if mark.kind in dashed }}"><title>{{ mark.kind }}: {{ mark.label }}</title>
<rect x="{{ mark.x }}" y="{{ mark.y }}" width="{{ mark.width }}" height="{{ mark.height }}"/>
{% set late = mark.x > 0.7 * picture.width %}
{% if not mark.plain %}<text text-anchor="{{ 'end' if late else 'start' }}"
 x="{{ [mark.x + mark.width, picture.width]|min - unit * 0.15 if late else [mark.x, 0]|max + unit * 0.15 }}" y="{{ [mark.y - unit * 0.25, unit * 0.9]|max }}"
 font-size="{{ '%.1f'|format(unit) }}">{{ mark.label }}</text>{% endif %}
</g>
{% endfor %}
</svg>
<figcaption><b>{{ picture.name }}</b><br>
<span class="soft">{% for kind, text in kinds %}{{ picture.count(kind) }} {{ text }}{{ ', ' if not loop.last }}{% endfor %}{{ '; point at a box for its label' if crowded }}</span></figcaption>
</figure>
{% endfor %}
</div>
{% endmacro %}
"""
"""Jinja macros, to stand before a page: ``legend(kinds)`` and ``gallery(pictures, kinds)`` for
:class:`~ovyolo.report.pictures.MarkedPicture`, where kinds are pairs of a kind and what it is called."""

DASHED = ("missed", "lost")


def new_environment() -> jinja2.Environment:
    """Where pages are made: markup in values is escaped, and a value that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["points"] = points
    environment.globals["dashed"] = DASHED
    return environment


def points(value: float | None) -> str:
    """Two decimals, a dash for what is not known.

    Example:
        >>> points(33.333), points(None)
        ('33.33', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"
