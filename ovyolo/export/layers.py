"""The layers of YOLOv5 and its hub variants: from an inert record to operations.

Each function takes the emitter, the record of one layer, its input and its name, and returns its output. What a layer
computes is taken from the papers and from what the records contain (which children, which shapes), so that a class that
changed between generations is told apart by its parts, not by its date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import UnsupportedModelError
from ovyolo.export.attention import transformer_block
from ovyolo.export.checkpoint import Record, attr, children, class_name, tensor
from ovyolo.export.emitter import Emitter, Value

__all__ = ["apply_layer", "iterate_layers"]

Layer = Callable[[Emitter, Record, Value, str], Value]
Array = NDArray[Any]

ACTIVATIONS = {
    "SiLU": "SiLU",
    "Swish": "SiLU",
    "MemoryEfficientSwish": "SiLU",
    "Hardswish": "Hardswish",
    "Mish": "Mish",
    "MemoryEfficientMish": "Mish",
    "ReLU": "ReLU",
    "ReLU6": "ReLU6",
    "LeakyReLU": "LeakyReLU",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
}


def apply_layer(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """Emit the layer ``record`` on ``x``.

    Raises:
        UnsupportedModelError: names a class that is not known, or parts that do not fit.
    """
    kind = class_name(record)
    if kind in ACTIVATIONS:
        return b.activation(x, ACTIVATIONS[kind], name, slope=float(attr(record, "negative_slope", 0.01)))
    layer = LAYERS.get(kind)
    if layer is None:
        raise UnsupportedModelError(
            f"layer {name} is of the unknown class {record.module}.{record.qualname}: "
            "export the model to ONNX with the tool that trained it, and give that file to `ovyolo export`"
        )
    return layer(b, record, x, name)


def child(record: Record, key: str, name: str) -> Record:
    """The part of a layer, or a sentence that says what is missing."""
    found = children(record).get(key)
    if found is None:
        raise UnsupportedModelError(
            f"layer {name} ({record.module}.{record.qualname}) has no part {key!r}: "
            "it is not the layer known by that name"
        )
    return found


def part(b: Emitter, record: Record, key: str, x: Value, name: str) -> Value:
    """Emit the part ``key`` of a layer."""
    return apply_layer(b, child(record, key, name), x, f"{name}.{key}")


def pair(value: Any) -> tuple[int, int]:
    """``3`` or ``(3, 5)`` as two integers."""
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def required(record: Record, key: str, name: str) -> Array:
    """A tensor that the layer must have."""
    array = tensor(record, key)
    if array is None:
        raise UnsupportedModelError(f"layer {name} ({record.module}.{record.qualname}) has no {key}")
    return array


def batch_norm(record: Record, name: str) -> tuple[Array, Array]:
    """A batch norm as float64 ``(scale, shift)`` per channel."""
    mean = required(record, "running_mean", name).astype(np.float64)
    variance = required(record, "running_var", name).astype(np.float64)
    gamma, beta = tensor(record, "weight"), tensor(record, "bias")
    spread = variance + float(attr(record, "eps", 1e-5))
    if not (spread > 0).all():
        raise UnsupportedModelError(f"layer {name} has a variance that is not positive: the training diverged")
    scale = 1.0 / np.sqrt(spread)
    if gamma is not None:
        scale = scale * gamma.astype(np.float64)
    shift = -mean * scale
    return scale, shift if beta is None else shift + beta.astype(np.float64)


def conv_arguments(record: Record, name: str) -> dict[str, Any]:
    """Stride, padding, dilation and groups of a Conv2d record."""
    if attr(record, "padding_mode", "zeros") != "zeros":
        raise UnsupportedModelError(
            f"layer {name} pads with {attr(record, 'padding_mode', '')!r}; only zeros are known"
        )
    padding = attr(record, "padding", 0)
    kernel, dilation = pair(attr(record, "kernel_size", 1)), pair(attr(record, "dilation", 1))
    if isinstance(padding, str):
        if padding not in ("valid", "same") or any(d * (k - 1) % 2 for k, d in zip(kernel, dilation, strict=True)):
            raise UnsupportedModelError(f"layer {name} has padding {padding!r}, which is not symmetric")
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return {
        "stride": pair(attr(record, "stride", 1)),
        "padding": pair(padding),
        "dilation": dilation,
        "groups": int(attr(record, "groups", 1)),
    }


def conv2d(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.Conv2d."""
    return b.conv(x, required(record, "weight", name), tensor(record, "bias"), name, **conv_arguments(record, name))


def conv_and_norm(record: Record, name: str) -> tuple[Array, dict[str, Any]]:
    """Weight of a Conv block, and the convolution's other arguments: its batch norm as a float64 scale and bias."""
    inner = child(record, "conv", name)
    weight = required(inner, "weight", name)
    bias = tensor(inner, "bias")
    arguments = {**conv_arguments(inner, name), "scale": None, "bias": bias}
    norm = children(record).get("bn")
    if norm is not None and class_name(norm) != "Identity":
        scale, shift = batch_norm(norm, f"{name}.bn")
        arguments["scale"] = scale
        arguments["bias"] = shift if bias is None else shift + bias.astype(np.float64) * scale
    return weight, arguments


