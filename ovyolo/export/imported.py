"""From an ``.onnx`` or ``.xml`` file to a model that ends at its head convolutions, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openvino as ov
from openvino import opset1

from ovyolo.card import Card, Head
from ovyolo.errors import DataError, DimensionError, ExportError, OvyoloError
from ovyolo.export.cut import Decoder, find_heads
from ovyolo.export.fold_input import replace_input
from ovyolo.export.heads import Anchors, Levels, check_rows, levels_of, measure_anchors, possible_levels
from ovyolo.export.misfit import Misfit
from ovyolo.export.names import graph_names
from ovyolo.export.rawheads import check_raw, given_anchors, raw_rows
from ovyolo.export.reading import Runner, read_graph, reason_of, tidy
from ovyolo.export.selfcheck import check_heads, check_kept_rows, picture
from ovyolo.export.source import Source

__all__ = ["import_model"]

GivenAnchors = Sequence[Sequence[Sequence[float]]]


@dataclass
class _Cut:
    """What was found out about a file, and the values in its graph that will be the outputs."""

    outputs: list[ov.Output]
    head: Head
    num_classes: int
    levels: Levels | None = None
    coarsest_first: bool = False
    notes: list[str] = field(default_factory=list)


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
        source = Source(original, imgsz)
        found = _from_raw(source, anchors) if source.decoded is None else _from_decoded(source, anchors)
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


def _names(found: _Cut, given: tuple[str, ...] | None, stored: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
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
    from ovyolo.export.api import provenance

    made: dict[str, Any] = {**provenance(path), "format": "OpenVINO IR" if path.suffix.lower() == ".xml" else "ONNX"}
    return made | {key: metadata[key][:200] for key in ("onnx.opset", "onnx.producer") if key in metadata}


def _from_decoded(source: Source, given: GivenAnchors | None) -> _Cut:
    """A file with a decoded output: cut where its decoding is YOLOv5's, otherwise left as it is."""
    assert source.decoded is not None
    if given is not None:
        raise ExportError("its graph holds its own anchors: leave --anchors out, it is for files with raw heads")
    decoded = source.outputs[source.decoded]
    rows, width = (int(n) for n in decoded.get_shape()[1:])
    levels = None
    try:
        heads = find_heads([decoded])
        levels = levels_of(source.imgsz, [list(head.get_shape()) for head in heads], width)
        if levels.rows != rows:
            raise Misfit(f"its heads have {levels.rows} boxes, its output has {rows}")
        decoder = Decoder(source.work.clone(), [source.decoded])
        anchors, coarsest_first = measure_anchors(lambda raws: decoder(raws)[0][0], decoder.shapes, levels)
    except Misfit as misfit:
        return _kept(source, decoded, levels, str(misfit))
    _refuse_other_outputs(source, levels)
    return _Cut(heads, _head(levels, anchors), width - 5, levels, coarsest_first)


def _refuse_other_outputs(source: Source, levels: Levels) -> None:
    """Old exporters return the raw heads beside the decoded output; anything else is another kind of model."""
    channels = levels.anchors * levels.width
    for height, width in levels.cells:
        known = ([levels.anchors, height, width, levels.width], [channels, height, width])
        source.unexplained = [output for output in source.unexplained if list(output.get_shape())[1:] not in known]
    if source.unexplained:
        raise source.refusal("it has outputs that a detector has not")


def _head(levels: Levels, anchors: Anchors) -> Head:
    return Head("anchors", tuple(f"head{i}" for i in range(len(anchors))), levels.strides, anchors)


def _kept(source: Source, decoded: ov.Output, levels: Levels | None, reason: str) -> _Cut:
    """A file whose decoded output ``[N, R, 5+nc]`` is kept because of ``reason``, if the row decoder can serve it."""
    rows, width = (int(n) for n in decoded.get_shape()[1:])
    candidates = possible_levels(source.imgsz, rows, width) if levels is None else [levels]
    if width < 6 or len(source.outputs) > 1 + (0 if levels is None else len(levels.cells)):
        raise source.refusal(reason)
    assert source.decoded is not None
    run = Runner(source.original)
    for seed in range(2):
        feed = source.stage.feed(picture(source.imgsz, seed), source.original.get_parameters()[0])
        try:
            check_rows(run([feed])[source.decoded][0], source.imgsz, [c for c in candidates if c.anchors > 1])
        except Misfit as misfit:
            raise source.refusal(f"{reason}, and {misfit}") from misfit
    note = f"The decoded output was kept, which is slower to read, because {reason}."
    return _Cut([decoded], Head("rows", ("rows",)), width - 5, notes=[note])


def _from_raw(source: Source, given: GivenAnchors | None) -> _Cut:
    """A file that ends at its raw heads."""
    try:
        heads = find_heads(source.outputs)
        shapes = [list(output.get_shape()) for output in source.outputs]
        if len(heads) != len(shapes):
            raise Misfit(f"its {len(shapes)} outputs come from {len(heads)} convolutions")
        decoder = Decoder(source.work.clone(), range(len(shapes)))
        check_raw(decoder, decoder.shapes)
        anchors = given_anchors(given, shapes)
        levels = levels_of(source.imgsz, decoder.shapes, decoder.shapes[0][1] // len(anchors[0]))
    except Misfit as misfit:
        raise source.refusal(str(misfit)) from misfit
    return _Cut(heads, _head(levels, anchors), levels.width - 5, levels)


def _build(source: Source, found: _Cut, imgsz: tuple[int, int] | None) -> ov.Model:
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
    _check(source, found, model)
    if imgsz is not None and imgsz != source.imgsz:
        model = _resized(model, imgsz, found)
    tidy(model)
    if model.is_dynamic():
        raise ExportError("its shapes stay dynamic for a fixed input: export the .pt itself")
    return model


def _resized(model: ov.Model, imgsz: tuple[int, int], found: _Cut) -> ov.Model:
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
        raise ExportError(f"its decoded output had to be kept, and with it {other}")
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


def _check(source: Source, found: _Cut, model: ov.Model) -> None:
    """Run the file and the ``model`` made from it on the same pictures and compare."""
    original, made = Runner(source.original), Runner(model)
    for seed in range(2):
        image = picture(source.imgsz, seed)
        expected = original([source.stage.feed(image, source.original.get_parameters()[0])])
        outputs = made([image[None]])
        if found.levels is None:
            assert source.decoded is not None
            check_kept_rows(expected[source.decoded][0], outputs[0][0], quantized=source.quantized)
            continue
        if source.decoded is None:
            rows = raw_rows(expected, found.levels, found.head.anchors)
        else:
            rows = found.levels.finest_first(expected[source.decoded][0], coarsest_first=found.coarsest_first)
        check_heads(rows, outputs, found.levels, found.head.anchors, quantized=source.quantized)
