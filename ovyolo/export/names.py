"""Class names: from a ``data.yaml``, or from what an ONNX file or an IR says about itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ovyolo.errors import DataError

if TYPE_CHECKING:
    import openvino

__all__ = ["graph_names", "read_names"]

TEXT_LIMIT = 1 << 18  # characters of a names entry in metadata: Python's parser is not for megabytes
CLASSES_LIMIT = 100_000


def read_names(data_yaml: Path) -> tuple[str, ...]:
    """The class names in a YOLO ``data.yaml``: class ``i`` is the ``i``-th.

    Args:
        data_yaml: a YAML file whose ``names`` is a list of names, or a mapping ``0: name`` without gaps. What it says
            of ``nc``, if anything, has to agree; with ``nc`` alone the classes are called by their numbers.

    Raises:
        DataError: the file is missing, is not YAML, or its ``names`` are not what they should be.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.yaml"
        >>> _ = path.write_text("names: {0: scratch, 1: dent}")
        >>> read_names(path)
        ('scratch', 'dent')
    """
    from ovyolo.dataset.description import read_data_yaml

    return read_data_yaml(data_yaml).names


def graph_names(model: openvino.Model, metadata: Mapping[str, str], path: Path) -> tuple[tuple[str, ...] | None, str]:
    """The class names that a graph file brings along, and where they were found.

    Looked for in the ONNX metadata that YOLOv5's exporter writes, in the IR's ``rt_info``, and in the ``.yaml`` that
    YOLOv5's exporter puts beside an IR. ``None`` when nowhere.
    """
    literal = metadata.get("names")
    if literal is None and model.has_rt_info(["framework", "names"]):
        literal = str(model.get_rt_info(["framework", "names"]).value)
    if literal is not None:
        names = _from_literal(literal)
        if names is not None:
            return names, "its metadata"
    if model.has_rt_info(["model_info", "labels"]):
        labels = str(model.get_rt_info(["model_info", "labels"]).value)
        names = _as_names(re.split(r"[,;]\s*|\s+", labels.strip()))
        if names is not None:
            return names, "its model_info"
    beside = path.with_suffix(".yaml")
    if path.suffix.lower() == ".xml" and beside.is_file():
        try:
            return read_names(beside), beside.name
        except DataError:  # nobody asked for this file: it may be about something else
            return None, ""
    return None, ""


def _from_literal(text: str) -> tuple[str, ...] | None:
    if len(text) > TEXT_LIMIT:
        return None
    try:
        return _as_names(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _as_names(value: object) -> tuple[str, ...] | None:
    """``value``, a list or a mapping from number, as names; None when it is neither or has gaps."""
    if isinstance(value, Mapping):
        try:
            numbered = {int(key): name for key, name in value.items()}
        except (TypeError, ValueError):
            return None
        if sorted(numbered) != list(range(len(value))):
            return None
        value = [numbered[i] for i in range(len(numbered))]
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= CLASSES_LIMIT:
        return None
    if not all(isinstance(name, (str, int, float)) and str(name).strip() for name in value):
        return None
    return tuple(str(name).strip() for name in value)
