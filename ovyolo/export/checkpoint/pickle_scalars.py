"""The part of the pickle machine that reads numbers, strings and constants; and the budget that pays for them."""

from __future__ import annotations

import re
import struct
from mmap import mmap

from ovyolo.errors import CheckpointError

__all__ = ["Budget", "ScalarReader"]

_MAX_LINE = 1_000
_MAX_INT_BYTES = 255

_INT4 = struct.Struct("<i")
_UINT2 = struct.Struct("<H")
_UINT4 = struct.Struct("<I")
_UINT8 = struct.Struct("<Q")
_FLOAT8 = struct.Struct(">d")
_DECIMAL = re.compile(rb"[+-]?[0-9]{1,80}")


class Budget:
    """How many bytes of memory a file may still make us use."""

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise CheckpointError("it would take far more memory than its size justifies; it is damaged or a trap.")


class ScalarReader:
    """A buffer, a position in it, and a stack for what was read there."""

    def __init__(self, data: bytes | mmap, budget: Budget, position: int = 0) -> None:
        self.data = data
        self.position = position
        self.budget = budget
        self.stack: list = []
        self._frame_end = position

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise CheckpointError(f"it announces {count} bytes where fewer are left; the file is damaged.")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        self.budget.left -= 32
        return value

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.position + _MAX_LINE)
        if end < 0:
            raise CheckpointError("the pickle in it has a line without an end; the file is damaged.")
        return self._take(end + 1 - self.position)[:-1]

    def _text(self, count: int) -> str:
        raw = self._take(count)
        # one wide character makes every character of a string wide
        self.budget.spend(64 + (count if raw.isascii() else 5 * count))
        return raw.decode("utf-8", "surrogatepass")

    # opcodes: numbers, strings, constants

    def _op_proto(self) -> None:
        version = self.data[self.position]
        self.position += 1
        if version > 5:
            raise CheckpointError(f"it is pickled with protocol {version}, which is not known; the file is damaged.")

    def _op_frame(self) -> None:
        began = self.position - 1
        length = self._number(_UINT8)
        if began < self._frame_end or length > len(self.data) - self.position:
            raise CheckpointError("the pickle in it has a frame that lies about its length; the file is damaged.")
        self._frame_end = self.position + length

    def _op_none(self) -> None:
        self.stack.append(None)

    def _op_true(self) -> None:
        self.stack.append(True)

    def _op_false(self) -> None:
        self.stack.append(False)

    def _op_int1(self) -> None:
        self.stack.append(self.data[self.position])
        self.position += 1

    def _op_int2(self) -> None:
        self.stack.append(self._number(_UINT2))

    def _op_int4(self) -> None:
        self.stack.append(self._number(_INT4))

    def _op_int_line(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):
            self.stack.append(line == b"01")
        else:
            self.stack.append(self._decimal(line))

    def _op_long_line(self) -> None:
        self.stack.append(self._decimal(self._line().removesuffix(b"L")))

    def _decimal(self, line: bytes) -> int:
        if not _DECIMAL.fullmatch(line):
            raise CheckpointError("the pickle in it has a number that is none; the file is damaged.")
        self.budget.spend(80)
        return int(line)

    def _op_long1(self) -> None:
        length = self.data[self.position]
        self.position += 1
        self.budget.left -= 32 + 2 * length
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def _op_long4(self) -> None:
        length = self._number(_INT4)
        if not 0 <= length <= _MAX_INT_BYTES:
            raise CheckpointError(f"it holds an integer of {length} bytes; the file is damaged or a trap.")
        self.budget.left -= 32 + 2 * length
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def _op_float(self) -> None:
        (value,) = _FLOAT8.unpack_from(self.data, self.position)
        self.position += 8
        self.budget.left -= 24
        self.stack.append(value)

    def _op_float_line(self) -> None:
        try:
            self.budget.left -= 24
            self.stack.append(float(self._line()))
        except ValueError as error:
            raise CheckpointError("the pickle in it has a number that is none; the file is damaged.") from error

    def _op_text1(self) -> None:
        length = self.data[self.position]
        self.position += 1
        self.stack.append(self._text(length))

    def _op_text4(self) -> None:
        self.stack.append(self._text(self._number(_UINT4)))

    def _op_text8(self) -> None:
        self.stack.append(self._text(self._number(_UINT8)))

    def _op_text_line(self) -> None:
        # a line may be long here: strings of protocol 0
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise CheckpointError("the pickle in it has a line without an end; the file is damaged.")
        raw = self._take(end + 1 - self.position)[:-1]
        self.budget.spend(64 + 5 * len(raw))
        self.stack.append(raw.decode("raw-unicode-escape"))

    def _op_bytes1(self) -> None:
        length = self.data[self.position]
        self.position += 1
        self.stack.append(self._bytes(length))

    def _op_bytes4(self) -> None:
        self.stack.append(self._bytes(self._number(_UINT4)))

    def _op_bytes8(self) -> None:
        self.stack.append(self._bytes(self._number(_UINT8)))

    def _op_bytearray8(self) -> None:
        self.stack.append(bytearray(self._bytes(self._number(_UINT8))))

    def _bytes(self, count: int) -> bytes:
        taken = self._take(count)
        self.budget.spend(64 + 2 * count)
        return taken
