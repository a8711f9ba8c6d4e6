"""From the trained network to an IR: the same contract as every export, the same numbers, real 8 bits, real zeros."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402

from ovyolo import Detector  # noqa: E402
from ovyolo.compress.executed import executed_precisions, summarize_executed  # noqa: E402
from ovyolo.compress.qat.check import check_ir, stored_weights  # noqa: E402
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import quantizers_of  # noqa: E402
from ovyolo.compress.qat.sparsify import effective_weights, sparsify  # noqa: E402
from ovyolo.compress.qat.to_ir import trained_ir  # noqa: E402
from ovyolo.core import shared_core  # noqa: E402
from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.evaluate.judge import run_pictures  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.export.opsets import opset_of  # noqa: E402
from ovyolo.export.portable import save_ir  # noqa: E402
from ovyolo.runtime import read_model  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = tiny_pictures(6)
# rounding flips a few of the activations' 256 steps between one way of computing and the other
FLIPS = 0.005


@pytest.fixture(scope="module")
def network() -> Any:
    return fuse_batch_norms(tiny_network())


@pytest.fixture(scope="module")
def sparse(network: Any) -> Any:
    return insert_quantizers(sparsify(network, 0.5), picture_tensors(PICTURES))


@pytest.fixture(scope="module")
def written(sparse: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ov.Model, Any]:
    model, card = trained_ir(sparse, 64)
    path = save_ir(model, replace(card, notes=()), tmp_path_factory.mktemp("ir") / "trained.xml")
    return path, *read_model(path, shared_core())


def heads(network: Any, pictures: list) -> list[list[np.ndarray]]:
    with torch.no_grad():
        return [[head.numpy() for head in network(x)] for x in picture_tensors(pictures)]


def apart(one: list, other: list) -> float:
    """The mean difference of heads, relative to their mean size."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(float(np.abs(a - b).mean()) for a, b in pairs) / sum(float(np.abs(a).mean()) for a, _ in pairs)


