"""From the network with quantizers and masks to the IR that everything else in ovyolo takes.

OpenVINO's converter turns NNCF's quantizers into FakeQuantize operations and weights into 8-bit constants; what comes
out is then given the form that every exported IR has: bytes in, raw heads out, a card.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovyolo.compress.nncf_bridge import silence
from ovyolo.compress.qat.bridge import load_nncf_torch, without_hooks
from ovyolo.compress.qat.quantizers import call_one_scale_one, is_quantized
from ovyolo.errors import ExportError, reason_of
from ovyolo.export.api import as_imgsz
from ovyolo.export.graph import build_model
from ovyolo.export.imported.fold_input import replace_input
from ovyolo.export.imported.input_stage import InputStage

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card
    from ovyolo.train.network import Network

__all__ = ["trained_ir"]

CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
# how the converter names what a module computes
_MADE_BY = re.compile(r"__module\.(model\.\d+(?:\.\w+)*?)(?:\.conv|\.bn)?/aten::(?:_?conv|batch_norm)")


def trained_ir(network: Network, imgsz: int | Sequence[int] = 640) -> tuple[openvino.Model, Card]:
    """The network as an IR in memory, with its card; to be written by :func:`~ovyolo.export.portable.save_ir`.

    Args:
        network: with quantizers, masks, both or neither; on any device. It is left as it is.
        imgsz: input size in pixels, one number or ``(height, width)``.

    Returns:
        A model with the input ``images`` ``[1, H, W, 3]`` u8 BGR and the outputs ``head0``, ``head1``, …, finest first,
        with quantized weights as 8-bit constants; and its card.

    Raises:
        DimensionError: ``imgsz`` does not fit the network.
        ExportError: OpenVINO cannot convert it, or would leave operations at the input.
    """
    size = as_imgsz(imgsz)
    # the exporter's own graph of the same layers: what the result must look like from outside
    plain, card = build_model(without_hooks(network).checkpoint(Path("the network")), size)
    model = _converted(network, size)
    parameter, notes = replace_input(model, InputStage(model.inputs[0]))
    if notes:
        raise ExportError(f"the trained network cannot take the camera's bytes as they are: {notes[0]}")
    model = _with_heads(model, parameter, plain)
    if is_quantized(network):
        card = replace(card, precision="INT8")
    return model, card


def _converted(network: Network, size: tuple[int, int]) -> openvino.Model:
    import openvino as ov

    module = copy.deepcopy(network).cpu().eval()
    call_one_scale_one(module)
    shape = [1, 3, *size]
    example = torch.rand(shape)
    try:
        # TracerWarnings: the numbers that are baked in are the levels of quantizers, which do not change
        with silence(load_nncf_torch()), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # the converter would trace twice, to see whether chance is at work: half of the time
            traced = torch.jit.trace(module, example, check_trace=False, strict=False)
            model: ov.Model = ov.convert_model(traced, example_input=example, input=shape)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"OpenVINO cannot convert the trained network: {reason_of(error)}") from error
    if model.is_dynamic():
        raise ExportError("OpenVINO made a network of dynamic shapes of the trained one")
    return model


def _with_heads(model: openvino.Model, parameter: openvino.Node, plain: openvino.Model) -> openvino.Model:
    """``model`` with the outputs of ``plain``, by their sizes, and our names for its convolutions."""
    import openvino as ov
    from openvino import opset1

    sources: list[Any] = [result.input_value(0) for result in model.get_results()]
    results = []
    for wanted in plain.outputs:
        name, shape = wanted.get_any_name(), list(wanted.get_shape())
        fitting = [value for value in sources if list(value.get_shape()) == shape]
        if len(fitting) != 1 or len(sources) != len(plain.outputs):
            raise ExportError(f"the converted network has no single output of {shape} for {name}")
        fitting[0].get_tensor().set_names({name})
        results.append(opset1.result(fitting[0], name=f"{name}/result"))
    for node in model.get_ordered_ops():
        if node.get_type_name() in CONVOLUTIONS:
            # a convolution that took in a batch norm has lost its name to a number; the addition behind it has not
            readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
            for one in (node, *(readers if len(readers) == 1 else ())):
                made_by = _MADE_BY.match(one.get_friendly_name())
                if made_by:
                    node.set_friendly_name(made_by.group(1))
                    break
    made = ov.Model(results, [parameter], "ovyolo").clone()
    made.validate_nodes_and_infer_types()
    return made
