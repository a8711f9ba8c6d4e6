"""``export`` of ``.onnx`` and ``.xml`` files: cut where that is sure, kept or refused where it is not."""

from __future__ import annotations

import shutil
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

import onnx
import openvino as ov
from openvino import opset1, opset8
from reference.onnx_models import Style, write_onnx

from ovyolo._nms import decode_nms, decode_nms_rows
from ovyolo.card import Card, read_card
from ovyolo.errors import DataError, DimensionError, ExportError, OvyoloError, UnsupportedModelError
from ovyolo.export import imported, plan
from ovyolo.export.heads import decode_heads, measure_anchors
from ovyolo.export.imported import import_model
from ovyolo.export.levels import Levels
from ovyolo.export.misfit import Misfit
from ovyolo.export.portable import save_ir
from ovyolo.export.reading import Runner
from ovyolo.export.selfcheck import picture

CUT = {
    "today": Style(),
    "opset 11": Style(opset=11, anchors_per_cell=False),
    "opset 13": Style(opset=13, anchors_per_cell=False),
    "opset 17": Style(opset=17),
    "v5, slices assigned": Style(decode="slice", opset=11),
    "v5, raw heads beside": Style(decode="slice", extra_raw=True, anchors_per_cell=False),
    "raw heads beside": Style(extra_raw=True, nc=1, names={0: "spot"}),
    "half": Style(half=True),
    "dynamic": Style(dynamic=True, opset=13),
    "dynamic half": Style(dynamic=True, half=True, extra_raw=True),
    "focus": Style(stem="focus"),
    "P6": Style(levels=4, imgsz=(192, 128)),
    "two levels": Style(levels=2),
    "one level": Style(levels=1),
    "one anchor": Style(na=1),
    "batch of 2": Style(batch=2),
    "coarsest first": Style(coarsest_first=True),
    "wide": Style(imgsz=(96, 160)),
    "many classes": Style(nc=40, names=None),
    "batch norm first": Style(stem="batchnorm"),
    "int8": Style(int8=True, opset=13),
}


