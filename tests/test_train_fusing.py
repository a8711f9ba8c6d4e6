"""Batch norms multiplied into convolutions: the same numbers, in fewer operations, for every reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo.evaluate.judge import run_pictures  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def apart(one: list, other: list) -> float:
    """The largest difference, relative to the largest number."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize("focus", [False, True])
def test_the_same_in_fewer_operations(focus: bool) -> None:
    network = tiny_network(focus=focus)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = fuse_batch_norms(network.train())
    assert norms(network) == 16 and norms(fused) == 0
    assert network.training and not fused.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        assert apart(network.eval()(x), fused(x)) < 2e-6
    assert fused.names == network.names and fused.strides == network.strides
    assert (type(fused.model[0]).__name__ == "ConvBlock") and fused.model[0].conv.kernel_size == (6, 6)


def test_it_is_a_network_like_any_other(tmp_path: Path) -> None:
    network = tiny_network(1, focus=True)
    fused = fuse_batch_norms(network)
    again = load_network(save_network(fused, tmp_path / "fused.pt")).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert apart(fused(x), again(x)) == 0
        assert apart(fused(x), fuse_batch_norms(fused)(x)) == 0
    pictures = tiny_pictures(1)
    graphs = [build_model(one.checkpoint(tmp_path / "x.pt"), (64, 64)) for one in (network, fused)]
    heads = [run_pictures(model, card, pictures)[0] for model, card in graphs]
    assert apart(*heads) < 2e-6 and graphs[0][1] == graphs[1][1]


def test_gradients_reach_every_weight() -> None:
    fused = fuse_batch_norms(tiny_network()).train()
    sum(head.square().mean() for head in fused(torch.rand(1, 3, 64, 64))).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in fused.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5n", "custom-2021-focus-spp-2class", "experimental-c3x-dwconv"])
def test_real_networks(shared: Path, name: str) -> None:
    network = load_network(shared / "weights" / f"{name}.pt").eval()
    fused = fuse_batch_norms(network)
    assert norms(fused) == 0
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert apart(network(x), fused(x)) < 1e-5
