"""Checkpoints with quantizers and masks: exact, plain, and refused when they are of something else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402

from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import PairGuard, is_quantized  # noqa: E402
from ovyolo.compress.qat.sparsify import MagnitudeSchedule, is_sparse, sparsify, zeros  # noqa: E402
from ovyolo.compress.qat.state import load_trained, save_trained  # noqa: E402
from ovyolo.errors import CheckpointError  # noqa: E402
from ovyolo.export.checkpoint import read_checkpoint  # noqa: E402
from ovyolo.train.distill import head_loss  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = picture_tensors(tiny_pictures(4))


@pytest.fixture(scope="module")
def made() -> Any:
    """A sparse, quantized network."""
    return insert_quantizers(sparsify(fuse_batch_norms(tiny_network()), 0.5), PICTURES)


@pytest.fixture
def file(made: Any, tmp_path: Path) -> Path:
    return save_trained(made, tmp_path / "trained.pt", epoch=3, recipe={"zeros": 0.5})


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    with torch.no_grad():
        heads = zip(one.eval()(PICTURES[0]), other.eval()(PICTURES[0]), strict=True)
        alike = all(torch.equal(x, y) for x, y in heads)
    return alike and set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def step(network: Any, teacher: Any, optimizer: Any, guard: Any, number: int) -> None:
    batch = torch.cat(picture_tensors(tiny_pictures(2, seed=number)))
    with torch.no_grad():
        wanted = teacher(batch)
    loss = head_loss(network.train()(batch), wanted, anchors=2)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    optimizer.step()
    guard()


def optimizer_of(network: Any) -> Any:
    return torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)


def test_what_is_loaded_is_what_was_saved(made: Any, file: Path) -> None:
    again, others = load_trained(file)
    assert others == {"epoch": 3, "recipe": {"zeros": 0.5}}
    assert same(made, again) and is_quantized(again) and is_sparse(again)
    frozen = [[name for name, p in one.named_parameters() if not p.requires_grad] for one in (made, again)]
    assert frozen[0] == frozen[1]


def test_training_goes_on_as_if_undisturbed(made: Any, tmp_path: Path) -> None:
    """Masks chosen anew and momentum, too: a killed run ends where an undisturbed one does."""
    teacher = fuse_batch_norms(tiny_network())
    whole = copy.deepcopy(made)
    optimizer, guard = optimizer_of(whole), PairGuard(whole)
    for number in range(2):
        step(whole, teacher, optimizer, guard, number)
    save_trained(whole, tmp_path / "half.pt")
    state = copy.deepcopy(optimizer.state_dict())

    resumed, _ = load_trained(tmp_path / "half.pt")
    other, other_guard = optimizer_of(resumed), PairGuard(resumed)
    other.load_state_dict(state)
    for network, one, hold in ((whole, optimizer, guard), (resumed, other, other_guard)):
        MagnitudeSchedule(network, 0.7, 3, initial=0.5).step(2)
        for number in range(2, 4):
            step(network, teacher, one, hold, number)
    assert same(whole, resumed)


def test_anybody_reads_the_plain_network(made: Any, file: Path) -> None:
    content = torch.load(file, weights_only=True)
    assert {type(value) for value in content["beyond"].values()} == {torch.Tensor}
    assert isinstance(content["hooks"], str) and json.loads(content["hooks"])["nncf"]
    plain = load_network(file)
    assert not is_quantized(plain)
    weight = plain.model[4].conv.weight
    assert float((weight == 0).float().mean()) == pytest.approx(zeros(made)["model.4.conv.weight"], abs=1e-6)
    checkpoint = read_checkpoint(file)
    assert list(checkpoint.names.values()) == ["open", "short"]
    assert checkpoint.epoch == 3


def test_plain_checkpoints_are_read_too(tmp_path: Path) -> None:
    network = tiny_network()
    again, others = load_trained(save_network(network, tmp_path / "plain.pt", note="x"))
    assert others == {"note": "x"} and not is_quantized(again) and not again.training
    unchanged, _ = load_trained(save_trained(network, tmp_path / "plain2.pt"))
    assert same(network, unchanged)


def test_regularized_masks_survive(tmp_path: Path) -> None:
    sparse = sparsify(fuse_batch_norms(tiny_network()), how="regularized")
    with torch.no_grad():
        for name, parameter in sparse.named_parameters():
            if name.endswith("mask"):
                parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(len(name)))
    again, _ = load_trained(save_trained(sparse, tmp_path / "rb.pt"))
    assert same(sparse, again) and 0.4 < zeros(again)[""] < 0.6


def edited(file: Path, change: Any) -> Path:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return file


def hooks(content: dict, change: Any) -> None:
    stored = json.loads(content["hooks"])
    change(stored["config"]["compression_state"])
    content["hooks"] = json.dumps(stored)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(hooks="{"),
        lambda content: content.update(hooks='{"config": 1, "nncf": 2}'),
        lambda content: hooks(content, lambda state: state[0].update(hook_names_in_model=[3])),
        lambda content: hooks(content, lambda state: state[0].update(hook_names_in_model=["pre_hooks.gone__0.0"])),
        lambda content: hooks(content, lambda state: state[0].update(module_path="os", module_cls_name="system")),
        lambda content: hooks(content, lambda state: state[0].update(module_path="nncf.torch.engine")),
        lambda content: hooks(content, lambda state: state[0].update(module_config={})),
        lambda content: content.pop("beyond"),
        lambda content: content.update(beyond={}),
        lambda content: content["beyond"].update(strange=torch.zeros(1)),
        lambda content: content["beyond"].popitem(),
        lambda content: content.update(beyond={key: torch.zeros(3) for key in content["beyond"]}),
        lambda content: content.update(beyond=dict.fromkeys(content["beyond"], 1)),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(file: Path, change: Any) -> None:
    with pytest.raises(CheckpointError) as raised:
        load_trained(edited(file, change))
    assert str(raised.value).startswith(str(file)) and "\n" not in str(raised.value)


def test_files_that_cannot_be_written(made: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_trained(made, tmp_path / "file" / "x.pt")
