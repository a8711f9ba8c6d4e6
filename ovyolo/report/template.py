"""The report's page, as a Jinja template: styles within, no script, nothing loaded from outside."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

from ovyolo.report.style import GALLERY, STYLE

__all__ = ["PAGE"]

PAGE = (
    GALLERY
    + """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ovyolo {{ version }}">
<title>{{ title }}</title>
"""
    + STYLE
    + """</head>
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
<div class="card"><table>
<tr><th>size</th><th>objects</th><th>AP</th><th>AP50</th><th>recall</th><th>recall, any confidence</th></tr>
{% for one in scores.sizes %}
<tr><td>{{ one.label }}</td><td>{{ one.objects }}</td><td>{{ one.ap|digits }}</td><td>{{ one.ap50|digits }}</td>
<td>{{ one.recall|digits }}</td><td>{{ one.recall_any|digits }}</td></tr>
{% endfor %}</table></div>
{% endif %}

<h2>Classes</h2>
<p class="soft">Dark bar: AP; light bar: AP50.</p>
<div class="card">
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
{{ legend(kinds) }}
{{ gallery(pictures, kinds) }}
{% else %}<p class="soft">Every object was found, and nothing else.</p>{% endif %}

<h2>How it was measured</h2>
<div class="card"><dl>
{% for key, value in made %}<dt>{{ key }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl></div>
</main>
</body>
</html>
"""
)
