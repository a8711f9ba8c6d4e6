"""Checkpoints against torch: what ``torch.load`` gives is what we read. Skipped where torch is not installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovyolo.errors import UnsupportedModelError
from ovyolo.export.checkpoint import Record, attr, class_name, read_checkpoint, tensor, walk

WEIGHTS = [
    "yolov5n",
    "yolov5n-v6.0",
    "yolov5s-v6.0",
    "custom-2021-focus-spp-2class",
    "experimental-c3x-dwconv",
    "yolov5n-deeppcb",
]
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code", "ignore:.torch.jit")


@pytest.fixture
def torch_with_stubs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch, with modules in which every name is an empty ``nn.Module`` class, so that it can load any checkpoint."""
    torch = pytest.importorskip("torch", reason="torch is not installed: parity with torch.load is not tested")

    class Stubs(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            made = type(name, (torch.nn.Module,), {"__module__": self.__name__})
            setattr(self, name, made)
            return made

    for name in ("models", "models.yolo", "models.common", "models.experimental", "utils", "utils.torch_utils"):
        monkeypatch.setitem(sys.modules, name, Stubs(name))
    return torch


def assert_same_tensors(torch: Any, record: Record, network: Any) -> int:
    """Every parameter and buffer of a torch network is in the record, with the same bits; how many there were."""
    records, count = dict(walk(record)), 0
    for path, layer in network.named_modules(remove_duplicate=False):
        if path not in records:
            continue
        assert class_name(records[path]) == type(layer).__name__
        for name, expected in (*layer._parameters.items(), *layer._buffers.items()):
            found = tensor(records[path], name)
            if expected is None:
                assert found is None
                continue
            wanted = expected.detach()
            wanted = (wanted.float() if wanted.dtype == torch.bfloat16 else wanted).numpy()
            assert found is not None and found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted, f"{path}.{name}")
            count += 1
    assert len(records) == len(list(network.modules()))
    return count


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_tensor_equals_torch(name: str, shared: Path, torch_with_stubs: Any, tmp_path: Path) -> None:
    torch, path = torch_with_stubs, shared / "weights" / f"{name}.pt"
    loaded = torch.load(path, weights_only=False)
    found = read_checkpoint(path)
    assert assert_same_tensors(torch, found.model, loaded["model"]) > 100
    names = loaded["model"].names
    assert found.names == (names if isinstance(names, dict) else dict(enumerate(names)))
    assert found.stride == (8, 16, 32) and found.which == "model"
    old = tmp_path / "old.pt"
    torch.save(loaded, old, _use_new_zipfile_serialization=False)
    assert assert_same_tensors(torch, read_checkpoint(old).model, loaded["model"]) > 100


def make_network(torch: Any, dtype: Any) -> Any:
    """A detector in the stub modules, with views and shared storages."""
    yolo, common = sys.modules["models.yolo"], sys.modules["models.common"]
    network, first, head = yolo.Model(), common.Conv(), yolo.Detect()
    first.conv = torch.nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    first.bn = torch.nn.BatchNorm2d(4)
    first.i, first.f = 0, -1
    head.m = torch.nn.ModuleList([torch.nn.Conv2d(4, 21, 1)])
    head.nc, head.no, head.nl, head.na, head.i, head.f = 2, 7, 1, 3, 1, [0]
    head.register_buffer("anchors", torch.rand(1, 3, 2))
    network.model = torch.nn.Sequential(first, head)
    network.names, network.stride = ["a", "b"], torch.tensor([8.0])
    network.to(dtype)
    base = torch.rand(40).to(dtype)
    network.register_buffer("slice", base[3:11])
    network.register_buffer("steps", base[1::3])
    network.register_buffer("transposed", base[:12].view(3, 4).t())
    network.register_buffer("same", base[3:11])
    network.register_buffer("empty", base[:0].view(0, 4))
    network.register_buffer("scalar", base[7])
    network.register_buffer("expanded", base[:4].view(4, 1).expand(4, 5))
    for kind in ("int8", "uint8", "int16", "int32", "int64", "bool", "float64"):
        network.register_buffer(f"of_{kind}", torch.tensor([0, 1, 1, 0]).to(getattr(torch, kind)))
    network.steps_attribute = base[::2]
    return network


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "float64"])
def test_files_made_by_torch(legacy: bool, protocol: int, dtype: str, torch_with_stubs: Any, tmp_path: Path) -> None:
    torch, path = torch_with_stubs, tmp_path / "last.pt"
    network, averaged = make_network(torch, getattr(torch, dtype)), make_network(torch, getattr(torch, dtype))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.Adam(network.parameters())
    optimizer.step()
    saved = {
        "epoch": np.int64(3),
        "best_fitness": np.array([0.25]),
        "model": network,
        "ema": averaged,
        "updates": 12,
        "optimizer": optimizer.state_dict(),
        "opt": {"save_dir": tmp_path, "imgsz": 640},
        "git": {"branch": "master"},
        "date": "2023-01-02T03:04:05",
    }
    torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert found.which == "ema" and found.epoch == 3 and found.date == "2023-01-02T03:04:05"
    assert found.meta["best_fitness"] == [0.25] and found.meta["git"] == {"branch": "master"}
    assert found.meta["opt"] == {"save_dir": str(tmp_path), "imgsz": 640}
    assert assert_same_tensors(torch, found.model, averaged) > 15
    steps = attr(found.model, "steps_attribute")
    np.testing.assert_array_equal(steps, averaged.steps_attribute.float().numpy() if dtype == "bfloat16" else steps)
    for kept in (tensor(found.model, "slice"), tensor(found.model, "of_int32")):
        assert kept is not None and (dtype == "bfloat16" or not kept.flags.writeable)


def test_a_network_saved_on_its_own(torch_with_stubs: Any, tmp_path: Path) -> None:
    torch, path = torch_with_stubs, tmp_path / "model.pt"
    network = make_network(torch, torch.float32)
    torch.save(network, path)
    assert read_checkpoint(path).which == "module"
    torch.save({"model": torch.nn.DataParallel(network)}, path)
    assert assert_same_tensors(torch, read_checkpoint(path).model, network) > 15


def test_files_without_checksums(torch_with_stubs: Any, tmp_path: Path) -> None:
    torch, path = torch_with_stubs, tmp_path / "model.pt"
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes checksums")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(make_network(torch, torch.float32), path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_checkpoint(path).names == {0: "a", 1: "b"}


def test_torchscript_and_state_dicts_of_torch(torch_with_stubs: Any, tmp_path: Path) -> None:
    torch, path = torch_with_stubs, tmp_path / "x.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4)), path)
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        read_checkpoint(path)
    for saved in (make_network(torch, torch.float16).state_dict(), {"model": torch.nn.Conv2d(3, 4, 1).state_dict()}):
        torch.save(saved, path)
        with pytest.raises(UnsupportedModelError, match="state_dict"):
            read_checkpoint(path)
