"""What the demo found, as pictures and as one HTML page that loads nothing; needs no template engine."""

# ruff: noqa: E501 (markup and styles)
from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.bench.machine import describe
from ovyolo.demo.contest import CONF, MATCH_IOU, Contest, Form
from ovyolo.detections import Detections
from ovyolo.evaluate.predictions import write_text
from ovyolo.io.draw import annotate
from ovyolo.io.images import read_image
from ovyolo.io.output import make_folder, replacing
from ovyolo.version import __version__

__all__ = ["write_page", "write_pictures"]

ENLARGE = 2
GAP = 8
QUALITY = 85
MISSED = (255, 255, 255)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ovyolo {version}"><title>ovyolo demo</title>
<style>
body {{ margin: 0 auto; max-width: 1180px; padding: 28px 22px; background: #f5f7f9; color: #22303c; font: 15px/1.5 system-ui, "Segoe UI", sans-serif }}
h1 {{ font-size: 25px }} h2 {{ font-size: 18px }} .soft, th {{ color: #5b6875 }}
.card {{ background: #fff; border: 1px solid #dfe5ea; border-radius: 8px; padding: 14px 16px; margin-bottom: 14px; overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: 4px 16px; border-bottom: 1px solid #dfe5ea; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
figure {{ margin: 0 0 14px }} figure img {{ width: 100%; height: auto; display: block }} figcaption {{ font-size: 13px; padding-top: 6px }}
</style></head><body>
<h1>Defects on synthetic circuit boards</h1>
<p class="soft">{boards} boards that the model has not seen, {objects} defects. The same detector as it was trained, and compressed
by <code>ovyolo compress</code>: a cheaper activation function, 8-bit arithmetic.</p>
<div class="card"><table>{rows}</table>
<p>{speed}.</p>{notes}</div>
<h2>Boards</h2>
<p class="soft">Left {left}, right {right}; boxes above confidence {conf:g}. A thin white frame is a defect that was missed: no box of its
class has an IoU of {iou:g} with it.</p>
{figures}
<h2>Machine</h2><p class="soft">{machine}</p>
</body></html>
"""


def write_pictures(contest: Contest, folder: Path, most: int = 12) -> list[tuple[Path, str]]:
    """Draw the first ``most`` boards, both forms side by side.

    Returns:
        Each picture's path, and a sentence on it.

    Raises:
        OvyoloError: one cannot be written.
    """
    import cv2

    make_folder(folder)
    written = []
    for index in range(min(most, len(contest.dataset))):
        halves, told = [], []
        for form in contest.forms:
            picture, missed, false = _drawn(contest, form, index)
            halves += [picture, np.full((picture.shape[0], GAP, 3), 255, np.uint8)]
            told.append(f"{form.name}: {missed} missed, {false} false")
        data = cv2.imencode(".jpg", np.hstack(halves[:-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        path = folder / f"{contest.dataset.items[index].path.stem}.jpg"
        with replacing(path) as part:
            part.write_bytes(data)
        objects = len(contest.dataset.items[index])
        written.append((path, f"{objects} defects; {'; '.join(told)}"))
    return written


def _drawn(contest: Contest, form: Form, index: int) -> tuple[NDArray[np.uint8], int, int]:
    """A board with a form's boxes, and how many defects it missed and invented there."""
    import cv2

    item = contest.dataset.items[index]
    rows = np.flatnonzero(form.found.image == index)
    first = sum(len(one) for one in contest.dataset.items[:index])
    missed = sorted(set(range(len(item))) - {int(one) - first for one in form.matched[rows] if one >= 0})
    picture = cv2.resize(read_image(item.path), None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    found = Detections.from_arrays(
        form.found.xyxy[rows] * ENLARGE, form.found.score[rows], form.found.class_id[rows], names=contest.dataset.names
    )
    drawn = annotate(np.asarray(picture, np.uint8), found)
    for left, top, right, bottom in (item.boxes[missed] * ENLARGE).round().astype(int).tolist():
        cv2.rectangle(drawn, (left - 3, top - 3), (right + 3, bottom + 3), (0, 0, 0), 3)
        cv2.rectangle(drawn, (left - 3, top - 3), (right + 3, bottom + 3), MISSED, 1)
    return drawn, len(missed), int((form.matched[rows] < 0).sum())


def write_page(contest: Contest, pictures: list[tuple[Path, str]], path: Path) -> Path:
    """Write the page, with the pictures in it.

    Raises:
        DataError: it cannot be written.
    """
    rows = [("", *(form.name for form in contest.forms)), *contest.rows()]
    cells = [[escape(cell) for cell in row] for row in rows]
    table = "".join(
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th"] + ["td"] * len(rows), cells, strict=False)
    )
    figures = "\n".join(
        f'<figure class="card"><img alt="{escape(told)}" src="data:image/jpeg;base64,{_base64(one)}">'
        f'<figcaption class="soft">{escape(told)}</figcaption></figure>'
        for one, told in pictures
    )
    text = PAGE.format(
        version=__version__, boards=len(contest.dataset), objects=contest.dataset.objects, rows=table,
        speed=escape(contest.speed), notes="".join(f'<p class="soft">{escape(note)}</p>' for note in contest.notes),
        left=escape(contest.forms[0].name), right=escape(contest.forms[1].name), conf=CONF, iou=MATCH_IOU,
        figures=figures, machine=escape(_machine(describe())),
    )  # fmt: skip
    write_text(path, text)
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _machine(told: dict[str, Any]) -> str:
    return (
        f"{told['cpu']}, {told['usable_cores']} cores, {' '.join(told['instructions'])}; {told['system']}; "
        f"Python {told['python']}, OpenVINO {told['openvino']}, ovyolo {told['ovyolo']}"
    )
