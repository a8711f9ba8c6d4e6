"""From a checkpoint's record tree to an OpenVINO model that ends at the head convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ovyolo.card import Card, Head
from ovyolo.errors import DimensionError, OvyoloError, UnsupportedModelError, reason_of
from ovyolo.export.checkpoint import Checkpoint, Record, attr, children, class_name, tensor

if TYPE_CHECKING:
    import openvino

    from ovyolo.export.emitter import Value

__all__ = ["build_model"]

# what numbers of the wrong type or size in a checkpoint raise here and in OpenVINO
MALFORMED = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError)


def build_model(
    checkpoint: Checkpoint, imgsz: tuple[int, int], *, keep_half: bool = False
) -> tuple[openvino.Model, Card]:
    """Build the network of ``checkpoint`` for an input of ``imgsz`` (height, width) pixels.

    With ``keep_half``, FP16 weights stay as the checkpoint has them (see :class:`~ovyolo.export.emitter.Emitter`);
    otherwise batch norms are multiplied into them.

    Returns:
        A model with the input ``images`` ``[1, H, W, 3]`` u8 BGR and the outputs ``head0``, ``head1``, …
        ``[1, na*(5+nc), H/stride, W/stride]`` f32, finest first; and its card.

    Raises:
        UnsupportedModelError: the checkpoint holds a layer that is not known, or parts that do not fit.
        DimensionError: ``imgsz`` is no multiple of the largest stride.
    """
    try:
        return _build(checkpoint, imgsz, keep_half)
    except OvyoloError as error:
        raise type(error)(f"{checkpoint.path}: {error}") from error
    except MALFORMED as error:
        raise UnsupportedModelError(
            f"{checkpoint.path}: its layers have parts or numbers that do not fit together ({reason_of(error)}): "
            "the file is damaged, or its layers are not the ones known by these names"
        ) from error


def _build(checkpoint: Checkpoint, imgsz: tuple[int, int], keep_half: bool) -> tuple[openvino.Model, Card]:
    import openvino as ov
    from openvino import opset1

    from ovyolo.export.emitter import Emitter
    from ovyolo.export.layers import iterate_layers

    layers = list(iterate_layers(checkpoint.model))
    detect = layers[-1][1]
    _check_size(imgsz, detect)
    emitter = Emitter(imgsz, keep_half=keep_half)
    inputs = _run_layers(emitter, layers)
    heads = _head_convolutions(emitter, detect, inputs, f"model.{len(layers) - 1}")

    sizes = [tuple(emitter.shape(head)[2:]) for head in heads]
    order = sorted(range(len(heads)), key=lambda i: -sizes[i][0])
    strides = [_stride(imgsz, sizes[i]) for i in order]
    anchors = _anchors(detect, [_stride(imgsz, size) for size in sizes])
    results = []
    for level, index in enumerate(order):
        heads[index].get_tensor().set_names({f"head{level}"})
        results.append(opset1.result(heads[index], name=f"head{level}/result"))
    model = ov.Model(results, [emitter.parameter], "ovyolo")
    card = Card(
        names=_names(checkpoint, int(attr(detect, "nc", 0))),
        imgsz=imgsz,
        head=Head(
            kind="anchors",
            outputs=tuple(f"head{i}" for i in range(len(order))),
            strides=tuple(strides),
            anchors=tuple(anchors[i] for i in order),
        ),
    )
    return model, card


def _names(checkpoint: Checkpoint, num_classes: int) -> tuple[str, ...]:
    """One name a class: a missing one is called by its number, one too many is an error."""
    if checkpoint.names and max(checkpoint.names) >= num_classes:
        raise UnsupportedModelError(f"it names {len(checkpoint.names)} classes, but its head tells {num_classes} apart")
    return tuple(checkpoint.names.get(i, f"class{i}") for i in range(num_classes))


def _check_size(imgsz: tuple[int, int], detect: Record) -> None:
    strides = tensor(detect, "stride")
    strides = attr(detect, "stride", None) if strides is None else strides
    largest = int(max(np.ravel(strides))) if strides is not None and np.size(strides) else 32
    if any(side < largest or side % largest for side in imgsz):
        lower = tuple(max(largest, side // largest * largest) for side in imgsz)
        raise DimensionError(
            f"imgsz {imgsz[0]},{imgsz[1]} is not a multiple of the model's largest stride {largest}: "
            f"try {lower[0]},{lower[1]} or {lower[0] + largest},{lower[1] + largest}"
        )


def _run_layers(emitter: Any, layers: list[tuple[int, Record]]) -> list[Value]:
    """Emit all layers but the last; return what the last one reads."""
    from ovyolo.export.layers import apply_layer

    outputs: list[Value] = []
    for index, record in layers:
        sources = attr(record, "f", -1)
        wanted = list(sources) if isinstance(sources, (list, tuple)) else [sources]
        gathered = [_source(outputs, emitter.raw, index, int(j)) for j in wanted]
        if index == len(layers) - 1:
            return gathered
        name = f"model.{index}"
        if class_name(record) == "Concat":
            axis = int(attr(record, "d", 1))
            outputs.append(_concat(emitter, gathered, axis, name))
        elif len(gathered) != 1:
            raise UnsupportedModelError(
                f"layer {name} ({record.module}.{record.qualname}) reads {len(gathered)} inputs"
            )
        else:
            outputs.append(apply_layer(emitter, record, gathered[0], name))
    raise UnsupportedModelError("the model has no layers")


def _concat(emitter: Any, values: list[Value], axis: int, name: str) -> Value:
    shapes = [emitter.shape(v) for v in values]
    if len({tuple(s[:axis] + s[axis + 1 :]) for s in shapes}) != 1:
        raise DimensionError(
            f"layer {name} joins maps of different sizes {shapes}: imgsz does not fit the model's strides, "
            "try a multiple of 32 or 64"
        )
    return emitter.concat(values, name, axis)


def _source(outputs: list[Value], raw: Value, index: int, reference: int) -> Value:
    """The output that a layer's ``f`` names: an absolute number, or a negative one relative to the layer."""
    position = reference if reference >= 0 else index + reference
    if position == -1:
        return raw
    if not 0 <= position < len(outputs):
        raise UnsupportedModelError(f"layer model.{index} reads from layer {reference}, which does not come before it")
    return outputs[position]


