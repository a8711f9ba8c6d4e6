"""What becomes of an ``.onnx`` or ``.xml`` file: cut at its heads, kept with its decoded output, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import openvino as ov

from ovyolo.card import Head
from ovyolo.errors import ExportError
from ovyolo.export.imported.approximate import check_given
from ovyolo.export.imported.cut import Decoder, find_heads
from ovyolo.export.imported.heads import Anchors, check_rows, measure_anchors
from ovyolo.export.imported.levels import Levels, levels_of, possible_levels
from ovyolo.export.imported.misfit import Misfit
from ovyolo.export.imported.rawheads import check_raw, given_anchors
from ovyolo.export.imported.reading import Runner
from ovyolo.export.imported.selfcheck import picture
from ovyolo.export.imported.source import Source

__all__ = ["GivenAnchors", "Plan", "make_plan"]

GivenAnchors = Sequence[Sequence[Sequence[float]]]


@dataclass
class Plan:
    """What was found out about a file, and the values in its graph that will be the outputs."""

    outputs: list[ov.Output]
    head: Head
    num_classes: int
    levels: Levels | None = None
    coarsest_first: bool = False
    by_heads: bool = False  # compared by its raw heads: its decoding's own constants are rounded
    notes: list[str] = field(default_factory=list)


def make_plan(source: Source, anchors: GivenAnchors | None) -> Plan:
    """Find out what ``source`` is and where to cut it; ``anchors`` as for :func:`~ovyolo.export.imported.import_model`.

    Raises:
        UnsupportedModelError: it is not a YOLOv5 detector.
        ExportError: it lacks anchors, or has its own although some were given.
        DimensionError: the anchors given do not fit.
    """
    return _from_raw(source, anchors) if source.decoded is None else _from_decoded(source, anchors)


def _from_decoded(source: Source, given: GivenAnchors | None) -> Plan:
    """A file with a decoded output: cut where its decoding is YOLOv5's, otherwise left as it is."""
    assert source.decoded is not None
    if given is not None and source.eased:
        return _with_given(source, given)
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
        if source.eased and levels is not None:
            raise ExportError(
                f"its decoding was quantized, too, so that its anchors cannot be read off ({misfit}): give them with "
                "--anchors, or export the .pt itself"
            ) from misfit
        return _kept(source, decoded, levels, str(misfit))
    if source.eased:
        notes = ["Its decoding was quantized, too; it was cut off, and what that cost comes back."]
        _refuse_other_outputs(source, levels)
        return Plan(heads, _head(levels, anchors), width - 5, levels, coarsest_first, notes=notes)
    _refuse_other_outputs(source, levels)
    return Plan(heads, _head(levels, anchors), width - 5, levels, coarsest_first)


def _with_given(source: Source, given: GivenAnchors) -> Plan:
    """A file whose decoding was quantized, cut with the anchors that the user gave."""
    assert source.decoded is not None
    decoded = source.outputs[source.decoded]
    width = int(decoded.get_shape()[2])
    try:
        heads = find_heads([decoded])
        shapes = [list(head.get_shape()) for head in heads]
        anchors = given_anchors(given, shapes)
        levels = levels_of(source.imgsz, shapes, width)
        decoder = Decoder(source.work.clone(), [source.decoded])
        check_given(lambda raws: decoder(raws)[0][0], decoder.shapes, levels, anchors, source.imgsz)
    except Misfit as misfit:
        raise source.refusal(str(misfit)) from misfit
    _refuse_other_outputs(source, levels)
    notes = ["Its decoding was quantized, too; it was cut off, and the anchors given are used."]
    return Plan(heads, _head(levels, anchors), width - 5, levels, by_heads=True, notes=notes)


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


def _kept(source: Source, decoded: ov.Output, levels: Levels | None, reason: str) -> Plan:
    """A file whose decoded output ``[N, R, 5+nc]`` is kept because of ``reason``, if the row decoder can serve it."""
    rows, width = (int(n) for n in decoded.get_shape()[1:])
    candidates = possible_levels(source.imgsz, rows, width) if levels is None else [levels]
    if width < 6 or len(source.outputs) > 1 + (0 if levels is None else len(levels.cells)):
        raise source.refusal(reason)
    assert source.decoded is not None
    run = Runner(source.exact)
    for seed in range(2):
        rows_found = run(source.feed(picture(source.imgsz, seed), source.exact))[source.decoded][0]
        try:
            check_rows(rows_found, source.imgsz, [c for c in candidates if c.anchors > 1])
        except Misfit as misfit:
            raise source.refusal(f"{reason}, and {misfit}") from misfit
    note = f"The decoded output was kept, which is slower to read, because {reason}."
    return Plan([decoded], Head("rows", ("rows",)), width - 5, notes=[note])


def _from_raw(source: Source, given: GivenAnchors | None) -> Plan:
    """A file that ends at its raw heads."""
    try:
        heads = find_heads(source.outputs)
        shapes = [list(output.get_shape()) for output in source.outputs]
        if len(heads) != len(shapes):
            raise Misfit(f"its {len(shapes)} outputs come from {len(heads)} convolutions")
        decoder = Decoder(source.work.clone(), range(len(shapes)))
        check_raw(decoder, decoder.shapes)
        turned = [head if len(shape) == 4 else shape for head, shape in zip(decoder.shapes, shapes, strict=True)]
        anchors = given_anchors(given, turned)
        levels = levels_of(source.imgsz, decoder.shapes, decoder.shapes[0][1] // len(anchors[0]))
    except Misfit as misfit:
        raise source.refusal(str(misfit)) from misfit
    return Plan(heads, _head(levels, anchors), levels.width - 5, levels)
