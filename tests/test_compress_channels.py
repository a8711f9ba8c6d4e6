"""Channels that are removed: what belongs together, and that the smaller network computes what the masked one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: channels are pruned with it")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from reference import torch_yolo as ref  # noqa: E402
from test_graph_layers import BLOCK, GENERATIONS, STEM, one_level, save  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo.compress.channels import (  # noqa: E402
    Plan,
    Target,
    apply_plan,
    costs_of,
    find_groups,
    masked,
    plan_pruning,
    recalibrate,
)
from ovyolo.core import shared_core  # noqa: E402
from ovyolo.errors import DimensionError, UnsupportedModelError  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.train.network import Network, load_network, save_network  # noqa: E402

SIZE = (64, 96)
WEIGHTS = ("yolov5n.pt", "yolov5n-v6.0.pt", "custom-2021-focus-spp-2class.pt", "experimental-c3x-dwconv.pt")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are slower on several threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(model: Any, folder: Path) -> Network:
    """With batch norms that keep every layer's signal alive: otherwise the last layers see next to nothing of the
    first, and a channel too many or too few there would go unnoticed."""
    network = load_network(save(model, folder / "m.pt")).eval()
    return recalibrate(network, [torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))])


def generation(name: str, folder: Path) -> Network:
    torch.manual_seed(3)
    return network_of(GENERATIONS[name]().eval(), folder)


def small_plan(network: Network, **options: Any) -> Plan:
    """Something of every group."""
    settings = {"criterion": "l1", "ranking": "uniform", "round_to": 2, "protect": 0, **options}
    return plan_pruning(network, Target(channels=0.3), SIZE, **settings)


def dropped(plan: Plan) -> dict[str, list[int]]:
    return {name: sorted(set(range(plan.sizes[name])) - set(kept)) for name, kept in plan.keep.items()}


def silence(network: Network, drop: Mapping[str, list[int]]) -> Network:
    """Zero what makes those channels: filters, biases, scales and shifts. Who reads them is not touched, so that this
    knows nothing of what the pruned network's readers lost. True where activations keep zero."""
    groups = find_groups(network, protect=0)
    with torch.no_grad():
        for name, units in drop.items():
            for (where, kind), positions in groups.groups[name].members.items():
                if kind not in ("norm", "out"):
                    continue
                chosen = [position for unit in units for position in positions[unit]]
                module = network.get_submodule(where)
                if kind == "norm":
                    module.weight[chosen] = 0
                    module.bias[chosen] = 0
                else:
                    if isinstance(module, nn.ConvTranspose2d):
                        size = module.weight.shape[1]
                        for channel in chosen:
                            rows = module.in_channels // module.groups
                            group, column = divmod(channel, size)
                            module.weight[group * rows : (group + 1) * rows, column] = 0
                    else:
                        module.weight[chosen] = 0
                    if module.bias is not None:
                        module.bias[chosen] = 0
    return network


def heads(network: Network, seed: int = 0) -> list[np.ndarray]:
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return [head.numpy() for head in network(x)]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert float(b.std()) > 1e-3
        assert float(np.abs(a - b).max()) <= 1e-5 * max(1.0, float(np.abs(b).max()))


def assert_ir_is_small(network: Network, dense: Network, path: Path) -> None:
    """The exported graph computes the same, and its constants have the channels of the small network."""
    import openvino as ov

    model, card = build_model(network.checkpoint(path), SIZE)
    image = np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)
    result = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image[None])
    x = torch.from_numpy(np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2))).float() / 255
    with torch.no_grad():
        for name, expected in zip(card.head.outputs, network(x), strict=True):
            b = expected.numpy()
            np.testing.assert_allclose(result[name], b, atol=2e-4 * float(b.std()) + 1e-6, rtol=1e-4)

    def weights(built: ov.Model) -> int:
        return sum(
            node.input_value(1).get_node().get_data().size
            for node in built.get_ordered_ops()
            if "Convolution" in node.get_type_name()
        )

    whole = weights(build_model(dense.checkpoint(path), SIZE)[0])
    lost = sum(p.numel() for p in dense.parameters()) - sum(p.numel() for p in network.parameters())
    assert weights(model) < whole - 0.5 * lost


