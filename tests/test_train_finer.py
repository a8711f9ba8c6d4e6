"""A level of stride 4 for trained networks: what was there is kept, what is new trains, and all rooms take it."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.same_graph import assert_graph_computes_the_same  # noqa: E402
from reference.squares import write_squares  # noqa: E402

from ovyolo import Detector  # noqa: E402
from ovyolo.cli import main  # noqa: E402
from ovyolo.errors import DimensionError, OvyoloError, UnsupportedModelError  # noqa: E402
from ovyolo.train.activation import activations_of, with_activation  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402
from ovyolo.train.finer import with_finer_level  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402

STRIDES = {"p2-p5": (4, 8, 16, 32), "p2-p4": (4, 8, 16)}


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return new_network("n", ["bright", "dark"], seed=4).eval()


def outputs(network, x, layers):
    seen = {}
    hooks = [
        network.model[i].register_forward_hook(lambda _m, _x, out, i=i: seen.__setitem__(i, out.clone()))
        for i in layers
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("levels", STRIDES)
@pytest.mark.parametrize("size", ["n", "s"])
def test_what_was_there_is_kept(levels, size, tmp_path):
    network = new_network(size, ["bright", "dark"], seed=4).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    finer = with_finer_level(network, levels)
    assert finer.strides == STRIDES[levels] and not finer.training
    x = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    old, new = outputs(network, x, range(18)), outputs(finer, x, range(18))
    assert all(torch.equal(old[i], new[i]) for i in old)
    old_way, new_way = {18: 25, 20: 27}, finer.state_dict()
    for a, b in (old_way | {21: 28, 23: 30} if levels == "p2-p5" else old_way).items():
        tensors = {key: value for key, value in before.items() if key.startswith(f"model.{a}.")}
        assert tensors and all(
            torch.equal(new_way[f"model.{b}{k[len(f'model.{a}') :]}"], v) for k, v in tensors.items()
        )
    for level in range(1, len(finer.strides)):
        assert torch.equal(finer.head.m[level].weight, network.head.m[level - 1].weight)
    with torch.no_grad():
        heads = finer(x)
    assert [tuple(one.shape) for one in heads] == [(2, 21, 96 // s, 128 // s) for s in finer.strides]
    pixels, were = finer.anchors_in_pixels(), network.anchors_in_pixels()
    assert torch.allclose(pixels[0], were[0] / 2) and torch.allclose(pixels[1:], were[: len(pixels) - 1])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    again = load_network(save_network(finer, tmp_path / "finer.pt")).eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), heads, strict=True))


def test_the_graph_computes_the_same_and_the_seed_decides(network, tmp_path):
    finer = with_finer_level(network, seed=1)
    assert_graph_computes_the_same(finer, tmp_path / "finer.pt", (64, 96))
    same, other = with_finer_level(network, seed=1), with_finer_level(network, seed=2)
    assert torch.equal(same.head.m[0].weight, finer.head.m[0].weight)
    assert not torch.equal(other.head.m[0].weight, finer.head.m[0].weight)


def test_new_layers_have_the_activation_of_their_neighbours(network):
    finer = with_finer_level(with_activation(network, "relu"))
    assert activations_of(finer).keys() == {"ReLU"}


def test_every_generation_of_the_layout(shared):
    from ovyolo.export.checkpoint import class_name

    tried = 0
    for path in sorted((shared / "weights").glob("*.pt")):
        try:
            network = load_network(path)
        except OvyoloError:  # there are files that are to be refused
            continue
        if network.strides != (8, 16, 32) or len(network.model) != 25:
            continue
        finer = with_finer_level(network.eval(), "p2-p4")
        with torch.no_grad():
            assert [one.shape[2] for one in finer(torch.zeros(1, 3, 64, 64))] == [16, 8, 4], class_name(
                network.record()
            )
        tried += 1
    assert tried >= 3


def test_bad_input(network):
    with pytest.raises(DimensionError, match="p1"):
        with_finer_level(network, "p1-p3")
    with pytest.raises(UnsupportedModelError, match="4, 8, 16, 32"):
        with_finer_level(with_finer_level(network))


@pytest.mark.slow
@pytest.mark.parametrize("levels", STRIDES)
def test_it_trains_exports_quantizes_and_detects(levels, network, tmp_path, capsys):
    pytest.importorskip("nncf", reason="nncf is not installed: quantization is not tested")
    data = write_squares(tmp_path / "squares", train=16, val=6)
    start = save_network(network, tmp_path / "start.pt")
    words = ["train", str(start), "--data", str(data), "-o", str(tmp_path / "run"), "--levels", levels, "--epochs", "2"]
    words += ["--imgsz", "64", "--batch", "8", "--precision", "f32", "--device", "cpu", "--quiet"]
    assert main(words) == 0
    best = tmp_path / "run" / "best.pt"
    assert load_network(best).strides == STRIDES[levels]
    # a network that is given such a level and has one says so
    assert main([*words[:1], str(best), *words[2:5], str(tmp_path / "again"), *words[6:]]) == 2
    assert "levels of strides 4, 8, 16" in capsys.readouterr().err
    float_ir, small = str(tmp_path / "f.xml"), str(tmp_path / "8.xml")
    assert main(["export", str(best), "-o", float_ir, "--imgsz", "64"]) == 0
    if levels == "p2-p5":  # each once: neither knows levels by name
        assert main(["quantize", float_ir, "--data", str(data), "-o", small, "--quiet"]) == 0
    else:
        words = ["compress", str(best), "--data", str(data), "-o", small, "--imgsz", "64", "--macs", "0.2"]
        words += ["--batch", "8", "--prune-steps", "1", "--recover-epochs", "1", "--ptq-only", "--no-baseline"]
        words += ["--levels", "keep", "--activation", "keep"]
        assert main([*words, "--precision", "f32", "--device", "cpu", "--quiet"]) == 0
        assert json.loads((tmp_path / "8.compress.json").read_text())["steps"][-1]["name"] == "INT8"
    picture = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    for path in (float_ir, small):
        detector = Detector(path, conf=0.01)
        assert detector.card.head.strides == STRIDES[levels]
        assert detector(picture).nonfinite == 0 and detector(picture, tile=64).nonfinite == 0
