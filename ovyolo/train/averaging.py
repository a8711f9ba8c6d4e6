"""A running average of a network's weights, which scores better than the weights of any one step."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ovyolo.errors import DimensionError

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential moving average over the states of a module.

    Floating-point tensors are averaged; everything else (the masks of pruned weights, flags and counters of quantizers)
    is copied as it is, or a sparse or quantized network would not stay one.

    Args:
        module: whose average; it is copied.
        decay: how much of the average a step keeps, once the ramp is over.
        tau: updates that the ramp lasts: the share is ``decay * (1 - exp(-updates / tau))``, so that the random
            weights of the beginning are soon forgotten.

    Attributes:
        module: the averaged copy, in evaluation mode.
        updates: how many there were.

    Example:
        >>> import torch
        >>> from ovyolo.train.averaging import WeightAverage
        >>> average = WeightAverage(torch.nn.Linear(2, 1))
        >>> average.update(torch.nn.Linear(2, 1))
        >>> average.updates
        1
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999, tau: float = 2000.0) -> None:
        if not 0 <= decay < 1 or not tau > 0:
            raise DimensionError(f"decay is {decay} and tau {tau}; they take a number from 0 below 1, and one above 0")
        self.module = copy.deepcopy(module).eval()
        self.module.requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in today's weights of ``module``."""
        self.updates += 1
        share = self.decay * (1 - math.exp(-self.updates / self.tau))
        today = module.state_dict()
        floats: list[Tensor] = []
        new: list[Tensor] = []
        seen: set[int] = set()
        for key, kept in self.module.state_dict().items():
            # a quantizer that stands in several places has several names, and must be averaged once
            if kept.data_ptr() in seen:
                continue
            seen.add(kept.data_ptr())
            if kept.dtype.is_floating_point:
                floats.append(kept)
                new.append(today[key].detach().to(kept))
            else:
                kept.copy_(today[key])
        torch._foreach_mul_(floats, share)
        torch._foreach_add_(floats, new, alpha=1 - share)

    def state_dict(self) -> dict[str, object]:
        """What :meth:`load_state_dict` takes: plain tensors and a number."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from an earlier state."""
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])  # type: ignore[call-overload]
