"""Small steps of graph building: each call adds a few OpenVINO operations of opset 1 to 7 and returns an output.

The network's input is raw: ``[1, H, W, 3]`` u8 BGR. The first convolutions take 1/255 and the channel order into their
weights; should anything else touch the input first, it is scaled and reordered by operations instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Output as Value
from openvino import opset1, opset4
from openvino.utils.node_factory import NodeFactory

from ovyolo.errors import UnsupportedModelError

__all__ = ["Emitter", "Value"]

Array = NDArray[Any]


class Emitter:
    """Builds the graph of one model.

    Args:
        imgsz: ``(height, width)`` of the input in pixels.
        keep_half: leave FP16 weights as they are, so that they can be stored without loss, and apply the scale of a
            batch norm after the convolution instead (the runtime folds it into the weights, in FP32).
    """

    def __init__(self, imgsz: tuple[int, int], *, keep_half: bool = False) -> None:
        self.keep_half = keep_half
        self.parameter = opset1.parameter([1, *imgsz, 3], np.uint8, name="images")
        self.parameter.output(0).get_tensor().set_names({"images"})
        converted = opset1.convert(self.parameter, "f32", name="images/f32")
        nchw = opset1.transpose(converted, self._ints([0, 3, 1, 2]), name="images/nchw")
        self.raw: Value = nchw.output(0)
        self._plain: Value | None = None
        self._opset4 = NodeFactory("opset4")

    @staticmethod
    def _ints(values: Sequence[int]) -> Value:
        return opset1.constant(np.array(values, np.int64)).output(0)

    @staticmethod
    def _floats(values: Array | float) -> Value:
        array = np.asarray(values, np.float32)
        if not np.isfinite(array).all():
            raise UnsupportedModelError(
                "its weights hold NaN or infinity: the training diverged, take an earlier checkpoint"
            )
        return opset1.constant(array).output(0)

    def _plain_input(self) -> Value:
        """The input as RGB from 0 to 1, for whatever is not a convolution."""
        if self._plain is None:
            rgb = opset1.gather(self.raw, self._ints([2, 1, 0]), self._ints([1]), name="images/rgb")
            self._plain = opset1.multiply(rgb, self._floats(1 / 255), name="images/scaled").output(0)
        return self._plain

    def value(self, x: Value) -> Value:
        """``x``, or, where ``x`` is the raw input, the scaled input."""
        return self._plain_input() if x is self.raw else x

    @staticmethod
    def shape(x: Value) -> list[int]:
        """Static dimensions of ``x``."""
        return list(x.get_shape())

    def conv(
        self,
        x: Value,
        weight: Array,
        bias: Array | None,
        name: str,
        *,
        scale: Array | None = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """Convolution with ``weight`` ``[out, in/groups, kh, kw]``, times ``scale`` ``[out]``, plus ``bias`` ``[out]``.

        All in any float type; products are made in float64.
        """
        channels = self.shape(x)[1]
        if weight.shape[1] * groups != channels or weight.shape[0] % groups:
            raise UnsupportedModelError(
                f"layer {name} expects {weight.shape[1] * groups} input channels in {groups} group(s), gets {channels}"
            )
        if x is self.raw:
            if groups == 1:
                weight = weight[:, ::-1]
                scale = (1.0 if scale is None else scale) / np.full(len(weight), 255.0)
            else:
                x = self.value(x)
        if scale is not None and not (self.keep_half and weight.dtype == np.float16):
            weight = weight.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
            scale = None
        pads = list(padding)
        if groups == 1:
            out = opset1.convolution(x, self._floats(weight), list(stride), pads, pads, list(dilation))
        else:
            grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
            out = opset1.group_convolution(x, self._floats(grouped), list(stride), pads, pads, list(dilation))
        out.set_friendly_name(name)
        if scale is not None:
            return self.scale_shift(out.output(0), scale, bias, name)
        return self.bias(out.output(0), bias, name)

    def conv_transpose(
        self,
        x: Value,
        weight: Array,
        bias: Array | None,
        name: str,
        *,
        stride: Sequence[int],
        padding: Sequence[int],
        output_padding: Sequence[int],
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """Transposed convolution; ``weight`` ``[in, out/groups, kh, kw]`` as PyTorch keeps it."""
        x = self.value(x)
        pads = list(padding)
        attributes: dict[str, Any] = {"output_padding": list(output_padding)}
        if groups == 1:
            out = opset1.convolution_backprop_data(
                x, self._floats(weight), list(stride), None, pads, pads, list(dilation), **attributes
            )
        else:
            grouped = np.reshape(weight, (groups, weight.shape[0] // groups, *weight.shape[1:]))
            out = opset1.group_convolution_backprop_data(
                x, self._floats(grouped), list(stride), None, pads, pads, list(dilation), **attributes
            )
        out.set_friendly_name(name)
        return self.bias(out.output(0), bias, name)

    def bias(self, x: Value, bias: Array | None, name: str) -> Value:
        """Add ``bias`` ``[channels]``, if there is one."""
        if bias is None:
            return x
        return opset1.add(x, self._floats(np.reshape(bias, (1, -1, 1, 1))), name=f"{name}/bias").output(0)

    def scale_shift(self, x: Value, scale: Array, shift: Array | None, name: str) -> Value:
        """``x * scale + shift`` per channel."""
        scaled = opset1.multiply(self.value(x), self._floats(np.reshape(scale, (1, -1, 1, 1))), name=f"{name}/scale")
        return self.bias(scaled.output(0), shift, name)

    def activation(self, x: Value, kind: str, name: str, slope: float = 0.0) -> Value:
        """Apply the activation ``kind``, as PyTorch calls it."""
        x = self.value(x)
        makers = {
            "SiLU": lambda: opset4.swish(x),
            "Hardswish": lambda: opset4.hswish(x),
            "Mish": lambda: opset4.mish(x),
            "ReLU": lambda: opset1.relu(x),
            "ReLU6": lambda: opset1.clamp(x, 0.0, 6.0),
            "LeakyReLU": lambda: opset1.prelu(x, self._floats(np.array([slope]))),
            "Sigmoid": lambda: opset1.sigmoid(x),
            "Tanh": lambda: opset1.tanh(x),
        }
        node = makers[kind]()
        node.set_friendly_name(name)
        return node.output(0)

    def max_pool(
        self, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], name: str
    ) -> Value:
        """Max pooling, padded with minus infinity, sizes rounded down."""
        pads = list(padding)
        return opset1.max_pool(self.value(x), list(stride), pads, pads, list(kernel), "floor", name=name).output(0)

    def add(self, a: Value, b: Value, name: str) -> Value:
        """Element by element."""
        return opset1.add(self.value(a), self.value(b), name=name).output(0)

    def maximum(self, a: Value, b: Value, name: str) -> Value:
        """Element by element."""
        return opset1.maximum(self.value(a), self.value(b), name=name).output(0)

    def concat(self, values: Sequence[Value], name: str, axis: int = 1) -> Value:
        """Join along ``axis``."""
        return opset1.concat([self.value(v) for v in values], axis, name=name).output(0)

    def pad(self, x: Value, begin: Sequence[int], end: Sequence[int], name: str) -> Value:
        """Zeros around the picture: ``begin`` (top, left) and ``end`` (bottom, right)."""
        zero = self._floats(0.0)
        node = opset1.pad(
            self.value(x), self._ints([0, 0, *begin]), self._ints([0, 0, *end]), "constant", zero, name=name
        )
        return node.output(0)

    def resize(self, x: Value, size: tuple[int, int], mode: str, name: str) -> Value:
        """Resize to ``size`` (height, width) by ``"nearest"`` or ``"linear"`` (half-pixel), as torch.nn.Upsample."""
        x = self.value(x)
        height, width = self.shape(x)[2:]
        scales = np.array([size[0] / height, size[1] / width], np.float32)
        attributes = {
            "mode": "nearest" if mode == "nearest" else "linear_onnx",
            "shape_calculation_mode": "sizes",
            "coordinate_transformation_mode": "asymmetric" if mode == "nearest" else "pytorch_half_pixel",
            "nearest_mode": "floor",
            "pads_begin": [0, 0, 0, 0],
            "pads_end": [0, 0, 0, 0],
        }
        inputs = [x, self._ints(size), opset1.constant(scales).output(0), self._ints([2, 3])]
        node = self._opset4.create("Interpolate", inputs, attributes)
        node.set_friendly_name(name)
        return node.output(0)

    def space_to_depth(self, x: Value, block: int, name: str) -> Value:
        """Each ``block`` × ``block`` patch into channels, all channels of one position together."""
        return opset1.space_to_depth(self.value(x), "blocks_first", block, name=name).output(0)

    def depth_to_space(self, x: Value, block: int, name: str) -> Value:
        """The reverse of :meth:`space_to_depth`."""
        return opset1.depth_to_space(self.value(x), "blocks_first", block, name=name).output(0)

    def reshape(self, x: Value, shape: Sequence[int], name: str) -> Value:
        """Same numbers, other dimensions."""
        return opset1.reshape(self.value(x), self._ints(shape), False, name=name).output(0)

    def transpose(self, x: Value, order: Sequence[int], name: str) -> Value:
        """Reorder dimensions."""
        return opset1.transpose(self.value(x), self._ints(order), name=name).output(0)

    def linear(self, x: Value, weight: Array, bias: Array | None, name: str) -> Value:
        """``x @ weight.T + bias`` on the last dimension."""
        product = opset1.matmul(x, self._floats(weight), False, True, name=name).output(0)
        return product if bias is None else opset1.add(product, self._floats(bias), name=f"{name}/bias").output(0)

    def matmul(self, a: Value, b: Value, name: str, *, transpose_b: bool = False) -> Value:
        """Batched matrix product."""
        return opset1.matmul(a, b, False, transpose_b, name=name).output(0)

    def softmax(self, x: Value, axis: int, name: str) -> Value:
        """Softmax along ``axis``, counted from 0."""
        return opset1.softmax(x, axis, name=name).output(0)
