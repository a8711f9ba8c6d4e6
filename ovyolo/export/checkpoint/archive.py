"""The containers of ``torch.save``: the zip archive of torch 1.6 and later, and the pickles in a row before it.

:func:`load_tree` opens either, runs the pickle machine over it, and returns what it holds. Tensors are views into
storages that are read from the file once; the file is closed when it returns.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ovyolo.errors import CheckpointError, OvyoloError, UnsafeCheckpointError
from ovyolo.export.checkpoint.pickle_constructors import Global
from ovyolo.export.checkpoint.pickle_scalars import Budget
from ovyolo.export.checkpoint.records import Record
from ovyolo.export.checkpoint.sniff import refuse_foreign
from ovyolo.export.checkpoint.tensors import STORAGE_TYPES, TORCH_DTYPES, Storage
from ovyolo.export.checkpoint.unpickle import PickleMachine
from ovyolo.export.checkpoint.zip_entries import MEMORY_FLOOR, ZipReader, find_prefix, list_entries

__all__ = ["load_tree"]

_MAX_PICKLE = 64 << 20
_STORAGE_COST = 500
_MAX_DEPTH = 500
_MAX_EXPANDED = 2_000_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def load_tree(path: Path) -> object:
    """What a ``.pt`` file holds, as plain containers, arrays and records.

    Raises:
        CheckpointError: the file is missing, damaged, or not made by ``torch.save``.
        UnsafeCheckpointError: it asks for something that only code could do.
        UnsupportedModelError: it is an intact file of another kind.
    """
    try:
        if "\0" in str(path) or (path.exists() and not path.is_dir() and not path.is_file()):
            raise CheckpointError("it is not a regular file; give the path of a .pt file.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(512)
            refuse_foreign(head, path.suffix)
            budget = Budget(size + MEMORY_FLOOR)
            tree = _load_zip(file, size, budget) if head[:4] == b"PK\x03\x04" else _load_legacy(file, size, budget)
        _check_expansion(tree)
        return tree
    except OSError as error:
        raise _cannot_open(path, error) from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: there is not enough memory to read it.") from error
    except UnsafeCheckpointError as error:
        advice = "Nothing was executed; do not trust the file, and do not open it with other tools."
        raise UnsafeCheckpointError(f"{path}: {error} {advice}") from error
    except OvyoloError as error:
        raise type(error)(f"{path}: {error}") from error


def _cannot_open(path: Path, error: OSError) -> CheckpointError:
    if path.is_dir():
        return CheckpointError(f"{path} is a folder; give the path of a .pt file in it.")
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{path} does not exist; check the path.")
    return CheckpointError(f"{path} cannot be read ({error.strerror or error}); check the file and its permissions.")


class _StorageIds:
    """Turns persistent ids into storages; the containers differ in where the bytes lie."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.storages: dict[str, Storage] = {}

    def typed(self, key: object, kind: object, count: object) -> tuple[str, str, int]:
        if not isinstance(key, str) or not isinstance(kind, Global) or kind.name not in STORAGE_TYPES:
            raise CheckpointError("a storage in it has no proper name or type; the file is damaged or a trap.")
        if not kind.module.startswith("torch") or type(count) is not int or not 0 <= count < 1 << 62:
            raise CheckpointError("a storage in it has no proper type or size; the file is damaged or a trap.")
        self.budget.spend(_STORAGE_COST)
        return key, STORAGE_TYPES[kind.name], count

    def known(self, key: str, dtype: str, count: int) -> Storage | None:
        storage = self.storages.get(key)
        if storage is not None and (storage.dtype != dtype or storage.elements.size != count):
            raise CheckpointError(f"storage {ascii(key)[:40]} in it is used with two types or sizes; it is damaged.")
        return storage


# zip


def _load_zip(file: BinaryIO, size: int, budget: Budget) -> object:
    entries, end = list_entries(file, size)
    prefix = find_prefix(entries)
    order = prefix + "byteorder"
    reader = ZipReader(file, entries, end)
    if order in entries and reader.read(order) != b"little":
        raise CheckpointError("it was saved on a big-endian machine, which is not supported; save it again on a PC.")
    if entries[prefix + "data.pkl"].file_size > _MAX_PICKLE:
        raise CheckpointError("its pickle is larger than 64 MiB, which no detector's is; the file is a trap.")
    budget.spend(entries[prefix + "data.pkl"].file_size)
    ids = _ZipIds(reader, prefix, budget)
    machine = PickleMachine(reader.read(prefix + "data.pkl"), budget, ids.find)
    tree = machine.load()
    if machine.position != len(machine.data):
        raise CheckpointError("its pickle is followed by something else; the file is damaged or a trap.")
    return tree


class _ZipIds(_StorageIds):
    def __init__(self, reader: ZipReader, prefix: str, budget: Budget) -> None:
        super().__init__(budget)
        self._reader = reader
        self._prefix = prefix

    def find(self, pid: object) -> Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise CheckpointError("it refers to a record that is no storage; the file is damaged or a trap.")
        key, dtype, count = self.typed(pid[2], pid[1], pid[4])
        known = self.known(key, dtype, count)
        if known is not None:
            return known
        name = f"{self._prefix}data/{key}"
        numpy_dtype = np.dtype(TORCH_DTYPES[dtype])
        if name not in self._reader.entries:
            raise CheckpointError(f"its storage {ascii(key)[:40]} is missing; the file is damaged.")
        stored = self._reader.entries[name].file_size
        if stored != count * numpy_dtype.itemsize:
            raise CheckpointError(
                f"its storage {ascii(key)[:40]} should have {count * numpy_dtype.itemsize} bytes and has {stored}; "
                "the file is damaged."
            )
        storage = Storage(np.frombuffer(self._reader.read(name), numpy_dtype), dtype)
        self.storages[key] = storage
        return storage


