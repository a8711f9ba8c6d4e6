"""Making a network smaller by a plan, and masking it instead, which computes the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ovyolo.compress.channels.groups import Groups, find_groups
from ovyolo.compress.channels.plan import Plan
from ovyolo.compress.channels.trace import Convolution, Slot
from ovyolo.errors import DimensionError
from ovyolo.export.checkpoint.own_format import record_of
from ovyolo.train.network import Network

__all__ = ["apply_plan", "masked"]


def apply_plan(network: Network, plan: Plan) -> Network:
    """A new network that lacks the channels which ``plan`` drops; ``network`` is left as it is.

    It has the names of tensors and the layers that ``network`` has, is in the same mode and on the same device, and
    trains. In its description only the numbers of channels and groups of convolutions and batch norms are others.
    What it computes is what ``network`` computes with those channels at zero.

    Raises:
        DimensionError: the plan was made for a network of other groups or sizes.

    Example:
        >>> from ovyolo.train.network import load_network, save_network
        >>> network = load_network("best.pt")  # doctest: +SKIP
        >>> smaller = apply_plan(network, plan_pruning(network, Target(macs=0.5), (640, 640)))  # doctest: +SKIP
        >>> save_network(smaller, "smaller.pt")  # doctest: +SKIP
    """
    groups = find_groups(network, protect=0)
    keep = kept_positions(groups, plan)
    tensors = network.tensors()
    description = copy.deepcopy(network.description)
    for name, convolution in groups.convolutions.items():
        slice_convolution(name, convolution, keep, tensors, part_of(description, name))
    for slot, kept in keep.items():
        if slot[1] in ("norm", "scale"):
            for leaf in ("weight", "bias", "running_mean", "running_var", "factors"):
                if f"{slot[0]}.{leaf}" in tensors:
                    tensors[f"{slot[0]}.{leaf}"] = tensors[f"{slot[0]}.{leaf}"][_index(kept, tensors)]
            _set(part_of(description, slot[0]), num_features=len(kept))
    arrays = {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
    smaller = Network(record_of(description, arrays), network.names, network.strides)
    first = next(network.parameters())
    return smaller.to(first.device, first.dtype).train(network.training)


def kept_positions(groups: Groups, plan: Plan) -> dict[Slot, list[int]]:
    """For each use of channels that ``plan`` touches, the positions that stay, in order."""
    unknown = [name for name in plan.keep if name not in groups.groups]
    if unknown:
        raise DimensionError(f"the plan prunes the group {unknown[0]!r}, which this network does not have")
    dropped: dict[Slot, set[int]] = {}
    for name, kept in plan.keep.items():
        group = groups.groups[name]
        if group.size != plan.sizes[name] or group.kept:
            what = f"keeps ({group.kept})" if group.kept else f"has with {group.size}"
            raise DimensionError(
                f"the plan is for a group {name!r} of {plan.sizes[name]} channels, which this network {what}: "
                "make a plan for this network"
            )
        gone = sorted(set(range(group.size)) - set(kept))
        for slot, units in group.members.items():
            dropped.setdefault(slot, set()).update(position for unit in gone for position in units[unit])
    return {
        slot: [position for position in range(groups.slot_sizes[slot]) if position not in gone]
        for slot, gone in dropped.items()
        if gone
    }


def slice_convolution(
    name: str,
    convolution: Convolution,
    keep: Mapping[Slot, list[int]],
    tensors: dict[str, Tensor],
    part: dict[str, Any],
) -> None:
    """Leave of a convolution's ``tensors``, and of the numbers in its description ``part``, what ``keep`` keeps."""
    if (name, "in") not in keep and (name, "out") not in keep:
        return
    inputs, outputs = convolution.in_channels, convolution.out_channels
    kept_in, kept_out = keep.get((name, "in"), list(range(inputs))), keep.get((name, "out"), list(range(outputs)))
    in_groups, out_groups = (
        _by_group(kept, count // convolution.groups) for kept, count in ((kept_in, inputs), (kept_out, outputs))
    )
    # the walk joined channels so that this holds; a plan that breaks it would compute something else
    alike = [len({tuple(positions) for positions in sides.values()}) == 1 for sides in (in_groups, out_groups)]
    if in_groups.keys() != out_groups.keys() or not all(alike):
        raise DimensionError(f"the plan tears the groups of the convolution {name} apart: make a plan for this network")
    weight = tensors[f"{name}.weight"]
    if isinstance(convolution, nn.ConvTranspose2d):
        rows, columns = kept_in, next(iter(out_groups.values()))
    else:
        rows, columns = kept_out, next(iter(in_groups.values()))
    tensors[f"{name}.weight"] = weight[_index(rows, tensors)][:, _index(columns, tensors)]
    if f"{name}.bias" in tensors:
        tensors[f"{name}.bias"] = tensors[f"{name}.bias"][_index(kept_out, tensors)]
    _set(part, in_channels=len(kept_in), out_channels=len(kept_out), groups=len(out_groups))


def _by_group(kept: Sequence[int], size: int) -> dict[int, list[int]]:
    """Positions within their group, by group."""
    found: dict[int, list[int]] = {}
    for position in kept:
        found.setdefault(position // size, []).append(position % size)
    return found


def _index(positions: Sequence[int], tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.tensor(positions, device=next(iter(tensors.values())).device)


def part_of(description: dict[str, Any], name: str) -> dict[str, Any]:
    """A layer's description within that of the network."""
    for key in name.split("."):
        description = description["parts"][key]
    return description


def _set(part: dict[str, Any], **numbers: int) -> None:
    """Numbers that a checkpoint's layers carry; the tensors' shapes are what counts, but for ``groups``."""
    attributes = part["attributes"]
    attributes.update({key: value for key, value in numbers.items() if key in attributes or key == "groups"})


@contextmanager
def masked(network: Network, groups: Groups, drop: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """For the block, ``network`` computes as if the units ``drop`` (by group) were gone; nothing is built anew.

    Readers are made blind to those channels: the weights with which convolutions read them are zero.
    """
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for name, units in drop.items():
                for (where, kind), positions in groups.groups[name].members.items():
                    if kind != "in" or not units:
                        continue
                    convolution = groups.convolutions[where]
                    saved.append((convolution.weight, convolution.weight.detach().clone()))
                    _blind(convolution, [position for unit in units for position in positions[unit]])
        yield
    finally:
        with torch.no_grad():
            for weight, before in reversed(saved):
                weight.copy_(before)


def _blind(convolution: Convolution, positions: Sequence[int]) -> None:
    """Zero the weights that read the input channels ``positions``."""
    weight, groups = convolution.weight, convolution.groups
    if isinstance(convolution, nn.ConvTranspose2d):
        weight[list(positions)] = 0
        return
    inputs, outputs = convolution.in_channels // groups, convolution.out_channels // groups
    for position in positions:
        group, column = divmod(position, inputs)
        weight[group * outputs : (group + 1) * outputs, column] = 0
