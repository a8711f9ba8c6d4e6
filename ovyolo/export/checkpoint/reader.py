"""From a ``.pt`` file to the record tree of a detector, with nothing of the file executed."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ovyolo.errors import CheckpointError, OvyoloError, OvyoloWarning
from ovyolo.export.checkpoint.archive import load_tree
from ovyolo.export.checkpoint.kinds import check_detector, refuse_root
from ovyolo.export.checkpoint.own_format import is_own, tree_of
from ovyolo.export.checkpoint.records import Record, attr, children, class_name

__all__ = ["Checkpoint", "read_checkpoint"]

_MAX_META_TEXT = 2_000
_MAX_META_ITEMS = 5_000
_WRAPPERS = ("DataParallel", "DistributedDataParallel")


@dataclass(frozen=True)
class Checkpoint:
    """A detector as a training left it.

    Attributes:
        path: the file.
        model: the record of the whole network (``models.yolo.Model`` or ``DetectionModel``).
        names: class names by class number; ``class0`` and so on where the file has none.
        stride: strides of the detection levels in pixels of the network's input; empty where the file has none.
        which: the part that was taken: ``"ema"``, ``"model"``, or ``"module"`` for a network saved on its own.
        generation: a guess at the YOLOv5 release that made it, such as ``"v6"``; empty where there is none.
        epoch: the last epoch; -1 for a finished training, None if not told.
        date: when it was saved, ISO 8601; None if not told.
        meta: the other small values in the file: numbers, texts, and dicts and lists of them.
    """

    path: Path
    model: Record
    names: dict[int, str]
    stride: tuple[int, ...]
    which: str
    generation: str
    epoch: int | None = None
    date: str | None = None
    meta: dict[str, object] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file as it is when this is first asked for."""
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"{self.path} can no longer be read ({error.strerror}).") from error
        return digest.hexdigest()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a YOLOv5 ``.pt`` file of any generation, or one of ours, without PyTorch and without running what is in it.

    Both formats of ``torch.save`` are read. Of a training checkpoint the averaged weights (``ema``) are taken if they
    are there, else ``model``. Tensors are read-only NumPy arrays, see :func:`tensor`.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing, damaged, or not made by ``torch.save``.
        UnsafeCheckpointError: it asks for something that only code could do; nothing was executed.
        UnsupportedModelError: it is intact, but holds no anchor-based YOLOv5 detector; the message says what it holds.

    Example:
        >>> from ovyolo.export.checkpoint import children, read_checkpoint
        >>> checkpoint = read_checkpoint("best.pt")  # doctest: +SKIP
        >>> checkpoint.names, list(children(checkpoint.model))  # doctest: +SKIP
        ({0: 'short', 1: 'open'}, ['model'])
    """
    path = Path(path)
    tree = load_tree(path)
    try:
        if isinstance(tree, dict) and is_own(tree):
            tree = tree_of(tree)
        model, which = _choose(tree)
        head = check_detector(model)
        others = tree if isinstance(tree, dict) else {}
        return Checkpoint(
            path=path,
            model=model,
            names=_names(model, head, path),
            stride=_strides(model, head),
            which=which,
            generation=_generation(model),
            epoch=_whole(others.get("epoch")),
            date=_text(others.get("date")),
            meta=_meta(others),
        )
    except OvyoloError as error:
        raise type(error)(f"{path}: {error}") from error


def _choose(tree: object) -> tuple[Record, str]:
    """The network's record, and which part of the file it is."""
    if isinstance(tree, dict):
        for which in ("ema", "model"):
            found = tree.get(which)
            if isinstance(found, tuple | list) and found:  # (network, number of updates)
                found = found[0]
            if isinstance(found, Record):
                return _unwrap(found), which
    elif isinstance(tree, Record):
        inner = tree.state.get("ema")
        return (_unwrap(inner), "ema") if isinstance(inner, Record) else (_unwrap(tree), "module")
    raise refuse_root(tree)


def _unwrap(record: Record) -> Record:
    """The network within an averaging or parallel wrapper."""
    for _ in range(4):
        inner = record.state.get("ema")
        if not isinstance(inner, Record) and class_name(record) in _WRAPPERS:
            inner = children(record).get("module")
        if not isinstance(inner, Record):
            break
        record = inner
    return record


def _names(model: Record, head: Record, path: Path) -> dict[int, str]:
    found = attr(model, "names")
    if found is None:
        found = attr(head, "names")
    count = attr(head, "nc")
    assert isinstance(count, int)
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    if found is None or found == {}:
        return {i: f"class{i}" for i in range(count)}
    if not isinstance(found, dict):
        raise CheckpointError("its class names are neither a list nor a mapping; the file is damaged.")
    names: dict[int, str] = {}
    for key, name in found.items():
        index = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 7 else key
        if type(index) is not int or index < 0 or not isinstance(name, str | int | float):
            raise CheckpointError("its class names are not texts by class number; the file is damaged.")
        names[index] = str(name)
    if set(names) != set(range(count)):
        warnings.warn(
            f"{path} names {len(names)} classes, but its head tells {count} apart", OvyoloWarning, stacklevel=3
        )
    return names


def _strides(model: Record, head: Record) -> tuple[int, ...]:
    for record in (head, model):
        found = attr(record, "stride")
        values = found.ravel().tolist() if isinstance(found, np.ndarray) and found.size <= 16 else found
        if isinstance(values, list | tuple) and values:
            if not all(isinstance(value, int | float) and 1 <= value <= 1024 for value in values):
                raise CheckpointError("its strides are not numbers of pixels; the file is damaged.")
            return tuple(round(value) for value in values)
    return ()


def _generation(model: Record) -> str:
    layers = list(children(children(model)["model"]).values())
    kinds = {class_name(layer) for layer in layers}
    if "Focus" in kinds:
        return "v3 to v5" if "C3" in kinds or "BottleneckCSP" in kinds else ""
    if class_name(model) == "DetectionModel":
        return "v6.2 or later"
    return "v6" if "SPPF" in kinds or kinds & {"C3", "C3x", "C3TR", "C3Ghost"} else ""


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _meta(tree: dict) -> dict[str, object]:
    """The small values of a training checkpoint: not the networks, not the optimizer, no large arrays."""
    meta: dict[str, object] = {}
    left = [_MAX_META_ITEMS]
    for key, value in tree.items():
        if isinstance(key, str) and key not in ("model", "ema", "optimizer", "epoch", "date"):
            plain = _plain(value, 3, left)
            if plain is not None:
                meta[key] = plain
    return meta


def _plain(value: object, depth: int, left: list[int]) -> object:
    """A value as numbers, texts, dicts and lists; None for what cannot be shown so, or when ``left`` is used up."""
    left[0] -= 1
    if left[0] < 0:
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= 16 and value.dtype.kind in "biuf" else None
    if isinstance(value, Record) and class_name(value) in ("Namespace", "SimpleNamespace"):
        value = value.state
    if isinstance(value, str):
        return value[:_MAX_META_TEXT]
    if isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, dict) and len(value) <= left[0]:
        return {str(key)[:_MAX_META_TEXT]: _plain(item, depth - 1, left) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set) and len(value) <= left[0]:
        return [_plain(item, depth - 1, left) for item in value]
    return None
