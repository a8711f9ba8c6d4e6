"""Networks that get another activation function: every one, nothing else, and in files as well."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.same_graph import assert_graph_computes_the_same  # noqa: E402

from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.train.activation import activations_of, with_activation  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return new_network("n", ["bright", "dark"], seed=4).eval()


@pytest.mark.parametrize(("name", "kind"), [("hardswish", torch.nn.Hardswish), ("relu", torch.nn.ReLU)])
def test_all_are_replaced_and_weights_stay(network, name, kind, tmp_path):
    other = with_activation(network, name)
    places = [part for part in other.modules() if isinstance(part, torch.nn.SiLU | torch.nn.Hardswish | torch.nn.ReLU)]
    assert len(places) == 57 and all(isinstance(part, kind) for part in places)
    state = other.state_dict()
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    again = load_network(save_network(other, tmp_path / "other.pt"))
    assert activations_of(again) == activations_of(other)
    assert activations_of(network) == {"SiLU": 57}


@pytest.mark.parametrize("name", ["hardswish", "relu"])
def test_the_graph_computes_what_pytorch_computes(network, name, tmp_path):
    other = with_activation(network, name)
    assert_graph_computes_the_same(other, tmp_path / "other.pt", (64, 64))


def test_nothing_becomes_dearer(network):
    cheap = with_activation(network, "relu")
    assert activations_of(with_activation(cheap, "hardswish")) == {"ReLU": 57}
    assert activations_of(with_activation(with_activation(network, "hardswish"), "relu")) == {"ReLU": 57}


def test_an_unknown_one(network):
    with pytest.raises(DimensionError, match="gelu"):
        with_activation(network, "gelu")
