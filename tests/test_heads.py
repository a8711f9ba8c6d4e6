"""Decoding that is YOLOv5's is cut off, other decoding is kept or refused; the exporter's own check sees mistakes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))

import openvino as ov
from reference.onnx_boxes import made_boxes, original_rows, same_boxes
from reference.onnx_models import Style, write_onnx

from ovyolo._nms import decode_nms, decode_nms_rows
from ovyolo.core import shared_core
from ovyolo.errors import ExportError, UnsupportedModelError
from ovyolo.export.imported import import_model, importer, plan
from ovyolo.export.imported.heads import decode_heads, measure_anchors
from ovyolo.export.imported.levels import Levels
from ovyolo.export.imported.misfit import Misfit
from ovyolo.export.imported.selfcheck import picture
from ovyolo.export.portable import save_ir

KEPT = {
    "one anchor of one cell 1 % off": Style(defect="one anchor"),
    "exponential sizes": Style(wh="exp"),
    "other exponent": Style(wh="cubed"),
    "YOLOv3 centres": Style(xy="v3"),
    "YOLOv3": Style(xy="v3", wh="exp", decode="slice", coarsest_first=True),
}


@pytest.mark.parametrize("style", KEPT.values(), ids=KEPT.keys())
def test_other_decoding_is_kept_as_rows(style: Style, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", style)
    model, card = import_model(path)
    assert card.head.kind == "rows"
    assert card.head.outputs == ("rows",)
    assert card.head.anchors == ()
    assert "kept" in card.notes[0]
    assert "because" in card.notes[0]
    saved = shared_core().read_model(save_ir(model, card, tmp_path / "m.xml", fp32=True))
    assert saved.output(0).get_any_name() == "rows"
    image = picture((128, 128), seed=7)
    expected = decode_nms_rows(original_rows(path, image), style.nc, conf=0.25, iou=0.45)
    assert same_boxes(made_boxes(saved, card, image), expected)


def test_kept_rows_of_a_dynamic_file_take_another_size(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style(dynamic=True, wh="exp"))
    model, card = import_model(path, imgsz=(96, 160))
    assert card.imgsz == (96, 160)
    image = picture((96, 160), seed=1)
    expected = decode_nms_rows(original_rows(path, image), 2, conf=0.25, iou=0.45)
    assert same_boxes(made_boxes(model, card, image), expected)
    with pytest.raises(ExportError, match="imgsz"):
        import_model(write_onnx(tmp_path / "s.onnx", Style(wh="exp")), imgsz=(96, 160))


REFUSED = {
    "normalised": (Style(defect="normalised"), "normalised"),
    "corners": (Style(defect="corners"), "corners"),
    "logits": (Style(defect="logits"), "between 0 and 1"),
    "multiplied": (Style(defect="multiplied"), "multiplied"),
    "segmentation": (Style(defect="prototypes"), "segmentation"),
    "v8": (Style(decode="v8", na=1), "YOLOv8"),
    "v8 turned": (Style(decode="v8 turned", na=1), "one box a cell"),
    "v8 with many classes": (Style(decode="v8", na=1, nc=400, imgsz=(64, 64)), "YOLOv8"),
    "one box a cell, other decoding": (Style(na=1, wh="exp"), "one box a cell"),
    "NMS inside": (Style(decode="nms", na=1, nc=1), "inside the graph"),
}


@pytest.mark.parametrize(("style", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_other_detectors_are_refused_with_a_reason(style: Style, says: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", style)
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        import_model(path, imgsz=style.imgsz)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert "export their .pt" in str(caught.value)


def test_a_wrong_anchor_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style())

    def wrong(*args: Any) -> Any:
        anchors, order = measure_anchors(*args)
        spoilt = [[list(pair) for pair in level] for level in anchors]
        spoilt[1][2][0] *= 1.01
        return tuple(tuple((w, h) for w, h in level) for level in spoilt), order

    monkeypatch.setattr(plan, "measure_anchors", wrong)
    with pytest.raises(ExportError, match="box sizes"):
        import_model(path)


@pytest.mark.parametrize("stem", ["conv", "focus", "batchnorm"])
@pytest.mark.parametrize("int8", [False, True])
def test_wrong_colours_are_caught(stem: str, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ov.Model, stage: Any) -> Any:
        return replace_input(model, replace(stage, entry_bgr=not stage.entry_bgr))

    replace_input = importer.replace_input
    monkeypatch.setattr(importer, "replace_input", wrong)
    with pytest.raises(ExportError, match="computes other"):
        import_model(write_onnx(tmp_path / "m.onnx", Style(stem=stem, int8=int8, opset=13)))


def test_wrong_scale_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ov.Model, stage: Any) -> Any:
        return replace_input(model, replace(stage, gain=stage.gain * 1.02))

    replace_input = importer.replace_input
    monkeypatch.setattr(importer, "replace_input", wrong)
    with pytest.raises(ExportError, match="computes other"):
        import_model(write_onnx(tmp_path / "m.onnx", Style()))


def test_levels_in_the_wrong_order_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> Any:
        anchors, _ = measure_anchors(*args)
        return anchors, True

    monkeypatch.setattr(plan, "measure_anchors", wrong)
    with pytest.raises(ExportError, match="computes other"):
        import_model(write_onnx(tmp_path / "m.onnx", Style()))


def test_wrong_boxes_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers agree, but the kernels that will read them do not."""

    def shifted(*args: Any, **kwargs: Any) -> Any:
        boxes, *rest = decode_nms(*args, **kwargs)
        return boxes + np.float32(8), *rest

    monkeypatch.setattr("ovyolo._nms.decode_nms", shifted)
    with pytest.raises(ExportError, match="have no partner"):
        import_model(write_onnx(tmp_path / "m.onnx", Style()))


