"""Groups of channels that can only be removed together, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from ovyolo.compress.channels.trace import Convolution, Slot
from ovyolo.compress.channels.walk import trace
from ovyolo.errors import DimensionError
from ovyolo.train.network import Network

__all__ = ["Group", "Groups", "find_groups", "layer_of"]

PROTECTED = 3  # the first layers see few channels and feed everything


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of several layers that are joined one to one; a *unit* is what is joined to one another.

    Args:
        name: the first layer that gives them.
        size: how many units.
        members: for each use, the positions of each unit: ``members[slot][unit]``, as many for every unit.
        kept: why nothing of it may be removed, or "".
    """

    name: str
    size: int
    members: dict[Slot, list[list[int]]]
    kept: str = ""

    @property
    def producers(self) -> list[str]:
        """The layers whose outputs these are."""
        return [layer_of(name) for name, kind in self.members if kind == "out"]

    @property
    def width(self) -> int:
        """Channels a unit has in the layer where it has most."""
        return max((len(units[0]) for (_, kind), units in self.members.items() if kind == "out"), default=1)


@dataclass(frozen=True, eq=False)
class Groups:
    """All channels of a network.

    Args:
        groups: those that can be pruned, and those that are kept and say why, by name in the order of the network.
        convolutions, norms: the network's own modules, by name.
        slot_sizes: how many channels each use has in all, those that belong to no group among them.
    """

    groups: dict[str, Group]
    convolutions: dict[str, Convolution]
    norms: dict[str, nn.BatchNorm2d]
    slot_sizes: dict[Slot, int]

    def prunable(self) -> dict[str, Group]:
        """Those of which something can be removed."""
        return {name: group for name, group in self.groups.items() if not group.kept}

    def kept(self) -> dict[str, str]:
        """Those that stay whole, and why."""
        return {name: group.kept for name, group in self.groups.items() if group.kept}


def layer_of(name: str) -> str:
    """The layer a convolution or batch norm belongs to, as the emitted graph names it: ``model.2.cv1`` for
    ``model.2.cv1.conv``.

    Example:
        >>> layer_of("model.0.conv.conv"), layer_of("model.24.m.0"), layer_of("model.2.cv1.bn")
        ('model.0.conv', 'model.24.m.0', 'model.2.cv1')
    """
    head, _, last = name.rpartition(".")
    return head if last in ("conv", "bn") and head.count(".") else name


def find_groups(network: Network, *, protect: int | Sequence[str] = PROTECTED) -> Groups:
    """The groups of a network.

    Args:
        network: any that trains here, pruned before or not.
        protect: layers that keep their outputs: the first so many of the numbered ones, or names such as
            ``"model.4"`` and ``"model.4.cv1"``. What the head gives is always kept.

    Raises:
        UnsupportedModelError: its layers do not fit together.
        DimensionError: ``protect`` names a layer that is not there.

    Example:
        >>> from ovyolo.train.network import load_network
        >>> groups = find_groups(load_network("yolov5n.pt"))  # doctest: +SKIP
        >>> groups.groups["model.4.cv1"].producers  # doctest: +SKIP
        ['model.4.cv1', 'model.4.m.0.cv2', 'model.4.m.1.cv2']
    """
    found = trace(network)
    protected = _protected(network, protect)
    units: dict[int, dict[Slot, list[int]]] = {}
    for slot, channels in found.slots.items():
        for position, channel in enumerate(channels):
            units.setdefault(found.root(channel), {}).setdefault(slot, []).append(position)
    alike: dict[tuple[frozenset[tuple[Slot, int]], str], list[int]] = {}
    for root, uses in units.items():
        signature = frozenset((slot, len(positions)) for slot, positions in uses.items())
        alike.setdefault((signature, found.fixed.get(root, "")), []).append(root)
    groups: dict[str, Group] = {}
    for (_, why), roots in alike.items():
        first = units[roots[0]]
        outputs = [name for name, kind in first if kind == "out"]
        if not outputs:
            continue  # the picture, or what comes out of a layer that is kept
        name = _free_name(layer_of(outputs[0]), groups)
        shielded = next((layer for layer in map(layer_of, outputs) if protected(layer)), None)
        members = {slot: [units[root][slot] for root in roots] for slot in first}
        groups[name] = Group(name, len(roots), members, why or (f"{shielded} is protected" if shielded else ""))
    sizes = {slot: len(channels) for slot, channels in found.slots.items()}
    return Groups(groups, found.convolutions, found.norms, sizes)


def _free_name(name: str, taken: dict[str, Group]) -> str:
    count = sum(1 for other in taken if other == name or other.startswith(f"{name}#"))
    return f"{name}#{count + 1}" if count else name


def _protected(network: Network, protect: int | Sequence[str]) -> Callable[[str], bool]:
    if isinstance(protect, int):
        if protect < 0:
            raise DimensionError(f"protect is {protect}; it takes a number of layers from 0, or their names")
        names = [f"model.{index}" for index in range(min(protect, len(network.model)))]
    else:
        names = list(protect)
        known = {name for name, _ in network.named_modules()}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DimensionError(f"protect names the layer {unknown[0]!r}, which the network does not have")
    return lambda layer: any(layer == name or layer.startswith(f"{name}.") for name in names)
