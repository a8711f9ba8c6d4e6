"""The report is one whole file: nothing loaded, nothing injected, every count the scores'."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.judging import made_predictions, made_set, random_case

from ovyolo.dataset import DataSet
from ovyolo.errors import DataError, DimensionError, OvyoloError
from ovyolo.evaluate import Predictions, score
from ovyolo.report import write_report
from ovyolo.report.pictures import worst_pictures
from ovyolo.report.plots import shortened

VOID = {"meta", "br", "input", "image", "rect", "path", "use", "stop", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Checks that elements nest, and collects tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("href", "src", "xlink:href", "data", "action"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def on_disk(dataset: DataSet, folder: Path) -> DataSet:
    """The same with pictures that exist."""
    items = []
    for index, item in enumerate(dataset.items):
        path = folder / f"p{index} <b>&.jpg" if sys.platform != "win32" else folder / f"p{index} &.jpg"
        path.write_bytes(cv2.imencode(".jpg", np.full((400, 500, 3), 90, np.uint8))[1].tobytes())
        items.append(replace(item, path=path))
    return replace(dataset, items=tuple(items))


def report(folder: Path, dataset: DataSet, predictions: Predictions) -> Page:
    path = write_report(folder / "r.html", dataset, predictions, score(dataset, predictions))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert all(
        address.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,")) for address in page.addresses
    )
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)
    # the only other addresses are names of XML's vocabularies
    assert set(re.findall(r"https?://[^\s\"'<>]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    return page


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_and_self_contained(tmp_path: Path, seed: int) -> None:
    dataset, predictions = random_case(seed)
    page = report(tmp_path, on_disk(dataset, tmp_path), predictions)
    assert page.tags.count("figure") == sum(address.startswith("data:image/jpeg") for address in page.addresses) > 0
    assert page.tags.count("svg") == 4 + page.tags.count("figure")


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "$x^$", "_hidden", "{{ 7 * 7 }}", "a" * 300, "キズ", "", "%s", "\\frac{", "&amp;"],
)
def test_names_of_classes_are_text(tmp_path: Path, name: str) -> None:
    dataset = made_set([[(0, 10, 10, 60, 60, 0), (1, 100, 100, 140, 140, 0)]], 2)
    dataset = on_disk(replace(dataset, names=(name, "other")), tmp_path)
    rows = [(0, 0, 200, 200, 230, 230, 0.9), (0, 0, 100, 100, 140, 140, 0.9), (0, 1, 10, 10, 60, 60, 0.8)]
    page = report(tmp_path, dataset, made_predictions(rows))
    assert name in page.text and "49" not in page.text.replace("0.49", "")


def test_nothing_found_nothing_there_one_class_and_many(tmp_path: Path) -> None:
    for index, (dataset, predictions) in enumerate(
        [
            (made_set([[(0, 1, 1, 20, 20, 0)], []], 1), made_predictions([])),
            (made_set([[], []], 2), made_predictions([(0, 1, 1, 1, 9, 9, 0.5)])),
            (made_set([[], []], 2), made_predictions([])),
            (
                made_set([[(i, 5, 5, 40, 40, 0) for i in range(150)]], 150),
                made_predictions([(0, 7, 5, 5, 40, 40, 0.5)]),
            ),
        ]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        report(folder, on_disk(dataset, folder), predictions)


def test_a_picture_that_is_gone_is_left_out(tmp_path: Path) -> None:
    dataset, predictions = random_case(2)
    assert "figure" not in report(tmp_path, dataset, predictions).tags


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), most=st.integers(2, 8))
def test_shortened_keeps_every_count(seed: int, most: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 9, (9, 9))
    short, stay, others = shortened(matrix, most)
    assert short.sum() == matrix.sum() and len(stay) + others == 8 and len(short) <= most + 1
    assert short[-1].sum() == matrix[-1].sum() and short[:, -1].sum() == matrix[:, -1].sum()
    assert short[0, 0] == matrix[stay[0], stay[0]]


@pytest.mark.parametrize("seed", range(8))
def test_pictures_show_the_errors_that_the_scores_count(tmp_path: Path, seed: int) -> None:
    dataset, predictions = random_case(seed)
    dataset = on_disk(dataset, tmp_path)
    scores = score(dataset, predictions)
    assert scores.detail is not None
    worst = worst_pictures(dataset, predictions, scores, scores.detail, 100)
    wrong = sum(one.count("wrong") for one in worst)
    assert sum(one.count("missed") for one in worst) + wrong == scores.missed
    assert sum(one.count("false") for one in worst) + wrong == scores.false
    errors = [one.labelled for one in worst]
    assert errors == sorted(errors, reverse=True)
    assert worst_pictures(dataset, predictions, scores, scores.detail, 0) == []


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, predictions = random_case(0)
    with pytest.raises(DimensionError, match="detail=True"):
        write_report(tmp_path / "r.html", dataset, predictions, score(dataset, predictions, detail=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", dataset, predictions, score(dataset, predictions))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OvyoloError, match=r"pip install 'ovyolo\[val\]'"):
        write_report(tmp_path / "r.html", dataset, predictions, score(dataset, predictions))
    assert not (tmp_path / "r.html").exists()
