"""Small YOLOv5-shaped INT8 models in TensorFlow Lite's format, written without TensorFlow.

The format is a FlatBuffer (schema: ``tensorflow/lite/schema/schema.fbs``); the ``tflite`` package has its accessors.
Tensors are NHWC; activations are int8 with one scale, weights int8 with a scale an output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite
from tflite import BuiltinOperator as Op
from tflite import BuiltinOptions as Options
from tflite import TensorType as Type

ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)))
SIDE = 64
CLASSES = 2
NUMBERS = 5 + CLASSES


class Writer:
    """Tensors and operations, and at last the bytes."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.tensors: list[tuple[Any, ...]] = []
        self.buffers: list[bytes] = [b""]
        self.operations: list[tuple[Any, ...]] = []
        self.codes: list[int] = []

    def tensor(
        self, shape: Sequence[int], kind: int = Type.INT8, scale: Any = None, zero: Any = 0, data: Any = None
    ) -> int:
        """Declare a tensor; returns its number."""
        buffer = 0
        if data is not None:
            self.buffers.append(np.ascontiguousarray(data).tobytes())
            buffer = len(self.buffers) - 1
        self.tensors.append((list(shape), kind, scale, zero, buffer))
        return len(self.tensors) - 1

    def constant(self, values: Any) -> int:
        """An int8 constant with one scale, as a converter stores the constants of a decoding."""
        values = np.asarray(values, np.float64)
        scale = float(np.abs(values).max()) / 127 or 1.0
        return self.tensor(values.shape, Type.INT8, scale, 0, np.round(values / scale).astype(np.int8))

    def ints(self, *values: int) -> int:
        return self.tensor([len(values)], Type.INT32, data=np.array(values, np.int32))

    def add(self, code: int, inputs: list[int], outputs: list[int], options: Any = None) -> int:
        """Add an operation; returns its first output."""
        if code not in self.codes:
            self.codes.append(code)
        self.operations.append((self.codes.index(code), inputs, outputs, options))
        return outputs[0]

    def _numbers(self, values: Any, kind: Any) -> int:
        return int(self.builder.CreateNumpyVector(np.atleast_1d(np.asarray(values, kind))))

    def _offsets(self, items: Sequence[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def _tensor(self, shape: list[int], kind: int, scale: Any, zero: Any, buffer: int) -> int:
        b = self.builder
        name, sizes, quantization = b.CreateString(f"t{b.Offset()}"), self._numbers(shape, np.int32), None
        if scale is not None:
            scales = np.atleast_1d(scale)
            numbers = self._numbers(scales, np.float32), self._numbers(np.broadcast_to(zero, scales.shape), np.int64)
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, numbers[0])
            tflite.QuantizationParametersAddZeroPoint(b, numbers[1])
            quantization = tflite.QuantizationParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, sizes)
        tflite.TensorAddType(b, kind)
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        if quantization is not None:
            tflite.TensorAddQuantization(b, quantization)
        return int(tflite.TensorEnd(b))

    def _operation(self, code: int, inputs: list[int], outputs: list[int], options: Any) -> int:
        b = self.builder
        both = self._numbers(inputs, np.int32), self._numbers(outputs, np.int32)
        table = options[1](b) if options else None
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, both[0])
        tflite.OperatorAddOutputs(b, both[1])
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(b, options[0])
            tflite.OperatorAddBuiltinOptions(b, table)
        return int(tflite.OperatorEnd(b))

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        b = self.builder
        buffers = []
        for content in self.buffers:
            data = b.CreateByteVector(content) if content else None
            tflite.BufferStart(b)
            if data is not None:
                tflite.BufferAddData(b, data)
            buffers.append(tflite.BufferEnd(b))
        parts = [
            self._offsets(buffers),
            self._offsets([self._tensor(*one) for one in self.tensors]),
            self._offsets([self._operation(*one) for one in self.operations]),
            self._numbers(inputs, np.int32),
            self._numbers(outputs, np.int32),
        ]
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, parts[1])
        tflite.SubGraphAddOperators(b, parts[2])
        tflite.SubGraphAddInputs(b, parts[3])
        tflite.SubGraphAddOutputs(b, parts[4])
        graphs = self._offsets([tflite.SubGraphEnd(b)])
        codes = []
        for code in self.codes:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, 127))
            tflite.OperatorCodeAddBuiltinCode(b, code)
            tflite.OperatorCodeAddVersion(b, 3)
            codes.append(tflite.OperatorCodeEnd(b))
        listed = self._offsets(codes)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, listed)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, parts[0])
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())


