"""Which layers cost most in 8 bits, most harmful first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.compress.head_error import HeadError, head_error
from ovyolo.compress.layers import Layer, restore
from ovyolo.evaluate.judge import run_pictures

if TYPE_CHECKING:
    import openvino

__all__ = ["Harm", "busiest", "rank_layers", "sureness"]

# what it costs to hand a layer its input in floating point, in multiplications a number: measured on yolov5n
INPUT_COST = 70
SURE = 0.1


@dataclass(frozen=True)
class Harm:
    """What a layer's quantization does.

    Args:
        layer: its name.
        harm: share of the heads' squared error that goes away when only this layer computes in floating point.
        cost: what that costs, as a share of all multiplications.
    """

    layer: str
    harm: float
    cost: float

    @property
    def worth(self) -> float:
        """Harm a unit of cost."""
        return self.harm / max(self.cost, 1e-6)

    def to_list(self) -> list[Any]:
        """For JSON."""
        return [self.layer, round(self.harm, 6), round(self.cost, 6)]


def busiest(
    card: Card,
    pictures: Sequence[NDArray[np.uint8]],
    heads: Sequence[Sequence[NDArray[np.float32]]],
    count: int,
) -> list[int]:
    """The pictures in which the network is surest of most: where an error can be seen."""
    order = np.argsort([-sureness(card, [outputs]) for outputs in heads], kind="stable")
    return sorted(int(index) for index in order[:count])


def sureness(card: Card, heads: Sequence[Sequence[NDArray[np.float32]]]) -> float:
    """The sum of the objectness of all cells that show an object."""
    total = 0.0
    for outputs in heads:
        for level, raw in enumerate(outputs):
            if card.head.kind == "rows":
                objectness = raw[0][:, 4]
            else:
                logits = raw[0].reshape(len(card.head.anchors[level]), 5 + card.num_classes, -1)[:, 4]
                objectness = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
            total += float(objectness[objectness > SURE].sum())
    return total


def rank_layers(
    quantized: openvino.Model,
    layers: dict[str, Layer],
    names: Sequence[str],
    card: Card,
    pictures: Sequence[NDArray[np.uint8]],
    expected: Sequence[Sequence[NDArray[np.float32]]],
    *,
    known: dict[str, float] | None = None,
    tell: Callable[[int], None] = lambda done: None,
    keep: Callable[[str, float], None] = lambda name, error: None,
) -> tuple[HeadError, list[Harm]]:
    """Put each layer back to floating point by itself and see by how much the heads come nearer to the original's.

    Args:
        quantized: the INT8 network.
        layers: the FP32 network's.
        names: the quantized ones among them.
        card: what it is.
        pictures: a few, from the calibration set.
        expected: the FP32 network's heads for them.
        known: errors measured before, by layer; they are not measured again.
        tell: called with the number of layers done.
        keep: called with each new error, so that an interrupted run can go on.

    Returns:
        The whole network's error, and the layers, those first that are worth most for what they cost.
    """
    known = dict(known or {})
    whole = head_error(card, expected, run_pictures(quantized, card, pictures))
    total = sum(layer.multiplications for layer in layers.values())
    sizes = _input_sizes(quantized, names)
    harms = []
    for done, name in enumerate(names, 1):
        if name not in known:
            variant = restore(quantized, layers, [name])
            known[name] = head_error(card, expected, run_pictures(variant, card, pictures)).total
            keep(name, known[name])
        harm = 1 - (known[name] / whole.total) ** 2 if whole.total else 0.0
        cost = (layers[name].multiplications + INPUT_COST * sizes[name]) / total
        harms.append(Harm(name, harm, cost))
        tell(done)
    return whole, sorted(harms, key=lambda one: -one.worth)


def _input_sizes(model: openvino.Model, names: Sequence[str]) -> dict[str, int]:
    wanted = set(names)
    return {
        node.get_friendly_name(): int(np.prod([int(size) for size in node.get_input_shape(0)]))
        for node in model.get_ordered_ops()
        if node.get_friendly_name() in wanted
    }
