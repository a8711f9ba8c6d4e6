"""Annotated pictures: boxes where they belong, labels inside the picture, small things left visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo import Detections
from ovyolo.errors import DimensionError
from ovyolo.io.draw import OKABE_ITO, _ink_on, _measure, _place, annotate, ascii_label, colour_of


def found(rows: list[list[float]], names: tuple[str, ...] = ("scratch", "dent")) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections.from_arrays(table[:, :4], table[:, 4], table[:, 5], names)


def test_copy_and_colour() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    drawn = annotate(image, found([[100, 80, 180, 150, 0.9, 0]]))
    assert (image == 90).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    for y, x in ((80, 140), (150, 140), (115, 100), (115, 180)):
        assert tuple(drawn[y, x]) == colour_of(0)
    assert (drawn[100:130, 120:160] == 90).all()


def test_nothing_found_changes_nothing() -> None:
    image = np.full((50, 60, 3), 7, np.uint8)
    drawn = annotate(image, Detections.empty())
    assert drawn is not image and (drawn == 7).all()


def test_grey_and_read_only() -> None:
    image = np.zeros((60, 80), np.uint8)
    image.flags.writeable = False
    assert annotate(image, found([[10, 20, 60, 50, 0.5, 1]])).any()


def test_small_objects_stay_visible() -> None:
    """Labels never cover a tiny box, wherever there is room elsewhere, also at the edges of the picture."""
    image = np.full((640, 640, 3), 200, np.uint8)
    corners = [[0, 0], [620, 0], [0, 620], [620, 620], [300, 0], [300, 300], [0, 300], [620, 300]]
    rows = [[x, y, x + 19, y + 19, 0.9 - i / 20, i % 2] for i, (x, y) in enumerate(corners)]
    drawn = annotate(image, found(rows))
    for x, y in corners:
        assert (drawn[y + 6 : y + 14, x + 6 : x + 14] == 200).all()


def test_every_label_is_there_and_none_covers_another() -> None:
    image = np.full((640, 640, 3), 200, np.uint8)
    rows = [[60 + 150 * i, 300, 90 + 150 * i, 330, 0.9, 0] for i in range(4)]
    plain, labelled = (annotate(image, found(rows), labels=on, confidences=on) for on in (False, True))
    columns = [(labelled != plain)[:, 50 + 150 * i : 190 + 150 * i].any(axis=2).sum() for i in range(4)]
    assert min(columns) > 500 and max(columns) == min(columns)


def test_switches() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    boxes = found([[100, 80, 180, 150, 0.9, 0]])
    bare = annotate(image, boxes, labels=False, confidences=False)
    sizes = [
        (annotate(image, boxes, labels=names, confidences=values) != bare).any(axis=2).sum()
        for names, values in ((True, True), (True, False), (False, True))
    ]
    assert sizes[0] > sizes[1] > 0 and sizes[0] > sizes[2] > 0
    assert (bare[:70] == 90).all()
    thick = annotate(image, boxes, line_width=9, labels=False, confidences=False)
    assert (thick != image).any(axis=2).sum() > 3 * (bare != image).any(axis=2).sum()
    with pytest.raises(DimensionError, match="line_width"):
        annotate(image, boxes, line_width=0)


def test_lines_grow_with_the_picture() -> None:
    def width(size: int) -> int:
        drawn = annotate(np.zeros((size, size, 3), np.uint8), found([[size / 4, size / 4, size / 2, size / 2, 0.9, 0]]))
        return int((drawn[size * 3 // 8, : size * 3 // 8] == colour_of(0)).all(axis=1).sum())

    assert width(200) == 1 and 2 <= width(640) <= 3 and 8 <= width(4000) <= 12


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 120)),
    rows=st.lists(
        st.tuples(
            *[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 4, st.floats(0, 1), st.integers(-3, 2000)
        ),
        max_size=12,
    ),
)
@settings(max_examples=120, deadline=None)
def test_any_boxes_on_any_size(size: tuple[int, int], rows: list[tuple[float, ...]]) -> None:
    drawn = annotate(np.zeros((*size, 3), np.uint8), found([list(row) for row in rows]))
    assert drawn.shape == (*size, 3)


@given(
    size=st.tuples(st.integers(40, 400), st.integers(40, 400)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=150, deadline=None)
def test_label_lies_inside(size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]) -> None:
    height, width = size
    x1, y1 = int(corner[0] * (width - 1)), int(corner[1] * (height - 1))
    box = [x1, y1, x1 + int(extent[0] * (width - 1 - x1)), y1 + int(extent[1] * (height - 1 - y1))]
    line = _measure("spur 0.87", 0.4, 1)
    spot = _place(line, box, width, height, 2, np.array([box], np.float64), np.empty((0, 4)))
    if line.width > width or line.height > height:
        assert spot is None
    else:
        assert spot is not None
        assert 0 <= spot[0] <= width - line.width and 0 <= spot[1] <= height - line.height


def test_text_too_wide_is_shortened_then_left_out() -> None:
    boxes = found([[2, 30, 20, 38, 0.9, 0]], ("name",))
    full, short = (_measure(text, 0.35, 1).width for text in ("name 0.90", "name"))

    def text_pixels(width: int) -> int:
        image = np.zeros((60, width, 3), np.uint8)
        bare = annotate(image, boxes, labels=False, confidences=False)
        return int((annotate(image, boxes) != bare).any(axis=2).sum())

    assert text_pixels(full) > text_pixels(full - 1) > 0
    assert text_pixels(short) > 0 and text_pixels(short - 1) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scratch", "scratch"),
        ("Lötbrücke", "Lotbrucke"),
        ("Maßfehler", "Massfehler"),
        ("Smørrebrød", "Smorrebrod"),
        ("piqûre – fine", "piqure - fine"),
        ("划痕", "#7"),
        ("划痕 deep", "#7 deep"),
        ("царапина", "#7"),
        ("line\nbreak\ttab", "line break tab"),
        ("", "#7"),
        ("\udc80\0", "#7"),
        ("10 µm", "10 um"),
    ],
)
def test_ascii_label(name: str, expected: str) -> None:
    assert ascii_label(name, 7) == expected


@given(st.text())
def test_ascii_label_of_anything(name: str) -> None:
    label = ascii_label(name, 12)
    assert label and label.isascii() and label.isprintable()
    assert "?" not in label or any(c in name for c in "?⁇⁈⁉？﹖︖")


def test_colours() -> None:
    colours = [colour_of(i) for i in range(80)]
    assert colours == [colour_of(i) for i in range(80)] and colours[:7] == list(OKABE_ITO)
    assert len(set(colours)) == 80
    table = np.array(colours, int)
    distance = np.linalg.norm(table[:, None] - table[None], axis=2)[np.triu_indices(16, 1)]
    assert distance.min() > 20
    assert all(0 <= c <= 255 for i in (-5, 10**6) for c in colour_of(i))


def test_text_is_readable_on_every_colour() -> None:
    """WCAG's contrast ratio of at least 4.5, which black or white reaches on any colour."""

    def luminance(colour: tuple[int, ...]) -> float:
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]

    for class_id in range(300):
        pair = sorted((luminance(colour_of(class_id)), luminance(_ink_on(colour_of(class_id)))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5