def _head_convolutions(emitter: Any, detect: Record, inputs: list[Value], name: str) -> list[Value]:
    from ovyolo.export.layers import apply_layer

    convolutions = list(children(children(detect)["m"]).values())
    if len(convolutions) != len(inputs):
        raise UnsupportedModelError(f"layer {name} has {len(convolutions)} convolutions for {len(inputs)} inputs")
    heads = [
        apply_layer(emitter, record, x, f"{name}.m.{i}")
        for i, (record, x) in enumerate(zip(convolutions, inputs, strict=True))
    ]
    expected = int(attr(detect, "na", 3)) * (5 + int(attr(detect, "nc", 0)))
    for i, head in enumerate(heads):
        if emitter.shape(head)[1] != expected:
            raise UnsupportedModelError(f"layer {name}.m.{i} has {emitter.shape(head)[1]} channels, not {expected}")
    return heads


def _stride(imgsz: tuple[int, int], size: tuple[int, ...]) -> int:
    stride, rest = divmod(imgsz[0], size[0])
    if rest or size[1] * stride != imgsz[1]:
        raise UnsupportedModelError(f"a head of {size} cells does not divide an input of {imgsz} pixels evenly")
    return stride


def _anchors(detect: Record, strides: list[int]) -> list[tuple[tuple[float, float], ...]]:
    """Anchors in input pixels, level by level; the checkpoint keeps them in units of the stride."""
    stored = tensor(detect, "anchors")
    if stored is None or stored.ndim != 3 or stored.shape[0] != len(strides) or stored.shape[2] != 2:
        raise UnsupportedModelError("its Detect layer has no anchors of the form [levels, anchors, 2]")
    pixels = np.asarray(stored, np.float64) * np.array(strides, np.float64).reshape(-1, 1, 1)
    if not np.isfinite(pixels).all() or (pixels <= 0).any():
        raise UnsupportedModelError("its anchors are not all positive numbers")
    # halves of FP16 storage: anchors are given to a hundredth of a pixel, no finer
    return [tuple((round(float(w), 4), round(float(h), 4)) for w, h in level) for level in pixels]
