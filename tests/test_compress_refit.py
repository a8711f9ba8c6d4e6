"""The last convolutions, fitted to what rounding made of their inputs; and steps wider where the heads mind less."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402

from ovyolo.compress.forms import form_of  # noqa: E402
from ovyolo.compress.head_error import head_error  # noqa: E402
from ovyolo.compress.qat import refit  # noqa: E402
from ovyolo.compress.qat.heads import heads_of  # noqa: E402
from ovyolo.compress.qat.influence import channel_influence  # noqa: E402
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import PairGuard  # noqa: E402
from ovyolo.compress.qat.refit import refit_heads  # noqa: E402
from ovyolo.compress.qat.sparsify import effective_weights, sparsify  # noqa: E402
from ovyolo.compress.qat.widen import WIDTHS, shapes_of, widths_at, zipped_sizes  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = tiny_pictures(24)
LEARNT, KEPT_BACK = picture_tensors(PICTURES[:16]), torch.cat(picture_tensors(PICTURES[16:]))
BEFORE_HEADS = ("model.8.cv3", "model.5.cv2")


@pytest.fixture(scope="module")
def network() -> Any:
    return fuse_batch_norms(tiny_network(4))


@pytest.fixture(scope="module")
def card(network: Any) -> Any:
    return form_of(network, (64, 64))[1]


def moved(network: Any) -> Any:
    """A copy whose maps before the heads are a little smaller and shifted, each channel by its own."""
    made = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in BEFORE_HEADS:
            convolution = made.get_submodule(f"{name}.conv")
            factors = 0.8 + 0.3 * torch.rand(len(convolution.bias), generator=generator)
            convolution.weight *= factors.view(-1, 1, 1, 1)
            convolution.bias += 0.1 * torch.rand(len(factors), generator=generator)
    return made


def error(card: Any, network: Any, other: Any) -> float:
    return head_error(card, heads_of(network, KEPT_BACK), heads_of(other, KEPT_BACK)).total


def test_what_maps_have_become_is_made_up_for(network, card):
    other = moved(network)
    before = error(card, network, other)
    assert refit_heads(other, network, LEARNT) == ["model.9.m.0", "model.9.m.1"]
    assert error(card, network, other) < 0.5 * before


def test_eight_bits_and_wide_steps_lose_less_after_it(network, card):
    quantized = insert_quantizers(network, LEARNT)
    widths = dict.fromkeys(zipped_sizes(quantized), 8.0)
    PairGuard(quantized, widths)()
    before = error(card, network, quantized)
    refit_heads(quantized, network, LEARNT, widths)
    assert error(card, network, quantized) < 0.9 * before
    assert PairGuard(quantized, widths)() == 0  # the scales fit the new weights already


def test_where_nothing_is_amiss_nothing_changes(network):
    other = copy.deepcopy(network)
    refit_heads(other, network, LEARNT)
    for a, b in zip(heads_of(network, KEPT_BACK)[0], heads_of(other, KEPT_BACK)[0], strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_few_pictures_teach_nothing(network, monkeypatch):
    other = moved(network)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    monkeypatch.setattr(refit, "SHOWN", 0.999)
    assert refit_heads(other, network, LEARNT[:2]) == []
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    assert not other.head.m[0]._forward_pre_hooks


def test_what_does_not_hold_for_others_is_not_learnt(network, monkeypatch):
    """Of a teacher who raves, one half of the pictures teaches nothing of the other."""
    generator = torch.Generator().manual_seed(1)

    class Raving(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return [head + 3 * torch.randn(head.shape, generator=generator) for head in network(x)]

    monkeypatch.setattr(refit, "SHOWN", 0.9)
    monkeypatch.setattr(refit, "OTHERS", 0.0)
    monkeypatch.setattr(refit, "LEAST_CELLS", 0)
    assert refit_heads(copy.deepcopy(network), Raving(), LEARNT[:4]) == []


def test_a_teacher_who_says_no_numbers_teaches_nothing(network):
    other = moved(network)
    mad = copy.deepcopy(network)
    with torch.no_grad():
        mad.head.m[0].bias[0] = float("nan")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    assert refit_heads(other, mad, LEARNT) == ["model.9.m.1"]
    assert torch.equal(before["model.9.m.0.weight"], other.state_dict()["model.9.m.0.weight"])


def test_it_is_the_regression_that_it_says(network, monkeypatch):
    """Against NumPy's least squares, of every cell, with the ridge as rows of its own."""
    monkeypatch.setattr(refit, "SHOWN", -1.0)
    other = moved(network)
    fitted = copy.deepcopy(other)
    refit_heads(fitted, network, LEARNT)
    seen: list[Any] = []
    handle = other.head.m[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows, left, counts = [], [], []
    with torch.no_grad():
        for x in LEARNT:
            wanted, said = network(x)[0][0], other(x)[0][0]
            inputs = seen[-1][0].flatten(1).T.double().numpy()
            rows.append(np.hstack([inputs, np.ones((len(inputs), 1))]))
            left.append((wanted - said).flatten(1).T.double().numpy())
            counts.append(wanted.unflatten(0, (2, -1))[:, 4].sigmoid().flatten(1).T.double().numpy() + 0.02)
    handle.remove()
    x, r, w = (np.concatenate(parts) for parts in (rows, left, counts))
    per_anchor = r.shape[1] // 2
    for output in (0, 4, per_anchor + 2):
        root = np.sqrt(w[:, output // per_anchor])[:, None]
        ridge = refit.RIDGE * np.mean(((root * x) ** 2).sum(0))
        a = np.vstack([root * x, np.sqrt(ridge) * np.eye(x.shape[1])])
        b = np.concatenate([root[:, 0] * r[:, output], np.zeros(x.shape[1])])
        expected = np.linalg.lstsq(a, b, rcond=None)[0]
        found = (fitted.head.m[0].weight - other.head.m[0].weight)[output].detach().flatten().numpy()
        assert np.allclose(found, expected[:-1], atol=1e-5 + 1e-3 * np.abs(expected).max())
        shift = (fitted.head.m[0].bias - other.head.m[0].bias).detach()[output]
        assert float(shift) == pytest.approx(expected[-1], abs=1e-4)


def test_zeros_stay_zeros(network):
    sparse = sparsify(moved(network), 0.5)
    before = effective_weights(sparse)
    assert refit_heads(sparse, network, LEARNT)
    after = effective_weights(sparse)
    assert all(torch.equal(before[name] == 0, after[name] == 0) for name in before)
    assert not torch.equal(before["model.9.m.0.weight"], after["model.9.m.0.weight"])


def test_influence_is_what_a_change_does(network, card):
    """The channels that the gradients name are those whose change moves the heads."""
    inputs = picture_tensors(PICTURES[:8])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = channel_influence(network, ["model.1.conv", "model.8.cv3.conv"], inputs)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for layer, influence in told.items():
        assert float(influence.mean()) == pytest.approx(1, rel=1e-4) and influence.min() >= 0
        measured = []
        for channel in range(len(influence)):
            other = copy.deepcopy(network)
            with torch.no_grad():
                other.get_submodule(layer).weight[channel] *= 1.02
                other.get_submodule(layer).bias[channel] += 0.02
            measured.append(error(card, network, other) ** 2)
        ranks = [np.argsort(np.argsort(values)) for values in (influence.numpy(), measured)]
        assert np.corrcoef(*ranks)[0, 1] > 0.5, layer


def test_steps_are_wider_where_heads_mind_less(network):
    quantized = insert_quantizers(network, LEARNT)
    shapes = shapes_of(quantized, PICTURES[:8])
    assert shapes.keys() == {layer.name for layer in PairGuard(quantized).layers}
    for name, shape in shapes.items():
        assert 1 / 8 <= shape.min() <= 1 <= shape.max() <= 8, name
        assert widths_at(shapes, name, 1.0) == 1.0
        widths = widths_at(shapes, name, 8.0)
        assert len(widths) == len(shape) and min(widths) >= 1 and max(widths) <= 64
    sizes = zipped_sizes(quantized, shapes)
    assert all(size[0] >= size[len(WIDTHS) // 2] >= size[-1] for size in sizes.values())
    widths = {name: widths_at(shapes, name, 8.0) for name in shapes}
    assert PairGuard(quantized, widths)() == len(shapes) and PairGuard(quantized, widths)() == 0
