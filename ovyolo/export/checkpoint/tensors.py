"""Storages, tensors and NumPy arrays of a checkpoint, rebuilt with every number in the file checked first."""

from __future__ import annotations

import re
import sys

import numpy as np

from ovyolo.errors import CheckpointError, UnsafeCheckpointError
from ovyolo.export.checkpoint.records import BFloat16Tensor

__all__ = [
    "STORAGE_TYPES",
    "TORCH_DTYPES",
    "DtypeRecord",
    "Storage",
    "array_state",
    "numpy_frombuffer",
    "numpy_scalar",
    "rebuild_tensor",
]

_MAX_DIMS = 16

# torch's name of a type: NumPy's name of the same bits
TORCH_DTYPES: dict[str, str] = {
    "float16": "<f2",
    "half": "<f2",
    "bfloat16": "<u2",
    "float32": "<f4",
    "float": "<f4",
    "float64": "<f8",
    "double": "<f8",
    "int8": "i1",
    "int16": "<i2",
    "short": "<i2",
    "int32": "<i4",
    "int": "<i4",
    "int64": "<i8",
    "long": "<i8",
    "uint8": "u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "bool": "?",
    "complex64": "<c8",
    "complex128": "<c16",
}

STORAGE_TYPES: dict[str, str] = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}

_NUMPY_CODES = re.compile(r"[<>|=]?(b1|\?|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,5})")


class Storage:
    """The elements of one storage record: a flat array and torch's name for their type."""

    __slots__ = ("dtype", "elements", "shared")

    def __init__(self, elements: np.ndarray, dtype: str) -> None:
        self.elements = elements
        self.dtype = dtype
        # a read-only view, which is what tensors are cut from; the reader of legacy files still fills `elements`
        self.shared = elements.view()
        self.shared.flags.writeable = False


class DtypeRecord:
    """A ``numpy.dtype`` of a pickle between its construction and its state."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not _NUMPY_CODES.fullmatch(code):
            kind = ascii(code)[:60] if isinstance(code, str) else type(code).__name__
            raise UnsafeCheckpointError(f"it holds a NumPy array of type {kind}, which is not one of plain numbers.")
        self.code = code
        self.order = ""

    def set_state(self, state: object) -> None:
        plain = (
            isinstance(state, tuple)
            and len(state) == 8
            and type(state[0]) is int
            and state[1] in ("<", ">", "|", "=")
            and state[2:5] == (None, None, None)
            and all(type(value) is int for value in state[5:8])
        )
        if not plain or not isinstance(state, tuple):
            raise UnsafeCheckpointError("it holds a NumPy type with fields of its own, which weights have no need of.")
        self.order = str(state[1])

    def resolve(self) -> np.dtype:
        code = self.code.lstrip("<>|=")
        order = self.order or self.code[: len(self.code) - len(code)]
        if order == ">":
            raise CheckpointError("it was written on a big-endian machine, which is not supported; save it on a PC.")
        return np.dtype(code).newbyteorder("<")


def _whole_numbers(values: object, what: str) -> tuple[int, ...]:
    if isinstance(values, list):
        values = tuple(values)
    if not isinstance(values, tuple) or len(values) > _MAX_DIMS:
        raise CheckpointError(f"the {what} of a tensor in it is not a short tuple of numbers; the file is damaged.")
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise CheckpointError(f"the {what} of a tensor in it has an element that no tensor has; it is damaged.")
    return values


def rebuild_tensor(
    storage: object, offset: object, size: object, stride: object
) -> tuple[np.ndarray | BFloat16Tensor, int]:
    """A read-only view into a storage, and by how many bytes its elements exceed that storage (expanded tensors).

    ``offset`` and ``stride`` are in elements, as torch has them. Everything is checked with Python's own integers
    before NumPy sees it.
    """
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor in it has no storage; the file is damaged.")
    size = _whole_numbers(size, "size")
    stride = _whole_numbers(stride, "stride")
    (offset,) = _whole_numbers((offset,), "offset")
    if len(size) != len(stride):
        raise CheckpointError(f"a tensor in it has {len(size)} sizes and {len(stride)} strides; the file is damaged.")
    elements = storage.shared
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step if length else 0
    if (count and last >= elements.size) or (not count and offset > elements.size):
        raise CheckpointError(
            f"a tensor in it reaches to element {last} of a storage of {elements.size} elements; the file is damaged."
        )
    if count >= 1 << 62:
        raise CheckpointError("a tensor in it claims more elements than memory can have; the file is damaged.")
    width = elements.itemsize
    if count:
        steps = tuple(0 if length == 1 else step * width for length, step in zip(size, stride, strict=True))
        view = np.ndarray(size, elements.dtype, elements, offset * width, steps)
    else:
        if max(size) >= 1 << 31:
            raise CheckpointError("an empty tensor in it claims an absurd size; the file is damaged.")
        view = np.empty(size, elements.dtype)
    view.flags.writeable = False
    surplus = max(0, count - elements.size) * width
    return (BFloat16Tensor(view) if storage.dtype == "bfloat16" else view), surplus


def array_state(array: np.ndarray, state: object) -> None:
    """Gives an array that ``numpy.core.multiarray._reconstruct`` made its contents, in place."""
    pristine = array.shape == (0,) and array.dtype == np.int8 and array.flags.owndata and array.flags.writeable
    if not pristine or not isinstance(state, tuple) or len(state) != 5:
        raise UnsafeCheckpointError("it changes the inner state of an array, which weights have no need of.")
    version, shape, dtype, fortran, raw = state
    if version != 1 or type(fortran) not in (bool, int) or not isinstance(dtype, DtypeRecord):
        raise CheckpointError("a NumPy array in it has a state of unknown form; the file is damaged.")
    if not isinstance(raw, bytes | bytearray):
        raise UnsafeCheckpointError("it holds a NumPy array of objects, which weights have no need of.")
    resolved = _checked(raw, dtype, _whole_numbers(shape, "shape"))
    array.__setstate__((1, tuple(shape), resolved, bool(fortran), bytes(raw)))  # type: ignore[arg-type]


def numpy_frombuffer(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """An array as protocol 5 pickles it: its bytes in place, its type, its shape and ``"C"`` or ``"F"``."""
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, DtypeRecord) or order not in ("C", "F"):
        raise CheckpointError("a NumPy array in it is not made of bytes; the file is damaged.")
    shape = _whole_numbers(shape, "shape")
    resolved = _checked(raw, dtype, shape)
    return np.frombuffer(raw, resolved).reshape(shape, order="C" if order == "C" else "F")


def numpy_scalar(dtype: object, raw: object) -> object:
    """A NumPy scalar, as the Python number or string of the same value."""
    if not isinstance(dtype, DtypeRecord) or not isinstance(raw, bytes):
        raise UnsafeCheckpointError("it holds a NumPy scalar that is no plain number, which weights have no need of.")
    return np.frombuffer(raw, _checked(raw, dtype, ()))[0].item()


def _checked(raw: bytes | bytearray, dtype: DtypeRecord, shape: tuple[int, ...]) -> np.dtype:
    resolved = dtype.resolve()
    count = 1
    for length in shape:
        count *= length
    if not resolved.itemsize or count * resolved.itemsize != len(raw):
        raise CheckpointError(
            f"a NumPy array in it should have {count * resolved.itemsize} bytes and has {len(raw)}; it is damaged."
        )
    # NumPy believes such texts, and Python breaks on them
    if resolved.kind == "U" and np.frombuffer(raw, "<u4").max(initial=0) > sys.maxunicode:
        raise CheckpointError("a NumPy text in it is none; the file is damaged.")
    return resolved
