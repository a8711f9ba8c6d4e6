"""A network of one convolution that finds bright cells: known boxes without any third-party weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset1

from ovyolo.card import Card, Head
from ovyolo.export.portable import save_ir


def make_tiny_ir(path: Path, *, imgsz: tuple[int, int] = (64, 64), bias: float = -10.0, classes: int = 1) -> Path:
    """Write an IR whose only head (stride 8, one anchor of 8x8) is confident where an 8x8 cell is white.

    A box covers exactly its cell: offsets are 0.5 and sizes 1 where the logits are 0.
    """
    return save_ir(*tiny_model(imgsz, bias, classes), path, fp32=True)


def tiny_model(imgsz: tuple[int, int] = (64, 64), bias: float = -10.0, classes: int = 1) -> tuple[ov.Model, Card]:
    """The network that :func:`make_tiny_ir` writes, and its card."""
    channels = 5 + classes
    weight = np.zeros((channels, 3, 8, 8), np.float32)
    weight[4:] = 20.0 / (255 * 3 * 64)
    shift = np.zeros((1, channels, 1, 1), np.float32)
    shift[0, 4:] = bias
    image = opset1.parameter([1, *imgsz, 3], np.uint8, name="images")
    image.output(0).get_tensor().set_names({"images"})
    planes = opset1.transpose(opset1.convert(image, "f32"), np.array([0, 3, 1, 2]))
    conv = opset1.convolution(planes, opset1.constant(weight), [8, 8], [0, 0], [0, 0], [1, 1])
    head = opset1.add(conv, opset1.constant(shift))
    head.output(0).get_tensor().set_names({"head0"})
    model = ov.Model([opset1.result(head)], [image], "tiny")
    names = tuple(["spot"] if classes == 1 else [f"spot{i}" for i in range(classes)])
    return model, Card(names, imgsz, Head("anchors", ("head0",), (8,), (((8.0, 8.0),),)))
