"""Blobs: networks compiled for a Myriad stick, without one. Beside each lies what it is: release, source, contract."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, ExportError, OvyoloWarning
from ovyolo.export.targets import objection
from ovyolo.runtime import read_model
from ovyolo.version import __version__
from ovyolo.vpu.diagnosis import explain
from ovyolo.vpu.environment import Environment, find_environment
from ovyolo.vpu.process import WorkerLostError, WorkerProcess, WorkerRefusalError

__all__ = ["fitting_blob", "make_blob", "record_of"]

RECORD_VERSION = 1
PATIENCE = 600.0  # seconds; the largest network known took 26


def record_of(blob: Path) -> Path:
    """Where the record of ``blob`` lies."""
    return blob.with_name(blob.name + ".json")


def make_blob(model: str | Path, output: str | Path | None = None, environment: Environment | None = None) -> Path:
    """Compile an IR for Myriad sticks; no stick is needed, and none is asked.

    It is a real check: what the stick cannot compute is refused by the name of the layer. A :class:`~ovyolo.Detector`
    on the stick uses the blob beside its IR instead of compiling, when it is of the same release and model.

    Args:
        model: an ``.xml`` that ovyolo made, FP16.
        output: the ``.blob`` to write; by default ``model`` with that suffix. Beside it lies its record, a JSON file.
        environment: the old OpenVINO to use; by default what ``ovyolo vpu setup`` made.

    Returns:
        The path of the ``.blob``.

    Raises:
        ExportError: the model cannot run on a stick, or the files cannot be written.
        DeviceError: there is no environment, or its plugin does not work.

    Example:
        >>> from ovyolo.vpu import make_blob
        >>> make_blob("best.xml")  # doctest: +SKIP
        PosixPath('best.blob')
    """

    source = Path(model)
    target = source.with_suffix(".blob") if output is None else Path(output)
    if target.suffix.lower() != ".blob":
        raise ExportError(f"{target} is not a name for a blob: the output must end in .blob")
    network, card = read_model(source, shared_core())
    if (reason := objection(network, "MYRIAD")) is not None:
        raise ExportError(f"{source} cannot be made a blob: {reason}")
    environment = environment or find_environment()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            compiled = _compile(source, draft, environment)
            record = {
                "record_version": RECORD_VERSION,
                "release": environment.release,
                "runtime": compiled["runtime"],
                "ovyolo": __version__,
                "model": source.name,
                "model_crc32": _checksum(source),
                "blob_crc32": f"{zlib.crc32(draft.read_bytes()):08x}",
                "input": {**compiled["inputs"][0], "layout": "NHWC", "colours": "BGR", "padding": 114},
                "outputs": compiled["outputs"],
                "card": json.loads(card.to_json()),
            }
            record_of(draft).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            # the record comes last: a blob without one, or with another's, is not used
            record_of(target).unlink(missing_ok=True)
            os.replace(draft, target)
            os.replace(record_of(draft), record_of(target))
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _compile(source: Path, draft: Path, environment: Environment) -> dict[str, Any]:
    try:
        process = WorkerProcess(environment.python)
        try:
            return process.request("compile", PATIENCE, model=str(source), blob=str(draft))
        finally:
            process.stop()
    except WorkerRefusalError as error:
        raise ExportError(explain(str(error), "MYRIAD", source, environment)) from error
    except WorkerLostError as error:
        raise DeviceError(f"the compiler for {source} {error}: run `ovyolo vpu check`") from error


def fitting_blob(model: Path, release: str) -> Path | None:
    """The blob beside ``model``, where it was made of this very file by this ``release``; None otherwise."""
    blob = model.with_suffix(".blob")
    if not blob.is_file():
        return None
    try:
        record = json.loads(record_of(blob).read_text(encoding="utf-8"))
        fits = (
            record["record_version"] == RECORD_VERSION
            and record["release"] == release
            and record["model_crc32"] == _checksum(model)
            and record["blob_crc32"] == f"{zlib.crc32(blob.read_bytes()):08x}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        warnings.warn(
            f"{blob} was made of another model or by another release than {release}, so it is not used: "
            f"run `ovyolo vpu blob {model}` again",
            OvyoloWarning,
            stacklevel=2,
        )
        return None
    return blob


def _checksum(model: Path) -> str:
    """Over both files of the IR."""
    return f"{zlib.crc32(model.with_suffix('.bin').read_bytes(), zlib.crc32(model.read_bytes())):08x}"