def _options(name: str, **values: int) -> tuple[int, Callable[[Any], int]]:
    def build(b: Any) -> int:
        getattr(tflite, f"{name}Start")(b)
        for key, value in values.items():
            getattr(tflite, f"{name}Add{key}")(b, value)
        return int(getattr(tflite, f"{name}End")(b))

    return getattr(Options, name), build


def _convolution(w: Writer, x: int, shape: list[int], kernel: int, stride: int, scale: float, rng: Any) -> int:
    """From ``shape`` ``(side, channels in, channels out)``; SAME padding, as TensorFlow pads."""
    side, inputs, outputs = shape
    weights = rng.normal(0, 1.6 / np.sqrt(inputs * kernel**2), (outputs, kernel, kernel, inputs))
    steps = np.abs(weights).max(axis=(1, 2, 3)) / 127
    stored = np.round(weights / steps[:, None, None, None]).astype(np.int8)
    before = w.tensors[x][2]
    bias = np.round(rng.normal(0, 0.3, outputs) / (steps * before)).astype(np.int32)
    numbers = [
        w.tensor(stored.shape, Type.INT8, steps, 0, stored),
        w.tensor([outputs], Type.INT32, steps * before, 0, bias),
    ]
    out = w.tensor([1, side // stride, side // stride, outputs], Type.INT8, scale, 0)
    sizes = {"StrideW": stride, "StrideH": stride, "DilationWFactor": 1, "DilationHFactor": 1}
    return w.add(Op.CONV_2D, [x, *numbers], [out], _options("Conv2DOptions", Padding=tflite.Padding.SAME, **sizes))


def _silu(w: Writer, x: int, scale: float) -> int:
    shape = w.tensors[x][0]
    gate = w.add(Op.LOGISTIC, [x], [w.tensor(shape, Type.INT8, 1 / 256, -128)])
    return w.add(Op.MUL, [x, gate], [w.tensor(shape, Type.INT8, scale, -108)], _options("MulOptions"))


def _decode(w: Writer, head: int, stride: int, anchors: Any) -> int:
    """Rows of shares of the picture, cell by cell, each with its anchors, all in int8."""
    side, count = SIDE // stride, len(anchors)
    cells = side * side
    raw = w.tensor([1, cells, count, NUMBERS], Type.INT8, w.tensors[head][2], 0)
    w.add(Op.RESHAPE, [head, w.ints(1, cells, count, NUMBERS)], [raw], _options("ReshapeOptions"))
    y = w.add(Op.LOGISTIC, [raw], [w.tensor([1, cells, count, NUMBERS], Type.INT8, 1 / 256, -128)])
    parts = [w.tensor([1, cells, count, n], Type.INT8, 1 / 256, -128) for n in (2, 2, NUMBERS - 4)]
    w.add(Op.SPLIT_V, [y, w.ints(2, 2, NUMBERS - 4), w.ints(3)], parts, _options("SplitVOptions", NumSplits=3))

    def binary(code: int, name: str, a: int, b: int, scale: float, zero: int = 0) -> int:
        shape = np.broadcast_shapes(tuple(w.tensors[a][0]), tuple(w.tensors[b][0]))
        return w.add(code, [a, b], [w.tensor(shape, Type.INT8, scale, zero)], _options(name))

    place = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(1, cells, 1, 2) - 0.5
    xy = binary(Op.MUL, "MulOptions", parts[0], w.constant(np.full((1, 1, 1, 1), 2.0)), 2 / 255, -128)
    xy = binary(Op.ADD, "AddOptions", xy, w.constant(place), (side + 2) / 255, -120)
    xy = binary(Op.MUL, "MulOptions", xy, w.constant(np.full((1, 1, 1, 1), stride / SIDE)), 1.2 / 255, -120)
    wh = binary(Op.MUL, "MulOptions", parts[1], parts[1], 1 / 256, -128)
    sizes = 4 * np.array(anchors).reshape(1, 1, count, 2) / SIDE
    wh = binary(Op.MUL, "MulOptions", wh, w.constant(sizes), float(sizes.max()) / 255, -128)
    top = max(1.2, float(sizes.max())) / 255
    joined = w.tensor([1, cells, count, NUMBERS], Type.INT8, top, -120)
    w.add(Op.CONCATENATION, [xy, wh, parts[2]], [joined], _options("ConcatenationOptions", Axis=3))
    rows = w.tensor([1, cells * count, NUMBERS], Type.INT8, top, -120)
    return w.add(Op.RESHAPE, [joined, w.ints(1, cells * count, NUMBERS)], [rows], _options("ReshapeOptions"))


def write_tflite(path: Path, *, takes: str = "u8", decoded: bool = False, returns: str = "f32", seed: int = 0) -> Path:
    """Write a detector of two levels, strides 8 and 16, two classes, on 64x64 pixels.

    Args:
        path: the file.
        takes: ``"u8"`` (0 to 255), ``"i8"`` (-128 to 127) or ``"f32"`` (0 to 1); RGB.
        decoded: return rows ``[1, R, 7]``, boxes as shares of the picture; otherwise the raw heads, NHWC.
        returns: ``"f32"`` or ``"i8"``.
        seed: of the weights.
    """
    rng, w = np.random.default_rng(seed), Writer()
    shape = [1, SIDE, SIDE, 3]
    inner = w.tensor(shape, Type.INT8, 1 / 255, -128)
    if takes == "i8":
        image = inner
    else:
        image = w.tensor(shape, Type.UINT8, 1 / 255, 0) if takes == "u8" else w.tensor(shape, Type.FLOAT32)
        w.add(Op.QUANTIZE, [image], [inner])
    x = _silu(w, _convolution(w, inner, [SIDE, 3, 8], 6, 4, 0.04, rng), 0.02)
    fine = _silu(w, _convolution(w, x, [SIDE // 4, 8, 16], 3, 2, 0.04, rng), 0.02)
    coarse = _silu(w, _convolution(w, fine, [SIDE // 8, 16, 16], 3, 2, 0.04, rng), 0.02)
    heads = [
        _convolution(w, value, [side, 16, len(ANCHORS[0]) * NUMBERS], 1, 1, 0.05, rng)
        for value, side in ((fine, SIDE // 8), (coarse, SIDE // 16))
    ]
    outputs = heads
    if decoded:
        levels = [_decode(w, head, stride, pairs) for head, stride, pairs in zip(heads, (8, 16), ANCHORS, strict=True)]
        scale = max(w.tensors[level][2] for level in levels)
        count = sum(w.tensors[level][0][1] for level in levels)
        both = w.tensor([1, count, NUMBERS], Type.INT8, scale, -120)
        outputs = [w.add(Op.CONCATENATION, levels, [both], _options("ConcatenationOptions", Axis=1))]
    if returns == "f32":
        outputs = [w.add(Op.DEQUANTIZE, [one], [w.tensor(w.tensors[one][0], Type.FLOAT32)]) for one in outputs]
    path.write_bytes(w.finish([image], outputs))
    return path
