"""Where cheaper activation functions go: everywhere where they are asked for, else no further than the speed needs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: compression is not tested")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ovyolo.compress import cheaper  # noqa: E402
from ovyolo.compress.cheaper import activation_goes, with_cheaper_activations  # noqa: E402
from ovyolo.compress.recipe import Recipe  # noqa: E402
from ovyolo.train.activation import activations_of, dearer_activations, with_activation  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402

NETWORK = new_network("n", ["scratch"], seed=3).eval()
WORTH = dearer_activations(NETWORK, "hardswish")
HARMS = dict(zip(WORTH, np.random.default_rng(0).permutation(len(WORTH)).tolist(), strict=True))
PLACES = sorted(WORTH, key=lambda place: HARMS[place] / WORTH[place])


class Machine:
    """On which each of the first places saves a little; counts what it is asked to measure."""

    def __init__(self, **recipe):
        self.recipe = Recipe(**recipe)
        self.measured: list[int] = []
        self.said: list[str] = []
        self.say = self.said.append
        self.journal = self

    def measure(self, _name, _what):
        return HARMS

    def reached(self, network):
        self.measured.append(activations_of(network).get("Hardswish", 0))
        return 2.0 + 0.02 * self.measured[-1]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(cheaper, "is_enough", lambda run, network: run.reached(network) >= run.recipe.speedup)
    monkeypatch.setattr(cheaper, "inputs_of", lambda run: [torch.from_numpy(np.zeros((1, 3, 64, 64), np.float32))])


@settings(deadline=None, max_examples=4)
@given(st.integers(1, len(PLACES)))
def test_as_few_places_as_the_speed_needs(wanted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cheaper, "recalibrate", lambda network, _: network)
        run = Machine(speedup=2.0 + 0.02 * wanted - 0.01)
        assert activation_goes(run, NETWORK)
        network = with_cheaper_activations(run, NETWORK)
    changed = [name for name, part in network.named_modules() if isinstance(part, torch.nn.Hardswish)]
    assert sorted(changed) == sorted(PLACES[:wanted])
    assert len(run.measured) <= 8 and f"{wanted} of {len(PLACES)}" in run.said[-1]


def test_all_of_them_where_all_are_not_enough():
    run = Machine(speedup=9.0)
    network = with_cheaper_activations(run, NETWORK)
    assert activations_of(network) == {"Hardswish": len(PLACES)} and run.measured == [len(PLACES)] and not run.said


@pytest.mark.parametrize("recipe", [{"activation": "hardswish", "speedup": 2.1}, {"speedup": None, "macs": 0.5}])
def test_all_of_them_where_no_speed_decides(recipe):
    run = Machine(**recipe)
    assert activation_goes(run, NETWORK)
    assert activations_of(with_cheaper_activations(run, NETWORK)) == {"Hardswish": len(PLACES)} and not run.measured


def test_none_where_none_is_needed():
    assert not activation_goes(Machine(activation="keep"), NETWORK)
    assert not activation_goes(Machine(speedup=1.9), NETWORK)
    assert not activation_goes(Machine(speedup=3.0), with_activation(NETWORK, "hardswish"))


def test_batch_norms_are_measured_anew():
    network = with_cheaper_activations(Machine(activation="relu"), NETWORK)
    old, new = NETWORK.state_dict(), network.state_dict()
    changed = {key for key, value in old.items() if not torch.equal(value, new[key])}
    assert changed and all("running" in key or "num_batches" in key for key in changed)


def test_speeds_are_compared_as_finely_as_they_are_measured(monkeypatch):
    from ovyolo.compress import pruning

    run = Machine(speedup=3.0)
    for found, enough in ((3.1, True), (2.96, True), (2.9, False)):
        monkeypatch.setattr(pruning, "reached", lambda run, network, found=found: found)
        assert pruning.is_enough(run, NETWORK) is enough
    run = Machine(speedup=None, macs=0.5)
    monkeypatch.setattr(pruning, "reached", lambda run, network: 0.495)
    assert not pruning.is_enough(run, NETWORK)


def test_what_a_place_does_is_measured_on_the_heads():
    from pathlib import Path

    from ovyolo.export.graph import build_model

    _, card = build_model(NETWORK.checkpoint(Path("n.pt")), (64, 64))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    told: list[int] = []
    places = [PLACES[0], PLACES[-1], "model.0.act"]
    harms = cheaper.activation_harms(NETWORK, "relu", places, [picture], card, told.append)
    assert list(harms) == places and min(harms.values()) >= 0 and told == [1, 2, 3]
    same = cheaper.activation_harms(with_activation(NETWORK, "relu"), "hardswish", places, [picture], card)
    assert set(same.values()) == {0.0}  # nothing is put in for what is cheaper
