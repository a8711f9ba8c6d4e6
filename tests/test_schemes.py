"""Quantized networks: what the graph is made of, and every scheme that can be asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest
from openvino import opset1
from reference.spot_model import spot_network

pytest.importorskip("nncf")

from ovyolo.compress import Scheme, quantize
from ovyolo.compress.folded import fold_scales, load_folded
from ovyolo.compress.head_error import head_error
from ovyolo.compress.instruction_sets import overflowing_layers
from ovyolo.compress.layers import float_layers, layers_of, quantized_names, restore
from ovyolo.compress.moments import measure_moments
from ovyolo.compress.refine import Quantizer
from ovyolo.compress.stages import Stages
from ovyolo.compress.weight_formats import NF4, best_levels
from ovyolo.core import shared_core
from ovyolo.errors import DimensionError, ModelError
from ovyolo.evaluate.judge import run_pictures
from ovyolo.export.portable import save_ir
from ovyolo.runtime import read_model

pytestmark = pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")


def test_scales_are_folded_into_weights() -> None:
    rng = np.random.default_rng(4)
    image = opset1.parameter([1, 3, 8, 8], np.float32, name="x")
    x = image.output(0)
    weights = [rng.normal(0, 1, (6, 3, 3, 3)), rng.normal(0, 1, (3, 2, 2, 3, 3)), rng.normal(0, 1, (6, 4, 3, 3))]
    nodes = [
        lambda x, w: opset1.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1]),
        lambda x, w: opset1.group_convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1]),
        lambda x, w: opset1.convolution_backprop_data(x, w, [1, 1], None, [1, 1], [1, 1], [1, 1]),
    ]
    for make, weight in zip(nodes, weights, strict=True):
        node = make(x, opset1.constant(weight.astype(np.float32)))
        scale = rng.uniform(0.5, 2, (1, node.get_output_shape(0)[1], 1, 1)).astype(np.float32)
        x = opset1.multiply(node, opset1.constant(scale)).output(0)
    model = ov.Model([opset1.result(x)], [image], "scaled")
    picture = rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)

    def run() -> np.ndarray:
        compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.array(compiled([picture])[0])

    before = run()
    assert fold_scales(model) == 3
    assert not [node for node in model.get_ops() if node.get_type_name() == "Multiply"]
    np.testing.assert_allclose(run(), before, rtol=2e-4, atol=2e-4)


def test_quantizing_twice_is_refused(spots: tuple[Path, Path], tmp_path: Path) -> None:
    made = quantize(*spots, tmp_path / "a.xml")
    with pytest.raises(ModelError, match="quantized already"):
        quantize(made.path, spots[1], tmp_path / "b.xml")


@pytest.fixture(scope="module")
def quantized(spots: tuple[Path, Path]) -> tuple[Quantizer, ov.Model, Any, list[np.ndarray]]:
    model, card = load_folded(spots[0])
    pictures = [cv2.imread(str(path)) for path in sorted((spots[1].parent / "images" / "train").iterdir())]
    quantizer = Quantizer(model, pictures, Stages())
    return quantizer, quantizer(Scheme()), card, pictures


def test_all_layers_are_quantized_and_none_can_overflow(quantized: Any) -> None:
    quantizer, model, _, _ = quantized
    assert quantized_names(model) == list(quantizer.layers) and not float_layers(model)
    assert overflowing_layers(model) == []
    full = quantizer(Scheme(rounding="nearest", overflow="none"))
    assert overflowing_layers(full)


def test_the_input_keeps_every_byte(quantized: Any) -> None:
    first = next(node for node in quantized[1].get_ordered_ops() if node.get_type_name() == "FakeQuantize")
    low, high = (float(np.array(first.input_value(i).get_node().data).reshape(-1)[0]) for i in (1, 2))
    assert (low, high) == (0, 255) and first.get_attributes()["levels"] == 256


def test_restored_layers_compute_as_before(quantized: Any) -> None:
    quantizer, model, card, pictures = quantized
    expected = run_pictures(quantizer.model, card, pictures[:4])
    errors = [
        head_error(card, expected, run_pictures(restore(model, quantizer.layers, names), card, pictures[:4])).total
        for names in ([], ["head"], list(quantizer.layers))
    ]
    assert errors[0] > errors[1] > 0
    # the residual sum's own quantizers stay
    assert errors[2] < errors[0] / 2
    part = restore(model, quantizer.layers, ["left", "head"])
    assert float_layers(part) == ["left", "head"] and overflowing_layers(part) == []


def test_moments_are_those_of_all_patches() -> None:
    rng = np.random.default_rng(5)
    image = opset1.parameter([1, 6, 6, 3], np.uint8, name="x")
    planes = opset1.transpose(opset1.convert(image, "f32"), np.array([0, 3, 1, 2]))
    weights = opset1.constant(rng.normal(0, 1, (2, 3, 2, 2)).astype(np.float32))
    conv = opset1.convolution(planes, weights, [2, 2], [0, 0], [0, 0], [1, 1], name="c")
    model = ov.Model([opset1.result(conv)], [image], "one")
    pictures = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(400)]
    ((_, moments),) = measure_moments(model, list(layers_of(model).values()), pictures)
    cut = [
        p[r : r + 2, c : c + 2].transpose(2, 0, 1).reshape(-1) for p in pictures for r in (0, 2, 4) for c in (0, 2, 4)
    ]
    data = np.array(cut, np.float64)
    np.testing.assert_allclose(moments.mean, data.mean(axis=0), rtol=0.1)
    assert np.linalg.norm(moments.covariance - np.cov(data.T)) < 0.15 * np.linalg.norm(np.cov(data.T))


def test_head_error_sees_what_changed() -> None:
    card = spot_network()[1]
    rng = np.random.default_rng(6)
    heads = [[rng.normal(0, 2, (1, 7, 8, 8)).astype(np.float32)]]
    same = head_error(card, heads, heads)
    assert same.total == pytest.approx(0, abs=1e-9)
    noise = rng.normal(0, 1, heads[0][0].shape).astype(np.float32)
    less, more = (head_error(card, heads, [[heads[0][0] + scale * noise]]) for scale in (0.05, 0.5))
    assert 0 < less.confidence < more.confidence and 0 < less.box < more.box < 1


@pytest.mark.parametrize(
    "choice",
    [
        {"preset": "fast"},
        {"overflow": "half"},
        {"weights": "asymmetric"},
        {"weights": "asymmetric", "overflow": "none"},
        {"granularity": "tensor"},
        {"smooth_quant": 0.5},
        {"smooth_quant": 1.5, "rounding": "nearest"},
        {"ranges": "percentile"},
        {"bits": 4},
        {"bits": 16, "activations": "dynamic"},
        {"weight_format": "nf4"},
        {"weights_only": True, "bits": 16},
        {"weights_only": True, "activations": "dynamic"},
        {"weights_only": True, "weight_format": "int3"},
    ],
)
def test_impossible_schemes_are_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(DimensionError):
        Scheme(**choice)


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(preset="performance"),
        Scheme(overflow="none"),
        Scheme(rounding="nearest"),
        Scheme(rounding="nearest", overflow="half"),
        Scheme(rounding="nearest", overflow="first-layer", bias_correction="accurate"),
        Scheme(rounding="nearest", overflow="none", weights="asymmetric", bias_correction="none"),
        Scheme(rounding="nearest", granularity="tensor"),
        Scheme(rounding="nearest", smooth_quant=0.2),
        Scheme(ranges="minmax"),
        Scheme(ranges="median-minmax"),
        Scheme(ranges="quantile"),
        Scheme(ranges="histogram"),
        Scheme(activations="dynamic"),
        Scheme(bits=16),
        Scheme(weights_only=True),
        Scheme(weights_only=True, weights="asymmetric"),
        *(Scheme(weights_only=True, weight_format=one) for one in ("int4", "fp8", "nf4", "codebook")),
    ],
    ids=Scheme.describe,
)
def test_every_scheme_can_be_reached(scheme: Scheme, quantized: Any) -> None:
    quantizer, _, card, pictures = quantized
    model = quantizer(scheme)
    expected, found = (run_pictures(one, card, pictures[:4]) for one in (quantizer.model, model))
    assert 0 < head_error(card, expected, found).total < 0.5
    assert len(quantized_names(model)) == len(quantizer.layers)
    if scheme.overflow in ("pairs", "half") and not scheme.weights_only and scheme.bits == 8:
        assert overflowing_layers(model) == []


def kinds_stored(model: ov.Model) -> set[str]:
    """The types of constants as large as a layer's weights."""
    return {
        node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_output_size() and len(node.get_output_shape(0)) == 4
        and int(np.prod(node.get_output_shape(0))) > 100
    }  # fmt: skip


