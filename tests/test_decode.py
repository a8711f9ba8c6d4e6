"""``ovyolo.decode``: the card and the settings of each call decide, whatever the call before was about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovyolo._nms import decode_nms
from ovyolo.card import Card, Head
from ovyolo.decode import Decoder
from ovyolo.errors import DimensionError
from ovyolo.letterbox import Letterbox, fitting

ANCHORS = (((20.0, 20.0), (40.0, 30.0)),)
CARD = Card(("a", "b", "c"), (160, 160), Head("anchors", ("head0",), (8,), ANCHORS))


def test_each_call_has_its_own_settings() -> None:
    heads = [np.random.default_rng(1).normal(0, 2, (1, 16, 20, 20)).astype(np.float32)]
    decode = Decoder(CARD)
    common: dict[str, Any] = {"conf": 0.3, "iou": 0.5}
    changes: list[dict[str, Any]] = [
        {}, {"conf": 0.6}, {"iou": 0.9}, {"max_det": 3}, {"agnostic": True}, {"multi_label": True}, {},
        {"class_mask": decode.class_mask([1])}, {"class_mask": decode.class_mask([0, 2])},
    ]  # fmt: skip
    different = set()
    for changed in [*changes, *changes[::-1]]:
        for size in ((160, 160), (100, 320)):
            fit = fitting(size, (160, 160))
            found = decode(heads, fit, **{**common, **changed})
            expected = decode_nms(heads, ANCHORS, (8,), 3, **{**common, **changed}, transform=fit.transform)
            for ours, theirs in zip((found.xyxy, found.confidence, found.class_id), expected[:3], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            assert (found.truncated, found.nonfinite, found.image_shape) == (*expected[3:], size)
            different.add(found.xyxy.tobytes())
    assert len(different) == 2 * 8  # every change matters
    with pytest.raises(DimensionError, match="conf is 2"):
        decode(heads, fit, conf=2)
    assert len(decode(heads, fit, **common)) == len(decode_nms(heads, ANCHORS, (8,), 3, **common)[0])


def test_a_kept_letterbox_is_that_of_its_sizes() -> None:
    for source, target in (((720, 1280), (640, 640)), ((1280, 720), (640, 640)), ((7, 900), (320, 640))):
        assert fitting(source, target) == Letterbox(source, target)
        assert fitting(source, target).transform == Letterbox(source, target).transform
    with pytest.raises(DimensionError, match="both need pixels"):
        fitting((0, 9), (640, 640))
