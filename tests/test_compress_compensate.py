"""Weights of a network with quantizers, rounded together: less is lost, nothing overflows, zeros stay."""

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
from ovyolo.compress.qat.check import stored_weights  # noqa: E402
from ovyolo.compress.qat.compensate import in_floating_point, round_weights, rounded_layers, steps_of  # noqa: E402
from ovyolo.compress.qat.heads import heads_of  # noqa: E402
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import PairGuard  # noqa: E402
from ovyolo.compress.qat.sparsify import effective_weights, sparsify  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = tiny_pictures(6)
OTHERS = tiny_pictures(12)[6:]


@pytest.fixture(scope="module")
def quantized() -> Any:
    return insert_quantizers(fuse_batch_norms(tiny_network(width=16)), picture_tensors(PICTURES))


def widths_of(network: Any) -> dict[str, float]:
    return {layer.name: (1.0, 4.0, 11.3)[i % 3] for i, layer in enumerate(PairGuard(network).layers)}


def test_less_is_lost_than_by_rounding_each_weight_by_itself(quantized: Any) -> None:
    card = form_of(quantized, (64, 64))[1]
    widths = dict.fromkeys(widths_of(quantized), 16.0)
    x = torch.cat(picture_tensors(OTHERS))  # pictures that the rounding has not seen
    expected = heads_of(in_floating_point(quantized), x)

    def error(network: Any) -> float:
        return head_error(card, expected, heads_of(in_floating_point(network), x)).total

    together, alone = copy.deepcopy(quantized), copy.deepcopy(quantized)
    round_weights(together, widths, PICTURES)
    with torch.no_grad():
        for layer in PairGuard(alone).layers:
            steps, scale = steps_of(layer, 16.0)
            layer.parameter.copy_(steps * scale / 127)
    assert error(together) < 0.6 * error(alone)


def test_what_is_rounded_is_what_is_stored(quantized: Any) -> None:
    network, widths = copy.deepcopy(quantized), widths_of(quantized)
    round_weights(network, widths, PICTURES)
    rounded = {layer.name: steps_of(layer, widths[layer.name])[0] for layer in PairGuard(network).layers}
    PairGuard(network, widths)()
    for layer in PairGuard(network).layers:  # the guard gives the scale that the rounding counted on
        assert torch.equal(steps_of(layer, widths[layer.name])[0], rounded[layer.name])
    stored = stored_weights(form_of(network, (64, 64))[0])
    for name, steps in rounded.items():
        held = stored[name.removesuffix(".weight").removesuffix(".conv")]
        expected = steps.flip(1) if name.startswith("model.0.") else steps  # its colours the other way round
        assert (held.astype(int) == expected.numpy()).all()
        assert steps.abs().max() <= 127 // widths[name]
        assert largest_pair(held) <= 127 and largest_pair(steps.numpy()) <= 127


def largest_pair(steps: Any) -> int:
    """The largest sum of two neighbouring channels' steps of one sign."""
    pairs = steps[:, : steps.shape[1] // 2 * 2].astype(int).reshape(len(steps), -1, 2, steps[0, 0].size)
    return max(int(np.maximum(sign * pairs, 0).sum(axis=2).max()) for sign in (1, -1))


def test_the_network_is_left_as_it_is_and_each_layer_comes_once(quantized: Any) -> None:
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    done: list[int] = []
    names = [layer.name for layer, _ in rounded_layers(quantized, lambda _: 1.0, PICTURES, done.append)]
    assert sorted(names) == sorted(widths_of(quantized)) and done == list(range(1, len(names) + 1))
    assert all(torch.equal(before[name], value) for name, value in quantized.state_dict().items())


def test_zeros_of_a_sparse_network_stay() -> None:
    sparse = sparsify(fuse_batch_norms(tiny_network(width=16)), 0.5)
    network = insert_quantizers(sparse, picture_tensors(PICTURES))
    zeros = {name: weight == 0 for name, weight in effective_weights(network).items()}
    assert sum(int(mask.sum()) for mask in zeros.values()) > 100
    round_weights(network, dict.fromkeys(widths_of(network), 4.0), PICTURES)
    after = effective_weights(network)
    assert all((after[name][mask] == 0).all() for name, mask in zeros.items())


def test_mean_errors_are_taken_off_the_biases(quantized: Any) -> None:
    network = copy.deepcopy(quantized)
    widths = widths_of(quantized)
    layers = {layer.name: rounded for layer, rounded in rounded_layers(quantized, widths.__getitem__, PICTURES)}
    biases = {name: value.clone() for name, value in network.named_parameters() if name.endswith("bias")}
    round_weights(network, widths, PICTURES)
    changed = dict(network.named_parameters())
    seen = 0
    for name, rounded in layers.items():
        bias = f"{name.removesuffix('weight')}bias"
        if bias in biases and rounded.left is not None:
            assert torch.allclose(changed[bias], biases[bias] - rounded.left.float(), atol=1e-6)
            seen += bool(rounded.left.abs().max() > 1e-4)
    assert seen > 3
