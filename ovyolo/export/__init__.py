"""From a checkpoint, an ONNX file or somebody else's IR to an IR with a card."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ovyolo.export.api import export

__all__ = ["export"]


class _Room(ModuleType):
    """Lets ``ovyolo.export(...)`` mean :func:`export`, whether or not this package was imported before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
