"""What a file's network takes is found out, and it is made to take BGR bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))

import openvino as ov
from openvino import opset1, opset8
from reference.onnx_models import Style, write_onnx

from ovyolo.core import shared_core
from ovyolo.errors import ExportError
from ovyolo.export.imported import import_model
from ovyolo.export.imported.reading import Runner
from ovyolo.export.imported.selfcheck import picture


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


def with_stage(path: Path, kinds: str, out: Path) -> Path:
    """Put a stage before an ONNX file's network, in the order of ``kinds``, and save it as an IR.

    ``b``: the input is u8; ``n``: it is NHWC; ``r``: it is reversed by Gather; ``s``: by Split and Concat;
    ``d``: divided by 255.
    """
    model = shared_core().read_model(path)
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
    model = shared_core().read_model(with_stage(source, "bnd", tmp_path / "s.xml"))
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
    model = shared_core().read_model(source)
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
