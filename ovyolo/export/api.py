"""``export``: any trained file in, an IR with a card out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovyolo.errors import DimensionError, ExportError

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["as_imgsz", "export", "load_source"]

CHECKPOINT_SUFFIXES = (".pt", ".pth")
GRAPH_SUFFIXES = (".onnx", ".xml", ".tflite")


def as_imgsz(imgsz: int | Sequence[int]) -> tuple[int, int]:
    """``640`` or ``(480, 640)`` as ``(height, width)``.

    Raises:
        DimensionError: when it is neither one nor two positive whole numbers.
    """
    sides = [imgsz] if isinstance(imgsz, int) else list(imgsz)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and 0 < side <= 16384 for side in sides):
        raise DimensionError(f"imgsz is {imgsz!r}; it takes one number or height,width, each from 1 to 16384")
    return sides[0], sides[-1]


def load_source(
    source: Path,
    imgsz: tuple[int, int] | None,
    names: tuple[str, ...] | None,
    anchors: Sequence[Sequence[Sequence[float]]] | None,
    fp32: bool,
) -> tuple[openvino.Model, Card]:
    """The model and card that ``source`` becomes, in memory; arguments as for :func:`export`."""
    suffix = source.suffix.lower()
    if suffix in GRAPH_SUFFIXES:
        from ovyolo.export.imported import import_model

        return import_model(source, imgsz=imgsz, names=names, anchors=anchors)
    if suffix not in CHECKPOINT_SUFFIXES:
        if suffix == ".pt2":
            raise ExportError(
                f"{source} is a program of torch.export, which only PyTorch reads: write it as ONNX there, by "
                "torch.onnx.export(torch.export.load(...), f='best.onnx', dynamo=True), and export that"
            )
        raise ExportError(f"{source} is not a model that can be exported: give a .pt, .onnx, .tflite or .xml file")

    from ovyolo.export.checkpoint import read_checkpoint
    from ovyolo.export.graph import build_model
    from ovyolo.export.provenance import provenance

    if anchors is not None:
        raise ExportError(
            f"{source} brings its own anchors: --anchors is for .onnx, .tflite and .xml files with raw heads"
        )
    checkpoint = read_checkpoint(source)
    model, card = build_model(checkpoint, imgsz or (640, 640), keep_half=not fp32)
    card = replace(card, made=provenance(source))
    if names is not None:
        if len(names) != card.num_classes:
            raise ExportError(
                f"{len(names)} class names were given, but {source} tells {card.num_classes} classes apart"
            )
        card = replace(card, names=names)
    return model, card


def export(
    source: str | Path,
    output: str | Path | None = None,
    imgsz: int | Sequence[int] | None = None,
    fp32: bool = False,
    *,
    data: str | Path | None = None,
    anchors: Sequence[Sequence[Sequence[float]]] | None = None,
    device: str | None = None,
) -> Path:
    """Turn a trained model into an OpenVINO IR with a card, without PyTorch and without running code from the file.

    Args:
        source: a YOLOv5 ``.pt`` of any generation, or an ``.onnx``, ``.tflite`` or ``.xml`` made from one.
        output: the ``.xml`` to write, its ``.bin`` beside it; by default ``source`` with the suffix ``.xml``.
        imgsz: input size in pixels, one number or ``(height, width)``, each a multiple of the model's largest stride;
            by default 640, or for the others the size that the file has.
        fp32: store 32-bit weights; by default they are stored as FP16, half the size.
        data: a ``data.yaml`` whose ``names`` are used instead of those in ``source``.
        anchors: anchors ``[level][anchor] = (width, height)`` in input pixels, finest level first: only for files
            with raw heads, which do not hold them, and for those whose decoding was quantized, which hold them rounded.
        device: where the file is to run, ``"NPU"`` or ``"MYRIAD"`` for instance: what is known to be refused there is
            refused now. The file itself is the same for all devices.

    Returns:
        The path of the ``.xml`` that was written.

    Raises:
        OvyoloError: says which file is wrong, how, and what to do.

    Example:
        >>> from ovyolo.export import export
        >>> export("best.pt", imgsz=640)  # doctest: +SKIP
        PosixPath('best.xml')
    """
    from ovyolo.export.portable import save_ir
    from ovyolo.export.targets import objection

    source = Path(source)
    target = source.with_suffix(".xml") if output is None else Path(output)
    if target.suffix.lower() != ".xml":
        raise ExportError(f"{target} is not a name for an IR: the output must end in .xml")
    size = None if imgsz is None else as_imgsz(imgsz)
    if not source.is_file():
        problem = "is a folder, not a file" if source.is_dir() else "does not exist"
        raise ExportError(f"{source} {problem}: give the path of a .pt, .onnx, .tflite or .xml file")
    if target.exists() and target.samefile(source):
        raise ExportError(f"{target} would overwrite its own source: name another file with -o")
    names = None
    if data is not None:
        from ovyolo.export.names import read_names

        names = read_names(Path(data))
    model, card = load_source(source, size, names, anchors, fp32)
    if device is not None and (reason := objection(model, device)) is not None:
        raise ExportError(f"{source} cannot run on {device}: {reason}")
    return save_ir(model, card, target, fp32=fp32)
