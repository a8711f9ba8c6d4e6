"""Finding a network's head convolutions, and what its graph does behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1

from ovyolo.export.imported.misfit import Misfit
from ovyolo.export.imported.reading import Runner

__all__ = ["Decoder", "find_heads", "operations_behind"]

Array = NDArray[Any]


def find_heads(outputs: Sequence[ov.Output]) -> list[ov.Output]:
    """The raw heads ``[N, C, H, W]`` that ``outputs`` are computed from, finest level first.

    Walks back from the outputs to the first convolution on each path; its bias and factors per channel belong to it.

    Raises:
        Misfit: a path has no convolution, or ends at one that is no head.
    """
    heads: dict[str, ov.Output] = {}
    for node in operations_behind(outputs):
        kind = node.get_type_name()
        if kind == "Parameter":
            raise Misfit("its output depends on its input in other ways than through head convolutions")
        if kind != "Convolution" and "Convolution" in kind:
            raise Misfit(f"its output comes from a {kind}, not from plain convolutions")
        if kind == "Convolution":
            heads[node.get_name()] = _with_bias(node.output(0))[-1]
    found = list(heads.values())
    if not 1 <= len(found) <= 6 or any(len(head.get_shape()) != 4 for head in found):
        raise Misfit(f"its output comes from {len(found)} convolutions, where a head has one a level on 1 to 6 levels")
    return sorted(found, key=lambda head: -int(np.prod(head.get_shape()[2:])))


def operations_behind(outputs: Sequence[ov.Output]) -> list[ov.Node]:
    """All operations that the numbers in ``outputs`` come from, back to, and with, the nearest convolutions."""
    seen: dict[str, ov.Node] = {}
    waiting = [output.get_node() for output in outputs]
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen:
            continue
        seen[node.get_name()] = node
        # a shape is known whatever the numbers are
        if "Convolution" not in node.get_type_name() and node.get_type_name() != "ShapeOf":
            waiting.extend(value.get_node() for value in node.input_values())
    return list(seen.values())


def _with_bias(value: ov.Output) -> list[ov.Output]:
    """A convolution's output, and the values it becomes through its bias and through factors per channel."""
    values = [value]
    channels = value.get_shape()[1]
    while True:
        value = values[-1]
        nodes = {target.get_node().get_name(): target.get_node() for target in value.get_target_inputs()}
        readers = [node for node in nodes.values() if node.get_type_name() != "ShapeOf"]
        if len(readers) != 1 or readers[0].get_type_name() not in ("Add", "Multiply", "Subtract"):
            return values
        others = [v for v in readers[0].input_values() if v != value]
        if (
            len(others) != 1
            or readers[0].output(0).get_shape() != value.get_shape()
            or list(others[0].get_shape()) not in ([1, channels, 1, 1], [channels, 1, 1])
            or any(n.get_type_name() in ("Parameter", "Convolution") for n in operations_behind(others))
        ):
            return values
        values.append(readers[0].output(0))


class Decoder:
    """What a graph does behind its head convolutions, as a network of its own.

    Args:
        model: the whole graph; it is taken apart.
        outputs: which of its outputs to compute.

    Raises:
        Misfit: it has no head convolutions that one could cut at.
    """

    def __init__(self, model: ov.Model, outputs: Sequence[int]) -> None:
        wanted = [model.get_results()[i].input_value(0) for i in outputs]
        heads = find_heads(wanted)
        self.shapes = [list(head.get_shape()) for head in heads]
        parameters = []
        for head in heads:
            parameter = opset1.parameter(list(head.get_shape()), np.float32)
            convolution = next(n for n in operations_behind([head]) if n.get_type_name() == "Convolution")
            for value in _with_bias(convolution.output(0)):
                for target in list(value.get_target_inputs()):
                    # the shape may be asked of the convolution before its bias
                    if value == head or target.get_node().get_type_name() == "ShapeOf":
                        target.replace_source_output(parameter.output(0))
            parameters.append(parameter)
        # the results read the parameters now where an output is a head itself
        results = [model.get_results()[i] for i in outputs]
        # whatever asks for the picture's shape still needs the picture
        others = [p for p in model.get_parameters() if _depends_on([r.input_value(0) for r in results], p)]
        self._spare = [np.zeros(list(p.get_output_shape(0)), np.float32) for p in others]
        self._run = Runner(ov.Model(results, [*parameters, *others], "decoder"))

    def __call__(self, heads: Sequence[Array]) -> list[Array]:
        """The outputs for raw heads ``[N, C, H, W]``, finest level first."""
        return self._run([*heads, *self._spare])


def _depends_on(values: Sequence[ov.Output], parameter: ov.Node) -> bool:
    waiting, seen = [value.get_node() for value in values], set()
    while waiting:
        node = waiting.pop()
        if node.get_name() == parameter.get_name():
            return True
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting.extend(value.get_node() for value in node.input_values())
    return False
