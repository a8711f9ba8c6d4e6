"""The optimizer, and which parameters it treats how."""

from __future__ import annotations

import torch
from torch import nn

from ovyolo.train.settings import TrainSettings

__all__ = ["make_optimizer", "set_rates"]


def make_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over three groups: weights that decay; norms, anchors of quantizers and the like, which do not; and
    biases, which do not and have a warm-up of their own."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        leaf = name.rpartition(".")[2]
        if leaf in ("bias", "in_proj_bias"):
            biases.append(parameter)
        elif leaf in ("weight", "in_proj_weight") and parameter.ndim > 1:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    # the decay is meant for gradients of 64 pictures, summed
    decay = settings.weight_decay * settings.batch * settings.accumulate / 64
    groups = [
        {"params": decayed, "weight_decay": decay, "role": "weights"},
        {"params": plain, "weight_decay": 0.0, "role": "plain"},
        {"params": biases, "weight_decay": 0.0, "role": "biases"},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def set_rates(optimizer: torch.optim.Optimizer, lr: float, bias_lr: float, momentum: float) -> None:
    """Rates and momentum for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = bias_lr if group["role"] == "biases" else lr
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif group["nesterov"]:
            group["momentum"] = momentum
