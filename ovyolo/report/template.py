"""The report's page, as a Jinja template: styles within, no script, nothing loaded from outside."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

__all__ = ["PAGE"]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ovyolo {{ version }}">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --ink: #22303c; --soft: #5b6875; --line: #dfe5ea; --blue: #0072b2;
  --right: #00b484; --missed: #d97a00; --false: #e0202d; --wrong: #9a3ee0; }
* { box-sizing: border-box }
body { margin: 0; background: #f5f7f9; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 28px 22px 60px }
h1 { font-size: 25px; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 18px; margin: 38px 0 10px }
p { margin: 4px 0 10px; max-width: 78ch }
.soft { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin: 18px 0 10px }
.tile, .card { background: #fff; border: 1px solid var(--line); border-radius: 8px }
.tile { padding: 10px 14px }
.tile b { display: block; font-size: 24px; font-weight: 650; font-variant-numeric: tabular-nums }
.tile.main { background: #e8f2f9; border-color: #b9d7ea }
.tile span { color: var(--soft); font-size: 13px }
.card { padding: 14px 16px }
.card h3 { margin: 0 0 6px; font-size: 15px }
.card svg { width: 100%; height: auto; display: block }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 14px }
.notes { border-left: 4px solid #8fb6cf; background: #eef5f9; padding: 8px 14px; margin: 14px 0; border-radius: 0 6px 6px 0 }
.notes.caution { border-color: var(--false); background: #fff0f0 }
.notes p { margin: 2px 0; max-width: none }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600; position: sticky; top: 0; background: #fff }
th:first-child, td:first-child { text-align: left; white-space: normal }
td.bar { width: 26%; min-width: 120px }
.bar div { position: relative; background: #e9eef2; height: 13px; border-radius: 3px; overflow: hidden }
.bar i { position: absolute; left: 0; top: 0; bottom: 0; background: #a9cfe6; border-radius: 3px }
.bar i + i { background: var(--blue) }
.scroll { overflow-x: auto }
.legend label { margin-right: 18px; cursor: pointer; white-space: nowrap }
.legend i { display: inline-block; width: 22px; height: 13px; border: 3px solid; border-radius: 2px; vertical-align: -1px; margin: 0 4px }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 14px; align-items: start }
figure.card { margin: 0; padding: 0; overflow: hidden }
figure svg { display: block; width: 100%; height: auto; max-height: 520px; background: #eceff2 }
figcaption { padding: 8px 12px; font-size: 13px; overflow-wrap: anywhere }
.mark rect { fill: none; stroke: currentColor; stroke-width: 2.5px; vector-effect: non-scaling-stroke; pointer-events: all }
.mark:hover rect { stroke-width: 5px }
.mark text { fill: #fff; stroke: currentColor; stroke-width: .32em; stroke-linejoin: round; paint-order: stroke;
  font-weight: 600; font-family: system-ui, sans-serif }
.right { color: var(--right) } .missed { color: var(--missed) } .false { color: var(--false) } .wrong { color: var(--wrong) }
.mark.right rect { stroke-width: 1.5px } .mark.missed rect { stroke-dasharray: 7 4 }
{% for kind in kinds %}body:has(#show-{{ kind }}:not(:checked)) .mark.{{ kind }} { display: none }
{% endfor %}body:has(#show-labels:not(:checked)) .mark text { display: none }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; font-size: 14px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.dense .mark:not(:hover) text { display: none }
@media print { body { background: #fff } .card, .tile { break-inside: avoid } }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p class="soft">{{ scores.pictures }} pictures, {{ scores.objects }} objects, {{ scores.classes|length }} classes,
{{ scores.boxes }} predicted boxes</p>
{% for note in scores.notes %}
<div class="notes{{ ' caution' if 'CAUTION' in note }}"><p>{{ note }}</p></div>
{% endfor %}

<div class="tiles">
{% for name, value, hint in tiles %}
<div class="tile{{ ' main' if loop.first }}" title="{{ hint }}"><span>{{ name }}</span><b>{{ value|digits }}</b></div>
{% endfor %}
</div>
<p class="soft">AP: average precision, mean over classes and over IoU 0.50 to 0.95, COCO's figure. Small: labels below
32×32 pixels in area, large: from 96×96. AR: recall with at most 100 boxes a class and picture.</p>

<div class="tiles">
{% for name, value, hint in working %}
<div class="tile" title="{{ hint }}"><span>{{ name }}</span><b>{{ value|digits }}</b></div>
{% endfor %}
</div>
<p class="soft">At confidence {{ '%.3f'|format(scores.confidence) }}
({{ 'as asked' if scores.confidence_chosen else 'where the mean F1 over classes is highest on these pictures' }}); a box
finds an object of its class when their IoU is at least {{ '%g'|format(scores.match_iou) }}. Precision, recall and F1 are means over
classes, counts are sums. All that follows is at this working point unless it says otherwise.</p>

<h2>Curves</h2>
<div class="two">
<div class="card"><h3>Precision over recall, IoU 0.50</h3>{{ precision_recall }}</div>
<div class="card"><h3>Precision, recall and F1 over the confidence threshold</h3>{{ confidence }}</div>
<div class="card"><h3>Recall by object size</h3>{{ sizes }}</div>
<div class="card"><h3>Most frequent confusions</h3>
{% if confusions %}
<table><tr><th>true class</th><th style="text-align:left">taken for</th><th>objects</th><th>of that class</th></tr>
{% for truth, taken, count, share in confusions %}
<tr><td>{{ truth }}</td><td style="text-align:left">{{ taken }}</td><td>{{ count }}</td><td>{{ '%.0f'|format(100 * share) }} %</td></tr>
{% endfor %}</table>
{% else %}<p class="soft">No object was taken for one of another class.</p>{% endif %}
</div>
</div>

{% if scores.sizes %}
<h2>Object sizes</h2>
<p class="soft">The size of an object is the square root of its label's area.</p>
<div class="card scroll"><table>
<tr><th>size</th><th>objects</th><th>AP</th><th>AP50</th><th>recall</th><th>recall, any confidence</th></tr>
{% for one in scores.sizes %}
<tr><td>{{ one.label }}</td><td>{{ one.objects }}</td><td>{{ one.ap|digits }}</td><td>{{ one.ap50|digits }}</td>
<td>{{ one.recall|digits }}</td><td>{{ one.recall_any|digits }}</td></tr>
{% endfor %}</table></div>
{% endif %}

<h2>Classes</h2>
<p class="soft">Dark bar: AP; light bar: AP50.</p>
<div class="card scroll">
<table>
<tr><th>class</th><th>pictures</th><th>objects</th><th></th><th>AP</th><th>AP50</th><th>precision</th><th>recall</th><th>F1</th></tr>
{% for one in classes %}
<tr><td>{{ one.name }}</td><td>{{ one.pictures }}</td><td>{{ one.objects }}</td>
<td class="bar"><div><i style="width:{{ one.ap50|percent }}%"></i><i style="width:{{ one.ap|percent }}%"></i></div></td>
<td>{{ one.ap|digits }}</td><td>{{ one.ap50|digits }}</td><td>{{ one.precision|digits }}</td><td>{{ one.recall|digits }}</td>
<td>{{ one.f1|digits }}</td></tr>
{% endfor %}
</table>
{% if absent %}<p class="soft" style="margin-top:10px">Without objects in these pictures: {{ absent|join(', ') }}.</p>{% endif %}
</div>

<h2>Confusion matrix</h2>
<p class="soft">Rows: what is there; columns: what it was taken for. The last column counts objects that were missed, the last
row boxes that lie on no object of another class either. {% if others %}The {{ others }} rarest classes are put together.{% endif %}</p>
<div class="card"><div style="max-width: {{ confusion_width }}px">{{ confusion }}</div></div>

<h2>Pictures with the most errors</h2>
{% if pictures %}
<p class="legend">
<label><input type="checkbox" id="show-missed" checked><i class="missed" style="border-style:dashed"></i>missed</label>
<label><input type="checkbox" id="show-false" checked><i class="false"></i>false</label>
<label><input type="checkbox" id="show-wrong" checked><i class="wrong"></i>wrong class (true → predicted)</label>
<label><input type="checkbox" id="show-right" checked><i class="right"></i>right</label>
<label><input type="checkbox" id="show-labels" checked>labels</label>
</p>
<div class="gallery">
{% for picture in pictures %}
{% set crowded = picture.missed + picture.false + picture.wrong > 12 %}
<figure class="card{{ ' dense' if crowded }}">
<svg viewBox="0 0 {{ picture.width }} {{ picture.height }}" role="img" aria-label="{{ picture.name }}">
<image href="{{ picture.data }}" width="{{ picture.width }}" height="{{ picture.height }}"/>
{% set unit = [picture.width, picture.height]|max / 28 %}
{% for mark in picture.marks %}
<g class="mark {{ mark.kind }}"><title>{{ mark.kind }}: {{ mark.label }}</title>
<rect x="{{ mark.x }}" y="{{ mark.y }}" width="{{ mark.width }}" height="{{ mark.height }}"/>
{% set late = mark.x > 0.7 * picture.width %}
{% if mark.kind != 'right' %}<text text-anchor="{{ 'end' if late else 'start' }}"
 x="{{ [mark.x + mark.width, picture.width]|min - unit * 0.15 if late else [mark.x, 0]|max + unit * 0.15 }}" y="{{ [mark.y - unit * 0.25, unit * 0.9]|max }}"
 font-size="{{ '%.1f'|format(unit) }}">{{ mark.label }}</text>{% endif %}
</g>
{% endfor %}
</svg>
<figcaption><b>{{ picture.name }}</b><br>
<span class="soft">{{ picture.missed }} missed, {{ picture.false }} false, {{ picture.wrong }} wrong class,
{{ picture.right }} right{{ '; point at a box for its label' if crowded }}</span></figcaption>
</figure>
{% endfor %}
</div>
{% else %}<p class="soft">Every object was found, and nothing else.</p>{% endif %}

<h2>How it was measured</h2>
<div class="card"><dl>
{% for key, value in made %}<dt>{{ key }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl></div>
</main>
</body>
</html>
"""
