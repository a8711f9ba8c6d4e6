"""The maps before the heads, made fit for 8 bits: the same numbers, larger channels, finer steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.tiny_network import Maker, part, tiny_network, tiny_pictures  # noqa: E402

from ovyolo.compress.channels import Target, apply_plan, find_groups, masked, plan_pruning  # noqa: E402
from ovyolo.compress.qat import balance  # noqa: E402
from ovyolo.compress.qat.balance import balance_heads, scales_of  # noqa: E402
from ovyolo.compress.qat.check import check_ir  # noqa: E402
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import quantizers_of  # noqa: E402
from ovyolo.compress.qat.sparsify import effective_weights, sparsify  # noqa: E402
from ovyolo.compress.qat.state import load_trained, save_trained  # noqa: E402
from ovyolo.compress.qat.to_ir import trained_ir  # noqa: E402
from ovyolo.compress.tuning import maps_of  # noqa: E402
from ovyolo.evaluate.judge import run_pictures  # noqa: E402
from ovyolo.export.checkpoint.own_format import record_of  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.train.distill import tapped  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = tiny_pictures(6)
INPUTS = picture_tensors(PICTURES)


def uneven(network: Any, block: str) -> Any:
    """A copy in which two channels of what ``block`` gives are much larger than the others and read by less."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        convolution = made.get_submodule(f"{block}.conv")
        convolution.weight[:2] = 10 * convolution.weight[:2].abs()
        made.head.m[{"model.8.cv3": 0, "model.5.cv2": 1}[block]].weight[:, :2] /= 10
    return made


def apart(one: list, other: list) -> float:
    """The mean difference of heads, relative to their mean size."""
    return sum(float((a - b).abs().mean()) for a, b in zip(one, other, strict=True)) / sum(
        float(a.abs().mean()) for a in one
    )


def heads(network: Any) -> list:
    with torch.no_grad():
        return network(torch.cat(INPUTS))


def layers_before_the_heads(network: Any) -> list[str]:
    return [f"model.{i}" for i, layer in enumerate(list(network.model)[:-1]) if list(layer.parameters())]


@pytest.fixture(scope="module")
def network() -> Any:
    fused = fuse_batch_norms(tiny_network(2))
    for name in scales_of(balance_heads(fused, INPUTS)):
        fused = uneven(fused, name.removesuffix(".act.1"))
    return fused


@pytest.fixture(scope="module")
def balanced(network: Any) -> Any:
    return balance_heads(network, INPUTS)


def test_it_computes_the_same(network, balanced):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert apart(heads(network), heads(balanced)) < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not scales_of(network) and len(scales_of(balanced)) == len(network.strides)


def test_small_channels_become_larger(network, balanced):
    blocks = [name.removesuffix(".act.1") for name in scales_of(balanced)]
    shares = []
    for one in (network, balanced):
        with tapped(one, blocks) as outputs, torch.no_grad():
            one(torch.cat(INPUTS))
        largest = [output.abs().amax((0, 2, 3)) for output in outputs]
        shares.append([float(size.median() / size.max()) for size in largest])
    assert all(before < 0.15 and after > 2 * before for before, after in zip(*shares, strict=True))
    for block in blocks:
        factors = balanced.get_submodule(f"{block}.act.1").factors
        assert factors.min() == 1 and factors.max() <= 16