@pytest.mark.parametrize(
    ("weight_format", "kind"), [("int8", "i8"), ("int4", "i4"), ("fp8", "f8e4m3"), ("nf4", "nf4"), ("codebook", "u4")]
)
def test_weights_alone_are_stored_small_and_survive_the_file(
    weight_format: str, kind: str, quantized: Any, tmp_path: Path
) -> None:
    quantizer, _, card, pictures = quantized
    scheme = Scheme(weights_only=True, weight_format=weight_format)
    model = quantizer(scheme)
    assert kinds_stored(model) == {kind}
    expected = run_pictures(model, card, pictures[:2])
    path = save_ir(model, replace(card, precision=scheme.precision), tmp_path / "w.xml")
    read, stored = read_model(path, shared_core())
    assert ("2024" in " ".join(stored.notes)) == (weight_format in ("fp8", "nf4"))
    assert stored.precision == scheme.precision
    # OpenVINO may unfold a codebook when it reads the file
    assert f'element_type="{kind}"' in path.read_text()
    for one, other in zip(expected, run_pictures(read, card, pictures[:2]), strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=2e-3)
    with pytest.raises(ModelError, match="quantized already"):
        load_folded(path)


def test_a_codebook_that_fits_errs_less_than_a_fixed_one() -> None:
    values = np.random.default_rng(8).laplace(0, 0.1, 4000).clip(-1, 1)
    levels = best_levels(values)
    assert len(levels) == 16 and (np.diff(levels) > 0).all()

    def error(table: np.ndarray) -> float:
        return float((np.abs(values[:, None] - table).min(axis=1) ** 2).mean())

    assert error(levels) < error(NF4) and error(levels) < error(np.linspace(-1, 1, 16)) / 2


def test_dynamic_ranges_follow_the_picture(quantized: Any) -> None:
    quantizer, static, card, pictures = quantized
    model = quantizer(Scheme(activations="dynamic"))
    dim = [np.ascontiguousarray(picture // 16) for picture in pictures[:4]]
    expected = run_pictures(quantizer.model, card, dim)
    errors = [
        np.mean([np.abs(a[0] - b[0]).mean() for a, b in zip(expected, run_pictures(one, card, dim), strict=True)])
        for one in (static, model)
    ]
    assert errors[1] < errors[0] / 2
    whole = [
        head_error(
            card, expected, run_pictures(restore(one, quantizer.layers, list(quantizer.layers)), card, dim)
        ).total
        for one in (static, model)
    ]
    assert whole[1] <= whole[0] + 1e-6
