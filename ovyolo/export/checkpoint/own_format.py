"""ovyolo's own checkpoints: a description of the network as JSON, and its tensors by name; nothing else.

``torch.save`` writes them and ``torch.load(..., weights_only=True)`` reads them, but neither is needed here: what the
restricted reader makes of such a file becomes the same record tree as a checkpoint of YOLOv5.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ovyolo.errors import CheckpointError
from ovyolo.export.checkpoint.records import BFloat16Tensor, Record, children

__all__ = ["FORMAT", "FORMAT_VERSION", "describe", "is_own", "record_of", "tree_of"]

FORMAT = "ovyolo-network"
FORMAT_VERSION = 1
MODULE = "ovyolo"  # where the classes of these records are said to come from
DEEPEST = 32

# what torch keeps in every module, and what no layer needs to compute
_IGNORED = frozenset({"training", "np", "i", "type", "grid", "anchor_grid", "names", "yaml", "inplace"})


def describe(record: Record) -> dict[str, Any]:
    """What a record tree is, without its tensors: class names, plain attributes and parts, ready for JSON."""
    described: dict[str, Any] = {"class": record.qualname}
    plain = {key: _plain(value) for key, value in record.state.items() if key[:1] != "_" and key not in _IGNORED}
    described["attributes"] = {key: value for key, value in plain.items() if value is not None}
    described["parts"] = {name: describe(part) for name, part in children(record).items()}
    return described


def record_of(description: dict[str, Any], tensors: dict[str, Any]) -> Record:
    """The record tree of a :func:`describe`'d network with these tensors, named as a ``state_dict`` names them.

    Raises:
        CheckpointError: the description is not one, or there are tensors that belong nowhere.
    """
    by_layer: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray | BFloat16Tensor):
            raise CheckpointError(f"{ascii(name)[:60]} of its tensors is not a tensor; the file is damaged.")
        layer, _, leaf = name.rpartition(".")
        by_layer.setdefault(layer, {})[leaf] = value
    record = _build(description, "", by_layer, 0)
    if by_layer:
        raise CheckpointError(
            f"it holds tensors of {ascii(next(iter(by_layer)))[:60]}, which is no layer of it; the file is damaged."
        )
    return record


def is_own(tree: object) -> bool:
    """Whether this is what a checkpoint of ours is read as."""
    return isinstance(tree, dict) and tree.get("format") == FORMAT


def tree_of(tree: dict[Any, Any]) -> dict[str, Any]:
    """A checkpoint of ours in the form that one of YOLOv5 has: ``model`` is the record of the whole network.

    Raises:
        CheckpointError: it is damaged, or of a later version.
    """
    version, text, tensors = tree.get("version"), tree.get("description"), tree.get("tensors")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"it is an ovyolo checkpoint of version {version!r}: update ovyolo.")
    if not isinstance(text, str) or not isinstance(tensors, dict):
        raise CheckpointError("it is an ovyolo checkpoint without a network; the file is damaged.")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the description of its network is not JSON; the file is damaged.") from error
    names = description.pop("names", None) if isinstance(description, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError("it has no list of class names; the file is damaged.")
    model = record_of(description, tensors)
    model.state["names"] = names
    others = {key: value for key, value in tree.items() if key not in ("format", "version", "description", "tensors")}
    return {**others, "model": model}


def _build(description: Any, path: str, by_layer: dict[str, dict[str, Any]], depth: int) -> Record:
    where = f"the layer {path[:60]!r}" if path else "the network"
    if depth > DEEPEST or not isinstance(description, dict) or not isinstance(description.get("class"), str):
        raise CheckpointError(f"{where} is not described as a layer is; the file is damaged.")
    attributes, parts = description.get("attributes", {}), description.get("parts", {})
    if not isinstance(attributes, dict) or not isinstance(parts, dict):
        raise CheckpointError(f"{where} is not described as a layer is; the file is damaged.")
    record = Record(MODULE, description["class"])
    record.state.update({key: value for key, value in attributes.items() if key[:1] != "_"})
    record.state["_modules"] = {
        name: _build(part, f"{path}.{name}" if path else name, by_layer, depth + 1) for name, part in parts.items()
    }
    record.state["_parameters"] = by_layer.pop(path, {})
    return record


def _plain(value: object) -> Any:
    """A number, text, or a short list of them; None for everything else."""
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.size <= 16 and value.dtype.kind in "biuf" else None
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and len(value) <= 64:
        items = [_plain(item) for item in value]
        return None if any(item is None for item in items) else items
    return None
