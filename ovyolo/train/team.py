"""Where a training computes: one device, or several that ``torchrun`` started a process for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from ovyolo.errors import DeviceError, TrainingError

__all__ = ["Team", "joined", "precision_for", "world_size"]


@dataclass(frozen=True)
class Team:
    """This process's place among the processes of a training.

    Args:
        device: where this process computes.
        rank: its number; 0 measures, writes and speaks.
        world: how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module that averages gradients over all processes."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def agree(self, value: bool) -> bool:
        """What process 0 says."""
        if self.world == 1:
            return value
        told = torch.tensor([float(value)], device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())


def world_size() -> int:
    """How many processes ``torchrun`` started; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str = "auto") -> Iterator[Team]:
    """Join the processes that ``torchrun`` started, if it did.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU where there is one.

    Raises:
        DeviceError: PyTorch has no such device.
    """
    world, rank = world_size(), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{local}"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or ["?"])[0]
        raise DeviceError(f"PyTorch cannot compute on device {device!r} ({first}): try cpu or cuda") from error
    if world == 1:
        yield Team(chosen)
        return
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Team(chosen, rank, world)
    finally:
        torch.distributed.destroy_process_group()


def precision_for(device: torch.device, wanted: str) -> torch.dtype | None:
    """The type that convolutions compute in; None is FP32.

    Raises:
        TrainingError: the device cannot.
    """
    if wanted == "f32":
        return None
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported()
        if wanted == "bf16" and not able:
            raise TrainingError(f"{torch.cuda.get_device_name(device)} has no bf16: use precision f16 or f32")
        return torch.float16 if wanted == "f16" or not able else torch.bfloat16
    if wanted == "f16":
        raise TrainingError("f16 is for GPUs: use precision bf16 or f32 on a CPU")
    return torch.bfloat16 if wanted == "bf16" or _has_bf16_instructions() else None


def _has_bf16_instructions() -> bool:
    # without the instructions oneDNN emulates bf16, slower than FP32
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """A block in which convolutions compute in ``dtype``."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
