"""Operations newer than opset 7 rewritten as older ones that compute the same, so that old runtimes read the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset1
from openvino.utils.node_factory import NodeFactory

from ovyolo.errors import ExportError

__all__ = ["downgrade", "input_array", "oldest_release", "opset_of"]

NEWEST_PORTABLE = 7
# the release that brought each operation set
# (https://docs.openvino.ai/2024/documentation/openvino-ir-format/operation-sets/available-opsets.html)
RELEASES = {
    8: "2022.1",
    9: "2022.2",
    10: "2022.3",
    11: "2023.0",
    12: "2023.1",
    13: "2023.2",
    14: "2024.0",
    15: "2024.5",
}
UNKNOWN_RELEASE = "of the release that made it"

# numbers that were not there from the beginning, and a release that surely has them
YOUNG_TYPES = {"nf4": "2024.0", "f8e4m3": "2024.3", "f8e5m2": "2024.3", "f4e2m1": "2024.5"}


def downgrade(model: ov.Model) -> list[str]:
    """Rewrite ``model``, in place, in operations of opset 1 to 7, which OpenVINO 2021.4 and later read.

    Returns:
        Sentences about what could not be brought down and what that costs; empty when everything was.

    Raises:
        ExportError: the model has dynamic shapes.
    """
    if model.is_dynamic():
        raise ExportError("the model has dynamic shapes: export it at a fixed input size (imgsz)")
    for node in model.get_ordered_ops():
        rewrite = _REWRITES.get(node.get_type_name())
        replacement = rewrite(node) if rewrite is not None else None
        if replacement is not None:
            _replace(node, replacement)
    model.validate_nodes_and_infer_types()
    newer, young = _newer(model), _young_types(model)
    told = []
    if newer:
        release = RELEASES.get(max(newer.values()), UNKNOWN_RELEASE)
        kinds = ", ".join(sorted(newer))
        told = [f"It needs OpenVINO {release} or later: its operations {kinds} were not brought down to older ones."]
    return told + [f"It needs OpenVINO {YOUNG_TYPES[kind]} or later, for its {kind} weights." for kind in young[:1]]


def oldest_release(model: ov.Model) -> str:
    """The oldest OpenVINO known to have all that ``model`` is made of: ``"2021.4"`` where all is portable."""
    newer = _newer(model)
    if newer and max(newer.values()) not in RELEASES:
        return UNKNOWN_RELEASE
    needed = ["2021.4", *(RELEASES[opset] for opset in newer.values()), *(YOUNG_TYPES[k] for k in _young_types(model))]
    return max(needed, key=_number)


def _newer(model: ov.Model) -> dict[str, int]:
    """Operations that are not portable, and the operation set that each comes from (99 for an extension)."""
    newer: dict[str, int] = {}
    for node in model.get_ordered_ops():
        opset = opset_of(node)
        if opset is None or opset > NEWEST_PORTABLE:
            newer[node.get_type_name()] = 99 if opset is None else opset
    return newer


def _young_types(model: ov.Model) -> list[str]:
    """Types of numbers in ``model`` that old runtimes do not know, those first that came last."""
    kinds = {node.get_output_element_type(0).get_type_name() for node in model.get_ops() if node.get_output_size()}
    return sorted(kinds.intersection(YOUNG_TYPES), key=lambda kind: _number(YOUNG_TYPES[kind]), reverse=True)


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def opset_of(node: ov.Node) -> int | None:
    """The number of the operation set that ``node``'s type comes from; None for an extension."""
    version = str(node.get_type_info().version_id)
    return int(version[5:]) if version.startswith("opset") and version[5:].isdigit() else None


def input_array(node: ov.Node, index: int) -> np.ndarray[Any, Any] | None:
    """The constant at input ``index`` of ``node``; None where there is none or it is computed."""
    if index >= node.get_input_size():
        return None
    source = node.input_value(index).get_node()
    return np.array(source.data) if source.get_type_name() == "Constant" else None


def _replace(node: ov.Node, new: ov.Node) -> None:
    new.set_friendly_name(node.get_friendly_name())
    new.output(0).get_tensor().set_names(node.output(0).get_tensor().get_names())
    for target in list(node.output(0).get_target_inputs()):
        target.replace_source_output(new.output(0))


def _ints(values: Any) -> ov.Output:
    return opset1.constant(np.asarray(values, np.int64)).output(0)


def _same_shape(new: ov.Node, old: ov.Node) -> ov.Node | None:
    return new if list(new.output(0).get_shape()) == list(old.output(0).get_shape()) else None