@pytest.mark.parametrize("louder", [1, 30])
def test_factors_err_less_than_none_and_than_all_there_could_be(network, louder, monkeypatch):
    """Where the large channels' weights are large, too, these are rounded the more coarsely for it."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        for head in made.head.m:
            head.weight[:, :2] *= louder
    expected, others = heads(made), layers_before_the_heads(made)

    def error() -> float:
        return apart(expected, heads(insert_quantizers(made, INPUTS, ignored=others)))

    chosen = error()
    monkeypatch.setattr(balance, "POWERS", [0.0])
    none = error()
    monkeypatch.setattr(balance, "POWERS", [1.0])
    assert 0 < chosen < min(0.95 * none, 1.05 * error())
    assert (chosen < 0.6 * none) is (louder == 1)


def test_a_second_time_nothing_changes(balanced):
    again = balance_heads(balanced, INPUTS)
    assert scales_of(again) == scales_of(balanced)
    for name in scales_of(again):
        one, other = (made.get_submodule(name).factors for made in (balanced, again))
        assert torch.allclose(one, other, rtol=1e-4)


def test_the_multiplication_costs_no_layer_its_eight_bits(network):
    quantized = insert_quantizers(network, INPUTS)
    model, card = trained_ir(quantized, 64)
    found = check_ir(quantized, model, card, PICTURES)
    assert found["in_8_bits"] == found["layers"] and found["overflowing"] == []
    assert found["executed_error"] < max(0.02, 2.5 * found["rounding_noise"])
    # it is rounded once: what multiplies is no input of a quantizer of its own
    assert not [name for name in quantizers_of(quantized) if "act/1/mul" in name and name.startswith("pre_hooks")]


def test_what_stays_in_floating_point_is_left_alone(network):
    last = f"model.{len(network.model) - 1}"
    for ignored in (("heads",), (last,)):
        assert not scales_of(insert_quantizers(network, INPUTS, ignored=ignored))
    one = insert_quantizers(network, INPUTS, ignored=(f"{last}.m.0",))
    assert len(scales_of(one)) == len(network.strides) - 1


def test_masks_stay_where_they_were(network):
    sparse = sparsify(network, 0.5)
    balanced = balance_heads(sparse, INPUTS)
    assert apart(heads(sparse), heads(balanced)) < 1e-5
    masks = effective_weights(balanced)
    assert masks.keys() == effective_weights(sparse).keys()
    for name, weight in effective_weights(sparse).items():
        assert torch.equal(weight == 0, masks[name] == 0), name


def test_it_is_saved_exported_and_pruned_like_any_other(balanced, tmp_path: Path):
    for path in (save_network(balanced, tmp_path / "a.pt"), save_trained(balanced, tmp_path / "b.pt")):
        assert apart(heads(balanced), heads(load_network(path).eval())) < 1e-6
        assert apart(heads(balanced), heads(load_trained(path)[0])) < 1e-6
    model, card = build_model(balanced.checkpoint(tmp_path / "c.pt"), (64, 64))
    for given, picture in zip(run_pictures(model, card, PICTURES), INPUTS, strict=True):
        with torch.no_grad():
            assert apart(balanced(picture), [torch.from_numpy(np.array(head)) for head in given]) < 1e-4
    smaller = apply_plan(
        balanced, plan := plan_pruning(balanced, Target(params=0.4), (64, 64), criterion="l1", protect=0)
    )
    dropped = {
        name: sorted(set(range(plan.sizes[name])) - set(kept)) for name, kept in plan.keep.items()
    }  # fmt: skip
    assert any(len(smaller.get_submodule(name).factors) < len(balanced.get_submodule(name).factors)
               for name in scales_of(smaller))  # fmt: skip
    with masked(balanced, find_groups(balanced, protect=0), dropped):
        expected = heads(balanced)
    assert apart(expected, heads(smaller)) < 1e-5


def test_maps_that_are_multiplied_are_not_compared_with_the_teachers(network, balanced):
    assert set(maps_of(network, network)) - set(maps_of(balanced, network)) == {
        ".".join(name.split(".")[:2]) for name in scales_of(balanced)
    }


def test_a_map_that_an_addition_makes_stays(network):
    """It has several makers, and one number a channel would have to fit them all; the other map is balanced."""
    maker = Maker(3)
    parts = {key: maker.conv(f"model.8.1.{key}", 16, 16) for key in ("cv1", "cv2")}
    description = copy.deepcopy(network.description)
    layers = description["parts"]["model"]["parts"]
    added = {"0": layers["8"], "1": part("Bottleneck", {"add": True}, parts)}
    layers["8"] = part("Sequential", dict(layers["8"]["attributes"]), added)
    tensors = {key.replace("model.8.", "model.8.0."): value.numpy() for key, value in network.tensors().items()}
    made = type(network)(record_of(description, {**tensors, **maker.tensors}), network.names, network.strides).eval()
    balanced = balance_heads(made, INPUTS)
    assert scales_of(balanced) == [name for name in scales_of(balance_heads(network, INPUTS)) if "model.8" not in name]
    assert len(scales_of(balanced)) == 1 and apart(heads(made), heads(balanced)) < 1e-5
