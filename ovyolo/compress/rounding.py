"""Weights in 8 bits that lose little and cannot overflow.

Without VNNI a CPU multiplies unsigned by signed bytes and adds two neighbouring products in 16 bits, which saturate
(``vpmaddubsw``). Neighbours are the input channels 2k and 2k+1 at one place of the kernel. With activations up to 255
the sum stays exact while the positive weights of a pair sum up to at most 128, and the negative ones to at least -128.
A scale that just keeps to this costs a seventh of a bit on real networks, where halving the range costs one.

Rounding follows Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2023): column by column, the error made is compensated by the columns that are still to be rounded, as the covariance
of the inputs says; the columns with the largest variance come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.layers import Layer
from ovyolo.compress.moments import Moments
from ovyolo.errors import ExportError

__all__ = [
    "LARGEST",
    "PAIR_LIMIT",
    "channel_scale",
    "compensated_steps",
    "neighbours_of",
    "round_16",
    "round_compensated",
    "round_nearest",
]

Array = NDArray[Any]
LARGEST = 127
LARGEST_16 = 32767
PAIR_LIMIT = 128  # 255 * 128 = 32640 < 32767
DAMPING = 0.005
EXTRA_DAMPING = (0.0, 0.1, 1.0, 10.0)  # tried one after the other, on top of it
BLOCK = 64


def _rows(layer: Layer) -> Array:
    """The weights as float64 ``[outputs, inputs, places]``; of grouped convolutions as groups x outputs rows."""
    weights = layer.weights.astype(np.float64)
    if layer.kind == "GroupConvolution":
        weights = weights.reshape(-1, *weights.shape[2:])
    elif layer.kind == "ConvolutionBackpropData":
        weights = weights.swapaxes(0, 1)
    return weights.reshape(weights.shape[0], weights.shape[1], -1)


def _like(rows: Array, layer: Layer) -> Array:
    """The reverse of :func:`_rows`."""
    shape = layer.weights.shape
    if layer.kind == "ConvolutionBackpropData":
        return np.ascontiguousarray(rows.reshape(shape[1], shape[0], *shape[2:]).swapaxes(0, 1))
    return rows.reshape(shape)


def _pair_sums(rows: Array) -> Array:
    """The largest sum of two neighbouring weights of one sign, a row: ``[outputs]``."""
    odd = rows.shape[1] % 2
    padded = np.pad(rows, ((0, 0), (0, odd), (0, 0)))
    positive, negative = np.maximum(padded, 0), np.maximum(-padded, 0)
    sums = np.maximum(positive[:, 0::2] + positive[:, 1::2], negative[:, 0::2] + negative[:, 1::2])
    return np.asarray(sums.max(axis=(1, 2)))


def channel_scale(rows: Array, pairs: bool) -> Array:
    """What one step of 8 bits stands for, an output: float64 ``[outputs]``; with ``pairs``, no pair can overflow.

    Example:
        >>> channel_scale(np.array([[[100.0], [100.0]]]), pairs=True).round(3).tolist()  # each becomes 64 of 127
        [1.575]
    """
    scale = np.abs(rows).max(axis=(1, 2)) / LARGEST
    if pairs:
        # two roundings add up to one step at most
        scale = np.maximum(scale, _pair_sums(rows) / (PAIR_LIMIT - 1))
    scale[scale <= 0] = 1.0
    return scale


def round_nearest(layer: Layer, pairs: bool) -> tuple[Array, Array]:
    """The layer's weights as steps (int8) and scale (float32), each weight rounded by itself."""
    rows = _rows(layer)
    scale = channel_scale(rows, pairs)
    steps = np.clip(np.round(rows / scale[:, None, None]), -LARGEST, LARGEST)
    return _like(steps, layer).astype(np.int8), scale.reshape(layer.scale_shape).astype(np.float32)


def round_16(layer: Layer) -> tuple[Array, Array]:
    """The layer's weights as steps (int16) and scale (float32)."""
    rows = _rows(layer)
    scale = channel_scale(rows, False) * (LARGEST / LARGEST_16)
    steps = np.clip(np.round(rows / scale[:, None, None]), -LARGEST_16, LARGEST_16)
    return _like(steps, layer).astype(np.int16), scale.reshape(layer.scale_shape).astype(np.float32)


