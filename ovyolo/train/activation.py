"""A trained network with another activation function: what a processor spends on it can be more than on its products.

A narrow network's convolutions multiply little for each number that they give, and an exponential for each of these
costs as much again, all the more in 8 bits. ``hardswish`` (arXiv:1905.02244) follows SiLU closely without one.
"""

from __future__ import annotations

from collections import Counter

from ovyolo.errors import DimensionError
from ovyolo.export.checkpoint import Record, children, class_name, copied, walk
from ovyolo.train.network import Network

__all__ = ["ACTIVATIONS", "activations_of", "has_dearer", "with_activation"]

ACTIVATIONS = {"hardswish": "Hardswish", "relu": "ReLU"}
"""What can be put in, by the names of recipes."""
REPLACED = ("SiLU", "Swish", "MemoryEfficientSwish", "Mish", "MemoryEfficientMish", "Hardswish", "LeakyReLU", "ReLU6")
REPLACED_BY = {"hardswish": REPLACED[:5], "relu": REPLACED}  # never something dearer than what was there


def with_activation(network: Network, activation: str) -> Network:
    """A copy of ``network`` in evaluation mode that has ``activation`` wherever it had a dearer one.

    Its batch norms should be measured anew (:func:`~ovyolo.compress.channels.recalibrate`), and it has to be trained
    on: half of what it had learned is lost otherwise.

    Args:
        network: any that trains; one without such activations comes back as it is, copied.
        activation: ``"hardswish"`` or ``"relu"``.

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
    record = _replaced(network.record(), REPLACED_BY[activation], ACTIVATIONS[activation])
    return Network(record, network.names, network.strides).to(device).eval()


def activations_of(network: Network) -> dict[str, int]:
    """How many activation functions of each kind the network has."""
    known = {*REPLACED, *ACTIVATIONS.values()}
    names = (class_name(record) for _, record in walk(network.record()))
    return dict(Counter(name for name in names if name in known))


def has_dearer(network: Network, activation: str) -> bool:
    """Whether :func:`with_activation` would replace anything."""
    return not activations_of(network).keys().isdisjoint(REPLACED_BY[activation])


def _replaced(record: Record, kinds: tuple[str, ...], new: str) -> Record:
    if class_name(record) in kinds:
        made = Record("torch.nn.modules.activation", new)
        made.state.update({key: value for key, value in record.state.items() if key != "negative_slope"})
        return made
    made = copied(record)
    parts = children(record)
    if parts:
        made.state["_modules"] = {key: _replaced(part, kinds, new) for key, part in parts.items()}
    return made
