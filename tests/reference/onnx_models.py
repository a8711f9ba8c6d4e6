"""Small YOLOv5-shaped ONNX models with random weights, in the styles that exporters of all times wrote.

The network: a 6x6 or Focus stem, strided convolutions with SiLU, a max-pooling block, a nearest-neighbour upsampling,
one head convolution a level. Behind it the decoding, written out here from its formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.25, 326.0)),
    ((436.0, 615.0), (739.0, 380.0), (925.0, 792.0)),
)


@dataclass
class Style:
    """How to write a model; the defaults are those of today's exporters.

    ``decode``: ``"split"`` (v6 and later), ``"slice"`` (assigns into the sigmoid, v5), ``"raw4"`` and ``"raw5"`` (raw
    heads only), ``"v8"``, ``"v8 turned"`` and ``"nms"`` (the shapes of other detectors). ``wh`` and ``xy`` choose the
    formulas, ``defect`` spoils something.
    """

    levels: int = 3
    nc: int = 2
    na: int = 3
    imgsz: tuple[int, int] = (128, 128)
    opset: int = 12
    stem: str = "conv"
    decode: str = "split"
    extra_raw: bool = False
    anchors_per_cell: bool = True
    half: bool = False
    int8: bool = False
    dynamic: bool = False
    batch: int = 1
    names: dict[int, str] | None = field(default_factory=lambda: {0: "scratch", 1: "dent"})
    xy: str = "v5"
    wh: str = "v5"
    coarsest_first: bool = False
    defect: str = ""
    seed: int = 0

    @property
    def anchors(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        return tuple(level[: self.na] for level in ANCHORS[: self.levels])

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(8 * 2**level for level in range(self.levels))


class _Writer:
    def __init__(self, style: Style) -> None:
        self.style = style
        self.dtype = np.float16 if style.half else np.float32
        self.rng = np.random.default_rng(style.seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.count = 0

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        self.count += 1
        names = [f"{kind}_{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def const(self, value: Any, dtype: Any = None) -> str:
        self.count += 1
        name = f"const_{self.count}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype or self.dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def conv(self, x: str, cin: int, cout: int, k: int, s: int, p: int, *, gain: float = 1.4, act: bool = True) -> str:
        weight = self.rng.normal(0, gain / np.sqrt(cin * k * k), (cout, cin, k, k))
        bias = self.rng.normal(0, 0.3, cout)
        weights = self.const(weight)
        if self.style.int8:
            x = self.quantized(x, 1 / 255 if x == "images" else 0.04, 0 if x == "images" else 20)
            scale = float(np.abs(weight).max() / 127)
            steps = self.const(np.round(weight / scale), np.int8)
            weights = self.add("DequantizeLinear", steps, self.const(scale), self.const(0, np.int8))
        y = self.add("Conv", x, weights, self.const(bias), kernel_shape=[k, k], strides=[s, s], pads=[p, p, p, p])
        return self.add("Mul", y, self.add("Sigmoid", y)) if act else y

    def quantized(self, x: str, scale: float, zero: int) -> str:
        step, origin = self.const(scale), self.const(zero, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, step, origin), step, origin)

    def slice(self, x: str, start: int, axis: int, end: int = 2**31 - 1, step: int = 2) -> str:
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        if self.style.opset >= 13:
            return self.add("Split", x, self.ints(*sizes), outputs=len(sizes), axis=axis)
        return self.add("Split", x, outputs=len(sizes), axis=axis, split=sizes)

    def trunk(self, x: str) -> list[tuple[str, int]]:
        """The levels' feature maps and their channels, finest first."""
        if self.style.stem == "focus":
            parts = [self.slice(self.slice(x, dy, 2), dx, 3) for dy, dx in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = self.conv(self.add("Concat", *parts, axis=1), 12, 8, 3, 1, 1)
        elif self.style.stem == "batchnorm":
            scale, zero, one = (self.const(v) for v in ([0.5, 0.6, 0.7], [0.0, 0.1, 0.2], [1.0, 1.0, 1.0]))
            x = self.conv(self.add("Relu", self.add("BatchNormalization", x, scale, zero, zero, one)), 3, 8, 6, 2, 2)
        else:
            x = self.conv(x, 3, 8, 6, 2, 2)
        x = self.conv(x, 8, 8, 3, 2, 1)
        maps = []
        for _ in range(self.style.levels):
            x = self.conv(x, 8, 8, 3, 2, 1)
            maps.append(x)
        pooled = self.add("MaxPool", maps[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
        maps[-1] = self.conv(self.add("Concat", maps[-1], pooled, axis=1), 16, 8, 1, 1, 0)
        levels = [(maps[-1], 8)]
        for finer in reversed(maps[:-1]):
            scales = self.const([1, 1, 2, 2], np.float32)
            up = self.add(
                "Resize",
                levels[0][0],
                self.const([], np.float32) if self.style.opset < 13 else "",
                scales,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            joined = self.add("Concat", up, finer, axis=1)
            levels.insert(0, (self.conv(joined, levels[0][1] + 8, 8, 3, 1, 1), 8))
        return levels

    def dimension(self, x: str, axis: int) -> str:
        return self.add("Gather", self.add("Shape", x), self.const(axis, np.int64), axis=0)

    def grid(self, head: str, level: int) -> str:
        """Column and row of each cell ``[1, 1 or na, H, W, 2]``, minus a half as today's exporters fold it in."""
        style = self.style
        if style.dynamic:
            zero, one = self.const(0, np.int64), self.const(1, np.int64)
            shape = [self.dimension(head, axis) for axis in (2, 3)]
            y, x = (self.add("Range", zero, n, one) for n in shape)
            flat = [self.add("Unsqueeze", n, self.ints(0)) if style.opset >= 13 else self.unsqueeze(n) for n in shape]
            size = self.add("Concat", *flat, axis=0)
            columns = self.add("Expand", x, size)
            rows = self.add("Expand", self.add("Reshape", y, self.ints(-1, 1)), size)
            both = self.add("Concat", *(self.add("Reshape", v, self.lengths(size)) for v in (columns, rows)), axis=4)
            to = TensorProto.FLOAT16 if style.half else TensorProto.FLOAT
            return self.add("Sub", self.add("Cast", both, to=to), self.const(0.5))
        height, width = (side // style.strides[level] for side in style.imgsz)
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        value = np.stack([x, y], axis=-1)[None, None] - 0.5
        if style.anchors_per_cell:
            value = np.broadcast_to(value, (1, style.na, height, width, 2))
        return self.const(value)

    def unsqueeze(self, x: str) -> str:
        return self.add("Unsqueeze", x, axes=[0])

    def lengths(self, size: str) -> str:
        return self.add("Concat", self.ints(1, 1), size, self.ints(1), axis=0)

    def anchor_grid(self, level: int) -> str:
        style = self.style
        value = np.array(style.anchors[level]).reshape(1, style.na, 1, 1, 2)
        if style.anchors_per_cell and not style.dynamic:
            height, width = (side // style.strides[level] for side in style.imgsz)
            value = np.broadcast_to(value, (1, style.na, height, width, 2)).copy()
            if style.defect == "one anchor" and level == 1:
                value[0, 1, 2, 3, 0] *= 1.01
        if style.defect == "normalised":
            value = value / style.imgsz[0]
        return self.const(value)

    def boxes(self, xy: str, wh: str, head: str, level: int) -> tuple[str, str]:
        """Centres and sizes from the sigmoids of the first four channels."""
        style = self.style
        stride = style.strides[level] / (style.imgsz[0] if style.defect == "normalised" else 1)
        cells = self.grid(head, level)
        if style.xy == "v5":
            xy = self.add("Mul", self.add("Add", self.add("Mul", xy, self.const(2)), cells), self.const(stride))
        else:  # YOLOv3: within the cell
            xy = self.add("Mul", self.add("Add", self.add("Add", xy, self.const(0.5)), cells), self.const(stride))
        anchors = self.anchor_grid(level)
        if style.wh == "exp":  # e^t from sigmoid(t)
            odds = self.add("Div", wh, self.add("Sub", self.const(1), wh))
            return xy, self.add("Mul", odds, anchors)
        power = self.const(3 if style.wh == "cubed" else 2)
        wh = self.add("Mul", self.add("Pow", self.add("Mul", wh, self.const(2)), power), anchors)
        if style.defect == "corners":
            half = self.add("Mul", wh, self.const(0.5))
            return self.add("Sub", xy, half), self.add("Add", xy, half)
        return xy, wh

    def decode(self, head: str, level: int) -> tuple[str, str]:
        """``[1, na*H*W, 5+nc]`` and the raw ``[1, na, H, W, 5+nc]``."""
        style = self.style
        width = 5 + style.nc
        height, columns = (side // style.strides[level] for side in style.imgsz)
        if style.dynamic:
            batch, rows, cells = (self.add("Reshape", self.dimension(head, a), self.ints(1)) for a in (0, 2, 3))
            shape = self.add("Concat", batch, self.ints(style.na, width), rows, cells, axis=0)
            flat = self.add("Concat", batch, self.ints(-1, width), axis=0)
        else:
            shape = self.ints(style.batch, style.na, width, height, columns)
            flat = self.ints(style.batch, -1, width)
        raw = self.add("Transpose", self.add("Reshape", head, shape), perm=[0, 1, 3, 4, 2])
        if style.decode == "raw5":
            return raw, raw
        y = self.add("Sigmoid", raw)
        if style.decode == "split":
            xy, wh, rest = self.split(y, [2, 2, width - 4], 4)
            if style.defect == "logits":
                rest = self.split(raw, [4, width - 4], 4)[1]
            if style.defect == "multiplied":
                objectness, classes = self.split(rest, [1, style.nc], 4)
                rest = self.add("Concat", objectness, self.add("Mul", objectness, classes), axis=4)
            y = self.add("Concat", *self.boxes(xy, wh, head, level), rest, axis=4)
        else:
            xy, wh = (self.slice(y, start, 4, start + 2, 1) for start in (0, 2))
            for start, value in zip((0, 2), self.boxes(xy, wh, head, level), strict=True):
                where = np.indices((style.batch, style.na, height, columns, 2))
                where[4] += start
                indices = self.const(where.transpose(1, 2, 3, 4, 5, 0), np.int64)
                y = self.add("ScatterND", y, indices, value)
        return self.add("Reshape", y, flat), raw


def write_onnx(path: Path, style: Style) -> Path:
    """Write the model that ``style`` describes to ``path``."""
    writer = _Writer(style)
    heads = []
    for x, channels in writer.trunk("images"):
        heads.append(writer.conv(x, channels, style.na * (5 + style.nc), 1, 1, 0, gain=3.0, act=False))
    order = range(style.levels)[:: -1 if style.coarsest_first else 1]
    outputs: list[tuple[str, int]] = []  # with their ranks
    if style.decode == "raw4":
        outputs = [(heads[level], 4) for level in order]
    elif style.decode in ("v8", "v8 turned", "nms"):
        flat = [writer.add("Reshape", head, writer.ints(1, 5 + style.nc, -1)) for head in heads]
        outputs = [(writer.add("Concat", *flat, axis=2), 3)]
        if style.decode == "v8 turned":
            outputs = [(writer.add("Transpose", outputs[0][0], perm=[0, 2, 1]), 3)]
        elif style.decode == "nms":
            boxes, scores = writer.split(outputs[0][0], [4, 1 + style.nc], 1)
            limits = [writer.ints(10), writer.const([0.5], np.float32), writer.const([0.1], np.float32)]
            boxes = writer.add("Transpose", boxes, perm=[0, 2, 1])
            outputs = [(writer.add("NonMaxSuppression", boxes, scores, *limits), 2)]
    else:
        parts = [writer.decode(heads[level], level) for level in order]
        if style.decode != "raw5":
            outputs.append((writer.add("Concat", *(rows for rows, _ in parts), axis=1), 3))
        if style.decode == "raw5" or style.extra_raw:
            outputs += [(raw, 5) for _, raw in parts]
        if style.defect == "prototypes":
            outputs.append((writer.conv("images", 3, 32, 3, 4, 1), 4))
    kind = TensorProto.FLOAT16 if style.half else TensorProto.FLOAT
    kinds = [TensorProto.INT64 if style.decode == "nms" else kind] * len(outputs)
    shape: list[Any] = ["batch", 3, "height", "width"] if style.dynamic else [style.batch, 3, *style.imgsz]
    graph = helper.make_graph(
        writer.nodes,
        "torch_jit",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(name, k, [None] * rank) for (name, rank), k in zip(outputs, kinds, strict=True)],
        writer.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", style.opset)], ir_version=8)
    if style.names is not None:
        helper.set_model_props(model, {"stride": str(style.strides[-1]), "names": str(style.names)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