def check(dense: Network, plan: Plan, path: Path) -> Network:
    before = heads(dense)
    small = apply_plan(dense, plan)
    assert_equal(heads(dense), before)  # left as it was
    with masked(dense, find_groups(dense), dropped(plan)):
        assert_equal(heads(small), heads(dense))
    assert_equal(heads(dense), before)
    for name, units in dropped(plan).items():  # every one of them mattered
        with masked(dense, find_groups(dense), {name: units}):
            assert max(np.abs(a - b).max() / b.std() for a, b in zip(heads(dense), before, strict=True)) > 1e-3
    assert list(small.state_dict()) == list(dense.state_dict())
    counted = costs_of(small, SIZE)
    assert (counted.macs, counted.params, counted.channels) == tuple(plan.after.values())
    assert counted.params == sum(p.numel() for p in small.parameters())
    assert_ir_is_small(small, dense, path)
    assert_equal(heads(load_network(save_network(small, path)).eval()), heads(small))
    return small


@pytest.mark.parametrize("name", GENERATIONS)
def test_generations(name: str, tmp_path: Path) -> None:
    dense = generation(name, tmp_path)
    plan = small_plan(dense)
    small = check(dense, plan, tmp_path / "small.pt")
    assert_equal(heads(small), heads(silence(dense, dropped(plan))))


