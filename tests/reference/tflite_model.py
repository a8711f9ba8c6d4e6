"""The network of ``tiny_model`` as a TensorFlow Lite file that returns decoded rows, written without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_tflite(path: Path) -> Path:
    """Input ``[1, 64, 64, 3]`` float RGB; output ``[1, 64, 6]``: cx, cy, w, h as fractions, objectness, class.

    A convolution, the cells' places added as logits, a sigmoid over everything, a reshape.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    weight = np.zeros((6, 8, 8, 3), np.float32)
    weight[4:] = 20.0 / (3 * 64)
    places = np.zeros((1, 8, 8, 6), np.float32)
    share = np.stack(np.meshgrid((np.arange(8) + 0.5) / 8, (np.arange(8) + 0.5) / 8), -1)
    places[0, ..., :2] = np.log(share / (1 - share))
    places[..., 2:4] = np.log((1 / 8) / (7 / 8))
    constants = {
        "weight": weight, "bias": np.array([0, 0, 0, 0, -10, -10], np.float32), "places": places,
        "rows": np.array([1, 64, 6], np.int32),
    }  # fmt: skip
    shapes = {"image": (1, 64, 64, 3), "conv": (1, 8, 8, 6), "logits": (1, 8, 8, 6), "cells": (1, 8, 8, 6),
              "found": (1, 64, 6)}  # fmt: skip

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "tiny"
    model.buffers, graph.tensors = [schema.BufferT()], []
    index: dict[str, int] = {}
    for name, shape in {**shapes, **{key: value.shape for key, value in constants.items()}}.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = schema.TensorType.INT32 if name == "rows" else schema.TensorType.FLOAT32
        if name in constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(constants[name].tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        index[name] = len(graph.tensors)
        graph.tensors.append(tensor)

    conv = schema.Conv2DOptionsT()
    conv.padding, conv.strideW, conv.strideH = schema.Padding.VALID, 8, 8
    conv.dilationWFactor = conv.dilationHFactor = 1
    steps = (
        (
            schema.BuiltinOperator.CONV_2D,
            ("image", "weight", "bias"),
            "conv",
            schema.BuiltinOptions.Conv2DOptions,
            conv,
        ),
        (
            schema.BuiltinOperator.ADD,
            ("conv", "places"),
            "logits",
            schema.BuiltinOptions.AddOptions,
            schema.AddOptionsT(),
        ),
        (schema.BuiltinOperator.LOGISTIC, ("logits",), "cells", schema.BuiltinOptions.NONE, None),
        (schema.BuiltinOperator.RESHAPE, ("cells", "rows"), "found", schema.BuiltinOptions.NONE, None),
    )
    model.operatorCodes, graph.operators = [], []
    for code, inputs, output, kind, options in steps:
        operator, known = schema.OperatorT(), schema.OperatorCodeT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        known.version = 1
        operator.opcodeIndex = len(model.operatorCodes)
        operator.inputs, operator.outputs = [index[name] for name in inputs], [index[output]]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        model.operatorCodes.append(known)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [index["image"]], [index["found"]]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