def _max_pool(node: ov.Node) -> ov.Node | None:
    if opset_of(node) == 1:
        return None
    a = node.get_attributes()
    dilated = any(d != 1 for d in a.get("dilations", []))
    if dilated or node.output(1).get_target_inputs():
        return None
    rounding = "ceil" if a["rounding_type"].startswith("ceil") else "floor"
    new = opset1.max_pool(
        node.input_value(0), a["strides"], a["pads_begin"], a["pads_end"], a["kernel"], rounding, a["auto_pad"]
    )
    return _same_shape(new, node)


def _interpolate(node: ov.Node) -> ov.Node | None:
    """To Interpolate-4 by sizes: 2021.4 cannot read one by scales whose weights are stored as FP16."""
    a = node.get_attributes()
    version = opset_of(node)
    if version == 1 or a["mode"] not in ("nearest", "linear", "linear_onnx", "cubic"):
        return None
    out_shape, in_shape = list(node.output(0).get_shape()), list(node.input(0).get_shape())
    axes_index = 3 if version == 4 else 2
    given_axes = input_array(node, axes_index)
    if given_axes is None and node.get_input_size() > axes_index:
        return None
    axes = range(len(in_shape)) if given_axes is None else [int(axis) % len(in_shape) for axis in given_axes]
    padded = [
        size + sum(pads[axis] for pads in (a["pads_begin"], a["pads_end"]) if axis < len(pads))
        for axis, size in enumerate(in_shape)
    ]
    scales = [out_shape[axis] / padded[axis] for axis in axes]
    if a["shape_calculation_mode"] == "scales":
        given = input_array(node, 2 if version == 4 else 1)
        # by sizes the scale is out / in: the same numbers only where the given scale is just that
        if given is None or not np.allclose(given, scales, rtol=1e-6, atol=0):
            return None
    attributes = {**a, "shape_calculation_mode": "sizes"}
    sizes = [out_shape[axis] for axis in axes]
    inputs = [node.input_value(0), _ints(sizes), opset1.constant(np.array(scales, np.float32)).output(0), _ints(axes)]
    return _same_shape(NodeFactory("opset4").create("Interpolate", inputs, attributes), node)


def _softmax(node: ov.Node) -> ov.Node | None:
    if opset_of(node) == 1:
        return None
    axis = int(node.get_attributes()["axis"])
    return opset1.softmax(node.input_value(0), axis % len(node.output(0).get_shape()))


def _gather(node: ov.Node) -> ov.Node | None:
    indices, axis = input_array(node, 1), input_array(node, 2)
    if opset_of(node) == 1 or indices is None or axis is None or node.get_attributes().get("batch_dims", 0):
        return None
    rank = len(node.input(0).get_shape())
    position = int(axis.reshape(-1)[0]) % rank
    length = int(node.input(0).get_shape()[position])
    indices = np.where(indices < 0, indices + length, indices)
    new = opset1.gather(node.input_value(0), _ints(indices), _ints(np.array(position)))
    return _same_shape(new, node)


def _slice(node: ov.Node) -> ov.Node | None:
    start, stop, step = (input_array(node, i) for i in (1, 2, 3))
    shape = list(node.input(0).get_shape())
    axes = input_array(node, 4) if node.get_input_size() > 4 else None
    if (
        start is None
        or stop is None
        or step is None
        or (step <= 0).any()
        or (axes is None and start.size != len(shape))
    ):
        return None
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for i, axis in enumerate(range(len(shape)) if axes is None else axes):
        size = shape[int(axis)]
        begin[int(axis)], end[int(axis)], _ = slice(int(start[i]), int(stop[i])).indices(size)
        stride[int(axis)] = int(step[i])
    kept = [0] * len(shape)
    return _same_shape(
        opset1.strided_slice(node.input_value(0), _ints(begin), _ints(end), _ints(stride), kept, kept), node
    )


def _pad(node: ov.Node) -> ov.Node | None:
    begin, end = input_array(node, 1), input_array(node, 2)
    if opset_of(node) == 1 or begin is None or end is None or (begin < 0).any() or (end < 0).any():
        return None
    value = [node.input_value(3)] if node.get_input_size() > 3 else []
    mode = node.get_attributes()["pad_mode"]
    return opset1.pad(node.input_value(0), node.input_value(1), node.input_value(2), mode, *value)


_REWRITES: dict[str, Callable[[ov.Node], ov.Node | None]] = {
    "MaxPool": _max_pool,
    "Interpolate": _interpolate,
    "Softmax": _softmax,
    "Gather": _gather,
    "Slice": _slice,
    "Pad": _pad,
}