LEVELS = Levels((8, 16), ((4, 6), (2, 3)), 2, 8)
SHAPES = [[1, 16, 4, 6], [1, 16, 2, 3]]
positive = st.floats(1, 1000, width=32)


@given(st.lists(positive, min_size=8, max_size=8), st.booleans())
@settings(max_examples=30, deadline=None)
def test_anchors_are_measured_exactly(numbers: list[float], coarsest_first: bool) -> None:
    anchors = tuple(map(tuple, np.array(numbers).reshape(2, 2, 2).tolist()))
    anchors = tuple(tuple(tuple(pair) for pair in level) for level in anchors)

    def decode(raws: list[Any]) -> Any:
        parts = LEVELS.split(decode_heads(raws, LEVELS, anchors))
        return np.concatenate([p.reshape(-1, 8) for p in parts[:: -1 if coarsest_first else 1]]).astype(np.float32)

    found, order = measure_anchors(decode, SHAPES, LEVELS)
    np.testing.assert_allclose(found, anchors, rtol=2e-6)
    assert order == coarsest_first


@given(
    st.integers(0, LEVELS.rows - 1),
    st.integers(0, 7),
    st.sampled_from(["factor", "shift", "nan", "clamp", "swap"]),
)
@settings(max_examples=60, deadline=None)
def test_any_one_wrong_number_is_seen(row: int, column: int, kind: str) -> None:
    anchors = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)))

    def decode(raws: list[Any]) -> Any:
        rows = decode_heads(raws, LEVELS, anchors)
        value = rows[row, column]
        rows[row, column] = {
            "factor": value * 1.01 + 1e-3,
            "shift": value + (0.02 if column >= 4 else 0.2),
            "nan": float("nan"),
            "clamp": min(value, 0.4),
            "swap": rows[row, column - 1 if column else 1],
        }[kind]
        return rows

    with pytest.raises(Misfit):
        measure_anchors(decode, SHAPES, LEVELS)
