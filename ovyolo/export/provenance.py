"""Where a model came from and what made it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import openvino as ov

from ovyolo.version import __version__

__all__ = ["provenance"]


def provenance(source: Path) -> dict[str, Any]:
    """The source file's name and SHA-256, and the versions of ovyolo and OpenVINO, for a card's ``made``."""
    return {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "ovyolo": __version__,
        "openvino": ov.__version__.split("-", maxsplit=1)[0],
    }
