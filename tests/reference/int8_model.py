"""The tiny model with quantizers around its convolution, as quantized IRs have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from openvino import opset1

from ovyolo.export.portable import save_ir
from reference.tiny_model import tiny_model


def make_int8_ir(path: Path) -> Path:
    """Write it as ``path``."""
    model, card = tiny_model()
    convolution = next(node for node in model.get_ops() if node.get_type_name() == "Convolution")
    for index, (low, high) in enumerate([(0, 255), (-0.05, 0.05)]):
        edges = [opset1.constant(np.full((1, 1, 1, 1), edge, np.float32)) for edge in (low, high, low, high)]
        quantizer = opset1.fake_quantize(convolution.input_value(index), *edges, 256 if index == 0 else 255)
        convolution.input(index).replace_source_output(quantizer.output(0))
    return save_ir(model, replace(card, precision="INT8"), path)
