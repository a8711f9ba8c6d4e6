"""The few constructors that a checkpoint may call: each makes plain data from the arguments that the file gives.

The table :data:`CONSTRUCTORS` says which name in a pickle means which of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from ovyolo.errors import CheckpointError, UnsafeCheckpointError
from ovyolo.export.checkpoint.records import BFloat16Tensor, Record
from ovyolo.export.checkpoint.tensors import (
    TORCH_DTYPES,
    DtypeRecord,
    Storage,
    numpy_frombuffer,
    numpy_scalar,
    rebuild_tensor,
)

if TYPE_CHECKING:
    from ovyolo.export.checkpoint.pickle_scalars import Budget

__all__ = ["CONSTRUCTORS", "Constructor", "Global", "hashable", "printable", "record_of", "unsafe"]

_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))

Constructor = Callable[[tuple, "Budget"], object]


class Global:
    """A name in a pickle: a marker, with the constructor that interprets it as data if it may be called."""

    __slots__ = ("construct", "instantiable", "module", "name")

    def __init__(
        self, module: str, name: str, construct: Constructor | None = None, instantiable: bool = False
    ) -> None:
        self.module = module
        self.name = name
        self.construct = construct
        self.instantiable = instantiable

    def __repr__(self) -> str:
        return f"<Global {self.module}.{self.name}>"


def printable(module: str, name: str) -> str:
    """A name of a file, as it may stand in a message: without control characters, and not too long."""
    return ascii(f"{module}.{name}")[1:-1][:120]


def unsafe(verb: str, module: str, name: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(f"it asks to {verb} {printable(module, name)}, which weights have no need of.")


def hashable(value: object) -> object:
    """``value`` if it may be a key or a member of a set; hashing nested keys can be made to take forever."""
    if type(value) not in _PLAIN_KEYS or (type(value) is int and not -(1 << 60) < value < 1 << 60):
        raise CheckpointError(
            f"it uses something of type {type(value).__name__} as a key; the file is damaged or a trap."
        )
    return value


# Constructors: each takes the arguments that the file gives to a name, and makes data of them.


def _wrong(what: str) -> CheckpointError:
    return CheckpointError(f"it makes {what} from arguments that do not fit; the file is damaged or a trap.")


def record_of(module: str, name: str) -> Constructor:
    def construct(arguments: tuple, budget: Budget) -> Record:
        budget.spend(220)
        return Record(module, name, arguments)

    return construct


def _items(arguments: tuple, budget: Budget, what: str) -> list | tuple:
    if not arguments:
        return ()
    if len(arguments) != 1 or not isinstance(arguments[0], list | tuple):
        raise _wrong(what)
    budget.spend(100 * len(arguments[0]))
    return arguments[0]


def _make_set(arguments: tuple, budget: Budget) -> set:
    budget.spend(220)
    return {hashable(item) for item in _items(arguments, budget, "a set")}


def _make_frozenset(arguments: tuple, budget: Budget) -> frozenset:
    return frozenset(_make_set(arguments, budget))


def _make_list(arguments: tuple, budget: Budget) -> list:
    return list(_items(arguments, budget, "a list"))


def _make_tuple(arguments: tuple, budget: Budget) -> tuple:
    return tuple(_items(arguments, budget, "a tuple"))


def _make_dict(arguments: tuple, budget: Budget) -> dict:
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        budget.spend(100 * len(arguments[0]))
        return dict(arguments[0])
    made = {}
    for pair in _items(arguments, budget, "a dict"):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _wrong("a dict")
        made[hashable(pair[0])] = pair[1]
    return made


def _make_defaultdict(arguments: tuple, budget: Budget) -> dict:
    if len(arguments) > 1 or not all(value is None or isinstance(value, Global) for value in arguments):
        raise _wrong("a defaultdict")
    return {}


def _make_deque(arguments: tuple, budget: Budget) -> list:
    if len(arguments) > 2 or not all(value is None or type(value) is int for value in arguments[1:]):
        raise _wrong("a deque")
    return list(_items(arguments[:1], budget, "a deque"))


def _make_bytes(arguments: tuple, budget: Budget) -> bytes:
    if arguments == ():
        return b""
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise _wrong("bytes")
    return arguments[0]


def _make_bytearray(arguments: tuple, budget: Budget) -> bytearray:
    if len(arguments) == 2 and isinstance(arguments[0], str):
        return bytearray(_encode(arguments, budget))
    made = _make_bytes(arguments, budget)
    budget.spend(len(made))
    return bytearray(made)


def _make_complex(arguments: tuple, budget: Budget) -> complex:
    if len(arguments) != 2 or not all(type(value) is float for value in arguments):
        raise _wrong("a complex number")
    return complex(arguments[0], arguments[1])


def _encode(arguments: tuple, budget: Budget) -> bytes:
    """``_codecs.encode(text, "latin1")``: how bytes are pickled by protocol 2."""
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise UnsafeCheckpointError("it encodes text with another codec than latin1, which weights have no need of.")
    budget.spend(64 + len(arguments[0]))
    try:
        return arguments[0].encode("latin1")
    except UnicodeEncodeError as error:
        raise _wrong("bytes") from error


def _reconstruct_object(arguments: tuple, budget: Budget) -> Record:
    """``copyreg._reconstructor(cls, object, None)``: how protocols 0 and 1 make instances."""
    if len(arguments) != 3 or not isinstance(arguments[0], Global) or arguments[2] is not None:
        raise _wrong("an instance")
    kind, base, _ = arguments
    if not isinstance(base, Global) or base.name != "object" or not kind.instantiable:
        raise unsafe("make an instance of", kind.module, kind.name)
    budget.spend(220)
    return Record(kind.module, kind.name)


def _tensor(arguments: tuple, budget: Budget) -> np.ndarray | BFloat16Tensor:
    if len(arguments) not in (4, 6, 7):
        raise _wrong("a tensor")
    return _view(arguments[0], arguments[1:4], budget)


def _tensor_v3(arguments: tuple, budget: Budget) -> np.ndarray | BFloat16Tensor:
    """``_rebuild_tensor_v3``: bytes with a type beside them, for types without a storage class of their own."""
    if len(arguments) not in (7, 8) or not isinstance(arguments[0], Storage) or not isinstance(arguments[6], Global):
        raise _wrong("a tensor")
    storage, kind = arguments[0], arguments[6]
    if kind.module != "torch" or kind.name not in TORCH_DTYPES:
        raise CheckpointError(f"it holds tensors of type {printable(kind.module, kind.name)}, which no YOLOv5 has.")
    dtype = np.dtype(TORCH_DTYPES[kind.name])
    if storage.dtype != "uint8" or storage.elements.size % dtype.itemsize:
        raise _wrong("a tensor")
    return _view(Storage(storage.elements.view(dtype), kind.name), arguments[1:4], budget)


def _view(storage: object, place: tuple, budget: Budget) -> np.ndarray | BFloat16Tensor:
    offset, size, stride = place
    made, surplus = rebuild_tensor(storage, offset, size, stride)
    budget.spend(220 + surplus)
    return made


def _parameter(arguments: tuple, budget: Budget) -> np.ndarray | BFloat16Tensor:
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], np.ndarray | BFloat16Tensor):
        raise _wrong("a parameter")
    return arguments[0]


def _from_type(arguments: tuple, budget: Budget) -> np.ndarray | BFloat16Tensor:
    """``_rebuild_from_type_v2(function, type, arguments, state)``: a tensor with attributes, which are dropped."""
    if len(arguments) != 4 or not isinstance(arguments[0], Global) or not isinstance(arguments[2], tuple):
        raise _wrong("a tensor")
    if arguments[0].construct not in (_tensor, _tensor_v3, _parameter):
        raise unsafe("call", arguments[0].module, arguments[0].name)
    made = arguments[0].construct(arguments[2], budget)
    assert isinstance(made, np.ndarray | BFloat16Tensor)
    return made


def _size(arguments: tuple, budget: Budget) -> tuple:
    made = _make_tuple(arguments, budget)
    if not all(type(value) is int for value in made):
        raise _wrong("a size")
    return made


def _numpy_array(arguments: tuple, budget: Budget) -> np.ndarray:
    plain = len(arguments) == 3 and isinstance(arguments[0], Global) and arguments[0].name == "ndarray"
    if not plain or arguments[0].module != "numpy" or arguments[1] != (0,) or arguments[2] not in (b"b", "b"):
        raise UnsafeCheckpointError("it makes a NumPy array of a class of its own, which weights have no need of.")
    return np.empty(0, np.int8)


def _numpy_dtype(arguments: tuple, budget: Budget) -> DtypeRecord:
    if not 1 <= len(arguments) <= 3 or not all(type(value) in (bool, int) for value in arguments[1:]):
        raise _wrong("a NumPy type")
    return DtypeRecord(arguments[0])


def _numpy_scalar(arguments: tuple, budget: Budget) -> object:
    if len(arguments) != 2:
        raise _wrong("a NumPy scalar")
    return numpy_scalar(arguments[0], arguments[1])


def _numpy_frombuffer(arguments: tuple, budget: Budget) -> np.ndarray:
    if len(arguments) != 4:
        raise _wrong("a NumPy array")
    return numpy_frombuffer(*arguments)


def _path_parts(arguments: tuple, budget: Budget) -> tuple[str, ...]:
    if len(arguments) > 1000 or not all(isinstance(part, str) for part in arguments):
        raise _wrong("a path")
    budget.spend(64 + 10 * sum(map(len, arguments)))
    return arguments


def _posix_path(arguments: tuple, budget: Budget) -> str:
    return str(PurePosixPath(*_path_parts(arguments, budget)))


def _windows_path(arguments: tuple, budget: Budget) -> str:
    return str(PureWindowsPath(*_path_parts(arguments, budget)))


def _device(arguments: tuple, budget: Budget) -> str:
    if (
        not 1 <= len(arguments) <= 2
        or not isinstance(arguments[0], str)
        or not all(type(value) is int for value in arguments[1:])
    ):
        raise _wrong("a device")
    return ":".join(str(value) for value in arguments)


def _table() -> dict[tuple[str, str], Constructor]:
    table: dict[tuple[str, str], Constructor] = {
        ("collections", "OrderedDict"): _make_dict,
        ("collections", "Counter"): _make_dict,
        ("collections", "defaultdict"): _make_defaultdict,
        ("collections", "deque"): _make_deque,
        ("_codecs", "encode"): _encode,
        ("copyreg", "_reconstructor"): _reconstruct_object,
        ("copy_reg", "_reconstructor"): _reconstruct_object,
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
        ("numpy", "dtype"): _numpy_dtype,
    }
    for module in ("builtins", "__builtin__"):
        table[(module, "set")] = _make_set
        table[(module, "frozenset")] = _make_frozenset
        table[(module, "list")] = _make_list
        table[(module, "tuple")] = _make_tuple
        table[(module, "dict")] = _make_dict
        table[(module, "bytes")] = _make_bytes
        table[(module, "bytearray")] = _make_bytearray
        table[(module, "complex")] = _make_complex
        for name in ("slice", "range"):
            table[(module, name)] = record_of(module, name)
    for package in ("numpy.core", "numpy._core"):
        table[(f"{package}.multiarray", "_reconstruct")] = _numpy_array
        table[(f"{package}.multiarray", "scalar")] = _numpy_scalar
        table[(f"{package}.numeric", "_frombuffer")] = _numpy_frombuffer
    for module in ("pathlib", "pathlib._local"):
        for name in ("PosixPath", "PurePosixPath", "Path", "PurePath"):
            table[(module, name)] = _posix_path
        for name in ("WindowsPath", "PureWindowsPath"):
            table[(module, name)] = _windows_path
    for name in ("datetime", "date", "time", "timedelta", "timezone"):
        table[("datetime", name)] = record_of("datetime", name)
    return table


CONSTRUCTORS = _table()
