"""``export`` of ``.onnx`` and ``.xml`` files: what every generation of exporters wrote, and broken files."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))

import onnx
import openvino as ov
from openvino import opset1
from reference.onnx_boxes import made_boxes, original_rows, same_boxes, share_matched
from reference.onnx_models import Style, write_onnx

from ovyolo._nms import decode_nms_rows
from ovyolo.card import read_card
from ovyolo.core import shared_core
from ovyolo.errors import DataError, DimensionError, ExportError, OvyoloError, UnsupportedModelError
from ovyolo.export.imported import import_model
from ovyolo.export.imported.reading import Runner
from ovyolo.export.imported.selfcheck import picture
from ovyolo.export.portable import save_ir

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

    saved = shared_core().read_model(save_ir(model, card, tmp_path / "m.xml", fp32=True))
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


@pytest.mark.parametrize("seed", range(3))
def test_fp16_file_finds_the_same_boxes(seed: int, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", Style(seed=seed))
    model, card = import_model(path)
    saved = shared_core().read_model(save_ir(model, card, tmp_path / "m.xml"))
    assert read_card(saved, "m.xml").precision == "FP16"
    image = picture((128, 128), seed=3)
    raw, half = Runner(model)([image[None]]), Runner(saved)([image[None]])
    assert max(np.abs(a - b).max() / a.std() for a, b in zip(raw, half, strict=True)) < 0.02


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
    ov.save_model(shared_core().read_model(nameless), tmp_path / "n.xml")
    (tmp_path / "n.yaml").write_text("stride: 32\nnames: {0: x, 1: y}\n")
    assert import_model(tmp_path / "n.xml")[1].names == ("x", "y")
    model = shared_core().read_model(nameless)
    model.set_rt_info("red_car blue_car", ["model_info", "labels"])
    ov.save_model(model, tmp_path / "l.xml")
    assert import_model(tmp_path / "l.xml")[1].names == ("red_car", "blue_car")


# --- files that are broken, or already ours


def test_broken_files_give_one_sentence(tmp_path: Path) -> None:
    good = write_onnx(tmp_path / "m.onnx", Style()).read_bytes()
    ov.save_model(shared_core().read_model(tmp_path / "m.onnx"), tmp_path / "ir.xml")
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
    saved = shared_core().read_model(save_ir(model, card, tmp_path / "m.xml"))
    original = shared_core().read_model(source)
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
    card = read_card(shared_core().read_model(target), "best.xml")
    assert card.names == ("a", "b")
    assert card.precision == "FP16"
    assert card.made["source"] == "best.onnx"