def round_compensated(layer: Layer, moments: Moments, pairs: bool) -> tuple[Array, Array, Array]:
    """Round the weights of a convolution or matrix product so that its results change least.

    Args:
        layer: without groups.
        moments: of its inputs.
        pairs: keep to what CPUs without VNNI compute exactly.

    Returns:
        Steps int8 like the weights, scale float32, and the mean error of each output that is left, float64
        ``[outputs]``, to be taken off the bias.
    """
    rows = _rows(layer)
    scale = channel_scale(rows, pairs)
    # the rounded scale is what will be multiplied with
    scale = scale.astype(np.float32).astype(np.float64)
    neighbours = [neighbours_of(np.arange(rows.shape[1]), rows.shape[2])] if pairs else []
    steps, left = compensated_steps(rows.reshape(len(rows), -1), scale, moments, (LARGEST, PAIR_LIMIT), neighbours)
    shaped = _like(steps.reshape(rows.shape), layer)
    return shaped.astype(np.int8), scale.reshape(layer.scale_shape).astype(np.float32), left


def compensated_steps(
    weights: Array, scale: Array, moments: Moments, limits: tuple[Any, Any], neighbours: Sequence[Array] = ()
) -> tuple[Array, Array]:
    """Whole steps for weights such that sums of products with the inputs change least.

    Args:
        weights: float64 ``[outputs, inputs]``.
        scale: what a step is, float64 ``[outputs]``.
        moments: of the inputs.
        limits: the largest step, and the largest sum of the steps of two neighbours of one sign: a number or
            ``[outputs]``.
        neighbours: for each input the one that it is added to in 16 bits, -1 for none; several where it may be stored
            in several orders.

    Returns:
        Steps float64 like the weights, and the mean error of each output that is left, float64 ``[outputs]``.

    Raises:
        ExportError: the inputs were no numbers.
    """
    largest, largest_sum = limits
    outputs = len(weights)
    order, factor = _factor(moments.covariance)
    rest = weights[:, order].copy()
    steps = np.zeros_like(weights)
    known = np.zeros(weights.shape[1], bool)
    for begin in range(0, len(order), BLOCK):
        end = min(begin + BLOCK, len(order))
        block = rest[:, begin:end]
        errors = np.zeros_like(block)
        for column in range(begin, end):
            place = order[column]
            low, high = np.full(outputs, -largest), np.full(outputs, largest)
            for partner in neighbours:
                if partner[place] >= 0 and known[partner[place]]:
                    other = steps[:, partner[place]]
                    high = np.minimum(high, largest_sum - np.maximum(other, 0))
                    low = np.maximum(low, np.maximum(-other, 0) - largest_sum)
            value = block[:, column - begin]
            step = np.clip(np.round(value / scale), low, high)
            steps[:, place] = step
            known[place] = True
            error = (value - step * scale) / factor[column, column]
            errors[:, column - begin] = error
            if column + 1 < end:
                block[:, column + 1 - begin :] -= np.outer(error, factor[column, column + 1 : end])
        if end < len(order):
            rest[:, end:] -= errors @ factor[begin:end, end:]
    return steps, (steps * scale[:, None] - weights) @ moments.mean


def _factor(covariance: Array) -> tuple[Array, Array]:
    """The order of the columns, and the upper Cholesky factor of the inverse covariance in that order."""
    if not np.isfinite(covariance).all():
        raise ExportError(
            "a layer's input is no number for the calibration pictures: the model or its training is broken"
        )
    matrix = covariance.copy()
    variance = np.diag(matrix).copy()
    typical = float(variance[variance > 0].mean()) if (variance > 0).any() else 1.0
    # inputs that never varied: their weights are rounded by themselves
    dead = variance <= 1e-10 * typical
    matrix[dead, :] = 0
    matrix[:, dead] = 0
    matrix[np.diag_indices_from(matrix)] = np.where(dead, typical, variance) + DAMPING * typical
    order = np.argsort(-np.diag(matrix), kind="stable")
    matrix = matrix[np.ix_(order, order)]
    diagonal = np.diag_indices_from(matrix)
    for extra in EXTRA_DAMPING:
        # where means are large beside variances, digits are lost and the covariance is no longer positive: more damping
        # then, towards rounding each weight by itself
        matrix[diagonal] += extra * typical
        inverse = np.linalg.inv(matrix)
        try:
            return order, np.linalg.cholesky((inverse + inverse.T) / 2).T
        except np.linalg.LinAlgError:
            continue
    return order, np.diag(1 / np.sqrt(np.diag(matrix)))


def neighbours_of(order: Array, places: int) -> Array:
    """For each weight of an output the one that it is added to in 16 bits; -1 for the last of an odd number.

    Args:
        order: the input channels as they are stored beside each other.
        places: of the kernel, each of which has pairs of its own.

    Example:
        >>> neighbours_of(np.array([0, 1, 2]), 1).tolist(), neighbours_of(np.array([2, 1, 0]), 1).tolist()
        ([1, 0, -1], [-1, 2, 1])
    """
    index = np.arange(len(order) * places).reshape(len(order), places)
    partner = np.full((len(order), places), -1)
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = index[pairs[:, 1]], index[pairs[:, 0]]
    return partner.reshape(-1)
