"""Weights alone in few bits, computed with in floating point: 4-bit integers, 8-bit floats, and non-linear codebooks.

OpenVINO converts such weights back when it loads a convolution, so that only the file is smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.layers import Layer

if TYPE_CHECKING:
    import openvino

__all__ = ["NF4", "best_levels", "store_weights"]

Array = NDArray[Any]
# the values of "NormalFloat 4" (Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, appendix E)
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
INT4_LARGEST = 7
FP8_LARGEST = 448.0  # of E4M3
ROUNDS = 25


def best_levels(values: Array, count: int = 16) -> Array:
    """The ``count`` numbers, float32 and ascending, that Lloyd's iteration from evenly spread ones fits to ``values``.

    Example:
        >>> best_levels(np.array([1.0, 1.0, 4.0, 4.5, 8.0]), 3).tolist()
        [1.0, 4.25, 8.0]
    """
    ordered = np.sort(values.reshape(-1).astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    levels = np.linspace(ordered[0], ordered[-1], count)
    for _ in range(ROUNDS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        # a level that nothing is nearest to stays where it is
        levels = np.where(counts > 0, means, levels)
    return np.asarray(levels, np.float32)


def store_weights(layer: Layer, weight_format: str) -> openvino.Output:
    """The weights of ``layer`` as a small constant, converted and multiplied back to FP32.

    Args:
        layer: with float32 weights.
        weight_format: ``"int4"``, ``"fp8"``, ``"nf4"`` or ``"codebook"``; see :class:`~ovyolo.compress.scheme.Scheme`.
    """
    import openvino as ov
    from openvino import opset1

    axes = tuple(axis for axis, size in enumerate(layer.scale_shape) if size == 1 and layer.weights.shape[axis] > 1)
    scale = np.abs(layer.weights).max(axis=axes, keepdims=True) if axes else np.abs(layer.weights)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    unit = layer.weights / scale
    shape = ov.Shape(list(layer.weights.shape))
    if weight_format == "codebook":
        levels = best_levels(unit)
        index = _nearest(unit, levels)
        stored = ov.op.Constant(ov.Type.u4, shape, index.reshape(-1).tolist())
        values = opset1.gather(
            opset1.constant(levels), opset1.convert(stored, "i32"), opset1.constant(np.array(0, np.int64))
        )
    elif weight_format == "nf4":
        stored = ov.op.Constant(ov.Type.nf4, shape, NF4[_nearest(unit, NF4)].reshape(-1).tolist())
        values = opset1.convert(stored, "f32")
    else:
        largest, kind = {"int4": (INT4_LARGEST, ov.Type.i4), "fp8": (FP8_LARGEST, ov.Type.f8e4m3)}[weight_format]
        steps = unit * largest
        steps = np.round(steps) if weight_format == "int4" else steps
        stored = ov.op.Constant(kind, shape, steps.reshape(-1).tolist())
        values = opset1.convert(stored, "f32")
        scale = (scale / largest).astype(np.float32)
    product = opset1.multiply(values, opset1.constant(scale))
    product.set_friendly_name(f"{layer.name}/weights")
    return product.output(0)


def _nearest(values: Array, levels: Array) -> Array:
    """The index of the nearest of the ascending ``levels`` for each value."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
