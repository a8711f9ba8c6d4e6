"""C3TR's transformer: multi-head self-attention over the positions of a feature map (arXiv:1706.03762)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import UnsupportedModelError
from ovyolo.export.checkpoint import Record, attr, children, tensor
from ovyolo.export.emitter import Emitter, Value

__all__ = ["transformer_block"]

Array = NDArray[np.float64]


def _weight(record: Record, path: str, name: str) -> Array:
    """The tensor at a dotted ``path`` below ``record``, float64."""
    *parts, leaf = path.split(".")
    for key in parts:
        found = children(record).get(key)
        if found is None:
            raise UnsupportedModelError(
                f"layer {name} has no part {path!r}: it is not the transformer known by that name"
            )
        record = found
    array = tensor(record, leaf)
    if array is None:
        raise UnsupportedModelError(
            f"layer {name} has no tensor {path!r}: it is not the transformer known by that name"
        )
    return np.asarray(array, np.float64)


def transformer_block(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """TransformerBlock after its convolution: a sequence of positions, a learnt position term, attention."""
    parts = children(record)
    _, channels, height, width = b.shape(x)
    flat = b.reshape(x, (1, channels, height * width), f"{name}.flat")
    sequence = b.transpose(flat, (0, 2, 1), f"{name}.sequence")
    position = b.linear(sequence, _weight(record, "linear.weight", name), _bias(parts["linear"]), f"{name}.linear")
    sequence = b.add(sequence, position, f"{name}.position")
    for key, layer in children(parts["tr"]).items():
        sequence = _layer(b, layer, sequence, f"{name}.tr.{key}")
    back = b.transpose(sequence, (0, 2, 1), f"{name}.channels_first")
    return b.reshape(back, (1, channels, height, width), f"{name}.map")


def _bias(record: Record) -> Any:
    return tensor(record, "bias")


def _layer(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """One layer: attention and a two-step linear map, each with its input added; no normalisation.

    Linear maps that follow one another without an activation between are multiplied together beforehand (float64).
    """
    _, length, channels = b.shape(x)
    attention = children(record).get("ma")
    if attention is None:
        raise UnsupportedModelError(f"layer {name} has no attention: it is not the transformer known by that name")
    heads = int(attr(attention, "num_heads", 1))
    if attr(attention, "bias_k", None) is not None or attr(attention, "add_zero_attn", False) or channels % heads:
        raise UnsupportedModelError(
            f"layer {name} uses an attention with extra keys or uneven heads, which is not known"
        )
    size = channels // heads
    stacked = _weight(attention, "in_proj_weight", name)
    stacked_bias = tensor(attention, "in_proj_bias")
    projected: dict[str, Value] = {}
    for i, key in enumerate("qkv"):
        rows = slice(i * channels, (i + 1) * channels)
        first = _weight(record, f"{key}.weight", name)
        weight = stacked[rows] @ first
        bias = np.zeros(channels) if stacked_bias is None else np.asarray(stacked_bias, np.float64)[rows]
        first_bias = _bias(children(record)[key])
        if first_bias is not None:
            bias = bias + stacked[rows] @ np.asarray(first_bias, np.float64)
        if key == "q":
            weight, bias = weight / np.sqrt(size), bias / np.sqrt(size)
        value = b.linear(x, weight, bias, f"{name}.{key}")
        value = b.reshape(value, (1, length, heads, size), f"{name}.{key}.heads")
        projected[key] = b.transpose(value, (0, 2, 1, 3), f"{name}.{key}.heads_first")
    scores = b.matmul(projected["q"], projected["k"], f"{name}.scores", transpose_b=True)
    mixed = b.matmul(b.softmax(scores, 3, f"{name}.softmax"), projected["v"], f"{name}.mixed")
    mixed = b.reshape(b.transpose(mixed, (0, 2, 1, 3), f"{name}.back"), (1, length, channels), f"{name}.joined")
    out_weight = _weight(attention, "out_proj.weight", name)
    out = b.linear(mixed, out_weight, _bias(children(attention)["out_proj"]), f"{name}.out")
    x = b.add(out, x, f"{name}.add1")
    second, first = _weight(record, "fc2.weight", name), _weight(record, "fc1.weight", name)
    first_bias, second_bias = _bias(children(record)["fc1"]), _bias(children(record)["fc2"])
    folded = None if second_bias is None else np.asarray(second_bias, np.float64)
    if first_bias is not None:
        passed_on = second @ np.asarray(first_bias, np.float64)
        folded = passed_on if folded is None else folded + passed_on
    return b.add(b.linear(x, second @ first, folded, f"{name}.fc"), x, f"{name}.add2")
