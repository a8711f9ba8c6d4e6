"""``export`` of files that other tools quantized: they keep their 8-bit weights, and are computed in 8 bits."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ovyolo.card import Card
from ovyolo.cli import main
from ovyolo.compress.head_error import head_error
from ovyolo.compress.layers import float_layers, quantized_names
from ovyolo.core import shared_core
from ovyolo.errors import ExportError, OvyoloError
from ovyolo.export.imported import import_model, reading
from ovyolo.export.imported.heads import decode_heads
from ovyolo.export.imported.levels import Levels
from ovyolo.export.imported.quantized import keep_stored
from ovyolo.export.imported.reading import Runner, reads_tflite
from ovyolo.export.imported.selfcheck import picture
from ovyolo.export.portable import save_ir


def executed_in_8_bits(model: ov.Model) -> tuple[int, int]:
    """How many of the runtime's convolutions are, and how many there are."""
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [
        str(node.get_rt_info()["runtimePrecision"].astype(str))
        for node in compiled.get_runtime_model().get_ordered_ops()
        if "Convolution" in str(node.get_rt_info()["layerType"].astype(str))
    ]
    return sum(kind in ("u8", "i8") for kind in kinds), len(kinds)


def check_kept_in_8_bits(model: ov.Model, card: Card, path: Path) -> None:
    """Saved and read again, all weights are 8-bit numbers and all convolutions are computed so, or it says not."""
    assert card.precision == "INT8" and card.head.kind == "anchors"
    saved = shared_core().read_model(save_ir(model, card, path))
    assert len(quantized_names(saved)) > 3 and not float_layers(saved)
    in_8_bits, convolutions = executed_in_8_bits(saved)
    assert convolutions == len(quantized_names(saved))
    assert in_8_bits == (0 if "are asymmetric" in " ".join(card.notes) else convolutions)
    assert "Gather" not in {node.get_type_name() for node in saved.get_ops()}


# ------------------------------------------------------------------------------------------------ ONNX Runtime, PyTorch


