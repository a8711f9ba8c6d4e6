"""A checkpoint used as if it were an IR: exported once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from ovyolo.errors import ExportError
from ovyolo.export.api import as_imgsz, export
from ovyolo.version import __version__

__all__ = ["cache_folder", "exported"]


def cache_folder() -> Path:
    """The user's cache folder for ovyolo: ``OVYOLO_CACHE_DIR``, or where the system keeps caches."""
    named = os.environ.get("OVYOLO_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "ovyolo" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ovyolo"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ovyolo"


def exported(source: Path, imgsz: int | Sequence[int] | None = None, folder: Path | None = None) -> Path:
    """The IR of ``source``, exported now unless the same bytes were exported before by this version.

    Raises:
        OvyoloError: as :func:`ovyolo.export.export`.
    """
    if not source.is_file():
        raise ExportError(
            f"{source} {'is a folder' if source.is_dir() else 'does not exist'}: give the path of a model"
        )
    size = None if imgsz is None else as_imgsz(imgsz)
    label = "own" if size is None else f"{size[0]}x{size[1]}"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    target = (folder or cache_folder()) / f"{source.stem}-{digest}-{label}-{__version__}.xml"
    return target if _is_whole(target) else export(source, target, imgsz=size)


def _is_whole(path: Path) -> bool:
    """Whether the pair in the cache is there and undamaged: its card holds the checksum of the weights."""
    weights = path.with_suffix(".bin")
    if not (path.is_file() and weights.is_file()):
        return False
    text = path.read_bytes()
    return text.rstrip().endswith(b"</net>") and f"{zlib.crc32(weights.read_bytes()):08x}".encode() in text