def activate(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """The block's own activation, if it has one."""
    act = children(record).get("act")
    return x if act is None else apply_layer(b, act, x, f"{name}.act")


def conv_block(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """Conv, DWConv: convolution, batch norm, activation."""
    weight, arguments = conv_and_norm(record, name)
    return activate(b, record, b.conv(x, weight, name=name, **arguments), name)


def focus(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """Focus: four interleaved half-size pictures as channels, then a Conv block.

    Emitted as what it equals: one convolution of twice the kernel and twice the stride.
    """
    inner = child(record, "conv", name)
    weight, arguments = conv_and_norm(inner, f"{name}.conv")
    if arguments["groups"] != 1 or arguments["dilation"] != (1, 1) or weight.shape[1] % 4:
        raise UnsupportedModelError(f"layer {name} is a Focus around a grouped or dilated convolution")
    whole = interleaved(weight)
    for key in ("stride", "padding"):
        arguments[key] = tuple(2 * v for v in arguments[key])
    return activate(b, inner, b.conv(x, whole, name=f"{name}.conv", **arguments), f"{name}.conv")


def interleaved(weight: Array) -> Array:
    """The weight, of twice the kernel, that does on the picture what ``weight`` does on a Focus layer's slices."""
    out, channels, height, width = weight.shape
    sliced = weight.reshape(out, 4, channels // 4, height, width)
    whole = np.zeros((out, channels // 4, 2 * height, 2 * width), weight.dtype)
    # the order of the slices is (even row, even column), (odd, even), (even, odd), (odd, odd)
    for index, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        whole[:, :, row::2, column::2] = sliced[:, index]
    return whole


def bottleneck(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """Bottleneck, CrossConv: two Conv blocks, and the input added when the layer says so."""
    y = part(b, record, "cv2", part(b, record, "cv1", x, name), name)
    return b.add(x, y, f"{name}.add") if attr(record, "add", False) else y


def csp(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """BottleneckCSP (and C3 of 2020, built the same): CSPNet with a joint batch norm (arXiv:1911.11929)."""
    deep = part(b, record, "cv3", part(b, record, "m", part(b, record, "cv1", x, name), name), name)
    joined = b.concat([deep, part(b, record, "cv2", x, name)], f"{name}.concat")
    scale, shift = batch_norm(child(record, "bn", name), f"{name}.bn")
    return part(b, record, "cv4", activate(b, record, b.scale_shift(joined, scale, shift, f"{name}.bn"), name), name)


def c3(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """C3 and its kin (C3x, C3TR, C3SPP, C3Ghost): CSPNet with three convolutions."""
    if {"cv4", "bn"} <= children(record).keys():
        return csp(b, record, x, name)
    deep = part(b, record, "m", part(b, record, "cv1", x, name), name)
    return part(b, record, "cv3", b.concat([deep, part(b, record, "cv2", x, name)], f"{name}.concat"), name)


def ghost_conv(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """GhostConv (arXiv:1911.11907): half the channels computed, half derived from them cheaply."""
    y = part(b, record, "cv1", x, name)
    return b.concat([y, part(b, record, "cv2", y, name)], f"{name}.concat")


def ghost_bottleneck(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """GhostBottleneck: ghost convolutions beside a shortcut."""
    return b.add(part(b, record, "conv", x, name), part(b, record, "shortcut", x, name), f"{name}.add")


def pool_arguments(record: Record, name: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and padding of a MaxPool2d record."""
    if attr(record, "ceil_mode", False) or pair(attr(record, "dilation", 1)) != (1, 1):
        raise UnsupportedModelError(f"layer {name} is a pooling with ceil_mode or dilation, which is not known")
    kernel = attr(record, "kernel_size", None)
    return pair(kernel), pair(attr(record, "stride", None) or kernel), pair(attr(record, "padding", 0))


def max_pool(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.MaxPool2d."""
    return b.max_pool(x, *pool_arguments(record, name), name)


def spp(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """SPP: spatial pyramid pooling. A pool that an earlier one can be continued to is emitted as its continuation."""
    pooled = [part(b, record, "cv1", x, name)]
    done: list[tuple[int, Value]] = []
    for key, pool in children(child(record, "m", name)).items():
        label = f"{name}.m.{key}"
        kernel, stride, padding = pool_arguments(pool, label)
        size = kernel[0]
        plain = kernel == (size, size) and stride == (1, 1) and padding == (size // 2, size // 2) and size % 2 == 1
        start = next((d for d in reversed(done) if plain and 0 < size - d[0] <= size // 2), None)
        if start is None:
            value = b.max_pool(pooled[0], kernel, stride, padding, label)
        else:  # maxima of maxima: a window of 5 over windows of 5 is a window of 9
            rest = size - start[0] + 1
            value = b.max_pool(start[1], (rest, rest), (1, 1), (rest // 2, rest // 2), label)
        if plain:
            done.append((size, value))
        pooled.append(value)
    return part(b, record, "cv2", b.concat(pooled, f"{name}.concat"), name)


def sppf(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """SPPF: SPP as three equal pools in a row."""
    pooled = [part(b, record, "cv1", x, name)]
    arguments = pool_arguments(child(record, "m", name), f"{name}.m")
    for i in range(3):
        pooled.append(b.max_pool(pooled[-1], *arguments, f"{name}.m.{i}"))
    return part(b, record, "cv2", b.concat(pooled, f"{name}.concat"), name)


def conv_transpose(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.ConvTranspose2d, DWConvTranspose2d."""
    arguments = {key: pair(attr(record, key, default)) for key, default in
                 (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))}  # fmt: skip
    weight, bias = required(record, "weight", name), tensor(record, "bias")
    return b.conv_transpose(x, weight, bias, name, groups=int(attr(record, "groups", 1)), **arguments)


def transformer(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """TransformerBlock, with a convolution in front where the number of channels changes."""
    if "conv" in children(record):
        x = part(b, record, "conv", x, name)
    return transformer_block(b, record, x, name)


def upsample(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.Upsample, nearest or bilinear."""
    mode = str(attr(record, "mode", "nearest"))
    if mode not in ("nearest", "bilinear") or attr(record, "align_corners", None):
        raise UnsupportedModelError(f"layer {name} upsamples by {mode!r} (align_corners), which is not known")
    height, width = b.shape(x)[2:]
    size, factor = attr(record, "size", None), attr(record, "scale_factor", None)
    if size is not None:
        height, width = pair(size)
    else:
        factors = factor if isinstance(factor, (tuple, list)) else (factor, factor)
        height, width = int(height * float(factors[0])), int(width * float(factors[-1]))
    return b.resize(x, (height, width), "nearest" if mode == "nearest" else "linear", name)


def sequential(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.Sequential: one after the other."""
    for key, inner in children(record).items():
        x = apply_layer(b, inner, x, f"{name}.{key}")
    return x


def norm(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.BatchNorm2d on its own."""
    return b.scale_shift(x, *batch_norm(record, name), name)


def channel_scale(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """ovyolo's own: each channel times a number."""
    return b.scale_shift(x, required(record, "factors", name), None, name)


def frelu(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """FReLU (arXiv:2007.11824): the larger of the input and a depthwise convolution of it."""
    weight, arguments = conv_and_norm(record, name)
    return b.maximum(x, b.conv(x, weight, name=name, **arguments), f"{name}.max")


def zero_pad(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.ZeroPad2d: (left, right, top, bottom)."""
    left, right, top, bottom = (int(v) for v in attr(record, "padding", (0, 0, 0, 0)))
    return b.pad(x, (top, left), (bottom, right), name)


def nothing(b: Emitter, record: Record, x: Value, name: str) -> Value:
    """torch.nn.Identity, and Dropout, which does nothing at inference."""
    return x


LAYERS: dict[str, Layer] = {
    "Conv": conv_block,
    "DWConv": conv_block,
    "Conv2d": conv2d,
    "ConvTranspose2d": conv_transpose,
    "DWConvTranspose2d": conv_transpose,
    "BatchNorm2d": norm,
    "ChannelScale": channel_scale,
    "Bottleneck": bottleneck,
    "CrossConv": bottleneck,
    "BottleneckCSP": csp,
    "C3": c3,
    "C3x": c3,
    "C3TR": c3,
    "C3SPP": c3,
    "C3Ghost": c3,
    "GhostConv": ghost_conv,
    "GhostBottleneck": ghost_bottleneck,
    "Focus": focus,
    "SPP": spp,
    "SPPF": sppf,
    "MaxPool2d": max_pool,
    "TransformerBlock": transformer,
    "Upsample": upsample,
    "Sequential": sequential,
    "FReLU": frelu,
    "ZeroPad2d": zero_pad,
    "Identity": nothing,
    "Dropout": nothing,
    "Contract": lambda b, record, x, name: b.space_to_depth(x, int(attr(record, "gain", 2)), name),
    "Expand": lambda b, record, x, name: b.depth_to_space(x, int(attr(record, "gain", 2)), name),
}


def iterate_layers(model: Record) -> Iterator[tuple[int, Record]]:
    """The numbered layers of a model record, in order."""
    layers = children(model).get("model")
    if layers is None:
        raise UnsupportedModelError(f"{model.module}.{model.qualname} has no list of layers: it is not a YOLOv5 model")
    yield from enumerate(children(layers).values())
