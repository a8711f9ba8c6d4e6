"""The camera's bytes go in as they are: make a network take ``[N, H, W, 3]`` u8 BGR.

Scaling and channel order go into the weights of the first convolutions, so that no operation is left for them. Where a
quantizer stands between, the scale goes into the range that it takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from openvino import opset1

from ovyolo.export.imported.input_stage import InputStage
from ovyolo.export.opsets import input_array

__all__ = ["replace_input"]

# which pixels of a block a channel was taken from, and which colour it is
Tag = tuple[tuple[Any, ...], int]
# what stands between stored 8-bit weights and the convolution
DEQUANTIZING = ("Convert", "Multiply", "Subtract")


class _Channels(NamedTuple):
    """What a value's channels are, and whether a quantizer on the way there takes the scale."""

    tags: list[Tag]
    quantized: bool


class _First(NamedTuple):
    """What reads the picture: convolutions, with the channels that each reads, and the quantizers before them."""

    convolutions: list[tuple[ov.Node, _Channels]]
    quantizers: list[ov.Node]


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
    plain = swap or stage.gain != 1 or stage.offset != 0
    first = _first_convolutions(model, stage.entry) if plain else None
    if first is not None and stage.offset and not all(channels.quantized for _, channels in first.convolutions):
        first = None  # a convolution's padding cannot take an offset, a quantizer's range can
    targets = list(stage.entry.get_target_inputs())

    parameter = opset1.parameter([batch, height, width, 3], np.uint8, name="images")
    parameter.output(0).get_tensor().set_names({"images"})
    order = opset1.constant(np.array([0, 3, 1, 2], np.int64))
    value = opset1.transpose(opset1.convert(parameter, "f32", name="images/f32"), order, name="images/nchw")
    notes: list[str] = []
    if first is not None and first.convolutions:
        for convolution, channels in first.convolutions:
            _fold(convolution, channels.tags, 1.0 if channels.quantized else stage.gain, swap)
        for quantizer in first.quantizers:
            _take_bytes(quantizer, stage.gain, stage.offset)
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


def _first_convolutions(model: ov.Model, entry: ov.Output) -> _First | None:
    """The convolutions that read only ``entry``'s channels, and which channel each of theirs is; None if others do.

    Between them may lie what a Focus layer is made of (slices of the picture, joined along the channels), and
    quantizers with one range for all channels.
    """
    seen: dict[tuple[str, int], _Channels] = {_key(entry): _Channels([((), colour) for colour in range(3)], False)}
    found = _First([], [])
    for node in model.get_ordered_ops():
        sources = [seen.get(_key(source)) for source in node.input_values()]
        if node.get_type_name() == "ShapeOf" or all(source is None for source in sources):
            continue
        first = sources[0]
        if node.get_type_name() == "Convolution":
            if first is None or _stored_weights(node) is None or len(set(first.tags)) != len(first.tags):
                return None
            found.convolutions.append((node, first))
            continue
        if node.get_type_name() == "FakeQuantize":
            ranges = [input_array(node, index) for index in range(1, 5)]
            if first is None or any(one is None or one.size != 1 for one in ranges):
                return None
            if not first.quantized:
                found.quantizers.append(node)
            seen[_key(node.output(0))] = _Channels(first.tags, True)
            continue
        passed = _passed_on(node, [None if source is None else source.tags for source in sources])
        quantized = {source.quantized for source in sources if source is not None}
        if passed is None or len(quantized) != 1:
            return None
        seen[_key(node.output(0))] = _Channels(passed, quantized.pop())
    return found


def _stored_weights(convolution: ov.Node) -> list[ov.Node] | None:
    """The operations from the convolution's weights back to the constant that stores them, which is the last; None
    where they are computed in another way, or nothing there could take a scale."""
    node = convolution.input_value(1).get_node()
    chain = [node]
    while node.get_type_name() in DEQUANTIZING:
        if any(input_array(node, index) is None for index in range(1, node.get_input_size())):
            return None
        node = node.input_value(0).get_node()
        chain.append(node)
    scalable = len(chain) == 1 or any(one.get_type_name() == "Multiply" for one in chain)
    return chain if scalable and node.get_type_name() == "Constant" else None


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
    chain = _stored_weights(convolution)
    assert chain is not None
    position = {tag: channel for channel, tag in enumerate(tags)}
    order = [position[(where, 2 - colour if swap else colour)] for where, colour in tags]
    stored = chain[-1]
    weights = np.array(stored.data)[:, order]
    if len(chain) == 1:
        weights = (weights.astype(np.float64) * gain).astype(np.float32)
    new = opset1.constant(np.ascontiguousarray(weights), name=f"{stored.get_friendly_name()}/bytes")
    reader = convolution.input(1) if len(chain) == 1 else chain[-2].input(0)
    reader.replace_source_output(new.output(0))
    scaled = False
    for node in chain[:-1]:
        constant = input_array(node, 1)
        if constant is None:
            continue
        values = constant[:, order] if constant.ndim > 1 and constant.shape[1] == len(order) > 1 else constant
        if node.get_type_name() == "Multiply" and not scaled:
            values, scaled = (values.astype(np.float64) * gain).astype(constant.dtype), True
        node.input(1).replace_source_output(opset1.constant(np.ascontiguousarray(values)).output(0))


def _take_bytes(quantizer: ov.Node, gain: float, offset: float) -> None:
    """Let ``quantizer`` take bytes ``b`` in place of ``(b + offset) * gain``; what it gives stays the same."""
    for index in (1, 2):
        bound = input_array(quantizer, index)
        assert bound is not None
        wider = opset1.constant((bound.astype(np.float64) / gain - offset).astype(np.float32))
        quantizer.input(index).replace_source_output(wider.output(0))


def _key(value: ov.Output) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()
