"""``ovyolo quantize``: rounding that cannot overflow, calibration kept apart, a budget that holds, runs that resume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset1
from reference.spot_model import SIDE, spot_network, write_spot_data, write_spot_model

pytest.importorskip("nncf")

from ovyolo.cli import main
from ovyolo.compress import Scheme, quantize
from ovyolo.compress.budget import Budget, BudgetError, search_prefix
from ovyolo.compress.calibration import choose_calibration
from ovyolo.compress.folded import fold_scales, load_folded
from ovyolo.compress.head_error import head_error
from ovyolo.compress.instruction_sets import overflowing_layers
from ovyolo.compress.journal import Journal
from ovyolo.compress.judge import run_pictures
from ovyolo.compress.layers import Layer, float_layers, layers_of, quantized_names, restore
from ovyolo.compress.moments import Moments, measure_moments
from ovyolo.compress.nncf_bridge import load_nncf
from ovyolo.compress.refine import Quantizer
from ovyolo.compress.rounding import round_compensated, round_nearest
from ovyolo.compress.stages import Stages
from ovyolo.dataset import load_dataset
from ovyolo.errors import DataError, DimensionError, ModelError, OvyoloError, OvyoloWarning
from ovyolo.runtime import read_model


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a ``data.yaml``."""
    folder = tmp_path_factory.mktemp("spots")
    return write_spot_model(folder / "spots.xml"), write_spot_data(folder / "data")


@pytest.fixture(autouse=True)
def _expected_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OvyoloWarning)
        yield


def layer(weights: Any, kind: str = "Convolution") -> Layer:
    return Layer("layer", kind, np.asarray(weights, np.float32), None, 1)


# ------------------------------------------------------------------------------------------------------- rounding


