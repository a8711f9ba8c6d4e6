"""Networks that lose their coarsest levels: what stays computes what it did, under the names that it had."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: levels are removed with it")

import numpy as np  # noqa: E402
from reference.same_graph import assert_graph_computes_the_same  # noqa: E402

from ovyolo.compress.levels import idle_levels, layer_strides, without_coarse_maps, without_levels  # noqa: E402
from ovyolo.dataset import DataSet, Item  # noqa: E402
from ovyolo.errors import DimensionError, UnsupportedModelError  # noqa: E402
from ovyolo.evaluate.predictions import Predictions  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402
from ovyolo.train.loss import DetectionLoss, LossSettings  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    made = new_network("n", ["bright", "dark"], seed=4)
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.train()(x)  # batch norms that are not the identity
    return made.eval()


@pytest.fixture
def picture():
    return torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(1))


def count(network):
    return sum(one.numel() for one in network.parameters())


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_the_levels_that_stay_say_the_same(network, picture, gone):
    less = without_levels(network, gone)
    assert less.strides == (8, 16, 32)[: 3 - gone] and less.head.anchors.shape == (3 - gone, 3, 2)
    with torch.no_grad():
        for ours, theirs in zip(less(picture), network(picture)[: 3 - gone], strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(less.anchors_in_pixels(), network.anchors_in_pixels()[: 3 - gone])
    kept = less.tensors()
    assert all(torch.equal(value, network.tensors()[name]) for name, value in kept.items() if "anchors" not in name)
    gone_layers = [index for index, layer in enumerate(less.model) if isinstance(layer, torch.nn.Identity)]
    assert gone_layers == [*range(24 - 3 * gone, 24)]


def test_levels_are_counted_by_stride_not_by_place(network, picture):
    """A head may name its coarsest level first."""
    import copy

    from ovyolo.export.checkpoint.own_format import record_of
    from ovyolo.train.network import Network

    description, tensors = copy.deepcopy(network.description), network.tensors()
    head = description["parts"]["model"]["parts"]["24"]
    head["attributes"]["f"] = [23, 17, 20]
    order = {0: 2, 1: 0, 2: 1}
    turned = {name: value for name, value in tensors.items() if ".24." not in name}
    for new, old in order.items():
        for leaf in ("weight", "bias"):
            turned[f"model.24.m.{new}.{leaf}"] = tensors[f"model.24.m.{old}.{leaf}"]
    turned["model.24.anchors"] = tensors["model.24.anchors"][[2, 0, 1]]
    arrays = {name: value.detach().numpy() for name, value in turned.items()}
    other = Network(record_of(description, arrays), network.names, (32, 8, 16)).eval()
    less = without_levels(other, 1)
    assert less.strides == (8, 16)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(less(picture), network(picture), strict=False))


@pytest.mark.parametrize("gone", [1, 2])
def test_without_coarse_maps_it_computes_as_if_they_were_zero(network, picture, gone):
    less = without_levels(network, gone)
    cut = without_coarse_maps(less)
    assert max(layer_strides(cut).values()) == max(cut.strides) == 32 >> gone
    lost = {1: {13: 128}, 2: {17: 64}}[gone]
    for layer, channels in lost.items():
        for convolution in (less.model[layer].cv1.conv, less.model[layer].cv2.conv):
            with torch.no_grad():
                convolution.weight[:, :channels] = 0
    with torch.no_grad():
        for ours, theirs in zip(cut(picture), less(picture), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert count(cut) < (0.3 if gone == 1 else 0.05) * count(network)
    assert cut.tensors().keys() <= network.tensors().keys()


def test_nothing_is_cut_that_a_head_needs(network):
    assert count(without_coarse_maps(network)) == count(network)


@pytest.mark.parametrize("gone", [1, 2])
def test_files_and_graphs(network, picture, gone, tmp_path):
    cut = without_coarse_maps(without_levels(network, gone))
    again = load_network(save_network(cut, tmp_path / "cut.pt")).eval()
    with torch.no_grad():
        expected = cut(picture)
        assert all(torch.equal(a, b) for a, b in zip(again(picture), expected, strict=True))
    assert len(again.strides) == 3 - gone
    assert_graph_computes_the_same(again, tmp_path / "cut.pt", (96, 64))


def test_a_cut_network_trains(network):
    cut = without_coarse_maps(without_levels(network, 1)).train()
    loss = DetectionLoss(cut.anchors_in_pixels(), cut.strides, 2, (64, 64), LossSettings())
    parts = loss(cut(torch.rand(2, 3, 64, 64)), torch.tensor([[0, 1, 30.0, 30.0, 20.0, 20.0]]))
    parts.total.backward()
    assert all(one.grad is not None for one in cut.parameters())


def test_one_level_has_to_stay(network):
    with pytest.raises(DimensionError, match="one has to stay"):
        without_levels(network, 3)


def test_maps_that_are_added_cannot_be_left_out(network, monkeypatch):
    import ovyolo.compress.levels as room

    original = room.trace

    def united(network):
        found = original(network)
        coarse, fine = found.slots["model.10.conv", "out"], found.slots["model.6.cv3.conv", "out"]
        found.unite((coarse[0], fine[0]))
        return found

    monkeypatch.setattr(room, "trace", united)
    with pytest.raises(UnsupportedModelError, match="cannot do without"):
        without_coarse_maps(without_levels(network, 1))


SMALL, LARGE = 20.0, 100.0  # pixels


def data_of(*sides):
    """One picture, with objects of these sides one beside the other."""
    x = np.arange(len(sides), dtype=np.float64)[:, None] * 128
    boxes = np.concatenate([x, np.zeros_like(x), x + np.array(sides)[:, None], np.array(sides)[:, None]], 1)
    height, width = 128, 128 * len(sides)
    item = Item(
        path=Path("board.png"), size=(height, width), boxes=boxes, class_id=np.zeros(len(sides), np.int32),
        area=np.array(sides) ** 2, crowd=np.zeros(len(sides), bool), image_id=0,
    )  # fmt: skip
    return DataSet(("bright", "dark"), (item,), Path("data.yaml"), "val", (0, 1))


def found_in(dataset, which, score=0.9):
    boxes = dataset.items[0].boxes[which]
    return Predictions(
        image=np.zeros(len(boxes), np.int64), class_id=np.zeros(len(boxes), np.int64),
        score=np.full(len(boxes), score), xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "idle"),
    [
        ([(), (0, 1)], 1),  # one of two hundred may go, two may not
        ([(0,), (0,)], 2),
        ([(0, 1)], 0),
        ([(200,)], 0),  # the only large one is found by this level alone
        ([(), (200,)], 1),
    ],
)
def test_a_level_is_idle_when_the_others_find_as_much(network, lost, idle):
    dataset = data_of(*[SMALL] * 200, LARGE)
    every = np.arange(201)
    told, said = iter([(), *lost]), []

    def find(_network):
        return found_in(dataset, np.setdiff1d(every, next(told)))

    assert idle_levels(network, dataset, find, say=said.append) == idle
    assert next(told, None) is None and len(said) == len(lost)
    assert all("stride" in line for line in said)


def test_how_much_a_level_may_find_alone_is_ones_own_choice(network):
    dataset = data_of(*[SMALL] * 200)
    every, fewer = np.arange(200), np.arange(196)  # without any level four of two hundred are lost
    for most_lost, idle in ((0.005, 0), (0.019, 0), (0.02, 2)):
        told = iter([every, fewer, fewer])
        assert idle_levels(network, dataset, lambda _, t=told: found_in(dataset, next(t)), most_lost) == idle


def test_the_finest_level_alone_can_be_compressed(network, tmp_path):
    """Maps of 32 pixels a cell are behind heads of 8: a picture of 16 pixels does not come through."""
    pytest.importorskip("nncf", reason="nncf is not installed: compression is not tested")
    from ovyolo.compress.qat.insert import insert_quantizers
    from ovyolo.compress.qat.sparsify import sparsify
    from ovyolo.train.activation import dearer_activations
    from ovyolo.train.fusing import fuse_batch_norms

    least = without_levels(network, 2)
    assert max(layer_strides(least).values()) == 32 and least.probe_side == 64
    assert len(dearer_activations(least, "hardswish")) == 45
    sparse = sparsify(fuse_batch_norms(least), 0.5)
    quantized = insert_quantizers(sparse, [torch.rand(1, 3, 64, 64)], ignored=["model.24"])
    assert [tuple(head.shape) for head in quantized(torch.rand(1, 3, 64, 96))] == [(1, 21, 8, 12)]


def test_a_size_that_does_not_fit_the_maps_behind_the_heads_is_refused(network, tmp_path, capsys):
    from ovyolo.cli import main

    checkpoint = save_network(without_levels(network, 2), tmp_path / "least.pt")
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "least.xml"), "--imgsz", "72"]) == 2
    assert "try a multiple of 32 or 64" in capsys.readouterr().err and not (tmp_path / "least.xml").exists()
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "least.xml"), "--imgsz", "96"]) == 0


@pytest.mark.parametrize(("count", "score"), [(49, 0.9), (200, 0.2)])
def test_who_finds_too_little_says_nothing_of_levels(network, count, score):
    dataset = data_of(*[SMALL] * 200)
    assert idle_levels(network, dataset, lambda _: found_in(dataset, np.arange(count), score)) == 0
