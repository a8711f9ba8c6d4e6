"""Detections, cards and letterboxes: the values that everything else passes around."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo import Detections
from ovyolo.card import Card, Head
from ovyolo.errors import DimensionError, ModelError
from ovyolo.letterbox import PAD_VALUE, Letterbox, letterbox

BOXES = Detections.from_arrays(
    [[0, 0, 10, 20], [5, 5, 15, 25], [50, 40, 60, 60]], [0.9, 0.5, 0.1], [1, 0, 1], {0: "ok", 1: "crack"}, (100, 200)
)
HEAD = Head("anchors", ("head0", "head1"), (8, 16), (((10.0, 13.0),), ((30.0, 61.0),)))
CARD = Card(("crack", "Delle / Ü"), (64, 96), HEAD, "FP16", {"source": "a.pt"}, {"AP": 0.5}, ("a note",))


def test_detections_select_and_convert() -> None:
    assert len(BOXES[0]) == 1 and BOXES[-1].name_of(0) == "crack"
    assert BOXES[BOXES.class_id == 1].confidence.tolist() == pytest.approx([0.9, 0.1])
    assert BOXES[1:].image_shape == (100, 200)
    assert BOXES.xywh[0].tolist() == [0, 0, 10, 20]
    assert BOXES.cxcywhn[0].tolist() == pytest.approx([0.025, 0.1, 0.05, 0.2])
    assert BOXES.counts() == {"crack": 2, "ok": 1}
    assert json.loads(BOXES.to_json())[1] == {"xyxy": [5, 5, 15, 25], "confidence": 0.5, "class_id": 0, "name": "ok"}
    assert [class_id for _, _, class_id in BOXES] == [1, 0, 1]


def test_detections_refuse_what_does_not_fit() -> None:
    with pytest.raises(DimensionError, match="xyxy"):
        Detections.from_arrays([[0, 0, 1, 1]], [0.5, 0.4], [0])
    with pytest.raises(IndexError):
        BOXES[3]
    with pytest.raises(DimensionError, match="image_shape"):
        _ = Detections.empty().cxcywhn


def test_card_survives_json() -> None:
    assert Card.from_json(CARD.to_json()) == CARD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"card_version": 99}, "version 99"),
        ({"head": {**json.loads(CARD.to_json())["head"], "kind": "polar"}}, "polar"),
        ({"names": []}, "lacks class names"),
        ({"imgsz": [64]}, "damaged"),
        ({"head": {**json.loads(CARD.to_json())["head"], "strides": [8]}}, "one stride|stride and anchors"),
        ({"names": None}, "damaged"),
    ],
)
def test_damaged_cards_are_refused(change: dict[str, object], message: str) -> None:
    text = json.dumps({**json.loads(CARD.to_json()), **change})
    with pytest.raises(ModelError, match=message):
        Card.from_json(text)


@given(st.text(max_size=60))
def test_any_text_as_card_is_refused_cleanly(text: str) -> None:
    with pytest.raises(ModelError):
        Card.from_json(text)


SIDES = st.integers(1, 300)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 160), st.integers(1, 160))
def test_letterbox_equals_the_plain_way(height: int, width: int, target_height: int, target_width: int) -> None:
    """Against the textbook version: resize, then pad, with arrays between."""
    image = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    out, fit = letterbox(image, (target_height, target_width))
    gain = min(target_height / height, target_width / width)
    inner_height, inner_width = max(1, round(height * gain)), max(1, round(width * gain))
    resized = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    top, left = round((target_height - inner_height) / 2 - 0.1), round((target_width - inner_width) / 2 - 0.1)
    expected = np.full((target_height, target_width, 3), PAD_VALUE, np.uint8)
    expected[top : top + inner_height, left : left + inner_width] = resized
    np.testing.assert_array_equal(out, expected)
    assert (fit.top, fit.left, fit.resized) == (top, left, (inner_height, inner_width))


@given(SIDES, SIDES)
def test_transform_maps_the_picture_onto_itself(height: int, width: int) -> None:
    """The picture's corners are its corners in the target, within three quarters of a target pixel."""
    fit = Letterbox((height, width), (128, 128))
    gain_x, gain_y, pad_x, pad_y, full_width, full_height = fit.transform
    assert (full_width, full_height) == (width, height)
    inner_height, inner_width = fit.resized
    for start, length, pad, gain, full in (
        (fit.left, inner_width, pad_x, gain_x, width),
        (fit.top, inner_height, pad_y, gain_y, height),
    ):
        slack = (0.75 + max(0, 1 - full * gain)) / gain  # a side never shrinks below one pixel
        assert (start - pad) / gain == pytest.approx(0, abs=slack)
        assert (start + length - pad) / gain == pytest.approx(full, abs=2 * slack)


def test_letterbox_of_a_view_does_not_copy_its_source() -> None:
    big = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    out, _ = letterbox(big[20:120, 50:250], (64, 64))
    again, _ = letterbox(np.ascontiguousarray(big[20:120, 50:250]), (64, 64))
    np.testing.assert_array_equal(out, again)


def test_letterbox_refuses_other_types() -> None:
    fit = Letterbox((4, 4), (8, 8))
    with pytest.raises(DimensionError, match="u8"):
        fit.into(np.zeros((4, 4, 3), np.float32), np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(DimensionError, match="letterbox takes"):
        fit.into(np.zeros((4, 5, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DimensionError, match="pixels"):
        Letterbox((0, 4), (8, 8))
