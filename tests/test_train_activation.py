"""Networks that get another activation function: every one, nothing else, and in files as well."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.same_graph import assert_graph_computes_the_same  # noqa: E402

from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.train.activation import activations_of, dearer_activations, with_activation  # noqa: E402
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


def test_places_of_the_most_numbers_come_first(network):
    places = list(dearer_activations(network, "hardswish"))
    assert len(places) == len(set(places)) == 57 and places[0] == "model.0.act"
    numbers = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _m, _x, out, name=name: numbers.__setitem__(name, out.numel())
        )
        for name in places
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 192))
    for hook in hooks:
        hook.remove()
    assert [numbers[name] for name in places] == sorted(numbers.values(), reverse=True)
    assert dearer_activations(with_activation(network, "hardswish"), "hardswish") == {}


def test_only_some_places(network, tmp_path):
    places = list(dearer_activations(network, "hardswish"))
    other = with_activation(network, "hardswish", places[:5])
    assert activations_of(other) == {"Hardswish": 5, "SiLU": 52}
    changed = [name for name, part in other.named_modules() if isinstance(part, torch.nn.Hardswish)]
    assert sorted(changed) == sorted(places[:5])
    assert sorted(dearer_activations(other, "hardswish")) == sorted(places[5:])
    again = load_network(save_network(other, tmp_path / "mixed.pt"))
    assert activations_of(again) == {"Hardswish": 5, "SiLU": 52}
    assert_graph_computes_the_same(other, tmp_path / "other.pt", (64, 64))


def test_an_unknown_one(network):
    with pytest.raises(DimensionError, match="gelu"):
        with_activation(network, "gelu")
