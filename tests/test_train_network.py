"""The trainable network: what a checkpoint says, what the graph computes, and what comes back from a file of ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference import torch_yolo as ty  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo.core import shared_core  # noqa: E402
from ovyolo.errors import CheckpointError, DimensionError, UnsupportedModelError  # noqa: E402
from ovyolo.export.checkpoint import read_checkpoint  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.train.architecture import new_network, with_anchors, with_classes  # noqa: E402
from ovyolo.train.network import Network, load_network, save_network  # noqa: E402

WEIGHTS = [
    "yolov5n.pt", "yolov5n-v6.0.pt", "yolov5s-v6.0.pt", "custom-2021-focus-spp-2class.pt",
    "experimental-c3x-dwconv.pt", "yolov5n-deeppcb.pt",
]  # fmt: skip


def torch_heads(network: Network, picture: np.ndarray) -> list[np.ndarray]:
    """Raw heads of a u8 BGR ``(n, h, w, 3)`` picture."""
    x = torch.from_numpy(picture[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return [head.numpy() for head in network.eval()(x)]


def graph_heads(path: Path, picture: np.ndarray) -> list[np.ndarray]:
    """The same of the graph that ``ovyolo export`` would make of a file."""

    model, _ = build_model(read_checkpoint(path), picture.shape[1:3])
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(picture)
    return [found[i] for i in range(len(compiled.outputs))]


def assert_same_heads(ours, theirs, tolerance=5e-5):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() <= tolerance * b.std()


def noise(size=(128, 192), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


@pytest.mark.parametrize("name", WEIGHTS)
def test_pytorch_and_the_graph_agree_for_every_generation(name, shared, tmp_path):
    source = shared / "weights" / name
    network = load_network(source)
    picture = noise()
    assert_same_heads(torch_heads(network, picture), graph_heads(source, picture))
    # and again for the same network from a file of ours
    ours = save_network(network, tmp_path / "ours.pt")
    assert_same_heads(graph_heads(ours, picture), graph_heads(source, picture))
    again = load_network(ours)
    assert again.names == network.names and again.strides == network.strides
    assert torch.equal(again.head.anchors, network.head.anchors)


@pytest.mark.parametrize("picture", ["bus", "zidane"])
def test_pytorch_agrees_with_the_golden_heads(picture, shared):
    golden = np.load(shared / "golden" / f"yolov5n-raw-{picture}.npz")
    heads = torch_heads(load_network(shared / "weights" / "yolov5n.pt"), golden["letterboxed"][None])
    assert_same_heads(heads, [golden[f"head{i}"] for i in range(3)], 2e-4)


BLOCKS = {
    "CSP": lambda: ty.BottleneckCSP(16, 16, n=2),
    "C3TR": lambda: ty.C3TR(16, 16, n=1),
    "C3SPP": lambda: ty.C3SPP(16, 16),
    "C3Ghost": lambda: ty.C3Ghost(16, 16),
    "GhostStride": lambda: ty.GhostBottleneck(16, 16, 3, 2),
    "CrossConv": lambda: ty.CrossConv(16, 16, shortcut=True),
    "ContractExpand": lambda: nn.Sequential(ty.Contract(2), ty.Conv(64, 64), ty.Expand(2)),
    "FReLU": lambda: ty.Conv(16, 16, 3, act=ty.FReLU(16)),
    "DWConvTranspose": lambda: ty.DWConvTranspose2d(16, 16, 2, 2),
    "SPP": lambda: ty.SPP(16, 16),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_every_layer_computes_what_the_reference_computes(block, tmp_path):
    torch.manual_seed(3)
    rows = [(-1, ty.Conv(3, 16, 3, 2)), (-1, BLOCKS[block]()), (-1, ty.Conv(16, 16, 1))]
    strides = {"GhostStride": 4, "DWConvTranspose": 1}
    head = ty.Detect(2, [[8, 9, 20, 22]], [16])
    head.stride = torch.tensor([float(strides.get(block, 2))])
    model = ty.Model([*rows, ([2], head)], ["a", "b"])
    ty.randomize(model)
    torch.save({"model": model}, tmp_path / "block.pt")
    network = load_network(tmp_path / "block.pt")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = model.eval()(x)[0], network.eval()(x)[0]
    assert torch.allclose(found, expected, atol=1e-5)
    network.train()(x)[0].square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.model[1].parameters())


def test_new_networks_have_the_known_sizes_and_weights_differ_by_seed():
    counts = {"n": 1_872_157, "s": 7_235_389}
    for size, count in counts.items():
        network = new_network(size, [f"class{i}" for i in range(80)])
        assert sum(p.numel() for p in network.parameters()) == count
    first, second, again = (new_network("n", ["a"], seed=s).model[0].conv.weight for s in (0, 1, 0))
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_a_new_network_becomes_an_ir(tmp_path):
    path = save_network(new_network("n", ["a", "b"]), tmp_path / "new.pt")
    assert_same_heads(torch_heads(load_network(path), noise()), graph_heads(path, noise()))


def test_another_head_keeps_boxes_and_known_classes():
    old = new_network("n", ["cat", "dog", "owl"])
    new = with_classes(old, ["dog", "fox"])
    for before, after in zip(torch_heads(old, noise()), torch_heads(new, noise()), strict=True):
        a = before.reshape(3, 8, *before.shape[2:])
        b = after.reshape(3, 7, *after.shape[2:])
        np.testing.assert_allclose(b[:, :5], a[:, :5], atol=1e-5)
        np.testing.assert_allclose(b[:, 5], a[:, 6], atol=1e-5)
    assert new.names == ("dog", "fox") and with_classes(new, ["dog", "fox"]) is new


def test_anchors_can_be_replaced():
    wanted = [[[8, 9], [10, 12], [14, 18]], [[20, 22], [30, 33], [40, 44]], [[60, 66], [90, 99], [120, 130]]]
    network = with_anchors(new_network("n", ["a"]), wanted)
    np.testing.assert_allclose(network.anchors_in_pixels().numpy(), wanted)
    with pytest.raises(DimensionError, match="anchors"):
        with_anchors(network, wanted[:2])


def test_files_of_ours_are_plain_tensors_and_text(tmp_path):
    path = save_network(new_network("n", ["a"]), tmp_path / "own.pt", figures="{}")
    content = torch.load(path, weights_only=True)
    assert set(content) == {"format", "version", "description", "tensors", "figures"}
    assert json.loads(content["description"])["names"] == ["a"]
    assert all(isinstance(value, torch.Tensor) for value in content["tensors"].values())


def broken(content, how):
    description = json.loads(content["description"])
    if how == "later version":
        content["version"] = 99
    elif how == "no json":
        content["description"] = "{"
    elif how == "no names":
        del description["names"]
    elif how == "stray tensor":
        content["tensors"]["model.99.weight"] = torch.zeros(1)
    elif how == "no tensor":
        content["tensors"]["model.0.conv.weight"] = "zeros"
    elif how == "lost tensor":
        del content["tensors"]["model.0.conv.weight"]
    elif how == "unknown layer":
        description["parts"]["model"]["parts"]["1"]["class"] = "Mystery"
    elif how == "deep":
        for _ in range(100):
            description = {"class": "Sequential", "parts": {"model": description}, "names": ["a"]}
    if how != "no json":
        content["description"] = json.dumps(description)
    return content


@pytest.mark.parametrize(
    "how",
    ["later version", "no json", "no names", "stray tensor", "no tensor", "lost tensor", "unknown layer", "deep"],
)
def test_damaged_files_of_ours_are_refused(how, tmp_path):
    path = save_network(new_network("n", ["a"]), tmp_path / "own.pt")
    torch.save(broken(torch.load(path, weights_only=True), how), path)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=r"own\.pt"):
        build_model(read_checkpoint(path), (64, 64))
    with pytest.raises((CheckpointError, UnsupportedModelError), match=r"own\.pt"):
        load_network(path)


@pytest.mark.parametrize("wrong", [{"architecture": "z"}, {"names": []}, {"anchors": [[[1, 2]]]}])
def test_wrong_arguments(wrong):
    with pytest.raises(DimensionError):
        new_network(**{"architecture": "n", "names": ["a"], **wrong})


def test_files_are_alike_where_networks_are(tmp_path):
    network = new_network("n", ["a"], seed=1)
    one, other = (save_network(network, tmp_path / folder / "net.pt") for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no limit of file sizes to play a full disk")
    network = new_network("n", ["a"], seed=1)
    path = save_network(network, tmp_path / "net.pt")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"net\.pt cannot be written: .*still whole"):
            save_network(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["net.pt"]
