"""How much each unit of each group is worth: by the size of its weights, by its batch norm, or by the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ovyolo.compress.channels.groups import Groups
from ovyolo.errors import DimensionError
from ovyolo.train.network import Network

__all__ = ["CRITERIA", "Criterion", "Loss", "Scores", "channel_scores"]

Criterion = Literal["l1", "l2", "bn", "taylor"]
CRITERIA = ("l1", "l2", "bn", "taylor")
Loss = Callable[[Network, Any], Tensor]
"""``loss_of(network, batch)``: one number that can be differentiated."""
Scores = dict[str, Tensor]
"""By group, one number a unit, f64 ``[size]``: the least is worth least; comparable between groups."""


def channel_scores(
    network: Network,
    groups: Groups,
    criterion: Criterion = "taylor",
    *,
    batches: Iterable[Any] = (),
    loss_of: Loss | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Judge every unit of every group that can be pruned.

    Args:
        network: the one that ``groups`` were found in.
        groups: its groups.
        criterion: ``"l1"``, ``"l2"``: norms of the filters that give a unit, all layers of the group together, a mean
            a layer; ``"bn"``: the absolute scales of their batch norms (Liu et al., arXiv:1708.06519), where there are
            none, the filters' L1 norms. These three are divided by the group's mean, because sizes of weights cannot
            be compared between layers. ``"taylor"``: how much the loss would change without the unit, to first order
            (Molchanov et al., arXiv:1611.06440): |sum of weight times gradient| over the weights that read it, a mean
            over batches; comparable as it is.
        batches: for Taylor: whatever ``loss_of`` takes; all of them are used.
        loss_of: for Taylor. The network is in evaluation mode meanwhile, so batch norms stand still.
        tell: called with the number of batches done.

    Raises:
        DimensionError: an unknown criterion, or Taylor without batches or loss, or a loss that is no finite number.

    Example:
        >>> import torch
        >>> from ovyolo.train.network import load_network
        >>> network = load_network("yolov5n.pt")  # doctest: +SKIP
        >>> scores = channel_scores(network, find_groups(network), "l1")  # doctest: +SKIP
    """
    if criterion not in CRITERIA:
        raise DimensionError(f"criterion is {criterion!r}; it takes one of {', '.join(CRITERIA)}")
    if criterion != "taylor":
        return {name: _normed(_size(groups, name, criterion)) for name in groups.prunable()}
    if loss_of is None:
        raise DimensionError("the criterion 'taylor' asks the loss: give loss_of and batches, or take 'l1'")
    return _taylor(network, groups, batches, loss_of, tell)


def _normed(scores: Tensor) -> Tensor:
    mean = float(scores.mean())
    return scores / mean if mean > 0 else scores


def _size(groups: Groups, name: str, criterion: str) -> Tensor:
    group = groups.groups[name]
    parts = []
    for (where, kind), units in group.members.items():
        if criterion == "bn" and kind == "norm":
            values = groups.norms[where].weight.detach().double().cpu().abs()
        elif criterion != "bn" and kind == "out":
            values = _filters(groups.convolutions[where], 2 if criterion == "l2" else 1)
        else:
            continue
        part = values[torch.tensor(units)].mean(dim=1)
        parts.append(_normed(part))
    if not parts:  # no batch norm has it
        return _size(groups, name, "l1")
    return torch.stack(parts).mean(dim=0)


def _filters(convolution: nn.Conv2d | nn.ConvTranspose2d, order: int) -> Tensor:
    """The norm of each output channel's filter."""
    weight = convolution.weight.detach().double().cpu()
    if isinstance(convolution, nn.ConvTranspose2d):  # [in, out/groups, ...]: outputs to the front
        inputs, outputs, *kernel = weight.shape
        groups = convolution.groups
        weight = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2).flatten(0, 1)
    return torch.linalg.vector_norm(weight.flatten(1), ord=order, dim=1)


def _taylor(
    network: Network, groups: Groups, batches: Iterable[Any], loss_of: Loss, tell: Callable[[int], None]
) -> Scores:
    prunable = groups.prunable()
    readers = {
        name: [(where, torch.tensor(units)) for (where, kind), units in group.members.items() if kind == "in"]
        for name, group in prunable.items()
    }
    wanted = {where for uses in readers.values() for where, _ in uses}
    weights = {where: groups.convolutions[where].weight for where in wanted}
    scores = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in prunable.items()}
    training, count = network.training, 0
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    try:
        network.eval()
        for weight in frozen:
            weight.requires_grad_(True)
        for count, batch in enumerate(batches, 1):
            loss = loss_of(network, batch)
            if loss.numel() != 1 or not torch.isfinite(loss).all():
                raise DimensionError(f"loss_of gave {loss.detach().flatten()[:3].tolist()} for batch {count}: "
                                     "Taylor needs one finite number")  # fmt: skip
            gradients = torch.autograd.grad(loss.sum(), list(weights.values()), allow_unused=True)
            change = {
                where: _by_input(groups.convolutions[where], gradient)
                for where, gradient in zip(weights, gradients, strict=True)
                if gradient is not None
            }
            for name, uses in readers.items():
                parts = [change[where][positions].sum(dim=1) for where, positions in uses if where in change]
                if parts:
                    scores[name] += torch.stack(parts).sum(dim=0).abs()
            tell(count)
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        network.train(training)
    if not count:
        raise DimensionError("batches is empty: the criterion 'taylor' needs at least one")
    return {name: score / count for name, score in scores.items()}


def _by_input(convolution: nn.Conv2d | nn.ConvTranspose2d, gradient: Tensor) -> Tensor:
    """Weight times gradient, summed for each input channel; f64 on the CPU."""
    product = (convolution.weight.detach() * gradient).double().cpu()
    if isinstance(convolution, nn.ConvTranspose2d):
        return product.flatten(1).sum(dim=1)
    groups = convolution.groups
    outputs, inputs = product.shape[:2]
    return product.reshape(groups, outputs // groups, inputs, -1).sum(dim=(1, 3)).flatten()
