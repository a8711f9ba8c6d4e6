"""One file for every runtime: write an IR that OpenVINO 2021.4 to today's reads.

Operations of opset 1 to 7 only, weights in FP16 unless asked otherwise, named tensors, IR version header 10.
"""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovyolo.card import UNQUANTIZED, Card, write_card
from ovyolo.errors import ExportError
from ovyolo.export.half import halve_weights
from ovyolo.export.targets import runs_on

if TYPE_CHECKING:
    import openvino

__all__ = ["downgrade", "file_sizes", "save_ir"]

CHECKSUM = "weights_crc32"
UNKNOWN_CHECKSUM = "crc32-not-known-yet"

_HEADER = re.compile(rb'(<net\b[^>]*?\bversion=)"11"')


def downgrade(model: openvino.Model) -> list[str]:
    """Rewrite ``model``, in place, in operations of opset 1 to 7, which OpenVINO 2021.4 and later read.

    Returns:
        Sentences about what could not be brought down and what that costs; empty when everything was.

    Raises:
        ExportError: the model has dynamic shapes.
    """
    from ovyolo.export.opsets import downgrade as rewrite

    return rewrite(model)


def file_sizes(path: Path) -> tuple[int, int]:
    """What an IR weighs, ``.xml`` and ``.bin`` together: its bytes, and those of both packed as zip archives pack."""
    parts = [path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")]
    return sum(map(len, parts)), sum(len(zlib.compress(part, 9)) for part in parts)


def save_ir(model: openvino.Model, card: Card, path: Path, *, fp32: bool = False) -> Path:
    """Write ``model`` with ``card`` as ``path`` (``.xml``) and its ``.bin``, both whole or not at all.

    Args:
        model: the network, static; brought down to opset 7 in place, and its ``rt_info`` gets the card.
        card: what it is; its ``precision`` is set to what is stored (``"INT8"`` and its like stay), and what
            an old runtime could not read is added to its ``notes``.
        path: where to; must end in ``.xml``.
        fp32: keep 32-bit weights; by default they are stored as FP16.

    Returns:
        ``path``.

    Raises:
        ExportError: when the model has dynamic shapes, or the files cannot be written.
    """
    import openvino as ov

    try:
        notes = downgrade(model)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    for result, name in zip(model.get_results(), card.head.outputs, strict=True):
        # an IR of version 10 knows outputs by the operation that they come from
        result.input_value(0).get_node().set_friendly_name(name)
    precision = card.precision if card.precision not in UNQUANTIZED else "FP32" if fp32 else "FP16"
    card = replace(card, runs_on=runs_on(model))
    card = replace(card, precision=precision, notes=(*card.notes, *(note for note in notes if note not in card.notes)))
    if not fp32:
        halve_weights(model)
    card = replace(card, made={**card.made, CHECKSUM: UNKNOWN_CHECKSUM})
    write_card(model, card)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            ov.save_model(model, draft, compress_to_fp16=False)
            text, count = _HEADER.subn(rb'\1"10"', draft.read_bytes(), count=1)
            checksum = f"{zlib.crc32(draft.with_suffix('.bin').read_bytes()):08x}"
            if count != 1 or text.count(UNKNOWN_CHECKSUM.encode()) != 1:
                raise ExportError(f"{path}: OpenVINO {ov.__version__} wrote an IR whose form is not understood")
            text = text.replace(UNKNOWN_CHECKSUM.encode(), checksum.encode())
            draft.write_bytes(text)
            # the .xml comes last: whoever sees it finds the weights beside it
            os.replace(draft.with_suffix(".bin"), path.with_suffix(".bin"))
            os.replace(draft, path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise ExportError(f"{path} cannot be written: {reason}") from error
    return path
