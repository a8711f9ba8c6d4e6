"""Files for every runtime: old operations that compute the same, written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset1, opset8, opset11, opset12, opset14

from ovyolo.card import Card, Head, read_card
from ovyolo.core import shared_core
from ovyolo.errors import ExportError
from ovyolo.export.imported.reading import Runner, weights_precision
from ovyolo.export.opsets import opset_of
from ovyolo.export.portable import downgrade, save_ir

SHAPE = [1, 3, 10, 14]


def ints(*values: int) -> Any:
    return opset1.constant(np.array(values, np.int64))


def interpolate(x: Any, mode: str, by: str, values: Any, transform: str = "asymmetric", **attributes: Any) -> Any:
    kind = np.int64 if by == "sizes" else np.float32
    target = opset1.constant(np.array(values, kind))
    return opset11.interpolate(
        x, target, mode, by, [0] * 4, [0] * 4, transform, nearest_mode="floor", axes=ints(2, 3), **attributes
    )


REWRITTEN: dict[str, Callable[[Any], Any]] = {
    "MaxPool-8": lambda x: opset8.max_pool(x, [1, 1], [1, 1], [2, 2], [2, 2], [5, 5]).output(0),
    "MaxPool-14": lambda x: opset14.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "ceil").output(0),
    "MaxPool-14 auto": lambda x: opset14.max_pool(
        x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "floor", "same_upper"
    ).output(0),
    "Interpolate nearest by scales": lambda x: interpolate(x, "nearest", "scales", [2, 2]),
    "Interpolate nearest by sizes": lambda x: interpolate(x, "nearest", "sizes", [17, 29]),
    "Interpolate down": lambda x: interpolate(x, "nearest", "sizes", [5, 7]),
    "Interpolate linear": lambda x: interpolate(x, "linear_onnx", "scales", [1.5, 2.5], "pytorch_half_pixel"),
    "Interpolate cubic": lambda x: interpolate(x, "cubic", "sizes", [20, 21], "half_pixel", cube_coeff=-0.5),
    "Softmax-8": lambda x: opset8.softmax(x, -3),
    "Gather-8": lambda x: opset8.gather(x, ints(-1, 0, 2), opset1.constant(np.array(-3, np.int64))),
    "Slice-8": lambda x: opset8.slice(x, ints(1, -9), ints(2**62, -1), ints(2, 3), ints(-2, 3)),
    "Slice-8 all axes": lambda x: opset8.slice(x, ints(0, 0, 2, 0), ints(1, 3, 9, 5), ints(1, 2, 3, 1)),
    "Pad-12": lambda x: opset12.pad(x, ints(0, 0, 1, 2), ints(0, 1, 0, 3), "constant", opset1.constant(np.float32(4))),
    "Pad-12 reflect": lambda x: opset12.pad(x, ints(0, 0, 1, 2), ints(0, 0, 3, 3), "reflect"),
}


def model_of(make: Callable[[Any], Any]) -> ov.Model:
    x = opset1.parameter(SHAPE, np.float32, name="x")
    value = make(x)
    result = opset1.result(value)
    result.input_value(0).get_tensor().set_names({"y"})
    return ov.Model([result], [x], "one")


@pytest.mark.parametrize("make", REWRITTEN.values(), ids=REWRITTEN.keys())
def test_rewritten_operations_compute_the_same(make: Callable[[Any], Any]) -> None:
    model = model_of(make)
    data = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    expected = Runner(model)([data])[0]
    old = {opset_of(node) or 99 for node in model.get_ops()}
    assert max(old) > 7
    assert downgrade(model) == []
    assert max(opset_of(node) or 99 for node in model.get_ops()) <= 7
    assert model.output(0).get_names() == {"y"}
    found = Runner(model)([data])[0]
    # resizing, pooling and moving numbers around is exact; sums may be taken in another order
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_interpolate_is_written_with_constant_sizes(scale: float) -> None:
    """By scales, the serializer writes dimensions of -1, which 2021.4 does not read."""
    model = model_of(lambda x: interpolate(x, "nearest", "scales", [scale, scale]))
    downgrade(model)
    node = next(n for n in model.get_ops() if n.get_type_name() == "Interpolate")
    assert node.get_attributes()["shape_calculation_mode"] == "sizes"
    assert opset_of(node) == 4
    assert list(node.input_value(1).get_node().data) == [10 * scale, 14 * scale]


NOT_REWRITTEN: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "a new operation": (lambda x: opset8.adaptive_avg_pool(x, ints(2, 2)), "2022.1", "AdaptiveAvgPool"),
    "dilated pooling": (
        lambda x: opset8.max_pool(x, [1, 1], [2, 2], [0, 0], [0, 0], [3, 3]).output(0),
        "2022.1",
        "MaxPool",
    ),
    "a scale that is not out / in": (
        lambda x: interpolate(x, "linear", "scales", [1.33, 1.33]),
        "2023.0",
        "Interpolate",
    ),
    "a mode that was not there": (
        lambda x: interpolate(x, "bilinear_pillow", "sizes", [5, 7], "half_pixel"),
        "2023.0",
        "Interpolate",
    ),
    "backwards": (lambda x: opset8.slice(x, ints(-1), ints(-(2**62)), ints(-1), ints(1)), "2022.1", "Slice"),
    "negative padding": (lambda x: opset12.pad(x, ints(0, 0, -1, 0), ints(0, 0, 0, 0), "constant"), "2023.1", "Pad"),
}


@pytest.mark.parametrize(("make", "release", "kind"), NOT_REWRITTEN.values(), ids=NOT_REWRITTEN.keys())
def test_what_stays_new_is_said(make: Callable[[Any], Any], release: str, kind: str) -> None:
    model = model_of(make)
    data = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    expected = Runner(model)([data])[0]
    (note,) = downgrade(model)
    assert f"OpenVINO {release} or later" in note
    assert kind in note
    np.testing.assert_array_equal(Runner(model)([data])[0], expected)


def test_dynamic_shapes_are_refused(tmp_path: Path) -> None:
    x = opset1.parameter([-1, 3, 8, 8], np.float32)
    model = ov.Model([opset1.result(opset1.relu(x))], [x])
    with pytest.raises(ExportError, match="dynamic"):
        downgrade(model)
    with pytest.raises(ExportError, match="dynamic"):
        save_ir(model, CARD, tmp_path / "m.xml")


CARD = Card(("spot",), (16, 16), Head("anchors", ("head0",), (8,), (((8.0, 8.0),),)))


def detector(make: Callable[[Any], Any] = lambda x: x) -> ov.Model:
    image = opset1.parameter([1, 16, 16, 3], np.uint8, name="images")
    image.output(0).get_tensor().set_names({"images"})
    planes = make(opset1.transpose(opset1.convert(image, "f32"), np.array([0, 3, 1, 2])))
    weights = np.random.default_rng(0).normal(0, 0.01, (6, 3, 8, 8)).astype(np.float32)
    head = opset1.convolution(planes, opset1.constant(weights), [8, 8], [0, 0], [0, 0], [1, 1])
    head.output(0).get_tensor().set_names({"head0"})
    return ov.Model([opset1.result(head)], [image], "detector")


@pytest.mark.parametrize("fp32", [False, True])
def test_saved_file(fp32: bool, tmp_path: Path) -> None:
    path = save_ir(detector(), CARD, tmp_path / "sub" / "m.xml", fp32=fp32)
    assert re.search(r'<net name="\w+" version="10">', path.read_text())
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.bin", "m.xml"]
    model = shared_core().read_model(path)
    card = read_card(model, "m.xml")
    assert card.precision == ("FP32" if fp32 else "FP16") == weights_precision(model)
    assert card.notes == ()
    assert model.input(0).get_any_name() == "images"
    assert model.output(0).get_names() == {"head0"}
    assert model.get_rt_info(["model_info", "model_type"]).value == "yolo_v5"


def test_int8_stays_int8(tmp_path: Path) -> None:
    quantized = Card(CARD.names, CARD.imgsz, CARD.head, precision="INT8")
    path = save_ir(detector(), quantized, tmp_path / "m.xml")
    assert read_card(shared_core().read_model(path), "m.xml").precision == "INT8"


def test_what_old_runtimes_cannot_read_is_in_the_card(tmp_path: Path) -> None:
    model = detector(lambda x: opset8.adaptive_avg_pool(x, ints(16, 16)))
    card = read_card(shared_core().read_model(save_ir(model, CARD, tmp_path / "m.xml")), "m.xml")
    assert "OpenVINO 2022.1 or later" in card.notes[0]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_ir(detector(), CARD, tmp_path / "m.xml")
    before = path.read_bytes(), path.with_suffix(".bin").read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(ExportError, match=r"m\.xml cannot be written: No space left on device"):
        save_ir(detector(), CARD, path)
    assert (path.read_bytes(), path.with_suffix(".bin").read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        save_ir(detector(), CARD, tmp_path / "file" / "m.xml")


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere")
def test_a_folder_without_leave_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="cannot be written"):
        save_ir(detector(), CARD, tmp_path / "m.xml")
    tmp_path.chmod(0o700)
