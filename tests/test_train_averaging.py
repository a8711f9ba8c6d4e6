"""The running average of weights: its ramp, what is averaged and what is copied, and networks with quantizers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.train.averaging import WeightAverage  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def filled(value: float) -> nn.Module:
    module = nn.BatchNorm2d(2)
    with torch.no_grad():
        module.weight.fill_(value)
        module.running_mean.fill_(-value)
    module.num_batches_tracked.fill_(int(value))
    return module


def test_the_ramp_is_as_defined() -> None:
    average = WeightAverage(filled(0.0), decay=0.9, tau=5.0)
    expected = 0.0
    for update in range(1, 20):
        average.update(filled(float(update)))
        share = 0.9 * (1 - math.exp(-update / 5.0))
        expected = expected * share + update * (1 - share)
        assert average.module.weight.tolist() == pytest.approx([expected] * 2, rel=1e-5)
        assert average.module.running_mean.tolist() == pytest.approx([-expected] * 2, rel=1e-5)
        assert int(average.module.num_batches_tracked) == update  # a counter has no mean
    assert average.updates == 19


def test_the_beginning_is_soon_forgotten() -> None:
    average = WeightAverage(filled(1e6), decay=0.9999, tau=2000.0)
    for _ in range(3):
        average.update(filled(1.0))
    assert average.module.weight.tolist() == pytest.approx([1.0, 1.0], abs=0.01)


def test_it_is_a_copy_that_does_not_train() -> None:
    network = tiny_network().train()
    average = WeightAverage(network)
    assert network.training and not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    before = network.model[0].conv.weight.detach().clone()
    average.update(tiny_network(1))
    assert torch.equal(before, network.model[0].conv.weight)


def test_it_goes_on_from_its_state() -> None:
    first = WeightAverage(tiny_network(), decay=0.9, tau=3.0)
    first.update(tiny_network(1))
    second = WeightAverage(tiny_network(2), decay=0.9, tau=3.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for average in (first, second):
        average.update(tiny_network(3))
    pairs = zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True)
    assert first.updates == second.updates == 2 and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"tau": 0.0}, {"decay": float("nan")}])
def test_what_cannot_be_averaged_with(arguments: dict[str, float]) -> None:
    with pytest.raises(DimensionError):
        WeightAverage(filled(0.0), **arguments)


def test_quantized_and_sparse_networks_stay_so() -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed: averages of quantized networks are not tested")
    from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
    from ovyolo.compress.qat.sparsify import MagnitudeSchedule, sparsify, zeros

    pictures = picture_tensors(tiny_pictures(2))
    network: Any = insert_quantizers(sparsify(tiny_network(), 0.2), pictures)
    average = WeightAverage(network, decay=0.5, tau=1e-9)
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dtype.is_floating_point:
                parameter.mul_(1.5)
    MagnitudeSchedule(network, 0.6, 1).step(1)
    average.update(network)
    # every weight, scale and range lies between, and the masks are today's
    for name, parameter in average.module.named_parameters():
        wanted = start[name] * 1.25 if parameter.dtype.is_floating_point else start[name]
        assert torch.allclose(parameter, wanted), name
    assert zeros(average.module)[""] == zeros(network)[""] == pytest.approx(0.6, abs=0.003)
    with torch.no_grad():
        assert all(bool(torch.isfinite(head).all()) for head in average.module(pictures[0]))