def kinds(model: ov.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def test_the_contract_is_that_of_every_export(written: tuple) -> None:
    path, model, card = written
    assert list(model.input(0).get_shape()) == [1, 64, 64, 3] and model.input(0).get_any_name() == "images"
    assert model.input(0).get_element_type().get_type_name() == "u8"
    assert [output.get_any_name() for output in model.outputs] == ["head0", "head1"]
    assert [list(output.get_shape()) for output in model.outputs] == [[1, 14, 8, 8], [1, 14, 4, 4]]
    assert (card.precision, card.names, card.head.strides, card.imgsz) == ("INT8", ("open", "short"), (8, 16), (64, 64))
    assert card.head.anchors == (((6.0, 8.0), (12.0, 9.0)), ((20.0, 16.0), (30.0, 34.0))) and card.notes == ()
    assert max(opset_of(node) or 99 for node in model.get_ordered_ops()) <= 7
    assert b'version="10"' in path.read_bytes()[:200]


def test_nothing_is_left_at_the_input_but_the_layout(written: tuple) -> None:
    _, model, _ = written
    node, seen = model.get_parameters()[0], []
    while node.get_type_name() != "Convolution":
        (reader,) = node.output(0).get_target_inputs()
        node = reader.get_node()
        seen.append(node.get_type_name())
    assert seen == ["Convert", "Transpose", "FakeQuantize", "Convolution"] and "Gather" not in kinds(model)


def test_numbers_agree_with_pytorch(sparse: Any, written: tuple) -> None:
    _, model, card = written
    expected = heads(sparse, PICTURES)
    assert apart(expected, run_pictures(model, card, PICTURES, quantized=False)) < FLIPS
    assert apart(expected, run_pictures(model, card, PICTURES)) < FLIPS
    # and the pictures matter: with the colours exchanged it is another result
    swapped = [np.ascontiguousarray(picture[..., ::-1]) for picture in PICTURES]
    assert apart(expected, run_pictures(model, card, swapped)) > 3 * FLIPS


def test_the_check_says_what_is_so(sparse: Any, written: tuple) -> None:
    _, model, card = written
    found = check_ir(sparse, model, card, PICTURES[:2])
    assert found["in_8_bits"] == found["layers"] == 18 == len(found["executed"])
    assert found["zeros"] == pytest.approx(0.5, abs=0.01) and found["lost_zeros"] == [] == found["overflowing"]
    assert found["float_error"] < 0.02 and found["executed_error"] < 0.02


def test_zeros_are_where_they_were(sparse: Any, written: tuple) -> None:
    _, model, _ = written
    stored = stored_weights(model)
    assert {weights.dtype for weights in stored.values()} == {np.dtype(np.int8)} and len(stored) == 18
    masked = effective_weights(sparse)
    for name, weights in stored.items():
        key = f"{name}.weight" if name.startswith("model.9") else f"{name}.conv.weight"
        wanted = (masked[key] == 0).numpy()
        assert not weights[wanted[:, ::-1] if name == "model.0" else wanted].any()


def test_a_check_that_can_fail(network: Any, sparse: Any, written: tuple) -> None:
    """Against another network heads differ, and masked weights are not zero."""
    _, model, card = written
    other = sparsify(network, 0.9)
    found = check_ir(other, model, card, PICTURES[:1])
    assert found["lost_zeros"] and found["executed_error"] > 0.05


def test_files_are_small_and_detectors_take_them(written: tuple) -> None:
    path, model, _ = written
    weights = sum(one.size for one in stored_weights(model).values())
    assert path.with_suffix(".bin").stat().st_size < 1.3 * weights
    assert len(Detector(path, conf=0.0001)(PICTURES[0])) > 0


def test_what_runs_is_listed(written: tuple) -> None:
    path, _, _ = written
    compiled = shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = executed_precisions(compiled)
    assert all(one.in_8_bits and one.kernel for one in found) and len(found) == 18
    assert found[0].name == "model.0" and "model.0" in found[0].layers
    assert sum(summarize_executed(found).values()) == 18
    everything = executed_precisions(compiled, None)
    assert {"Input", "Output", "Pooling"} <= {one.kind for one in everything}
    plain = shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"})
    assert set(summarize_executed(executed_precisions(plain))) == {"f32"}


def test_bytes_pass_the_first_quantizer_unchanged(written: tuple) -> None:
    _, model, _ = written
    (first,) = (n for n in model.get_ordered_ops() if n.get_type_name() == "FakeQuantize" and before(n) == "Transpose")
    bounds = [float(np.ravel(first.input_value(i).get_node().data)[0]) for i in range(1, 5)]
    assert bounds == pytest.approx([0, 255, 0, 1]) and first.get_attributes()["levels"] == 256


def before(node: ov.Node) -> str:
    return str(node.input_value(0).get_node().get_type_name())


def test_other_forms_of_the_network(tmp_path: Path) -> None:
    """Batch norms frozen, a Focus layer, the first layer in floating point, a wide picture: the contract holds."""
    unfused = tiny_network(2, focus=True)
    wide = tiny_pictures(2, 96)
    wide = [picture[:64] for picture in wide]
    for network, ignored in ((unfused, []), (fuse_batch_norms(unfused), ["model.0", "model.9"])):
        made = insert_quantizers(network, picture_tensors(wide), ignored=ignored)
        model, card = trained_ir(made, (64, 96))
        path = save_ir(model, card, tmp_path / f"{len(ignored)}.xml")
        model, card = read_model(path, shared_core())
        assert card.imgsz == (64, 96) and card.notes == () and "Gather" not in kinds(model)
        assert apart(heads(made, wide), run_pictures(model, card, wide, quantized=False)) < FLIPS
        plain, _ = build_model(network.checkpoint(tmp_path / "x.pt"), (64, 96))
        names = {name.removesuffix(".conv") for name in stored_weights(plain)}  # a Focus layer's inner convolution
        assert {name.removesuffix(".conv") for name in stored_weights(model)} == names
        found = check_ir(made, model, card, wide)
        assert found["layers"] == 18 and found["in_8_bits"] == (15 if ignored else 18)


def test_without_quantizers_it_is_floating_point(network: Any) -> None:
    masked = sparsify(network, 0.5)
    model, card = trained_ir(masked, 64)
    assert card.precision == "FP32" and "FakeQuantize" not in kinds(model)
    assert apart(heads(masked, PICTURES), run_pictures(model, card, PICTURES)) < 1e-5
    found = check_ir(masked, model, card, PICTURES[:1])
    assert found["zeros"] == pytest.approx(0.5, abs=0.01) and found["in_8_bits"] == 0 and not found["lost_zeros"]


def test_zeros_of_a_network_with_batch_norms() -> None:
    masked = insert_quantizers(sparsify(tiny_network(), 0.5), picture_tensors(PICTURES[:2]))
    model, card = trained_ir(masked, 64)
    found = check_ir(masked, model, card, PICTURES[:1])
    assert found["zeros"] == pytest.approx(0.5, abs=0.01) and found["lost_zeros"] == []


def test_the_network_stays_as_it_is(sparse: Any) -> None:
    before = {key: value.clone() for key, value in sparse.state_dict().items()}
    sparse.train()
    trained_ir(sparse, 64)
    assert sparse.training and quantizers_of(sparse)
    assert all(torch.equal(before[key], value) for key, value in sparse.eval().state_dict().items())
    with pytest.raises(DimensionError, match="multiple"):
        trained_ir(sparse, 70)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "in_float"),
    # transposed convolutions channel by channel are not computed in 8 bits on a CPU
    [("yolov5n", 0), ("custom-2021-focus-spp-2class", 0), ("experimental-c3x-dwconv", 2)],
)
def test_real_networks(shared: Path, tmp_path: Path, name: str, in_float: int) -> None:
    import cv2

    from ovyolo.letterbox import letterbox
    from ovyolo.train.network import load_network

    files = [shared / "images" / one for one in ("bus.jpg", "zidane.jpg")]
    pictures = [letterbox(cv2.imread(str(file)), (256, 256))[0] for file in files]
    made = insert_quantizers(
        fuse_batch_norms(load_network(shared / "weights" / f"{name}.pt")), picture_tensors(pictures)
    )
    model, card = trained_ir(made, 256)
    model, card = read_model(save_ir(model, card, tmp_path / "n.xml"), shared_core())
    found = check_ir(made, model, card, pictures)
    assert found["in_8_bits"] == found["layers"] - in_float and not found["overflowing"] and card.notes == ()
    # as near as PyTorch is to itself when the last digits change
    assert 0 < found["rounding_noise"] < 0.06
    assert max(found["float_error"], found["executed_error"]) < 2.5 * found["rounding_noise"], found