def saturating_sums(steps: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Products added as vpmaddubsw does: neighbours in 16 bits with saturation, those sums in 32 bits."""
    odd = steps.shape[1] % 2
    steps, inputs = np.pad(steps.astype(np.int64), ((0, 0), (0, odd))), np.pad(inputs.astype(np.int64), (0, odd))
    products = steps * inputs
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -32768, 32767)
    return pairs.sum(axis=1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from(["normal", "same", "heavy"])
)
def test_no_pair_can_overflow(seed: int, channels: int, side: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (5, channels, side, side)
    weights = {
        "normal": rng.normal(0, 1, shape),
        "same": np.full(shape, rng.choice([-3.0, 0.5])),
        "heavy": rng.standard_t(1.5, shape),
    }[kind]
    inputs = channels * side * side
    spread = rng.normal(0, 1, (inputs, inputs))
    moments = Moments(rng.uniform(0, 1, inputs), spread @ spread.T)
    for steps, _, *_ in (round_nearest(layer(weights), True), round_compensated(layer(weights), moments, True)):
        for place in range(side * side):
            column = steps.reshape(5, channels, -1)[:, :, place]
            for extreme in (
                np.full(channels, 255),
                np.where(np.arange(channels) % 2, 255, 0),
                rng.integers(0, 256, channels),
            ):
                exact = (column.astype(np.int64) * extreme).sum(axis=1)
                assert (saturating_sums(column, extreme) == exact).all()


def test_without_pairs_a_pair_does_overflow() -> None:
    steps, _ = round_nearest(layer(np.ones((1, 2, 1, 1))), False)
    assert saturating_sums(steps.reshape(1, 2), np.array([255, 255])) != steps.astype(int).sum() * 255


@pytest.mark.parametrize("kind", ["Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"])
def test_steps_times_scale_are_the_weights(kind: str) -> None:
    shape = {"GroupConvolution": (2, 4, 6, 3, 3), "MatMul": (8, 10)}.get(kind, (8, 6, 3, 3))
    weights = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    steps, scale = round_nearest(layer(weights, kind), True)
    assert steps.dtype == np.int8 and steps.shape == shape
    assert np.abs(steps * scale - weights).max() <= scale.max() / 2 + 1e-6


def test_compensated_rounding_errs_less_where_inputs_are_alike() -> None:
    rng = np.random.default_rng(2)
    mixing = rng.normal(0, 1, (12, 72))
    data = np.maximum(rng.normal(0.3, 1, (4000, 12)) @ mixing + rng.normal(0, 0.1, (4000, 72)), -0.2)
    one = layer(rng.normal(0, 0.2, (16, 8, 3, 3)))
    moments = Moments(data.mean(axis=0), np.cov(data.T, bias=True))
    weights = one.weights.reshape(16, -1).astype(np.float64)

    def error(steps: Any, scale: Any, shift: Any = 0.0) -> float:
        rounded = (steps * scale.astype(np.float64)).reshape(16, -1)
        return float((((rounded - weights) @ data.T - np.reshape(shift, (-1, 1))) ** 2).mean())

    nearest = error(*round_nearest(one, True))
    steps, scale, left = round_compensated(one, moments, True)
    assert error(steps, scale, left) < nearest / 4


def test_inputs_that_never_vary_do_not_break_rounding() -> None:
    one = layer(np.random.default_rng(3).normal(0, 1, (4, 3, 3, 3)))
    for covariance in (np.zeros((27, 27)), np.diag([1.0] + [0.0] * 26)):
        steps, scale, left = round_compensated(one, Moments(np.full(27, 2.0), covariance), True)
        assert np.isfinite(scale).all() and np.isfinite(left).all() and np.abs(steps).max() > 60


# ------------------------------------------------------------------------------------------------ graphs and layers


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
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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


# ----------------------------------------------------------------------------------------------------------- scheme


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
        Scheme(weights_only=True),
    ],
    ids=Scheme.describe,
)
def test_every_scheme_can_be_reached(scheme: Scheme, quantized: Any) -> None:
    quantizer, _, card, pictures = quantized
    model = quantizer(scheme)
    expected, found = (run_pictures(one, card, pictures[:4]) for one in (quantizer.model, model))
    assert 0 < head_error(card, expected, found).total < 0.5
    assert len(quantized_names(model)) == len(quantizer.layers)
    if scheme.overflow in ("pairs", "half") and not scheme.weights_only:
        assert overflowing_layers(model) == []


# ------------------------------------------------------------------------------------------------------ calibration


def test_calibration_is_kept_apart_by_path_and_content(spots: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = load_dataset(spots[1])
    folder = tmp_path / "more"
    folder.mkdir()
    train = sorted((spots[1].parent / "images" / "train").iterdir())
    for path in train[:18]:
        shutil.copy(path, folder / path.name)
    shutil.copy(dataset.items[0].path, folder / "renamed.png")
    found, left = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[folder, dataset.items[1].path])
    assert len(found) == 18 and len(left) == len(dataset)
    assert "2 picture(s)" in found.warnings[0]
    assert "renamed.png" not in {path.name for path, _ in found.places}


def test_the_same_split_is_halved_and_said_so(spots: tuple[Path, Path]) -> None:
    dataset = load_dataset(spots[1])
    found, left = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], split="val")
    used = {path for path, _ in found.places}
    assert len(used) == len(left) == 12 and used.isdisjoint(item.path for item in left.items)
    assert "CAUTION" in found.warnings[0] and "halved" in found.warnings[0]
    again, _ = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], split="val")
    assert again.digest == found.digest


def test_calibration_that_shows_nothing_is_doubted(spots: tuple[Path, Path], tmp_path: Path) -> None:
    for index in range(10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((48, 90, 3), np.uint8))
    found, _ = choose_calibration(load_dataset(spots[1]), (SIDE, SIDE), data=spots[1], sources=[tmp_path])
    text = " ".join(found.warnings)
    assert "10 of the 10 calibration pictures are of one colour" in text and "CAUTION" in text
    assert "9 of the 10" in text and "only 10" in text


def test_calibration_pictures_that_cannot_be_read(spots: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "good.png"), np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    dataset = load_dataset(spots[1])
    with pytest.raises(DataError, match=r"1 calibration picture.*bad\.png"):
        choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[tmp_path])
    found, _ = choose_calibration(dataset, (SIDE, SIDE), data=spots[1], sources=[tmp_path], skip_bad=True)
    assert len(found) == 1 and len(found.problems) == 1


# ---------------------------------------------------------------------------------------------------------- budget


@given(st.integers(1, 200), st.integers(1, 220))
def test_bisection_finds_the_shortest_prefix(total: int, needed: int) -> None:
    tried: list[int] = []

    def attempt(length: int) -> bool:
        tried.append(length)
        return length >= needed

    found = search_prefix([1 / total] * total, attempt, most=2)
    assert found == (needed if needed <= total else None)
    assert len(tried) <= 18 and len(set(tried)) == len(tried)


def test_zero_allows_no_class_to_lose() -> None:
    budget = Budget({"ap": 50.0, "classes": {"a": 40.0, "b": 60.0}}, 0)
    assert not budget.judge("one wins, one loses", {"ap": 50.5, "classes": {"a": 39.0, "b": 62.0}}).fits
    assert budget.judge("none loses", {"ap": 50.5, "classes": {"a": 40.0, "b": 61.0}}).fits
    assert not Budget({"ap": 50.0, "classes": {}}, 1.0).judge("unknown", {"ap": None, "classes": {}}).fits


def test_a_run_leaves_model_card_and_reports(spots: tuple[Path, Path], tmp_path: Path) -> None:
    result = quantize(*spots, tmp_path / "out.xml")
    model, card = read_model(result.path, ov.Core())
    assert card.precision == "INT8" and card.notes == () and card.names == ("bright", "grey")
    assert result.drop == pytest.approx(0, abs=0.5) and card.scores["drop"] == result.drop
    assert card.scores["latency"]["ms"].keys() >= {"FP32", "INT8"}
    made = card.made["quantization"]
    assert made["calibration"]["pictures"] == 24 and made["can_overflow_without_vnni"] == 0
    assert made["instruction_sets"] == dict.fromkeys(made["instruction_sets"], "same")
    assert {str(node.get_type_info().version_id) for node in model.get_ops()} <= {f"opset{i}" for i in range(1, 8)}
    stored = json.loads(result.json_path.read_text())
    assert stored["complete"] and stored["report"]["after"]["ap"] == result.report["after"]["ap"]
    page = (result.html_path or Path()).read_text()
    assert "bright" in page and "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.bin",
        "out.quantize.html",
        "out.quantize.json",
        "out.xml",
    ]
    from ovyolo import Detector

    image = cv2.imread(str(load_dataset(spots[1]).items[0].path))
    assert len(Detector(result.path)(image)) == len(Detector(spots[0])(image)) > 0


@pytest.fixture
def black(tmp_path: Path) -> Path:
    folder = tmp_path / "black"
    folder.mkdir()
    for index in range(10):
        cv2.imwrite(str(folder / f"{index}.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    return folder


def test_black_calibration_is_caught(spots: tuple[Path, Path], black: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.xml"
    with pytest.raises(BudgetError, match="original was kept") as caught:
        quantize(*spots, target, calibration_sources=[black])
    assert "INT8: AP" in str(caught.value) and "drop" in str(caught.value)
    assert not target.exists() and not target.with_suffix(".bin").exists()
    report = json.loads(target.with_suffix(".quantize.json").read_text())["report"]
    assert report["after"] is None and report["trials"] and "one colour" in " ".join(report["notes"])
    measured = quantize(*spots, target, calibration_sources=[black], max_drop=None)
    assert measured.drop > 5 and target.exists()


def test_a_command_keeps_the_original(
    spots: tuple[Path, Path], black: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.xml"
    arguments = ["quantize", str(spots[0]), "--data", str(spots[1]), "-o", str(target), "--calib", str(black)]
    assert main([*arguments, "--max-drop", "0"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: no INT8 network of") and "within 0 points" in error
    assert not target.exists()


def test_command(spots: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.xml"
    arguments = ["quantize", str(spots[0]), "--data", str(spots[1]), "-o", str(target), "--quiet"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "drop" in shown.out and "nncf" not in shown.out.lower() and "written" in shown.err
    assert main([*arguments, "--rounding", "nearest", "--overflow", "half", "--max-drop", "none", "--no-html"]) == 0
    assert main([*arguments, "--overflow", "half"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--max-drop", "-1"])
    assert stopped.value.code == 2


def test_an_interrupted_run_leaves_no_model_and_goes_on(
    spots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovyolo.compress import quantize as module

    target = tmp_path / "out.xml"
    real = sys.modules["ovyolo.compress.quantize"]._latency

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["ovyolo.compress.quantize"], "_latency", interrupt)
    with pytest.raises(KeyboardInterrupt):
        module(*spots, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.quantize.json"]
    monkeypatch.setattr(sys.modules["ovyolo.compress.quantize"], "_latency", real)
    assert quantize(*spots, target).report["reused"] >= 2
    assert quantize(*spots, target, fresh=True).report["reused"] == 0


def test_a_journal_of_other_inputs_or_damaged_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Journal(path, {"model": "a"}).keep("x", 1)
    assert "x" in Journal(path, {"model": "a"})
    assert "x" not in Journal(path, {"model": "b"})
    for text in ("", "{", "[1]", '{"version": 1, "inputs": {"model": "a"}, "measured": 5}'):
        path.write_text(text)
        assert "x" not in Journal(path, {"model": "a"})


# -------------------------------------------------------------------------------------------------------- bad input


def test_bad_data_is_told_before_work_begins(tmp_path: Path) -> None:
    model, data = write_spot_model(tmp_path / "m.xml"), write_spot_data(tmp_path / "d", train=4, val=4)
    images = sorted((tmp_path / "d" / "images" / "val").iterdir())
    images[0].write_bytes(b"nothing")
    (tmp_path / "d" / "labels" / "val" / f"{images[1].stem}.txt").write_text("0 7 7 1 1")
    with pytest.raises(DataError, match=r"2 files .* cannot be used") as caught:
        quantize(model, data, tmp_path / "q.xml")
    assert images[0].name in str(caught.value) and "outside" in str(caught.value)
    assert not (tmp_path / "q.quantize.json").exists()
    result = quantize(model, data, tmp_path / "q.xml", skip_bad=True, max_drop=None)
    assert result.report["pictures"] == 2 and "2 file(s)" in " ".join(result.report["notes"])


def test_wrong_inputs_give_one_sentence(spots: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = spots
    other = tmp_path / "data.yaml"
    other.write_text(f"path: {data.parent}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((model, other), {}, "3 classes"),
        ((tmp_path / "none.xml", data), {}, "does not exist"),
        ((tmp_path / "none.pt", data), {}, "does not exist"),
        ((model, tmp_path / "none.yaml"), {}, "does not exist"),
        ((model, data, model), {}, "overwrite its own source"),
        ((model, data, tmp_path / "a.bin"), {}, r"end in \.xml"),
        ((model, data), {"max_drop": -1}, "max_drop"),
        ((model, data), {"calibration_size": 0}, "calibration_size"),
        ((model, data), {"calibration_sources": [tmp_path / "nowhere"]}, "does not exist"),
        ((model, data), {"imgsz": 32}, "fixed"),
    ]
    for arguments, options, says in cases:
        with pytest.raises(OvyoloError, match=says) as caught:
            quantize(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_nothing_is_reported_to_anybody(spots: tuple[Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = """
import socket, sys
class Refuse(socket.socket):
    def connect(self, *arguments): raise SystemExit(f"phones {arguments}")
    connect_ex = connect
socket.socket = Refuse
socket.create_connection = socket.getaddrinfo = lambda *a, **k: sys.exit(f"phones {a}")
from ovyolo.compress import quantize
quantize(sys.argv[1], sys.argv[2], sys.argv[3], html=False)
print(*[name for name in ("torch", "openvino_telemetry") if sys.modules.get(name)])
"""
    env = {**os.environ, "HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    for name in ("NNCF_CI", "CI", "PYTEST_CURRENT_TEST"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (*spots, tmp_path / "q.xml"))], capture_output=True, text=True,
        env=env, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert list(home.rglob("*")) == []
    assert load_nncf() is load_nncf()