def original_rows(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The decoded output of an ONNX file for a u8 BGR picture, as YOLOv5 feeds it: RGB, 0 to 1."""
    model = ov.Core().read_model(path)
    batch = 1 if model.input(0).partial_shape[0].is_dynamic else model.input(0).partial_shape[0].get_length()
    model.reshape([batch, 3, *image.shape[:2]])
    feed = (image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)
    kind = model.input(0).element_type.to_dtype()
    return Runner(model)([np.ascontiguousarray(np.broadcast_to(feed, (batch, *feed.shape))).astype(kind)])[0][:1]


def made_boxes(model: ov.Model, card: Card, image: np.ndarray[Any, Any], conf: float = 0.25) -> tuple[Any, ...]:
    outputs = Runner(model)([image[None]])
    if card.head.kind == "rows":
        return decode_nms_rows(outputs[0], card.num_classes, conf=conf, iou=0.45)
    anchors, strides = np.array(card.head.anchors, np.float32), np.array(card.head.strides, np.float32)
    return decode_nms(outputs, anchors, strides, card.num_classes, conf=conf, iou=0.45)


def share_matched(one: tuple[Any, ...], other: tuple[Any, ...], pixels: float, score: float) -> float:
    """The share of boxes that have a partner on the other side, in whatever order equal scores were left."""
    if not len(one[1]) or not len(other[1]):
        return 0.0
    near = np.abs(one[0][:, None] - other[0][None]).max(axis=2) <= pixels
    near &= np.abs(one[1][:, None] - other[1][None]) <= score
    near &= one[2][:, None] == other[2][None]
    return float(min(near.any(axis=1).mean(), near.any(axis=0).mean()))


def same_boxes(one: tuple[Any, ...], other: tuple[Any, ...], pixels: float = 0.05, score: float = 1e-3) -> bool:
    return len(one[1]) == len(other[1]) and share_matched(one, other, pixels, score) == 1


@pytest.mark.parametrize("style", CUT.values(), ids=CUT.keys())
def test_decoded_onnx_is_cut_and_finds_the_same_boxes(style: Style, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", style)
    model, card = import_model(path, imgsz=style.imgsz if style.dynamic else None)
    assert card.head.kind == "anchors"
    assert card.head.anchors == style.anchors
    assert card.head.strides == style.strides
    assert card.imgsz == style.imgsz
    assert card.precision == ("FP16" if style.half else "INT8" if style.int8 else "FP32")
    assert card.made["source"] == "m.onnx"
    assert card.made["onnx.opset"] == str(style.opset)
    assert len(card.made["sha256"]) == 64
    names = style.names or {i: f"class{i}" for i in range(style.nc)}
    assert card.names == tuple(names.values())

    saved = ov.Core().read_model(save_ir(model, card, tmp_path / "m.xml", fp32=True))
    assert read_card(saved, "m.xml").head == card.head
    assert [port.get_any_name() for port in saved.inputs] == ["images"]
    assert list(saved.input(0).shape) == [1, *style.imgsz, 3]
    assert saved.input(0).element_type == ov.Type.u8
    assert [port.get_any_name() for port in saved.outputs] == list(card.head.outputs)
    channels = style.na * (5 + style.nc)
    assert [list(port.shape) for port in saved.outputs] == [
        [1, channels, style.imgsz[0] // s, style.imgsz[1] // s] for s in style.strides
    ]
    assert all(port.element_type == ov.Type.f32 for port in saved.outputs)

    image = picture(style.imgsz, seed=7)
    expected = decode_nms_rows(original_rows(path, image), style.nc, conf=0.25, iou=0.45)
    boxes = made_boxes(saved, card, image)
    if style.half:  # half a pixel is all that FP16 can tell at 640, so that other boxes may be left over here and there
        assert share_matched(boxes, expected, 1.5, 5e-3) > 0.9
    elif not style.int8:  # an INT8 network's boxes hang on single roundings: its own check is what counts
        assert same_boxes(boxes, expected)


@pytest.mark.parametrize("stem", ["conv", "focus"])
def test_scaling_and_channel_order_go_into_the_first_convolution(stem: str, tmp_path: Path) -> None:
    model, card = import_model(write_onnx(tmp_path / "m.onnx", Style(stem=stem)))
    kinds = [node.get_type_name() for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    assert kinds[:3] == ["Parameter", "Convert", "Transpose"]
    assert kinds.count("Convert") == 1
    assert not {"Gather", "Multiply", "Divide", "Sigmoid", "Reshape"}.intersection(kinds)
    assert card.notes == ()


def test_what_cannot_be_folded_is_said(tmp_path: Path) -> None:
    _, card = import_model(write_onnx(tmp_path / "m.onnx", Style(stem="batchnorm")))
    assert "separate operations" in card.notes[0]


@pytest.mark.parametrize("seed", range(3))
def test_fp16_file_finds_the_same_boxes(seed: int, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style(seed=seed))
    model, card = import_model(path)
    saved = ov.Core().read_model(save_ir(model, card, tmp_path / "m.xml"))
    assert read_card(saved, "m.xml").precision == "FP16"
    image = picture((128, 128), seed=3)
    raw, half = Runner(model)([image[None]]), Runner(saved)([image[None]])
    assert max(np.abs(a - b).max() / a.std() for a, b in zip(raw, half, strict=True)) < 0.02


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
    saved = ov.Core().read_model(save_ir(model, card, tmp_path / "m.xml", fp32=True))
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


@pytest.mark.parametrize("decode", ["raw4", "raw5"])
@pytest.mark.parametrize("coarsest_first", [False, True])
def test_raw_heads_need_anchors(decode: str, coarsest_first: bool, tmp_path: Path) -> None:
    style = Style(decode=decode, coarsest_first=coarsest_first)
    path = write_onnx(tmp_path / "raw.onnx", style)
    with pytest.raises(ExportError, match="--anchors"):
        import_model(path)
    model, card = import_model(path, anchors=style.anchors)
    assert (card.head.anchors, card.head.strides, card.names) == (style.anchors, (8, 16, 32), ("scratch", "dent"))
    decoded = write_onnx(tmp_path / "decoded.onnx", replace(style, decode="split"))
    image = picture((128, 128), seed=7)
    expected = decode_nms_rows(original_rows(decoded, image), 2, conf=0.25, iou=0.45)
    assert same_boxes(made_boxes(model, card, image), expected)


@pytest.mark.parametrize(
    "anchors",
    [
        [],
        [[[10, 13]]],
        [[[10, 13]] * 2] * 3,
        [[[10, 13]] * 3] * 2,
        [[[10, 13]] * 3, [[10, 13]] * 3, [[10, 13]] * 2],
        [[[10, 0]] * 3] * 3,
        [[[10, float("nan")]] * 3] * 3,
        [[["a", "b"]] * 3] * 3,
        [[[10, 13, 5]] * 3] * 3,
    ],
)
def test_anchors_that_do_not_fit_are_refused(anchors: Any, tmp_path: Path) -> None:
    for decode in ("raw4", "raw5"):
        path = write_onnx(tmp_path / "raw.onnx", Style(decode=decode))
        with pytest.raises(OvyoloError):
            import_model(path, anchors=anchors)


def test_anchors_for_a_file_that_has_its_own_are_refused(tmp_path: Path) -> None:
    style = Style()
    with pytest.raises(ExportError, match="holds its own anchors"):
        import_model(write_onnx(tmp_path / "m.onnx", style), anchors=style.anchors)


def test_another_size(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style())
    other = write_onnx(tmp_path / "o.onnx", Style(imgsz=(160, 96)))
    model, card = import_model(path, imgsz=(160, 96))
    assert card.imgsz == (160, 96)
    image = picture((160, 96), seed=7)
    expected = decode_nms_rows(original_rows(other, image), 2, conf=0.25, iou=0.45)
    assert same_boxes(made_boxes(model, card, image), expected)
    with pytest.raises(DimensionError, match=r"multiple of its largest stride 32: try 96,128"):
        import_model(path, imgsz=(100, 140))
    with pytest.raises(OvyoloError, match="imgsz"):
        import_model(write_onnx(tmp_path / "d.onnx", Style(dynamic=True)), imgsz=(100, 140))


def test_dynamic_file_gets_640(tmp_path: Path) -> None:
    _, card = import_model(write_onnx(tmp_path / "m.onnx", Style(dynamic=True, levels=2)))
    assert card.imgsz == (640, 640)


def test_names(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style())
    assert import_model(path, names=("a", "b"))[1].names == ("a", "b")
    with pytest.raises(DataError, match="3 class names, but the head tells 2 apart"):
        import_model(path, names=("a", "b", "c"))
    with pytest.raises(DataError, match="its metadata: 1 class names"):
        import_model(write_onnx(tmp_path / "w.onnx", Style(names={0: "a"})))
    nameless = write_onnx(tmp_path / "n.onnx", Style(names=None))
    _, card = import_model(nameless)
    assert card.names == ("class0", "class1")
    assert "does not name its classes" in card.notes[0]
    assert import_model(nameless, names=("a", "b"))[1].notes == ()
    # the .yaml that YOLOv5's exporter puts beside an IR
    ov.save_model(ov.Core().read_model(nameless), tmp_path / "n.xml")
    (tmp_path / "n.yaml").write_text("stride: 32\nnames: {0: x, 1: y}\n")
    assert import_model(tmp_path / "n.xml")[1].names == ("x", "y")
    model = ov.Core().read_model(nameless)
    model.set_rt_info("red_car blue_car", ["model_info", "labels"])
    ov.save_model(model, tmp_path / "l.xml")
    assert import_model(tmp_path / "l.xml")[1].names == ("red_car", "blue_car")


# --- what lies before the network


def with_stage(path: Path, kinds: str, out: Path) -> Path:
    """Put a stage before an ONNX file's network, in the order of ``kinds``, and save it as an IR.

    ``b``: the input is u8; ``n``: it is NHWC; ``r``: it is reversed by Gather; ``s``: by Split and Concat;
    ``d``: divided by 255.
    """
    model = ov.Core().read_model(path)
    old = model.get_parameters()[0]
    shape = list(old.get_output_shape(0))
    shape = [shape[0], *shape[2:], 3] if "n" in kinds else shape
    new = opset1.parameter(shape, np.uint8 if "b" in kinds else np.float32, name="picture")
    value = opset1.convert(new, "f32") if "b" in kinds else new
    for kind in kinds:
        axis = 3 if "n" in kinds and kinds.index(kind) < kinds.index("n") else 1
        if kind == "n":
            value = opset1.transpose(value, np.array([0, 3, 1, 2]))
        elif kind == "r":
            value = opset8.gather(value, np.array([2, 1, 0]), np.array(axis))
        elif kind == "s":
            parts = opset1.split(value, np.array(axis), 3)
            value = opset1.concat([parts.output(i) for i in (2, 1, 0)], axis)
        elif kind == "d":
            value = opset1.divide(value, np.float32(255))
    for target in list(old.output(0).get_target_inputs()):
        target.replace_source_output(value.output(0))
    ov.save_model(ov.Model(model.get_results(), [new]), out)
    return out


@pytest.mark.parametrize("kinds", ["bnrd", "bdrn", "brdn", "bsnd", "brd", "rdn", "rn", "s"])
def test_a_stage_that_takes_bgr_is_replaced(kinds: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style())
    model, card = import_model(with_stage(path, kinds, tmp_path / "s.xml"))
    plain, _ = import_model(path)
    image = picture((128, 128), seed=7)
    found, expected = Runner(model)([image[None]]), Runner(plain)([image[None]])
    assert all(np.allclose(a, b, atol=0.02 * b.std()) for a, b in zip(found, expected, strict=True))  # FP16 weights
    assert card.notes == ("Its source does not name its classes: they are called class0 and so on.",)
    assert not {"Gather", "Multiply", "Divide"}.intersection(node.get_type_name() for node in model.get_ops())


@pytest.mark.parametrize("kinds", ["bnd", "bd", "n", "nd"])
def test_a_stage_of_unknown_channel_order_is_refused(kinds: str, tmp_path: Path) -> None:
    """OpenVINO's PrePostProcessor folds a reversal into the weights: nothing in such a file tells."""
    path = with_stage(write_onnx(tmp_path / "m.onnx", Style()), kinds, tmp_path / "s.xml")
    with pytest.raises(ExportError, match="RGB or BGR"):
        import_model(path)


@pytest.mark.parametrize("declared", ["True", "False"])
def test_a_stage_whose_order_is_declared(declared: str, tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "m.onnx", Style())
    model = ov.Core().read_model(with_stage(source, "bnd", tmp_path / "s.xml"))
    model.set_rt_info(declared, ["model_info", "reverse_input_channels"])
    ov.save_model(model, tmp_path / "t.xml")
    made, _ = import_model(tmp_path / "t.xml")
    image = picture((128, 128), seed=7)
    # where the application has to reverse, the network takes RGB
    fed = image if declared == "True" else image[..., ::-1]
    expected = Runner(import_model(source)[0])([np.ascontiguousarray(fed)[None]])
    found = Runner(made)([image[None]])
    assert all(np.allclose(a, b, atol=0.02 * b.std()) for a, b in zip(found, expected, strict=True))


def test_model_optimizer_says_what_it_folded(tmp_path: Path) -> None:
    """``mo -s 255 --reverse_input_channels``, the recipe of many tutorials, leaves its trace in the IR only."""
    style = Style(decode="raw4")
    source = write_onnx(tmp_path / "m.onnx", style)
    plain, _ = import_model(source, anchors=style.anchors)
    model = ov.Core().read_model(source)
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    weights = np.array(first.input_value(1).get_node().data)[:, ::-1] / 255
    first.input(1).replace_source_output(opset1.constant(weights.astype(np.float32)).output(0))
    settings_of_mo = {"scale_values": "images[255.0]", "reverse_input_channels": "True", "mean_values": "()"}
    for key, value in settings_of_mo.items():
        model.set_rt_info(value, ["conversion_parameters", key])
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    made, card = import_model(tmp_path / "m.xml", anchors=style.anchors)
    image = picture((128, 128), seed=7)
    for a, b in zip(Runner(made)([image[None]]), Runner(plain)([image[None]]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert any("BGR from 0 to 255" in note for note in card.notes)
    model.set_rt_info("images[123.0,117.0,104.0]", ["conversion_parameters", "mean_values"])
    ov.save_model(model, tmp_path / "n.xml")
    with pytest.raises(ExportError, match="mean values"):
        import_model(tmp_path / "n.xml", anchors=style.anchors)


# --- the exporter's own check


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

    replace_input = imported.replace_input
    monkeypatch.setattr(imported, "replace_input", wrong)
    with pytest.raises(ExportError, match="computes other"):
        import_model(write_onnx(tmp_path / "m.onnx", Style(stem=stem, int8=int8, opset=13)))


def test_wrong_scale_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ov.Model, stage: Any) -> Any:
        return replace_input(model, replace(stage, gain=stage.gain * 1.02))

    replace_input = imported.replace_input
    monkeypatch.setattr(imported, "replace_input", wrong)
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


# --- files that are broken, or already ours


def test_broken_files_give_one_sentence(tmp_path: Path) -> None:
    good = write_onnx(tmp_path / "m.onnx", Style()).read_bytes()
    ov.save_model(ov.Core().read_model(tmp_path / "m.onnx"), tmp_path / "ir.xml")
    xml, weights = (tmp_path / "ir.xml").read_bytes(), (tmp_path / "ir.bin").read_bytes()
    cases: dict[str, tuple[bytes, bytes | None]] = {
        "empty.onnx": (b"", None),
        "half.onnx": (good[: len(good) // 2], None),
        "text.onnx": (b"this is not a model\n" * 50, None),
        "flipped.onnx": (bytes(b ^ 0x55 for b in good), None),
        "no_weights.xml": (xml, None),
        "page.xml": (b"<!doctype html><html></html>", weights),
        "cut.xml": (xml[: len(xml) // 2], weights),
        "short.xml": (xml, weights[:100]),
        "empty.xml": (b"", weights),
    }
    for name, (text, binary) in cases.items():
        path = tmp_path / name
        path.write_bytes(text)
        if binary is not None:
            path.with_suffix(".bin").write_bytes(binary)
        with pytest.raises(ExportError) as caught:
            import_model(path)
        assert str(caught.value).startswith(str(path)), name
        assert "\n" not in str(caught.value), name
    with pytest.raises(ExportError, match="does not exist"):
        import_model(tmp_path / "missing.onnx")


def test_missing_external_data(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "m.onnx", Style()))
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=64)
    assert import_model(tmp_path / "e.onnx")[1].names == ("scratch", "dent")
    (tmp_path / "e.data").unlink()
    with pytest.raises(ExportError, match="another file"):
        import_model(tmp_path / "e.onnx")


def test_our_own_file_is_refused(tmp_path: Path) -> None:
    model, card = import_model(write_onnx(tmp_path / "m.onnx", Style()))
    with pytest.raises(ExportError, match="already an ovyolo model"):
        import_model(save_ir(model, card, tmp_path / "m.xml"))


def test_not_a_detector_at_all(tmp_path: Path) -> None:
    image = opset1.parameter([1, 3, 32, 32], np.float32)
    pooled = opset1.reduce_mean(image, np.array([2, 3]))
    ov.save_model(ov.Model([opset1.result(pooled)], [image]), tmp_path / "c.xml")
    with pytest.raises(UnsupportedModelError, match="classifier"):
        import_model(tmp_path / "c.xml")
    vector = opset1.parameter([1, 8], np.float32)
    ov.save_model(ov.Model([opset1.result(opset1.relu(vector))], [vector]), tmp_path / "v.xml")
    with pytest.raises(UnsupportedModelError, match="not a picture"):
        import_model(tmp_path / "v.xml")
    other = opset1.parameter([1, 3, 32, 32], np.float32)
    both = opset1.add(image, other)
    ov.save_model(ov.Model([opset1.result(both)], [image, other]), tmp_path / "t.xml")
    with pytest.raises(UnsupportedModelError, match="2 inputs"):
        import_model(tmp_path / "t.xml")


# --- files of others


def test_shared_decoded_ir_finds_what_upstream_finds(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "yolov5n-decoded-ir.xml"
    model, card = import_model(source)
    assert card.head.strides == (8, 16, 32)
    assert card.head.anchors[0] == ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0))
    assert card.head.anchors[2] == ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0))
    assert card.precision == "FP16"
    saved = ov.Core().read_model(save_ir(model, card, tmp_path / "m.xml"))
    original = ov.Core().read_model(source)
    for name in ("bus", "zidane"):
        golden = np.load(shared / "golden" / f"yolov5n-raw-{name}.npz")
        image = golden["letterboxed"]
        feed = np.ascontiguousarray((image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)[None])
        expected = decode_nms_rows(Runner(original)([feed])[0], 80, conf=0.25, iou=0.45)
        assert len(expected[1]) > 2
        assert same_boxes(made_boxes(model, card, image), expected)
        assert same_boxes(made_boxes(saved, card, image), expected, pixels=0.7, score=5e-3)
        # the IR has FP16 weights
        for found, level in zip(Runner(model)([image[None]]), ("head0", "head1", "head2"), strict=True):
            assert np.abs(found - golden[level]).max() < 0.05 * golden[level].std()


def test_shared_decoded_ir_at_another_size(shared: Path) -> None:
    _, card = import_model(shared / "models" / "yolov5n-decoded-ir.xml", imgsz=(320, 416))
    assert card.imgsz == (320, 416)


@pytest.mark.parametrize(
    ("name", "says"),
    [("yolo11n.xml", "YOLOv8 or later"), ("yolo26n_int8.onnx", "inside the graph"), ("yolox_nano.onnx", "YOLOX")],
)
def test_shared_others_are_refused(name: str, says: str, shared: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        import_model(shared / "models" / name)
    assert "\n" not in str(caught.value)


def test_export_of_a_graph_writes_a_file(tmp_path: Path) -> None:
    from ovyolo.export.api import export

    source = write_onnx(tmp_path / "best.onnx", Style())
    shutil.copy(source, tmp_path / "copy.onnx")
    (tmp_path / "data.yaml").write_text("names: [a, b]")
    target = export(source, imgsz=128, data=tmp_path / "data.yaml")
    assert target == tmp_path / "best.xml"
    card = read_card(ov.Core().read_model(target), "best.xml")
    assert card.names == ("a", "b")
    assert card.precision == "FP16"
    assert card.made["source"] == "best.onnx"
