"""Batch norms' means and variances measured anew, for a network whose channels went."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ovyolo.errors import DimensionError
from ovyolo.train.network import Network

__all__ = ["recalibrate"]


def recalibrate(
    network: Network, batches: Iterable[Tensor], *, tell: Callable[[int], None] = lambda done: None
) -> Network:
    """Set the running statistics of all batch norms to the mean over ``batches``, in place.

    Nothing is trained; weights stay. Some dozens of pictures in batches of 8 or more will do.

    Args:
        network: any; it keeps its mode.
        batches: f32 RGB ``[N, 3, H, W]`` from 0 to 1, as the network takes them.
        tell: called with the number of batches done.

    Returns:
        ``network``.

    Raises:
        DimensionError: there is no batch.

    Example:
        >>> import torch
        >>> from ovyolo.train.network import load_network
        >>> network = recalibrate(load_network("yolov5n.pt"), [torch.rand(8, 3, 320, 320)])  # doctest: +SKIP
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    training, count = network.training, 0
    device = next(network.parameters()).device
    kept = [
        [None if buffer is None else buffer.clone() for buffer in (norm.running_mean, norm.running_var)]
        for norm in norms
    ]
    network.eval()
    try:
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for count, batch in enumerate(batches, 1):
                for norm in norms:  # the first batch replaces what there was; then a plain mean
                    norm.momentum = 1 / count
                network(batch.to(device))
                tell(count)
    except BaseException:
        _restore(norms, kept)
        raise
    finally:
        network.train(training)
        for norm, (momentum, mode) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.train(mode)
    if not count:
        raise DimensionError("batches is empty: it takes at least one batch of pictures to measure them")
    return network


def _restore(norms: list[nn.BatchNorm2d], kept: list[list[Tensor | None]]) -> None:
    for norm, buffers in zip(norms, kept, strict=True):
        for target, saved in zip((norm.running_mean, norm.running_var), buffers, strict=True):
            if target is not None and saved is not None:
                target.copy_(saved)
