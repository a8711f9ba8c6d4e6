"""Batch norms multiplied into the convolutions before them: the same network in fewer operations, ready for quantizers.

What comes out is a network like any other: its description says what it has become, so it is saved, exported and
trained by the same means. It no longer adapts to a batch's statistics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.export.checkpoint import Record, children, class_name, copied
from ovyolo.export.layers import conv_and_norm, interleaved, pair
from ovyolo.train.network import Network

__all__ = ["fuse_batch_norms"]


def fuse_batch_norms(network: Network) -> Network:
    """A copy of ``network``, in evaluation mode, that computes the same without batch norms behind convolutions.

    Products are made in float64. A Focus layer becomes the one convolution that it equals. A batch norm that follows
    no convolution (BottleneckCSP has one) stays.

    Example:
        >>> import torch
        >>> from ovyolo.train.network import load_network
        >>> from ovyolo.train.fusing import fuse_batch_norms
        >>> fused = fuse_batch_norms(load_network("best.pt"))  # doctest: +SKIP
        >>> any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())  # doctest: +SKIP
        False
    """
    device = next(network.parameters()).device
    fused = Network(_fused(network.record(), ""), network.names, network.strides)
    return fused.to(device).eval()


def _fused(record: Record, name: str) -> Record:
    parts = children(record)
    if class_name(record) == "Focus" and _has_plain_convolution(parts.get("conv")):
        return _focus_as_convolution(record, name)
    made = copied(record)
    inner = {key: _fused(part, f"{name}.{key}" if name else key) for key, part in parts.items()}
    if _is_convolution_with_norm(record):
        weight, arguments = conv_and_norm(record, name)
        inner["conv"] = _convolution(parts["conv"], weight, arguments)
        del inner["bn"]
    made.state["_modules"] = inner
    return made


def _is_convolution_with_norm(record: Record) -> bool:
    kinds = {key: class_name(part) for key, part in children(record).items()}
    return kinds.get("conv") == "Conv2d" and kinds.get("bn") == "BatchNorm2d"


def _has_plain_convolution(record: Record | None) -> bool:
    inner = None if record is None else children(record).get("conv")
    return (
        inner is not None
        and int(inner.state.get("groups", 1)) == 1  # type: ignore[call-overload]
        and pair(inner.state.get("dilation", 1)) == (1, 1)
    )


def _focus_as_convolution(record: Record, name: str) -> Record:
    """A Conv block of twice the kernel and twice the stride, in the place of a Focus layer."""
    block = children(record)["conv"]
    weight, arguments = conv_and_norm(block, f"{name}.conv")
    arguments["stride"], arguments["padding"] = ([2 * v for v in arguments[key]] for key in ("stride", "padding"))
    made = Record(record.module, "Conv")
    # where the layer stands in the network, and what it reads
    made.state.update({key: value for key, value in record.state.items() if key[:1] != "_"})
    rest = {key: part for key, part in children(block).items() if key not in ("conv", "bn")}
    inner = _convolution(children(block)["conv"], interleaved(weight), arguments)
    made.state["_modules"] = {"conv": inner, **rest}
    return made


def _convolution(record: Record, weight: NDArray[Any], arguments: dict[str, Any]) -> Record:
    """``record`` with the weight, scaled, and the bias that :func:`conv_and_norm` gives."""
    scale, bias = arguments["scale"], arguments["bias"]
    if scale is not None:
        weight = weight.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
    made = copied(record)
    made.state.update(kernel_size=list(weight.shape[2:]), stride=list(arguments["stride"]))
    made.state["padding"] = list(arguments["padding"])
    made.state["_parameters"] = {"weight": weight.astype(np.float32)}
    if bias is not None:
        made.state["_parameters"]["bias"] = np.asarray(bias, np.float32)  # type: ignore[index]
    return made
