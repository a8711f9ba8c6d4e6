"""Raw heads of a network in PyTorch, as :func:`~ovyolo.compress.head_error.head_error` compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["heads_of"]


@torch.no_grad()
def heads_of(network: Network, x: Tensor) -> list[list[NDArray[np.float32]]]:
    """A list a picture, each head ``[1, na*(5+nc), H, W]``, of f32 RGB ``[N, 3, H, W]`` from 0 to 1."""
    heads = [head.numpy() for head in network(x.contiguous(memory_format=torch.channels_last))]
    return [[head[i : i + 1] for head in heads] for i in range(len(x))]
