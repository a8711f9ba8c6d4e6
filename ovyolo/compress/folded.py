"""The network as the quantizer wants it: FP32, every scale multiplied into its weights.

An IR of ours keeps FP16 weights as the checkpoint had them and multiplies by the batch norm's scale after the
convolution. NNCF's bias correction does not look behind that multiplication.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovyolo.card import UNQUANTIZED, Card
from ovyolo.core import shared_core
from ovyolo.errors import ModelError

if TYPE_CHECKING:
    import openvino

__all__ = ["QUANTIZED_OPERATIONS", "fold_scales", "load_folded"]

CONVOLUTIONS = {"Convolution": 0, "GroupConvolution": (0, 1), "ConvolutionBackpropData": 1}
QUANTIZED_OPERATIONS = ("FakeQuantize", "FakeConvert", "QuantizeLinear", "DequantizeLinear")


def load_folded(source: Path, imgsz: tuple[int, int] | None = None) -> tuple[openvino.Model, Card]:
    """The FP32 network and card of an ``.xml`` of ours, a ``.pt`` or an ``.onnx``, in memory.

    Raises:
        ModelError: it is quantized already.
        OvyoloError: it cannot be read; see :func:`ovyolo.export.export`.
    """
    import openvino as ov

    from ovyolo.errors import DimensionError
    from ovyolo.export.api import load_source
    from ovyolo.export.imported.reading import float32_graph
    from ovyolo.runtime import read_model

    if source.suffix.lower() == ".xml":
        model, card = read_model(source, shared_core())
        if imgsz is not None and imgsz != card.imgsz:
            raise DimensionError(
                f"the input size of {source} is fixed at {card.imgsz[0]},{card.imgsz[1]}: give its checkpoint "
                "to choose another"
            )
    else:
        if not source.is_file():
            raise ModelError(
                f"{source} {'is a folder' if source.is_dir() else 'does not exist'}: give an .xml, .pt or .onnx file"
            )
        model, card = load_source(source, imgsz, None, None, True)
    kinds = {node.get_type_name() for node in model.get_ops()}
    if card.precision not in UNQUANTIZED or kinds.intersection(QUANTIZED_OPERATIONS):
        raise ModelError(f"{source} is quantized already: give the model that it was made from")
    # a new model of the same operations: one that was read from a file keeps that file's IR version
    model = model.clone()
    model = ov.Model(model.get_results(), model.get_parameters(), "ovyolo")
    float32_graph(model)
    fold_scales(model)
    return model, replace(card, precision="FP32")


def fold_scales(model: openvino.Model) -> int:
    """Multiply per-channel scales behind convolutions into their weights, in place; returns how many.

    Only where nothing else reads the convolution's result, and both are FP32 constants.
    """
    from openvino import opset1

    folded = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Multiply":
            continue
        for side in (0, 1):
            convolution, scale = node.input_value(side).get_node(), node.input_value(1 - side).get_node()
            if convolution.get_type_name() in CONVOLUTIONS and scale.get_type_name() == "Constant":
                break
        else:
            continue
        weights = convolution.input_value(1).get_node()
        channels = int(convolution.get_output_shape(0)[1])
        factor = np.array(scale.data, np.float64)
        per_channel = factor.size == 1 or (factor.ndim == 4 and factor.shape == (1, channels, 1, 1))
        readers = len(convolution.output(0).get_target_inputs())
        if weights.get_type_name() != "Constant" or not per_channel or readers != 1:
            continue
        axis = CONVOLUTIONS[convolution.get_type_name()]
        data = np.array(weights.data, np.float64)
        shape = [1] * data.ndim
        for one in axis if isinstance(axis, tuple) else (axis,):
            shape[one] = data.shape[one]
        values = factor.reshape(-1) if factor.size > 1 else np.full(channels, factor.reshape(-1)[0])
        groups = data.shape[0] if isinstance(axis, tuple) else 1
        if groups == 1 and isinstance(axis, tuple):
            values = values.reshape(1, -1)
        new = opset1.constant((data * values.reshape(shape)).astype(np.float32))
        new.set_friendly_name(weights.get_friendly_name())
        convolution.input(1).replace_source_output(new.output(0))
        names = node.output(0).get_tensor().get_names()
        for reader in list(node.output(0).get_target_inputs()):
            reader.replace_source_output(convolution.output(0))
        if names:
            convolution.output(0).get_tensor().set_names(names)
        folded += 1
    model.validate_nodes_and_infer_types()
    return folded
