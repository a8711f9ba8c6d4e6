"""Quantizers and masks in the PyTorch network: put in once, exact where it matters, trainable."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.fresh import run_python  # noqa: E402
from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402

from ovyolo.compress.qat.bridge import HOOKS, hooks_of  # noqa: E402
from ovyolo.compress.qat.insert import TRAINED, insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import (  # noqa: E402
    PairGuard,
    freeze_batch_norms,
    is_quantized,
    keep_bytes_exact,
    least_scales,
    parameter_groups,
    quantizers_of,
)
from ovyolo.compress.qat.sparsify import (  # noqa: E402
    MagnitudeSchedule,
    RegularizedSparsity,
    effective_weights,
    is_sparse,
    sparsify,
    zeros,
)
from ovyolo.compress.rounding import PAIR_LIMIT  # noqa: E402
from ovyolo.compress.scheme import Scheme  # noqa: E402
from ovyolo.errors import DimensionError, OvyoloError, UnsupportedModelError  # noqa: E402
from ovyolo.train.distill import head_loss  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

CALIBRATION = picture_tensors(tiny_pictures(4))


@pytest.fixture(scope="module")
def network() -> Any:
    return fuse_batch_norms(tiny_network())


@pytest.fixture(scope="module")
def quantized(network: Any) -> Any:
    return insert_quantizers(network, CALIBRATION)


def steps_of(quantizer: Any, weight: Any) -> np.ndarray:
    """The 8-bit integers that a weight becomes."""
    scale = quantizer.scale.detach()
    return torch.clamp(torch.round(weight.detach() / scale * 127), -127, 127).numpy().astype(int)


def train(module: Any, teacher: Any, steps: int = 6, lr: float = 1e-3, after: Any = None) -> list[float]:
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    batch = torch.cat(picture_tensors(tiny_pictures(4, seed=9)))
    losses = []
    for _ in range(steps):
        with torch.no_grad():
            wanted = teacher(batch)
        loss = head_loss(module.train()(batch), wanted, anchors=2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if after is not None:
            after()
    module.eval()
    return losses


# ------------------------------------------------------------------------------------------------------ quantizers


def test_quantizers_go_into_a_copy(network: Any, quantized: Any) -> None:
    assert is_quantized(quantized) and not is_quantized(network) and not hooks_of(network)
    assert not any(key.startswith(HOOKS) for key in network.state_dict())
    assert type(quantized) is type(network) and quantized.names == network.names and not quantized.training
    weights = [name for name in quantizers_of(quantized) if name.startswith("pre_hooks") and name.endswith("__1.0")]
    assert len(weights) == 18  # every convolution
    x = CALIBRATION[0]
    with torch.no_grad():
        for ours, theirs in zip(quantized(x), network(x), strict=True):
            assert 0 < float((ours - theirs).abs().max()) < 0.25 * float(theirs.abs().max())


def test_twice_is_refused(quantized: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="quantizers already"):
        insert_quantizers(quantized, CALIBRATION)
    with pytest.raises(UnsupportedModelError, match="sparsify it before"):
        sparsify(quantized, 0.5)


def test_layers_by_our_names_stay_in_floating_point(network: Any) -> None:
    made = insert_quantizers(network, CALIBRATION[:1], ignored=["model.9.m.0", "model.2"])
    names = " ".join(quantizers_of(made))
    # NNCF has one name for both heads; the second keeps its quantizer
    assert "model/9/conv2d/1" in names and "model/9/conv2d/0" not in names
    assert "model/2/cv1" not in names.replace("model/2/cv1/act", "") and "pre_hooks.model/1/" in names
    assert len(PairGuard(made)) == 12
    for wrong in ("model.25", "model.6", "9", ""):
        with pytest.raises(DimensionError, match="there is no layer"):
            insert_quantizers(network, CALIBRATION, ignored=[wrong])


def test_arguments_that_cannot_be(network: Any) -> None:
    with pytest.raises(DimensionError, match="no pictures"):
        insert_quantizers(network, [])
    with pytest.raises(DimensionError, match="nearest"):
        insert_quantizers(network, CALIBRATION, scheme=Scheme())


def test_the_cameras_bytes_are_kept_exactly(quantized: Any) -> None:
    inputs = [one for name, one in quantizers_of(quantized).items() if name.startswith("post_hooks.x__")]
    assert len(inputs) == 1
    every = torch.arange(256).float().reshape(1, 1, 16, 16) / 255
    with torch.no_grad():
        assert torch.equal((inputs[0](every) * 255).round(), every * 255)
        assert float((inputs[0](every) - every).abs().max()) < 1e-6
    assert not any(parameter.requires_grad for parameter in inputs[0].parameters())


def test_performance_preset_keeps_bytes_too(network: Any) -> None:
    made = insert_quantizers(network, CALIBRATION[:1], scheme=Scheme(rounding="nearest", preset="performance"))
    assert keep_bytes_exact(made) == 1
    (quantizer,) = (one for name, one in quantizers_of(made).items() if name.startswith("post_hooks.x__"))
    every = torch.arange(256).float().reshape(1, 1, 16, 16) / 255
    with torch.no_grad():
        assert float((quantizer(every) - every).abs().max()) < 1e-6


def test_parameters_by_what_they_are(quantized: Any) -> None:
    groups = parameter_groups(quantized)
    assert {name: len(group) for name, group in groups.items() if name != "quantizers"} == {
        "weights": 18, "biases": 18, "norms": 0, "masks": 0,
    }  # fmt: skip
    trainable = [p for p in quantized.parameters() if p.requires_grad]
    assert sum(map(len, groups.values())) == len(trainable)
    assert {id(p) for group in groups.values() for p in group} == {id(p) for p in trainable}
    assert len(groups["quantizers"]) > 18
    with_norms = parameter_groups(tiny_network())
    assert len(with_norms["norms"]) == 32 and len(with_norms["biases"]) == 2


def test_frozen_batch_norms_keep_their_statistics() -> None:
    network = tiny_network().train()
    assert freeze_batch_norms(network) == 16
    before = network.model[0].bn.running_mean.clone()
    network(torch.rand(2, 3, 64, 64))
    assert torch.equal(before, network.model[0].bn.running_mean) and network.training


def test_it_trains(network: Any, quantized: Any) -> None:
    student = copy.deepcopy(quantized)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    losses = train(student, network, steps=12)
    assert min(losses[-4:]) < 0.6 * losses[0]
    moved = [name for name, p in student.named_parameters() if p.requires_grad and not torch.equal(before[name], p)]
    assert sum(HOOKS in name for name in moved) > 18 and len(moved) > 54


# ---------------------------------------------------------------------------------------------------------- pairs


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from(["normal", "same", "heavy"]))
def test_at_the_least_scale_no_pair_overflows(seed: int, channels: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    weight = {"normal": rng.normal, "heavy": rng.standard_cauchy}.get(kind, rng.random)(size=(3, channels, 2, 2))
    weight = torch.tensor(weight, dtype=torch.float32)
    scale = least_scales(weight)
    steps = torch.round(weight / scale.view(-1, 1, 1, 1) * 127).numpy()
    assert np.abs(steps).max() <= 127
    steps = np.pad(steps, ((0, 0), (0, channels % 2), (0, 0), (0, 0)))
    for sign in (1, -1):
        part = np.maximum(sign * steps, 0)
        assert (part[:, 0::2] + part[:, 1::2]).max() <= PAIR_LIMIT


def test_the_guard_holds_while_training(network: Any, quantized: Any) -> None:
    student = copy.deepcopy(quantized)
    guard = PairGuard(student)
    assert len(guard) == 18 and guard() == 0
    train(student, network, lr=3e-2, after=guard)
    assert guard() == 0
    quantizer = quantizers_of(student)["pre_hooks.model/4/conv/conv2d/0__1.0"]
    steps = steps_of(quantizer, student.model[4].conv.weight)
    positive = np.maximum(steps, 0)
    assert (positive[:, 0::2] + positive[:, 1::2]).max() <= PAIR_LIMIT
    with torch.no_grad():
        quantizer.scale.mul_(0.4)
    assert guard() == 1


def test_half_range_leaves_the_guard_nothing_to_do(network: Any) -> None:
    half = insert_quantizers(network, CALIBRATION[:1], scheme=Scheme(rounding="nearest", overflow="half"))
    assert PairGuard(half)() == 0
    quantizer = quantizers_of(half)["pre_hooks.model/4/conv/conv2d/0__1.0"]
    assert np.abs(steps_of(quantizer, half.model[4].conv.weight)).max() in (63, 64)


# ---------------------------------------------------------------------------------------------------------- zeros


@pytest.mark.parametrize("how", ["global", "local"])
def test_the_smallest_weights_are_masked(network: Any, how: str) -> None:
    sparse = sparsify(network, 0.6, how=how, ignored=["model.0"])
    assert is_sparse(sparse) and not is_sparse(network)
    shares = zeros(sparse)
    assert shares[""] == pytest.approx(0.6, abs=0.003)
    assert "model.0.conv.weight" not in shares and len(shares) == 18
    spread = max(shares.values()) - min(shares.values())
    assert spread < 0.02 if how == "local" else spread > 0.05
    weight, masked = network.model[4].conv.weight, effective_weights(sparse)["model.4.conv.weight"]
    assert float(weight[masked == 0].abs().max()) <= float(weight[masked != 0].abs().min())
    with torch.no_grad():
        sparse.model[4].conv.weight.copy_(masked)  # masked weights compute as zeros, whatever is stored
        expected = [head.clone() for head in sparse(CALIBRATION[0])]
        sparse.model[4].conv.weight.add_(7.0 * (masked == 0))
        assert all(torch.equal(a, b) for a, b in zip(expected, sparse(CALIBRATION[0]), strict=True))


def test_zeros_survive_quantizing_and_training(network: Any) -> None:
    sparse = insert_quantizers(sparsify(network, 0.5), CALIBRATION[:2])
    places = {name: weight == 0 for name, weight in effective_weights(sparse).items()}
    guard = PairGuard(sparse)
    train(sparse, network, after=guard)
    assert zeros(sparse)[""] == pytest.approx(0.5, abs=0.003)
    assert all(torch.equal(places[name], weight == 0) for name, weight in effective_weights(sparse).items())
    # the schedule goes on where the quantized copy is
    schedule = MagnitudeSchedule(sparse, 0.7, 4, initial=0.5)
    assert schedule.step(4) == 0.7 and zeros(sparse)[""] == pytest.approx(0.7, abs=0.003)


def test_the_schedule_is_exponential_and_stateless(network: Any) -> None:
    sparse = sparsify(network)
    schedule = MagnitudeSchedule(sparse, 0.6, 4, initial=0.1)
    shares = [schedule.ratio(epoch) for epoch in range(6)]
    assert shares[0] == pytest.approx(0.1) and shares[4] == shares[5] == 0.6
    left = [1 - share for share in shares[:5]]
    assert [b / a for a, b in pairwise(left)] == pytest.approx([(0.4 / 0.9) ** 0.25] * 4)
    schedule.step(3)
    first = {name: mask.clone() for name, mask in effective_weights(sparse).items()}
    schedule.step(4)
    schedule.step(3)
    assert all(torch.equal(first[name], mask) for name, mask in effective_weights(sparse).items())


def test_regularized_masks_are_trained(network: Any) -> None:
    sparse = sparsify(network, how="regularized")
    term = RegularizedSparsity(sparse, 0.5)
    groups = parameter_groups(sparse)
    assert len(groups["masks"]) == 18 and len(groups["weights"]) == 18
    optimizer = torch.optim.Adam(groups["masks"], lr=0.05)
    torch.manual_seed(0)
    before = float(term().detach())
    for _ in range(120):
        loss = term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if zeros(sparse)[""] > 0.4:
            break
    assert zeros(sparse)[""] > 0.4 and before == pytest.approx(100.0)


def test_masks_are_refused_where_they_cannot_be(network: Any) -> None:
    for ratio in (-0.1, 1.0, float("nan")):
        with pytest.raises(DimensionError, match="share of zeros"):
            sparsify(network, ratio)
    with pytest.raises(DimensionError, match="how is"):
        sparsify(network, 0.5, how="structured")
    with pytest.raises(UnsupportedModelError, match="masks already"):
        sparsify(sparsify(network, 0.5), 0.6)
    with pytest.raises(UnsupportedModelError, match="no masks"):
        MagnitudeSchedule(network, 0.5, 3)
    with pytest.raises(UnsupportedModelError, match="no masks"):
        RegularizedSparsity(network, 0.5)


# ---------------------------------------------------------------------------------------------------- the door


def test_without_nncf_it_says_what_to_install(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(OvyoloError, match="pip install"):
        insert_quantizers(network, CALIBRATION)


def test_nothing_is_compiled(tmp_path: Path) -> None:
    """An edge PC has no compiler, and a first use that takes a minute more is a surprise."""
    code = """
