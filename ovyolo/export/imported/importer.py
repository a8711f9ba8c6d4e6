"""From an ``.onnx`` or ``.xml`` file to a model that ends at its head convolutions, and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1

from ovyolo.card import Card
from ovyolo.errors import DataError, DimensionError, ExportError, OvyoloError, reason_of
from ovyolo.export.imported.cut import find_heads
from ovyolo.export.imported.fold_input import replace_input
from ovyolo.export.imported.plan import GivenAnchors, Plan, make_plan
from ovyolo.export.imported.quantized import keep_stored
from ovyolo.export.imported.rawheads import raw_rows
from ovyolo.export.imported.reading import Runner, read_graph, tidy
from ovyolo.export.imported.selfcheck import check_halved, check_heads, check_kept_rows, picture
from ovyolo.export.imported.source import Source
from ovyolo.export.names import graph_names
from ovyolo.export.opsets import downgrade
from ovyolo.export.provenance import provenance

__all__ = ["import_model"]

FORMATS = {".xml": "OpenVINO IR", ".tflite": "TensorFlow Lite", ".onnx": "ONNX"}


def import_model(
    path: Path,
    *,
    imgsz: tuple[int, int] | None = None,
    names: tuple[str, ...] | None = None,
    anchors: GivenAnchors | None = None,
) -> tuple[ov.Model, Card]:
    """Read an ``.onnx`` or ``.xml`` made from a YOLOv5 detector, and cut it at its head convolutions.

    Args:
        path: the file; an ``.xml`` has its ``.bin`` beside it.
        imgsz: ``(height, width)`` of the input in pixels; by default the file's own, or 640 where it leaves it open.
        names: class names, instead of those in the file.
        anchors: ``[level][anchor] = (width, height)`` in input pixels, finest level first: only for files with raw
            heads, which do not hold them.

    Returns:
        A model with the input ``images`` ``[1, H, W, 3]`` u8 BGR and the outputs ``head0``, ``head1``, …
        ``[1, na*(5+nc), H/stride, W/stride]`` f32, finest first; or, where the decoding is not surely YOLOv5's, with
        the file's own decoded output ``rows`` ``[1, R, 5+nc]``. And its card, whose notes say which and why.

    Raises:
        ExportError: the file cannot be read, or does not let itself be cut, or lacks anchors.
        UnsupportedModelError: it is something else than a YOLOv5 detector.
        DataError: it has another number of classes than there are names.
        DimensionError: ``imgsz`` or ``anchors`` do not fit.

    Example:
        >>> from pathlib import Path
        >>> model, card = import_model(Path("best.onnx"))  # doctest: +SKIP
        >>> card.head.strides  # doctest: +SKIP
        (8, 16, 32)
    """
    original, metadata = read_graph(path)
    if original.has_rt_info(["ovyolo", "card"]):
        raise ExportError(f"{path} is already an ovyolo model: use it as it is")
    try:
        source = Source(original, imgsz, rgb=path.suffix.lower() == ".tflite")
        found = make_plan(source, anchors)
        class_names = _names(found, names, *graph_names(original, metadata, path))
        model = _build(source, found, imgsz)
    except OvyoloError as error:
        raise type(error)(f"{path}: {error}") from error
    except RuntimeError as error:
        raise ExportError(f"{path}: OpenVINO cannot work with this graph ({reason_of(error)})") from error
    size = model.input(0).get_shape()
    return model, Card(
        names=class_names,
        imgsz=(int(size[1]), int(size[2])),
        head=found.head,
        precision=source.precision,
        made=_made(path, metadata),
        notes=tuple(dict.fromkeys([*found.notes, *source.stage.notes])),
    )


def _names(found: Plan, given: tuple[str, ...] | None, stored: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    names = stored if given is None else given
    if names is None:
        found.notes.append("Its source does not name its classes: they are called class0 and so on.")
        return tuple(f"class{i}" for i in range(found.num_classes))
    if len(names) != found.num_classes:
        origin = where if given is None else "the names given"
        raise DataError(
            f"{origin}: {len(names)} class names, but the head tells {found.num_classes} apart: give the data.yaml "
            "that it was trained with"
        )
    return names


def _made(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    made = {**provenance(path), "format": FORMATS.get(path.suffix.lower(), "ONNX")}
    return made | {key: metadata[key][:200] for key in ("onnx.opset", "onnx.producer") if key in metadata}


def _build(source: Source, found: Plan, imgsz: tuple[int, int] | None) -> ov.Model:
    """The model for ``imgsz``, checked against the file."""
    parameter, notes = replace_input(source.work, source.stage)
    found.notes += notes
    results = []
    for value, name in zip(found.outputs, found.head.outputs, strict=True):
        value.get_tensor().set_names({name})
        results.append(opset1.result(value, name=f"{name}/result"))
    # a copy leaves behind what was cut off
    model = ov.Model(results, [parameter], "ovyolo").clone()
    model = _resized(model, source.imgsz, found)
    finished = model.clone()
    tidy(finished)
    found.notes += downgrade(finished)
    _store(source, found, finished)
    _check(source, found, finished)
    if imgsz is None or imgsz == source.imgsz:
        return finished
    # what was folded above is of one size only
    model = _resized(model, imgsz, found)
    tidy(model)
    keep_stored(model, source.stored)
    return model


def _store(source: Source, found: Plan, model: ov.Model) -> None:
    """Put 8-bit weights back, and say where that could not be done."""
    missed = keep_stored(model, source.stored)
    shifted = sum(bool(one.zero.any()) for one in source.stored.values())
    if shifted:
        found.notes.append(
            f"The 8-bit weights of {shifted} layers are asymmetric: OpenVINO computes these in floating point, so "
            "that only the file is smaller."
        )
    if missed:
        found.notes.append(
            f"The weights of {missed} layers are no longer those 8-bit numbers that they were in its source."
        )


def _resized(model: ov.Model, imgsz: tuple[int, int], found: Plan) -> ov.Model:
    """``model`` for one picture of ``imgsz``."""
    if found.levels is not None and any(side % found.levels.strides[-1] for side in imgsz):
        stride = found.levels.strides[-1]
        lower = ",".join(str(max(stride, side // stride * stride)) for side in imgsz)
        raise DimensionError(
            f"imgsz {imgsz[0]},{imgsz[1]} is not a multiple of its largest stride {stride}: try {lower}"
        )
    wanted = [1, *imgsz, 3]
    if list(model.input(0).get_shape()) == wanted:
        return model
    other = "its size is baked in: leave imgsz out, or export the .pt itself at this size"
    if found.levels is None and list(model.input(0).get_shape())[1:] != wanted[1:]:
        raise ExportError(f"its decoded output had to be kept; {other}")
    try:
        model.reshape(wanted)
    except RuntimeError as error:
        raise ExportError(f"it cannot be set to {imgsz[0]} x {imgsz[1]} pixels, {other}") from error
    if found.levels is not None:
        sizes = [list(output.get_shape()) for output in model.outputs]
        channels = found.levels.anchors * found.levels.width
        if sizes != [[1, channels, imgsz[0] // s, imgsz[1] // s] for s in found.levels.strides]:
            raise ExportError(f"at {imgsz[0]} x {imgsz[1]} pixels its heads are {sizes}: {other}")
    return model


def _check(source: Source, found: Plan, model: ov.Model) -> None:
    """Run the file and the ``model`` made from it on the same pictures and compare."""
    # a file that computes in FP16 is compared loosely with itself in FP32, and only that strictly with the model; one
    # that quantizes behind its heads is compared as it would be without that
    reference = source.exact if source.halved or source.eased else source.original
    if found.by_heads:
        reference = source.exact.clone()
        heads = find_heads([reference.get_results()[source.decoded or 0].input_value(0)])
        reference = ov.Model([opset1.result(head) for head in heads], reference.get_parameters(), "heads")
    original, made = Runner(reference), Runner(model)
    halved = Runner(source.original) if source.halved else None
    for seed in range(2):
        image = picture(source.imgsz, seed)
        rows = _rows(source, found, original(source.feed(image, reference)))
        if halved is not None:
            check_halved(rows, _rows(source, found, halved(source.feed(image, source.original))))
        outputs = made([image[None]])
        if found.levels is None:
            check_kept_rows(rows, outputs[0][0], quantized=source.quantized)
        else:
            check_heads(rows, outputs, found.levels, found.head.anchors, quantized=source.quantized)


def _rows(source: Source, found: Plan, outputs: list[NDArray[np.float32]]) -> NDArray[Any]:
    """The file's own ``outputs`` for its first picture as rows ``[R, 5+nc]``, finest level first."""
    if source.decoded is None or found.by_heads:
        assert found.levels is not None
        return raw_rows(outputs, found.levels, found.head.anchors)
    rows = outputs[source.decoded][0]
    return rows if found.levels is None else found.levels.finest_first(rows, coarsest_first=found.coarsest_first)
