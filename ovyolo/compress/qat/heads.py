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
    """A list a picture, each head ``[1, na*(5+nc), H, W]``, of f32 RGB ``[N, 3, H, W]`` from 0 to 1.

    The network may be on any device and in any mode, which it keeps; what it says is what it says in evaluation mode.
    """
    training = network.training
    heads = [head.cpu().numpy() for head in network.eval()(x.to(next(network.parameters()).device))]
    network.train(training)
    return [[head[i : i + 1] for head in heads] for i in range(len(x))]