class Pictures:
    """Calibration pictures as ONNX Runtime's quantizer asks for them."""

    def __init__(self, count: int = 6) -> None:
        self._left = [as_rgb(picture((128, 128), seed)) for seed in range(count)]

    def get_next(self) -> dict[str, Any] | None:
        return {"images": self._left.pop()} if self._left else None


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A u8 BGR picture as ``[1, 3, H, W]`` floats from 0 to 1, RGB."""
    return np.ascontiguousarray((image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)[None])


def check_like_original(model: ov.Model, card: Card, original: Path, anchors: Any) -> None:
    """The raw heads are near those of the file before it was quantized."""
    plain, plain_card = import_model(original, anchors=anchors)
    assert plain_card.head == card.head
    images = [picture(card.imgsz, seed)[None] for seed in (7, 8, 9)]
    expected, found = ([run([image]) for image in images] for run in (Runner(plain), Runner(model)))
    assert 0 < head_error(card, expected, found).total < 0.2
    swapped = [Runner(model)([np.ascontiguousarray(image[..., ::-1])]) for image in images]
    assert head_error(card, expected, swapped).total > head_error(card, expected, found).total


ORT: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "everything": ({}, {}, True),
    "everything, per channel, u8": ({}, {"per_channel": True, "u8": True}, True),
    "convolutions only": ({}, {"op_types_to_quantize": ["Conv"], "per_channel": True}, False),
    "raw heads": ({"decode": "raw4"}, {"per_channel": True}, True),
    "raw heads, 5-D, coarsest first": ({"decode": "raw5", "coarsest_first": True}, {}, True),
    "asymmetric weights": ({}, {"extra_options": {"WeightSymmetric": False}, "u8": True, "u8 weights": True}, True),
}


@pytest.mark.parametrize(("looks", "options", "give"), ORT.values(), ids=ORT.keys())
def test_onnx_runtime_qdq(looks: dict[str, Any], options: dict[str, Any], give: bool, tmp_path: Path) -> None:
    tools = pytest.importorskip("onnxruntime.quantization")
    pytest.importorskip("onnx")
    from reference.onnx_models import Style, write_onnx

    style = Style(opset=13, **looks)
    plain = write_onnx(tmp_path / "plain.onnx", style)
    options = dict(options)
    kinds = {
        "activation_type": tools.QuantType.QUInt8 if options.pop("u8", False) else tools.QuantType.QInt8,
        "weight_type": tools.QuantType.QUInt8 if options.pop("u8 weights", False) else tools.QuantType.QInt8,
    }
    logging.disable(logging.WARNING)
    try:
        tools.quantize_static(str(plain), str(tmp_path / "q.onnx"), Pictures(), **kinds, **options)
    finally:
        logging.disable(logging.NOTSET)
    model, card = import_model(tmp_path / "q.onnx", anchors=style.anchors if give else None)
    assert card.head.anchors == style.anchors and card.head.strides == style.strides
    check_like_original(model, card, plain, style.anchors if looks else None)
    check_kept_in_8_bits(model, card, tmp_path / "q.xml")
    if "decode" not in looks:
        assert "cut off" in card.notes[0]
    assert ("asymmetric" in " ".join(card.notes)) == ("extra_options" in options)
    if give and "decode" not in looks:  # in the whole file pixels and probabilities share a scale
        with pytest.raises(ExportError, match="give them with --anchors"):
            import_model(tmp_path / "q.onnx")
        wrong = [[[pair[0] * 1.5, pair[1]] for pair in level] for level in style.anchors]
        with pytest.raises(OvyoloError, match="does not decode its heads as YOLOv5 does with these anchors"):
            import_model(tmp_path / "q.onnx", anchors=wrong)


def test_onnx_runtime_dynamic_quantization_is_computed_in_floats(tmp_path: Path) -> None:
    tools = pytest.importorskip("onnxruntime.quantization")
    pytest.importorskip("onnx")
    from reference.onnx_models import Style, write_onnx

    plain = write_onnx(tmp_path / "plain.onnx", Style(opset=13))
    tools.quantize_dynamic(str(plain), str(tmp_path / "q.onnx"), weight_type=tools.QuantType.QUInt8)
    model, card = import_model(tmp_path / "q.onnx")
    assert card.head.kind == "rows" and card.precision == "INT8" and "kept" in card.notes[0]
    assert executed_in_8_bits(model)[0] == 0
    image = picture((128, 128), 7)
    own = Runner(shared_core().read_model(tmp_path / "q.onnx"))([as_rgb(image)])[0]
    assert np.median(np.abs(Runner(model)([image[None]])[0] - own)) < 0.05


def test_pytorch_export_through_onnx(tmp_path: Path) -> None:
    """``torch.export``, quantized by torchao's PT2E, as ``torch.onnx.export`` writes it."""
    torch = pytest.importorskip("torch")
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    pytest.importorskip("onnxscript")
    quantizers = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 6, 4, 2)
            self.fine, self.coarse = (torch.nn.Conv2d(c, 16, 3, 2, 1) for c in (8, 16))
            self.heads = torch.nn.ModuleList(torch.nn.Conv2d(16, 14, 1) for _ in range(2))

        def forward(self, x: Any) -> Any:
            act = torch.nn.functional.silu
            fine = act(self.fine(act(self.stem(x))))
            return self.heads[0](fine), self.heads[1](act(self.coarse(fine)))

    net = Net().eval()
    for head in net.heads:
        head.weight.data *= 8
    images = [torch.from_numpy(as_rgb(picture((64, 64), seed))) for seed in range(6)]
    quantizer = quantizers.X86InductorQuantizer()
    quantizer.set_global(quantizers.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        prepared = pt2e.prepare_pt2e(torch.export.export(net, (images[0],)).module(), quantizer)
        for image in images:
            prepared(image)
        program = torch.export.export(pt2e.convert_pt2e(prepared), (images[0],))
        torch.onnx.export(program, f=str(tmp_path / "q.onnx"), dynamo=True, verbose=False)
        torch.onnx.export(net, (images[0],), str(tmp_path / "plain.onnx"), dynamo=True, verbose=False)
    anchors = [[[10, 13], [16, 30]], [[30, 61], [62, 45]]]
    model, card = import_model(tmp_path / "q.onnx", anchors=anchors)
    assert card.head.strides == (8, 16) and card.imgsz == (64, 64)
    check_like_original(model, card, tmp_path / "plain.onnx", anchors)
    saved = shared_core().read_model(save_ir(model, card, tmp_path / "q.xml"))
    assert len(quantized_names(saved)) == 5 and not float_layers(saved)


def test_a_program_of_torch_export_is_told_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.pt2").write_bytes(b"PK")
    assert main(["export", str(tmp_path / "best.pt2")]) == 2
    assert "torch.onnx.export" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ TensorFlow Lite

tflite = pytest.mark.skipif(not reads_tflite(), reason="this OpenVINO is too old to read .tflite files")


@tflite
@pytest.mark.parametrize("takes", ["u8", "i8", "f32"])
@pytest.mark.parametrize("returns", ["f32", "i8"])
def test_tflite_raw_heads(takes: str, returns: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    from reference.tflite_models import ANCHORS, write_tflite

    path = write_tflite(tmp_path / "m.tflite", takes=takes, returns=returns)
    model, card = import_model(path, anchors=ANCHORS)
    assert card.head.strides == (8, 16) and card.made["format"] == "TensorFlow Lite" and "RGB" in " ".join(card.notes)
    check_kept_in_8_bits(model, card, tmp_path / "m.xml")
    # the same file with float heads, run as it is
    reference = Runner(shared_core().read_model(write_tflite(tmp_path / "f.tflite", takes="f32")))
    for seed in (3, 4):
        image = picture((64, 64), seed)
        expected = reference([np.ascontiguousarray(as_rgb(image).transpose(0, 2, 3, 1))])
        for head, other in zip(Runner(model)([image[None]]), expected, strict=True):
            # the file rounds its heads to steps of 0.05, from -6.4 to 6.35
            difference = np.abs(np.clip(head, -6.4, 6.35) - other.transpose(0, 3, 1, 2))
            assert (difference <= 0.026).mean() > 0.97 and np.median(difference) < 0.02


@tflite
@pytest.mark.parametrize("returns", ["f32", "i8"])
def test_tflite_with_its_decoding(returns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tflite")
    from reference.tflite_models import ANCHORS, write_tflite

    path = write_tflite(tmp_path / "best.tflite", decoded=True, returns=returns)
    model, card = import_model(path, anchors=ANCHORS)
    raw, _ = import_model(write_tflite(tmp_path / "raw.tflite"), anchors=ANCHORS)
    image = picture((64, 64), 5)
    found, expected = (Runner(one)([image[None]]) for one in (model, raw))
    for head, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(head, other, atol=1e-4)
    assert main(["export", str(path)]) == 2
    assert "--anchors" in capsys.readouterr().err
    flat = "[[10,13,16,30],[30,61,62,45]]"
    (tmp_path / "data.yaml").write_text("names: [a, b]")
    assert main(["export", str(path), "--anchors", flat, "--data", str(tmp_path / "data.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "INT8" in shown and "a, b" in shown and (tmp_path / "best.xml").exists()
    # what the file itself returns are shares of the picture, cell by cell
    if returns == "f32":
        levels = Levels((8, 16), ((8, 8), (4, 4)), 2, 7)
        rows = decode_heads(found, levels, card.head.anchors)[:128].reshape(2, 64, 7).transpose(1, 0, 2).reshape(-1, 7)
        own = Runner(shared_core().read_model(path))([image[None, ..., ::-1].copy()])[0][0][:128]
        assert np.abs(own[:, :2] * 64 - rows[:, :2]).max() < 3


@tflite
def test_broken_tflite_gives_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    from reference.tflite_models import ANCHORS, write_tflite

    good = write_tflite(tmp_path / "m.tflite").read_bytes()
    for name, content in {
        "cut": good[:400],
        "text": b"not a model" * 9,
        "empty": b"",
        "noise": good[:8] + b"\xff" * 99,
    }.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(ExportError) as caught:
            import_model(path, anchors=ANCHORS)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value), name


@tflite
def test_weights_that_changed_are_not_forced_into_steps(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    from reference.tflite_models import ANCHORS, write_tflite

    from ovyolo.export.imported.quantized import take_stored

    model = shared_core().read_model(write_tflite(tmp_path / "m.tflite"))
    stored = take_stored(model)
    assert len(stored) == 5 and not quantized_names(model)
    node = next(n for n in model.get_ordered_ops() if n.get_friendly_name() in stored)
    changed = np.array(node.input_value(1).get_node().data)
    changed.flat[0] += 0.4 * float(stored[node.get_friendly_name()].scale.reshape(-1)[0])
    node.input(1).replace_source_output(ov.opset1.constant(changed).output(0))
    assert keep_stored(model, stored) == 1
    assert len(quantized_names(model)) == 4
    assert ANCHORS


def test_an_old_openvino_is_not_trusted_with_tflite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    monkeypatch.setattr(reading.ov, "__version__", "2025.0.0-17942-x")
    with pytest.raises(ExportError, match=r"needs OpenVINO 2026\.4 or later.* this is 2025\.0\.0"):
        import_model(path)
