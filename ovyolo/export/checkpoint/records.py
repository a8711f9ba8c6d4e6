"""What a checkpoint becomes: inert records, and how to walk the torch modules among them.

A :class:`Record` stands for an instance of a class that was named in a checkpoint; it has the name and the state, and
no behaviour. Tensors are NumPy arrays. The helpers below know how ``torch.nn.Module`` keeps its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import CheckpointError

__all__ = ["BFloat16Tensor", "Record", "attr", "children", "class_name", "copied", "is_kind", "tensor", "walk"]

_MAX_NAME = 200


class Record:
    """An instance of a class that a checkpoint names, as data.

    ``module`` and ``qualname`` are the names as written in the file; nothing was imported for them. ``args`` are the
    constructor's arguments where the file gives any, ``state`` the instance's attributes, ``entries`` what the file put
    into the instance as a container (a dict, a list, or None where it put nothing).
    """

    __slots__ = ("args", "entries", "module", "qualname", "state")

    def __init__(self, module: str, qualname: str, args: tuple = ()) -> None:
        self.module = module
        self.qualname = qualname
        self.args = args
        self.state: dict[str, object] = {}
        self.entries: dict | list | None = None

    def __repr__(self) -> str:
        return f"<Record {self.module}.{self.qualname}>"


class BFloat16Tensor:
    """A bfloat16 tensor: NumPy has no such type, so its 16 bits are kept as uint16 until they are asked for."""

    __slots__ = ("bits",)

    def __init__(self, bits: NDArray[np.uint16]) -> None:
        self.bits = bits

    def as_float32(self) -> NDArray[np.float32]:
        """The same numbers, exactly, as float32."""
        wide = self.bits.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)


def class_name(record: Record) -> str:
    """The class's own name, without its module and outer classes: ``Conv2d`` for ``torch.nn.modules.conv.Conv2d``."""
    return record.qualname.rpartition(".")[2]


def copied(record: Record) -> Record:
    """A record of the same class whose attributes can be replaced; what they hold is shared."""
    made = Record(record.module, record.qualname)
    made.state.update(record.state)
    return made


def is_kind(value: object, *names: str) -> bool:
    """Whether ``value`` is a record whose class has one of these names (as :func:`class_name` gives them)."""
    return isinstance(value, Record) and class_name(value) in names


def children(record: Record) -> dict[str, Record]:
    """The submodules of a module by their names, in order; slots that hold None are left out.

    Raises:
        CheckpointError: the record's ``_modules`` is not what a ``torch.nn.Module`` has there.
    """
    found = record.state.get("_modules")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CheckpointError(f"the submodules of {class_name(record)} are not a mapping; the checkpoint is damaged.")
    result: dict[str, Record] = {}
    for name, child in found.items():
        if child is None:
            continue
        if not isinstance(child, Record) or not isinstance(name, str) or len(name) > _MAX_NAME:
            raise CheckpointError(f"a submodule of {class_name(record)} is not a module; the checkpoint is damaged.")
        result[name] = child
    return result


def tensor(record: Record, name: str) -> np.ndarray | None:
    """The parameter or buffer ``name`` of a module (not of its submodules) as an array, or None where it has none.

    FP16, FP32, FP64, integer and bool tensors keep their type; bfloat16 comes as float32. The array is read-only.
    """
    for group in ("_parameters", "_buffers"):
        found = record.state.get(group)
        if isinstance(found, dict) and found.get(name) is not None:
            return _as_array(found[name], record, name)
    return None


def attr(record: Record, name: str, default: Any = None) -> Any:
    """What ``module.name`` would give: an attribute, else a parameter, buffer or submodule, else ``default``."""
    if name in record.state:
        value = record.state[name]
        return value.as_float32() if isinstance(value, BFloat16Tensor) else value
    found = tensor(record, name)
    if found is not None:
        return found
    return children(record).get(name, default)


def walk(record: Record) -> Iterator[tuple[str, Record]]:
    """A module and all modules below it with their dotted paths (``""``, ``"model"``, ``"model.0"`` ...), each once."""
    seen: set[int] = set()
    pending = [("", record)]
    while pending:
        path, module = pending.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        below = [(f"{path}.{name}" if path else name, child) for name, child in children(module).items()]
        pending.extend(reversed(below))


def _as_array(value: object, record: Record, name: str) -> np.ndarray:
    if isinstance(value, BFloat16Tensor):
        return value.as_float32()
    if not isinstance(value, np.ndarray):
        raise CheckpointError(f"{name} of {class_name(record)} is not a tensor; the checkpoint is damaged.")
    return value
