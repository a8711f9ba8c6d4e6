"""Whether an IR is the network that was trained: the same heads, the same zeros, and 8 bits where it says so."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.compress.executed import executed_precisions
from ovyolo.compress.head_error import head_error
from ovyolo.compress.instruction_sets import overflowing_layers
from ovyolo.compress.layers import LAYERS
from ovyolo.compress.qat.heads import heads_of
from ovyolo.compress.qat.insert import picture_tensors
from ovyolo.compress.qat.sparsify import effective_weights
from ovyolo.core import shared_core
from ovyolo.evaluate.judge import run_pictures

if TYPE_CHECKING:
    import openvino

    from ovyolo.train.network import Network

__all__ = ["check_ir", "stored_weights"]

SHAKE = 5e-6
STORING = ("Multiply", "Subtract", "Convert", "Reshape")


def check_ir(
    network: Network, model: openvino.Model, card: Card, pictures: Sequence[NDArray[np.uint8]]
) -> dict[str, Any]:
    """Compare what was trained with the IR made of it.

    Args:
        network: what :func:`~ovyolo.compress.qat.to_ir.trained_ir` was given.
        model, card: what it gave, or the file that this became.
        pictures: letterboxed, u8 BGR ``(H, W, 3)``.

    Returns:
        For JSON. ``float_error``: :class:`~ovyolo.compress.head_error.HeadError` in total between PyTorch and the IR
        with its quantizers computed in floating point; ``executed_error``: as it is executed. ``rounding_noise``: the
        same between PyTorch and PyTorch with biases that differ in the sixth digit: 256 steps round such differences
        up, layer after layer, so that no two ways of computing agree better. ``executed``: every
        convolution with its precision and kernel. ``in_8_bits``: their number, and ``layers``: of how many. ``zeros``:
        the share of stored zeros. ``lost_zeros``: layers in which a masked weight is not zero. ``overflowing``: layers
        in which 8-bit products can saturate on CPUs without VNNI.
    """

    expected = _heads(network, pictures)
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    executed = executed_precisions(compiled)
    stored = stored_weights(model)
    count = sum(weights.size for weights in stored.values())
    return {
        "float_error": head_error(card, expected, run_pictures(model, card, pictures, quantized=False)).total,
        "executed_error": head_error(card, expected, run_pictures(model, card, pictures)).total,
        "rounding_noise": head_error(card, expected, _heads(_shaken(network), pictures)).total,
        "executed": [one.to_list() for one in executed],
        "in_8_bits": sum(one.in_8_bits for one in executed),
        "layers": len(executed),
        "zeros": sum(int((weights == 0).sum()) for weights in stored.values()) / max(1, count),
        "lost_zeros": _lost_zeros(network, stored),
        "overflowing": overflowing_layers(model),
    }


def stored_weights(model: openvino.Model) -> dict[str, NDArray[Any]]:
    """The weights of each layer of an IR as they are stored, by its name; 8-bit ones as integers."""
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() not in LAYERS:
            continue
        source = node.input_value(1).get_node()
        while source.get_type_name() in STORING:
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Constant":
            found[node.get_friendly_name()] = np.array(source.data)
    return found


def _heads(network: Network, pictures: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
    """What the network says of the pictures, one by one."""
    return [heads_of(network, x)[0] for x in picture_tensors(pictures)]


def _shaken(network: Network) -> Network:
    """A copy whose biases differ by a few millionths."""
    shaken = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in shaken.named_parameters():
            if name.endswith("bias"):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.mul_(1 + SHAKE * noise.to(parameter.device))
    return shaken


def _lost_zeros(network: Network, stored: dict[str, NDArray[Any]]) -> list[str]:
    """Layers of which a masked weight is not stored as zero, or that are not found."""
    lost = []
    for name, weight in effective_weights(network).items():
        layer = name.removesuffix(".weight").removesuffix(".conv")
        masked = (weight == 0).cpu().numpy()
        there = stored.get(layer)
        if there is not None and there.shape != masked.shape and there.size == masked.size:
            there = there.reshape(masked.shape)  # groups have an axis of their own
        if there is None or there.shape != masked.shape or (there[masked].any() and there[:, ::-1][masked].any()):
            lost.append(layer)
    return lost
