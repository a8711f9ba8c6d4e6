"""The camera's bytes go in as they are: make a network take ``[N, H, W, 3]`` u8 BGR.

Scaling and channel order go into the weights of the first convolutions, so that no operation is left for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset1

from ovyolo.export.imported.input_stage import InputStage
from ovyolo.export.opsets import input_array

__all__ = ["replace_input"]

# which pixels of a block a channel was taken from, and which colour it is
Tag = tuple[tuple[Any, ...], int]


def replace_input(model: ov.Model, stage: InputStage) -> tuple[ov.Node, list[str]]:
    """Give the network behind ``stage`` a new input: ``images``, ``[N, H, W, 3]`` u8 BGR.

    Args:
        model: the graph that ``stage`` was found in; all its operations are looked at.
        stage: where the network begins, and what it wants.

    Returns:
        The new parameter, and sentences about what could not be folded.
    """
    batch, _, height, width = stage.entry.get_shape()
    swap = not stage.entry_bgr
    plain = swap or stage.gain != 1
    plain = plain or stage.offset != 0
    quantizers = _first_quantizers(stage.entry)
    convolutions = _first_convolutions(model, stage.entry) if plain else None
    targets = list(stage.entry.get_target_inputs())

    parameter = opset1.parameter([batch, height, width, 3], np.uint8, name="images")
    parameter.output(0).get_tensor().set_names({"images"})
    order = opset1.constant(np.array([0, 3, 1, 2], np.int64))
    value = opset1.transpose(opset1.convert(parameter, "f32", name="images/f32"), order, name="images/nchw")
    notes: list[str] = []
    if convolutions:
        for convolution, tags in convolutions:
            _fold(convolution, tags, stage.gain, swap)
        for quantizer in quantizers:
            _rescale(quantizer, stage.gain, -stage.offset if quantizer.input_value(0) == stage.entry else 0)
    elif plain:
        notes.append(
            "It scales and reorders its input by separate operations, as its first layer could not take that in."
        )
        if swap:
            channels = opset1.constant(np.array([2, 1, 0], np.int64))
            value = opset1.gather(value, channels, opset1.constant(np.array(1, np.int64)), name="images/rgb")
        value = opset1.multiply(value, opset1.constant(np.float32(stage.gain)), name="images/scaled")
        if stage.offset:
            value = opset1.add(value, opset1.constant(np.float32(stage.offset * stage.gain)))
    for target in targets:
        target.replace_source_output(value.output(0))
    return parameter, notes


def _first_quantizers(value: ov.Output) -> list[ov.Node]:
    """The quantizers of ``value``, one behind the other, where nothing else reads it."""
    found: list[ov.Node] = []
    while len(targets := list(value.get_target_inputs())) == 1 and _is_plain_quantizer(targets[0].get_node()):
        found.append(targets[0].get_node())
        value = found[-1].output(0)
    return found


def _is_plain_quantizer(node: ov.Node) -> bool:
    """Whether it is a FakeQuantize with one constant range for everything."""
    if node.get_type_name() != "FakeQuantize":
        return False
    ranges = [input_array(node, index) for index in (1, 2, 3, 4)]
    return all(one is not None and one.size == 1 for one in ranges)


def _rescale(quantizer: ov.Node, gain: float, shift: float) -> None:
    """Let ``quantizer`` take and return bytes; what it takes is ``shift`` more than it was."""
    for index in (1, 2, 3, 4):
        limit = input_array(quantizer, index)
        assert limit is not None
        new = limit.astype(np.float64) / gain + (shift if index < 3 else 0)
        quantizer.input(index).replace_source_output(opset1.constant(new.astype(np.float32)).output(0))


def _first_convolutions(model: ov.Model, entry: ov.Output) -> list[tuple[ov.Node, list[Tag]]] | None:
    """The convolutions that read only ``entry``'s channels, and which channel each of theirs is; None if others do.

    Between them may lie what a Focus layer is made of: slices of the picture, joined along the channels.
    """
    tags: dict[tuple[str, int], list[Tag]] = {_key(entry): [((), colour) for colour in range(3)]}
    found: list[tuple[ov.Node, list[Tag]]] = []
    for node in model.get_ordered_ops():
        sources = [tags.get(_key(source)) for source in node.input_values()]
        if node.get_type_name() == "ShapeOf" or all(source is None for source in sources):
            continue
        if node.get_type_name() == "Convolution":
            if sources[0] is None or input_array(node, 1) is None or len(set(sources[0])) != len(sources[0]):
                return None
            found.append((node, sources[0]))
            continue
        passed = _passed_on(node, sources)
        if passed is None:
            return None
        tags[_key(node.output(0))] = passed
    return found


def _passed_on(node: ov.Node, sources: list[list[Tag] | None]) -> list[Tag] | None:
    """Which channels of the picture the output of ``node`` holds, where it only slices or joins; otherwise None."""
    kind = node.get_type_name()
    if kind == "Concat":
        joined = [source for source in sources if source is not None]
        along_channels = node.get_attributes()["axis"] in (1, -3)
        return [tag for tags in joined for tag in tags] if along_channels and len(joined) == len(sources) else None
    first = sources[0]
    if first is None:
        return None
    name = node.get_name()
    if _is_plain_quantizer(node):
        return first
    if kind == "SpaceToDepth" and node.get_attributes()["mode"] == "blocks_first":
        blocks = int(node.get_attributes()["block_size"]) ** 2
        return [((*where, name, block), colour) for block in range(blocks) for where, colour in first]
    before, after = list(node.input(0).get_shape()), list(node.output(0).get_shape())
    if kind not in ("Slice", "StridedSlice") or len(after) != 4 or before[:2] != after[:2]:
        return None
    steps = input_array(node, 3)
    axes = input_array(node, 4) if kind == "Slice" else None
    if steps is None or (kind == "Slice" and axes is None and node.get_input_size() > 4):
        return None
    by_axis = {
        int(axis) % 4: int(step) for axis, step in zip(range(len(steps)) if axes is None else axes, steps, strict=True)
    }
    return [((*where, name), colour) for where, colour in first] if by_axis.get(1, 1) == 1 else None


def _fold(convolution: ov.Node, tags: list[Tag], gain: float, swap: bool) -> None:
    """Give ``convolution`` the weights that make it take bytes, and BGR in place of RGB where ``swap``."""
    weights = input_array(convolution, 1)
    assert weights is not None
    position = {tag: channel for channel, tag in enumerate(tags)}
    source = [position[(where, 2 - colour if swap else colour)] for where, colour in tags]
    folded = (weights.astype(np.float64)[:, source] * gain).astype(np.float32)
    new = opset1.constant(folded, name=f"{convolution.input_value(1).get_node().get_friendly_name()}/bytes")
    convolution.input(1).replace_source_output(new.output(0))


def _key(value: ov.Output) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()
