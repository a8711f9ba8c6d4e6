"""ovyolo: the short way from a trained YOLO checkpoint to boxes on an Intel machine.

>>> import ovyolo
>>> ovyolo.__version__
'0.1.0'

``import ovyolo`` is light: NumPy, OpenCV and OpenVINO load with the first name that needs them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ovyolo.errors import OvyoloError, OvyoloWarning
from ovyolo.version import __version__

if TYPE_CHECKING:
    from ovyolo.detections import Detections as Detections
    from ovyolo.detector import Detector as Detector
    from ovyolo.evaluate import evaluate as evaluate
    from ovyolo.export import export as export

__all__ = ["Detections", "Detector", "OvyoloError", "OvyoloWarning", "__version__", "evaluate", "export"]

# `import openvino` reports itself to an analytics service when it finds this package, and so does NNCF; both go on
# without it. Where openvino was imported before us, that was its importer's decision.
if "openvino" not in sys.modules:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_LAZY = {
    "Detections": ("ovyolo.detections", "Detections"),
    "Detector": ("ovyolo.detector", "Detector"),
    "evaluate": ("ovyolo.evaluate.api", "evaluate"),
    "export": ("ovyolo.export.api", "export"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        module, attribute = _LAZY[name]
        value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ovyolo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
