"""A trained network with another activation function: what a processor spends on it can be more than on its products.

A narrow network's convolutions multiply little for each number that they give, and an exponential for each of these
costs as much again, all the more in 8 bits. ``hardswish`` (arXiv:1905.02244) follows SiLU closely without one.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection

import torch

from ovyolo.errors import DimensionError
from ovyolo.export.checkpoint import class_name, walk
from ovyolo.train.distill import tapped
from ovyolo.train.network import Network

__all__ = ["ACTIVATIONS", "activations_of", "dearer_activations", "with_activation"]

ACTIVATIONS = {"hardswish": "Hardswish", "relu": "ReLU"}
"""What can be put in, by the names of recipes."""
REPLACED = ("SiLU", "Swish", "MemoryEfficientSwish", "Mish", "MemoryEfficientMish", "Hardswish", "LeakyReLU", "ReLU6")
REPLACED_BY = {"hardswish": REPLACED[:5], "relu": REPLACED}  # never something dearer than what was there


def with_activation(network: Network, activation: str, only: Collection[str] | None = None) -> Network:
    """A copy of ``network`` in evaluation mode that has ``activation`` wherever it had a dearer one.

    Its batch norms should be measured anew (:func:`~ovyolo.compress.channels.recalibrate`), and it has to be trained
    on: half of what it had learned is lost otherwise.

    Args:
        network: any that trains; one without such activations comes back as it is, copied.
        activation: ``"hardswish"`` or ``"relu"``.
        only: the places where, such as ``"model.0.act"``; everywhere by default.

    Raises:
        DimensionError: there is no such activation.

    Example:
        >>> from ovyolo.train.activation import activations_of, with_activation
        >>> from ovyolo.train.architecture import new_network
        >>> network = new_network("n", ["scratch"])
        >>> activations_of(network), activations_of(with_activation(network, "hardswish"))
        ({'SiLU': 57}, {'Hardswish': 57})
    """
    if activation not in ACTIVATIONS:
        raise DimensionError(f"activation is {activation!r}; it takes one of {', '.join(ACTIVATIONS)}")
    device = next(network.parameters()).device
    record = network.record()  # made anew from the description, so that every place is a record of its own
    for path, part in walk(record):
        if class_name(part) in REPLACED_BY[activation] and (only is None or path in only):
            part.module, part.qualname = "torch.nn.modules.activation", ACTIVATIONS[activation]
            part.state.pop("negative_slope", None)
    return Network(record, network.names, network.strides).to(device).eval()


def activations_of(network: Network) -> dict[str, int]:
    """How many activation functions of each kind the network has."""
    known = {*REPLACED, *ACTIVATIONS.values()}
    names = (class_name(record) for _, record in walk(network.record()))
    return dict(Counter(name for name in names if name in known))


def dearer_activations(network: Network, activation: str) -> dict[str, int]:
    """The places that :func:`with_activation` would change, and how many numbers come through each for a picture of
    fixed size; those of the most first.

    Example:
        >>> from ovyolo.train.activation import dearer_activations
        >>> from ovyolo.train.architecture import new_network
        >>> list(dearer_activations(new_network("n", ["scratch"]), "hardswish"))[:3]
        ['model.0.act', 'model.1.act', 'model.2.cv3.act']
    """
    probe = copy.deepcopy(network).float().cpu().eval()
    names = [path for path, record in walk(probe.record()) if class_name(record) in REPLACED_BY[activation]]
    size = network.probe_side
    with tapped(probe, names) as outputs, torch.no_grad():
        probe(torch.zeros(1, 3, size, size))
    numbers = {name: output.numel() for name, output in zip(names, outputs, strict=True)}
    return dict(sorted(numbers.items(), key=lambda item: -item[1]))