import os, sys, warnings
os.environ.update(TORCH_EXTENSIONS_DIR=sys.argv[2], CXX="/no/compiler", PATH=os.path.dirname(sys.executable))
sys.path.insert(0, sys.argv[1])
from reference.tiny_network import tiny_network, tiny_pictures
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    made = insert_quantizers(tiny_network(), picture_tensors(tiny_pictures(1)))
    heads = made.train()(picture_tensors(tiny_pictures(1))[0])
    sum(head.square().mean() for head in heads).backward()
print([str(one.message) for one in caught if "ompil" in str(one.message)], len(os.listdir(sys.argv[2])))
"""
    assert run_python(code, Path(__file__).parent, tmp_path).split() == ["[]", "0"]


def test_nncf_may_have_been_loaded_without_torch() -> None:
    """Post-training quantization hides torch from NNCF; in the same process its PyTorch side must come up later."""
    code = """
from ovyolo.compress.nncf_bridge import load_nncf
load_nncf()
import sys
assert "torch" not in sys.modules
sys.path.insert(0, sys.argv[1])
from reference.tiny_network import tiny_network, tiny_pictures
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
from ovyolo.compress.qat.quantizers import quantizers_of
made = insert_quantizers(tiny_network(), picture_tensors(tiny_pictures(1)))
print(len(quantizers_of(made)), "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is not None)
"""
    words = run_python(code, Path(__file__).parent).split()
    assert int(words[0]) > 18 and words[1:] == ["False"]  # and nothing else was printed


def test_defaults_are_those_that_hold_on_every_cpu() -> None:
    assert (TRAINED.preset, TRAINED.overflow, TRAINED.weights) == ("mixed", "pairs", "symmetric")