@pytest.mark.parametrize("name", BLOCK)
def test_blocks(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    dense = network_of(one_level(ref.Conv(3, 16, 6, 2, 2).eval(), BLOCK[name]().eval()), tmp_path)
    plan = small_plan(dense)
    small = check(dense, plan, tmp_path / "small.pt")
    if name != "Sigmoid":  # which makes a half of zero
        assert_equal(heads(small), heads(silence(dense, dropped(plan))))


@pytest.mark.parametrize("name", STEM)
def test_first_layers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    dense = network_of(one_level(STEM[name]().eval(), ref.C3(16, 16).eval()), tmp_path)
    plan = small_plan(dense)
    small = check(dense, plan, tmp_path / "small.pt")
    assert_equal(heads(small), heads(silence(dense, dropped(plan))))


@pytest.mark.parametrize("name", WEIGHTS)
def test_real_weights(name: str, shared: Path, tmp_path: Path) -> None:
    dense = load_network(shared / "weights" / name).eval()
    plan = plan_pruning(dense, Target(macs=0.4), SIZE, criterion="l1", protect=0)
    small = check(dense, plan, tmp_path / "small.pt")
    assert_equal(heads(small), heads(silence(dense, dropped(plan))))


@given(st.sampled_from(sorted(GENERATIONS)), st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_any_choice_is_exact(name: str, seed: int) -> None:
    """Not only plans of ours: whatever is left of each group, one unit at least."""
    random = Random(seed)
    with TemporaryDirectory() as folder:
        dense = generation(name, Path(folder))
    groups = find_groups(dense, protect=0)
    keep = {
        group.name: sorted(random.sample(range(group.size), random.randint(1, group.size)))
        for group in groups.prunable().values()
        if random.random() < 0.7
    }
    plan = Plan(keep, {group.name: group.size for group in groups.groups.values()}, {}, {}, 0.0, "", {}, {})
    small = apply_plan(dense, Plan.from_json(plan.to_json()))
    for group_name, units in keep.items():
        where, spots = next((slot[0], spots) for slot, spots in groups.groups[group_name].members.items()
                            if slot[1] == "out")  # fmt: skip
        gone = (len(spots) - len(units)) * len(spots[0])
        assert small.get_submodule(where).out_channels == dense.get_submodule(where).out_channels - gone
    found = heads(small)
    for a, b in zip(found, heads(silence(dense, dropped(plan))), strict=True):
        assert float(np.abs(a - b).max()) <= 2e-5 * max(1.0, float(np.abs(b).max()))


def test_what_belongs_together(tmp_path: Path) -> None:
    groups = find_groups(generation("v7-p5", tmp_path), protect=0).groups
    # C3 with a shortcut: the bottleneck's output is added to cv1's
    assert groups["model.2.cv1"].producers == ["model.2.cv1", "model.2.m.0.cv2"]
    assert groups["model.2.m.0.cv1"].producers == ["model.2.m.0.cv1"]
    # model.4 is read by the next layer and, behind 16 channels of the top-down path, by a concatenation
    spots = groups["model.4.cv3"].members
    assert spots["model.5.conv", "in"][3] == [3]
    joined = [slot for slot, units in spots.items() if slot[1] == "in" and units[3] == [19]]
    assert {where.rpartition(".cv")[0] for where, _ in joined} == {"model.10"}
    # SPPF: four times the same channels
    pooled = groups["model.7.cv1"].members["model.7.cv2.conv", "in"]
    assert pooled[1] == [1, 9, 17, 25]


def test_the_picture_and_the_head_stay(tmp_path: Path) -> None:
    dense = generation("v5-focus-spp", tmp_path)
    kept = find_groups(dense, protect=0).kept()
    last = len(dense.model) - 1
    assert set(kept) == {f"model.{last}.m.{level}" for level in range(3)}
    small = apply_plan(dense, small_plan(dense))
    assert small.model[0].conv.conv.in_channels == 12
    assert [conv.out_channels for conv in small.head.m] == [conv.out_channels for conv in dense.head.m]


@pytest.mark.parametrize("protect", [2, ["model.0", "model.1", "model.4.cv3"]])
def test_protected_layers(protect: Any, tmp_path: Path) -> None:
    dense = generation("v7-p5", tmp_path)
    small = apply_plan(dense, small_plan(dense, protect=protect))
    for name in ("model.0.conv", "model.1.conv", *(["model.4.cv3.conv"] if isinstance(protect, list) else [])):
        assert small.get_submodule(name).out_channels == dense.get_submodule(name).out_channels
    assert small.get_submodule("model.3.conv").out_channels < dense.get_submodule("model.3.conv").out_channels


def test_attention_is_kept_and_named(tmp_path: Path) -> None:
    dense = network_of(one_level(ref.Conv(3, 16, 6, 2, 2).eval(), ref.C3TR(16, 16).eval()), tmp_path)
    plan = small_plan(dense)
    assert plan.kept["model.1.cv1"] == "model.1.m: attention mixes its channels"
    small = apply_plan(dense, plan)
    assert small.get_submodule("model.1.cv1.conv").out_channels == 8
    assert small.get_submodule("model.1.cv2.conv").out_channels < 8


class Strange(nn.Conv2d):
    """Might do anything with its channels."""

    def forward(self, x: Any) -> Any:
        return super().forward(x).flip(1)


def test_unknown_modules_are_kept_and_named(tmp_path: Path) -> None:
    dense = generation("v7-p5", tmp_path)
    conv = dense.get_submodule("model.3.conv")
    conv.__class__ = Strange
    kept = find_groups(dense, protect=0).kept()
    assert kept["model.2.cv3"] == "model.3.conv: Strange is not known"
    small = apply_plan(dense, small_plan(dense))
    assert small.get_submodule("model.3.conv").weight.shape == conv.weight.shape
    dense.model[3].conv = nn.PixelShuffle(1)
    with pytest.raises(UnsupportedModelError, match=r"model\.3\.conv: PixelShuffle is not known"):
        find_groups(dense)


def test_it_trains_and_can_be_pruned_again(tmp_path: Path) -> None:
    dense = generation("ghost", tmp_path)
    once = apply_plan(dense, small_plan(dense)).train()
    loss = sum(head.square().mean() for head in once(torch.rand(2, 3, *SIZE)))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in once.parameters())
    assert once.training and not dense.training
    torch.optim.SGD(once.parameters(), 1e-3).step()
    check(once.eval(), small_plan(once), tmp_path / "twice.pt")


def test_a_plan_is_for_one_network(tmp_path: Path) -> None:
    dense = generation("v7-p5", tmp_path)
    plan = small_plan(dense)
    small = apply_plan(dense, plan)
    with pytest.raises(DimensionError, match=r"is for a group 'model\.0' of 16 channels, which this network has with"):
        apply_plan(small, plan)
    with pytest.raises(DimensionError, match=r"prunes the group .* which this network does not have"):
        apply_plan(generation("v3-csp-hardswish", tmp_path), plan)


def test_protect_is_checked(tmp_path: Path) -> None:
    dense = generation("v7-p5", tmp_path)
    with pytest.raises(DimensionError, match="protect is -1"):
        find_groups(dense, protect=-1)
    with pytest.raises(DimensionError, match=r"protect names the layer 'model\.99'"):
        find_groups(dense, protect=["model.99"])
