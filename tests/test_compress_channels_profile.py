"""What layers cost, counted and measured; sensitivity; batch norms measured anew; a speed that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: channels are pruned with it")
from reference import torch_yolo as ref  # noqa: E402
from test_compress_channels import SIZE, _one_thread, generation, network_of, small_plan  # noqa: E402, F401
from test_graph_layers import one_level  # noqa: E402

from ovyolo.bench.turns import Ratio  # noqa: E402
from ovyolo.compress.channels import (  # noqa: E402
    LayerTime,
    Profile,
    Target,
    amounts_of,
    apply_plan,
    channel_scores,
    costs_of,
    find_groups,
    layer_times,
    limits_from,
    measured_speedup,
    plan_for_speedup,
    plan_pruning,
    profile_network,
    recalibrate,
    sensitivity,
)
from ovyolo.errors import DeviceError, DimensionError, TargetError  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.train.network import Network, load_network  # noqa: E402


@pytest.fixture
def dense(tmp_path: Path) -> Network:
    return generation("v7-p5", tmp_path)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Profile]:
    network = generation("v7-p5", tmp_path_factory.mktemp("profile"))
    return network, profile_network(network, SIZE, runs=5)


def test_counts_are_those_of_the_layers(shared: Path) -> None:
    costs = costs_of(load_network(shared / "weights" / "yolov5n.pt"), (640, 640))
    rows = {row.name: row for row in costs.layers}
    assert costs.params == 1_872_157
    assert rows["model.0"].macs == 320 * 320 * 16 * 3 * 36
    assert rows["model.0"].params == 16 * 3 * 36 + 2 * 16
    assert (rows["model.24.m.1"].inputs, rows["model.24.m.1"].outputs) == (128, 255)
    assert rows["model.24.m.1"].macs == 40 * 40 * 128 * 255
    assert rows["model.24.m.1"].params == 128 * 255 + 255
    assert sum(row.params for row in costs.layers) == costs.params
    # the upstream project states 4.5 GFLOPs of two operations each for this network
    assert costs.macs / 1e9 == pytest.approx(2.25, rel=0.03)


def test_attention_and_transposed_layers_are_counted(tmp_path: Path) -> None:
    block = torch.nn.Sequential(torch.nn.ConvTranspose2d(16, 16, 2, 2, groups=2), ref.Conv(16, 16, 2, 2, 0))
    rows = {row.name: row for row in costs_of(network_of(one_level(ref.Conv(3, 16, 6, 2, 2), block.eval()), tmp_path),
                                              (64, 64)).layers}  # fmt: skip
    assert rows["model.1.0"].macs == 32 * 32 * 16 * 8 * 4
    attention = network_of(one_level(ref.Conv(3, 16, 6, 2, 2), ref.C3TR(16, 16).eval()), tmp_path)
    rows = {row.name: row for row in costs_of(attention, (64, 64)).layers}
    places, channels = 32 * 32, 8
    assert rows["model.1.m.tr.0.fc1"].macs == places * channels**2
    assert rows["model.1.m.tr.0.ma"].macs == 3 * places * channels**2 + 2 * places**2 * channels


def test_counting_leaves_the_network_as_it_was(dense: Network) -> None:
    dense.train()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    costs_of(dense, SIZE)
    assert dense.training and not any(module._forward_hooks for module in dense.modules())
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_every_layer_is_in_the_profile(profiled: tuple[Network, Profile]) -> None:
    network, profile = profiled
    rows = {layer.name: layer for layer in profile.layers}
    costs = costs_of(network, SIZE)
    assert {row.name for row in costs.layers} <= rows.keys()
    for row in costs.layers:
        layer = rows[row.name]
        assert (layer.macs, layer.params, layer.channels) == (row.macs, row.params, row.outputs)
        assert layer.ms > 0 and layer.kind.startswith("Convolution")
    assert {"input", "model.2.concat", "model.7.m.0", "model.8"} <= rows.keys()
    assert rows["model.2.concat"].channels == 16
    # whatever was executed is in one row or another
    assert sum(layer.ms for layer in profile.layers) == pytest.approx(profile.counted_ms, rel=0.5)
    assert len(rows) == len(profile.layers)


def test_unfused_activations_and_odd_layers_have_rows(tmp_path: Path) -> None:
    network = network_of(one_level(ref.Conv(3, 16, 6, 2, 2).eval(), ref.C3TR(16, 16).eval()), tmp_path)
    model, _ = build_model(network.checkpoint(tmp_path / "m.pt"), (64, 64))
    rows, total, counted = layer_times(model, runs=2)
    assert total > 0 and counted > 0
    assert any(name.startswith("model.1.m.tr.0") for name in rows)
    assert all(name.startswith(("model.", "input", "other")) for name in rows)


FLAT = Profile("CPU", SIZE, 12.0, 10.0, (
    LayerTime("a", "Convolution", 4.0, macs=100, elements=10, channels=8),
    LayerTime("b", "Concat", 2.0, channels=16),
    LayerTime("other", "Reorder", 4.0),
), (0.02, 0.1, 1.0))  # fmt: skip


def test_prediction_follows_the_rates() -> None:
    assert FLAT.predict({"a": (100, 10)}, {"b": 16}) == pytest.approx(12.0)
    # the convolution: (1 + 0.5 + 1) of (2 + 1 + 1); the concatenation: a half; the rest stays
    assert FLAT.predict({"a": (50, 5)}, {"b": 8}) == pytest.approx(4 * 2.5 / 4 + 1 + 4 + 2)
    busy = Profile("CPU", SIZE, 5.0, 10.0, FLAT.layers, FLAT.rates)
    assert busy.predict({"a": (50, 5)}, {"b": 8}) == pytest.approx((2.5 + 1 + 4) / 2)


def test_a_profile_predicts_itself_and_less_for_less(profiled: tuple[Network, Profile]) -> None:
    network, profile = profiled
    whole = amounts_of(network, SIZE, profile)
    assert whole.ms == pytest.approx(profile.total_ms)
    small = apply_plan(network, small_plan(network))
    less = amounts_of(small, SIZE, profile)
    assert less.ms is not None and 0 < less.ms < profile.total_ms
    # planned from the dense network or counted on the small one: the same
    plan = plan_pruning(network, Target(channels=0.3), SIZE, criterion="l1", ranking="uniform", round_to=2,
                        protect=0, profile=profile)  # fmt: skip
    assert plan.after["ms"] == pytest.approx(less.ms, abs=1e-3)


def test_profiles_are_data(profiled: tuple[Network, Profile]) -> None:
    profile = profiled[1]
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile
    for damaged in ({}, {**profile.to_dict(), "layers": [{"x": 1}]}, {**profile.to_dict(), "rates": [1]}):
        with pytest.raises(DimensionError, match="no stored profile"):
            Profile.from_dict(damaged)


def test_profiling_is_checked(dense: Network) -> None:
    with pytest.raises(DeviceError, match="device 'TPU' is not there"):
        profile_network(dense, SIZE, "TPU")
    with pytest.raises(DimensionError, match="runs is 0"):
        profile_network(dense, SIZE, runs=0)
    with pytest.raises(DimensionError, match="imgsz 50,64 is not a multiple"):
        profile_network(dense, (50, 64))


@pytest.fixture
def ideal(dense: Network) -> Profile:
    """A device on which convolutions take what they multiply, and nothing else takes any time."""
    rows = [
        LayerTime(row.name, "Convolution", row.macs * 1e-6, row.macs, row.params, row.read + row.written, row.outputs)
        for row in costs_of(dense, SIZE).layers
    ]
    total = sum(row.ms for row in rows)
    return Profile("CPU", SIZE, total, total, tuple(rows), (1e-6, 0.0, 0.0))


def test_a_speedup_is_a_target(dense: Network, ideal: Profile) -> None:
    with_ms = plan_pruning(dense, Target(speedup=2), SIZE, criterion="l1", round_to=2, protect=0, profile=ideal)
    without = plan_pruning(dense, Target(macs=0.5), SIZE, criterion="l1", round_to=2, protect=0)
    assert 2 <= with_ms.reached < 2.2
    assert with_ms.keep == without.keep


def ratio(value: float) -> Ratio:
    return Ratio("dense", "smaller", "ms", value, value, value, 5)


def test_a_speedup_is_asked_for_until_it_is_measured(dense: Network, ideal: Profile) -> None:
    network, profile = dense, ideal
    asked: list[float] = []

    def slow(_: Network, smaller: Network, imgsz: tuple[int, int]) -> Ratio:
        predicted = profile.total_ms / (amounts_of(smaller, imgsz, profile).ms or 0)
        asked.append(predicted)
        return ratio(1 + (predicted - 1) * 0.8)  # the device gains less than the profile promises

    options: dict[str, Any] = {"criterion": "l1", "round_to": 1, "protect": 0, "measure": slow}
    found = plan_for_speedup(network, 1.2, SIZE, profile, tolerance=0.02, **options)
    assert 1.2 * 0.98 <= found.measured.value <= 1.2 * 1.05
    assert len(asked) > 1 and asked[-1] > asked[0] >= 1.2
    assert found.predicted == pytest.approx(found.plan.reached)
    assert costs_of(found.network, SIZE).macs == found.plan.after["macs"]


def test_a_speedup_that_is_not_measured_is_an_error(dense: Network, ideal: Profile) -> None:
    network, profile = dense, ideal
    options: dict[str, Any] = {"criterion": "l1", "round_to": 4, "protect": 0}
    with pytest.raises(TargetError, match=r"1\.2 times faster cannot be reached: 1\.05 times was measured"):
        plan_for_speedup(network, 1.2, SIZE, profile, measure=lambda *_: ratio(1.05), **options)
    with pytest.raises(TargetError, match=r"90 times faster cannot be reached: \d+\.\d\d times is the most"):
        plan_for_speedup(network, 90, SIZE, profile, **options)


def test_networks_are_measured_in_turn(dense: Network) -> None:
    found = measured_speedup(dense, apply_plan(dense, small_plan(dense)), SIZE, rounds=12)
    assert found.rounds == 12 and 0 < found.low <= found.value <= found.high


def test_sensitivity_grows_with_the_share(dense: Network) -> None:
    groups = find_groups(dense, protect=0)
    scores = channel_scores(dense, groups, "l2")
    before = {name: value.clone() for name, value in dense.train().state_dict().items()}
    pictures = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    errors = sensitivity(dense, groups, scores, pictures, shares=(0.25, 1.0))
    assert errors.keys() == groups.prunable().keys()
    assert all(by_share[0.25] > 0 for by_share in errors.values())
    # a random network may happen to suffer less from more; all together do not
    assert sum(by_share[1.0] for by_share in errors.values()) > 1.3 * sum(
        by_share[0.25] for by_share in errors.values()
    )
    assert dense.training
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    # the same as a network that is really pruned
    plan = plan_pruning(dense, Target(channels=0.001), SIZE, scores=scores, protect=0, round_to=4,
                        limits={**dict.fromkeys(groups.groups, 0.0), "model.3": 0.25})  # fmt: skip
    assert plan.counts() == {"model.3": (16, 12)}
    small = apply_plan(dense, plan).eval()
    dense.eval()
    with torch.no_grad():
        a, b = small(pictures), dense(pictures)
    expected = sum(float(((x - y) ** 2).mean() / y.var((0, 2, 3)).mean()) for x, y in zip(a, b, strict=True)) / 3
    assert errors["model.3"][0.25] == pytest.approx(expected, rel=1e-3)


def test_sensitivity_takes_any_measure(dense: Network) -> None:
    groups = find_groups(dense, protect=0)
    scores = channel_scores(dense, groups, "l1")
    found = sensitivity(dense, groups, scores, torch.rand(1, 3, *SIZE), shares=[1], error_of=lambda heads: 2.0)
    assert all(by_share == {1: 0.0} for by_share in found.values())
    with pytest.raises(DimensionError, match="shares is"):
        sensitivity(dense, groups, scores, torch.rand(1, 3, *SIZE), shares=[1.5])
    with pytest.raises(DimensionError, match=r"it takes \[N, 3, H, W\]"):
        sensitivity(dense, groups, scores, torch.rand(3, *SIZE))


def test_limits_stop_at_the_first_error_above_the_tolerance() -> None:
    errors = {"a": {0.25: 0.1, 0.5: 0.3, 0.75: 0.1}, "b": {0.25: 0.5}, "c": {0.5: 0.1}}
    assert limits_from(errors, 0.2) == {"a": 0.25, "b": 0.0, "c": 0.5}


def test_batch_norms_are_measured_anew(dense: Network) -> None:
    batches = [torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    momenta = [m.momentum for m in dense.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    weights = {name: value.clone() for name, value in dense.named_parameters()}
    assert recalibrate(dense, batches) is dense and not dense.training
    first = dense.get_submodule("model.0")
    with torch.no_grad():
        maps = [first.conv(batch) for batch in batches]
    mean = torch.stack([one.mean((0, 2, 3)) for one in maps]).mean(0)
    spread = torch.stack([one.var((0, 2, 3)) for one in maps]).mean(0)
    torch.testing.assert_close(first.bn.running_mean, mean)
    torch.testing.assert_close(first.bn.running_var, spread)
    assert momenta == [m.momentum for m in dense.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(torch.equal(value, weights[name]) for name, value in dense.named_parameters())


def test_recalibration_is_whole_or_not_at_all(dense: Network) -> None:
    before = {name: value.clone() for name, value in dense.tensors().items()}

    def broken() -> Any:
        yield torch.rand(1, 3, *SIZE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(dense, broken())
    with pytest.raises(DimensionError, match="batches is empty"):
        recalibrate(dense, [])
    assert all(torch.equal(value, before[name]) for name, value in dense.tensors().items())
    assert not any(module.training for module in dense.modules())
