"""Somebody else's graph: an ``.onnx`` or ``.xml`` is cut at its head convolutions, and checked against itself.

``source`` reads the file, ``plan`` decides what to do with it, ``cut``, ``heads``, ``levels`` and ``rawheads`` find and
measure the heads, ``input_stage`` and ``fold_input`` replace the input, ``selfcheck`` compares.
"""

from __future__ import annotations

from ovyolo.export.imported.importer import import_model

__all__ = ["import_model"]