# pickles in a row


def _load_legacy(file: BinaryIO, size: int, budget: Budget) -> object:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        ids = _LegacyIds(size, budget)
        machine = PickleMachine(data, budget, ids.find)
        if not _is_number(machine.load(), _LEGACY_MAGIC):
            raise CheckpointError(
                "it is a pickle, but was not made by torch.save; save the checkpoint with torch.save."
            )
        if not _is_number(machine.load(), _LEGACY_PROTOCOL):
            raise CheckpointError("it has a version of torch's old format that is not known; save it again.")
        system = machine.load()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError(
                "it was saved on a big-endian machine, which is not supported; save it again on a PC."
            )
        tree = machine.load()
        keys = machine.load()
        position = machine.position
    if position > _MAX_PICKLE + 4096:
        raise CheckpointError("its pickle is larger than 64 MiB, which no detector's is; the file is a trap.")
    ids.fill(file, position, keys)
    return tree


def _is_number(value: object, expected: int) -> bool:
    return type(value) is int and value == expected


class _LegacyIds(_StorageIds):
    """Storages that are described before their bytes come: room for them is never more than the file's size."""

    def __init__(self, size: int, budget: Budget) -> None:
        super().__init__(budget)
        self._left = size

    def find(self, pid: object) -> object:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Global):
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage":
            raise CheckpointError("it refers to a record that is no storage; the file is damaged or a trap.")
        key, dtype, count = self.typed(pid[2], pid[1], pid[4])
        storage = self.known(key, dtype, count)
        if storage is None:
            numpy_dtype = np.dtype(TORCH_DTYPES[dtype])
            self._left -= count * numpy_dtype.itemsize + 8
            if self._left < 0:
                raise CheckpointError("its storages claim more bytes than the file has; it is damaged or truncated.")
            storage = self.storages[key] = Storage(np.empty(count, numpy_dtype), dtype)
        return storage if pid[5] is None else self._part(storage, pid[5])

    def _part(self, storage: Storage, view: object) -> Storage:
        """A storage that is a stretch of another one: (its own key, offset, count)."""
        plain = isinstance(view, tuple) and len(view) == 3 and all(type(value) is int for value in view[1:])
        if not plain or not isinstance(view, tuple) or not 0 <= view[1] <= view[1] + view[2] <= storage.elements.size:
            raise CheckpointError("a storage in it reaches beyond the one that it is part of; the file is damaged.")
        return Storage(storage.elements[view[1] : view[1] + view[2]], storage.dtype)

    def fill(self, file: BinaryIO, position: int, keys: object) -> None:
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise CheckpointError("its list of storages is damaged.")
        if len(keys) != len(self.storages) or set(keys) != set(self.storages):
            raise CheckpointError("it lists other storages than its tensors use; the file is damaged.")
        file.seek(position)
        for key in keys:
            elements = self.storages[key].elements
            count = file.read(8)
            if len(count) != 8 or int.from_bytes(count, "little", signed=True) != elements.size:
                raise CheckpointError(
                    "a storage in it has another size than its tensors say; it is damaged or truncated."
                )
            if elements.size and file.readinto(elements.view(np.uint8)) != elements.nbytes:  # type: ignore[attr-defined]
                raise CheckpointError("it breaks off in the middle of a storage; download or copy the file again.")
        if file.read(1):
            raise CheckpointError("its storages are followed by something else; the file is damaged or a trap.")


# what came out


def _check_expansion(tree: object) -> None:
    """Refuses trees that are small in memory but would take forever to walk ("billion laughs"), or are very deep.

    Counts every container as often as a walk that does not remember would meet it. Cycles are left out: who walks
    modules remembers where it was.
    """
    weights: dict[int, tuple[int, int]] = {}
    entered: set[int] = set()
    pending: list[tuple[object, bool]] = [(tree, False)]
    while pending:
        node, leaving = pending.pop()
        key = id(node)
        if leaving:
            below = [weights.get(id(child), (1, 1)) for child in _parts(node)]
            count = 1 + sum(item[0] for item in below)
            depth = 1 + max((item[1] for item in below), default=0)
            if count > _MAX_EXPANDED or depth > _MAX_DEPTH:
                raise CheckpointError("its contents are nested or repeated beyond reason; it is damaged or a trap.")
            weights[key] = (count, depth)
        elif key not in entered:
            entered.add(key)
            parts = _parts(node)
            if parts:
                pending.append((node, True))
                pending.extend((child, False) for child in parts)


def _parts(node: object) -> list:
    if isinstance(node, dict):
        found: list = list(node.values())
    elif isinstance(node, list | tuple):
        found = list(node)
    elif isinstance(node, Record):
        found = [node.state, node.args, node.entries]
    else:
        return []
    return [part for part in found if isinstance(part, dict | list | tuple | Record)]
