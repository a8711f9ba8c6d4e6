"""A pickle machine that builds data and nothing else.

It reads the opcodes that ``torch.save`` and NumPy write (protocols 0 to 5) and refuses all others. A global is looked
up in the table of ``pickle_globals``, never imported; REDUCE, NEWOBJ and BUILD work on what stands in that table.
Memory is accounted for: every opcode, container and string is charged against a :class:`Budget`.

Python's own ``pickle.Unpickler`` is not used: overriding ``find_class`` leaves REDUCE and BUILD running as they are,
and its memo is allocated by the largest index that the file names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from mmap import mmap

import numpy as np

from ovyolo.errors import CheckpointError, UnsafeCheckpointError
from ovyolo.export.checkpoint.pickle_constructors import hashable
from ovyolo.export.checkpoint.pickle_globals import Globals, build_state
from ovyolo.export.checkpoint.pickle_scalars import Budget, ScalarReader
from ovyolo.export.checkpoint.records import Record

__all__ = ["Budget", "PickleMachine"]

# bytes that things take in CPython, rounded up
_OPCODE_COST = 16
_MEMO_COST = 100
_CONTAINER_COST = 80
_SET_COST = 220
_RECORD_COST = 220
_ITEM_COST = 100
_MAX_MARKS = 2_000

_UINT4 = struct.Struct("<I")


class PickleMachine(ScalarReader):
    """Reads one pickle after the other from a buffer.

    ``persistent`` turns a persistent id into what stands for it. ``position`` is where the next pickle begins.
    """

    def __init__(
        self,
        data: bytes | mmap,
        budget: Budget,
        persistent: Callable[[object], object] | None = None,
        position: int = 0,
    ) -> None:
        super().__init__(data, budget, position)
        self.globals = Globals(budget)
        self._persistent = persistent
        self._reset()

    def _reset(self) -> None:
        self.stack = []
        self.outer_stacks: list[list] = []
        self.memo: dict[int, object] = {}
        self._frame_end = self.position

    def load(self) -> object:
        """The next pickle's object.

        Raises:
            CheckpointError: the bytes are no pickle, are damaged, or take more memory than the budget allows.
            UnsafeCheckpointError: the pickle asks for something that only code could do.
        """
        self._reset()
        start, data, budget, handlers = self.position, self.data, self.budget, _HANDLERS
        try:
            while True:
                opcode = data[self.position]
                self.position += 1
                budget.left -= _OPCODE_COST
                if budget.left < 0:
                    budget.spend(0)
                if opcode == 0x2E:  # STOP
                    return self._finish()
                handlers[opcode](self)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"the pickle in it breaks off or makes no sense at byte {self.position - start}; the file is damaged."
            ) from error

    def _finish(self) -> object:
        result = self.stack.pop()
        if self.stack or self.outer_stacks or self.position < self._frame_end:
            raise CheckpointError("the pickle in it ends in the middle of something; the file is damaged.")
        self.memo = {}
        return result

    def _pop_mark(self) -> list:
        items = self.stack
        self.stack = self.outer_stacks.pop()
        return items

    # opcodes: containers

    def _op_mark(self) -> None:
        if len(self.outer_stacks) >= _MAX_MARKS:
            raise CheckpointError(
                f"its contents are nested more than {_MAX_MARKS} deep; the file is damaged or a trap."
            )
        self.budget.spend(_CONTAINER_COST)
        self.outer_stacks.append(self.stack)
        self.stack = []

    def _op_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _op_pop_mark(self) -> None:
        self._pop_mark()

    def _op_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _op_empty_tuple(self) -> None:
        self.stack.append(())

    def _op_tuple1(self) -> None:
        self._fold(1)

    def _op_tuple2(self) -> None:
        self._fold(2)

    def _op_tuple3(self) -> None:
        self._fold(3)

    def _fold(self, count: int) -> None:
        stack = self.stack
        if len(stack) < count:
            raise IndexError(count)
        self.budget.left -= 64 + 8 * count
        stack[-count:] = [tuple(stack[-count:])]

    def _op_tuple(self) -> None:
        items = self._pop_mark()
        self.budget.spend(64 + 8 * len(items))
        self.stack.append(tuple(items))

    def _op_empty_list(self) -> None:
        self.budget.spend(_CONTAINER_COST)
        self.stack.append([])

    def _op_empty_dict(self) -> None:
        self.budget.spend(_CONTAINER_COST)
        self.stack.append({})

    def _op_empty_set(self) -> None:
        self.budget.spend(_SET_COST)
        self.stack.append(set())

    def _op_list(self) -> None:
        items = self._pop_mark()
        self.stack.append(items)

    def _op_dict(self) -> None:
        items = self._pop_mark()
        self.budget.spend(_CONTAINER_COST)
        made: dict = {}
        self._set_items(made, items)
        self.stack.append(made)

    def _op_frozenset(self) -> None:
        items = self._pop_mark()
        self.budget.spend(_SET_COST + _ITEM_COST * len(items))
        self.stack.append(frozenset(hashable(item) for item in items))

    def _op_append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _op_appends(self) -> None:
        items = self._pop_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: object, items: list) -> None:
        self.budget.spend(12 * len(items))
        if isinstance(target, Record):
            if target.entries is None:
                target.entries = []
            target = target.entries
        if not isinstance(target, list):
            raise CheckpointError(
                f"it appends to something of type {type(target).__name__}; the file is damaged or a trap."
            )
        target.extend(items)

    def _op_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._set_items(self.stack[-1], [key, value])

    def _op_setitems(self) -> None:
        items = self._pop_mark()
        self._set_items(self.stack[-1], items)

    def _set_items(self, target: object, items: list) -> None:
        self.budget.spend(_ITEM_COST * len(items) // 2)
        if isinstance(target, Record):
            if target.entries is None:
                target.entries = {}
            target = target.entries
        if not isinstance(target, dict) or len(items) % 2:
            raise CheckpointError(
                f"it sets items of something of type {type(target).__name__}; the file is damaged or a trap."
            )
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[hashable(key)] = value

    def _op_additems(self) -> None:
        items = self._pop_mark()
        target = self.stack[-1]
        self.budget.spend(_ITEM_COST * len(items))
        if not isinstance(target, set):
            raise CheckpointError(
                f"it adds members to something of type {type(target).__name__}; the file is damaged or a trap."
            )
        target.update(hashable(item) for item in items)

    # opcodes: memo

    def _op_put1(self) -> None:
        self._memoize(self.data[self.position])
        self.position += 1

    def _op_put4(self) -> None:
        self._memoize(self._number(_UINT4))

    def _op_put_line(self) -> None:
        self._memoize(self._decimal(self._line()))

    def _op_memoize(self) -> None:
        self._memoize(len(self.memo))

    def _memoize(self, index: int) -> None:
        if not 0 <= index < 1 << 32:
            raise CheckpointError(f"it numbers an item {index}, which no writer does; the file is damaged.")
        self.budget.left -= _MEMO_COST
        self.memo[index] = self.stack[-1]

    def _op_get1(self) -> None:
        self._recall(self.data[self.position])
        self.position += 1

    def _op_get4(self) -> None:
        self._recall(self._number(_UINT4))

    def _op_get_line(self) -> None:
        self._recall(self._decimal(self._line()))

    def _recall(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError(f"it refers back to item {index}, which it never made; the file is damaged.")
        self.stack.append(self.memo[index])

    # opcodes: names, calls, state

    def _op_global(self) -> None:
        module = self._line().decode("utf-8")
        name = self._line().decode("utf-8")
        self.stack.append(self.globals.find(module, name))

    def _op_stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("it names a class by something that is no name; the file is damaged or a trap.")
        self.stack.append(self.globals.find(module, name))

    def _op_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        self.budget.spend(_CONTAINER_COST)
        self.stack.append(self.globals.call(function, arguments))

    def _op_newobj(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack.pop()
        self.budget.spend(_RECORD_COST)
        self.stack.append(self.globals.new(kind, arguments))

    def _op_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.ndarray):
            self.budget.spend(target.nbytes)
        build_state(target, state, self.budget)

    def _op_persistent(self) -> None:
        if self._persistent is None:
            raise CheckpointError("it refers to a record where none can be; the file is damaged or a trap.")
        self.stack.append(self._persistent(self.stack.pop()))

    def _op_refused(self) -> None:
        opcode = self.data[self.position - 1]
        what = _REFUSED.get(opcode)
        if what is None:
            raise CheckpointError(f"byte {opcode:#04x} stands in its pickle where none can; the file is damaged.")
        raise UnsafeCheckpointError(f"its pickle uses {what}, which weights have no need of.")


_REFUSED = {
    0x69: "INST (a call)",
    0x6F: "OBJ (a call)",
    0x92: "NEWOBJ_EX (a call with keywords)",
    0x82: "EXT1 (a registered extension)",
    0x83: "EXT2 (a registered extension)",
    0x84: "EXT4 (a registered extension)",
    0x50: "PERSID (a persistent id as text)",
    0x97: "NEXT_BUFFER (a buffer outside the file)",
    0x98: "READONLY_BUFFER (a buffer outside the file)",
    0x53: "STRING (a string of Python 2)",
    0x54: "BINSTRING (a string of Python 2)",
    0x55: "SHORT_BINSTRING (a string of Python 2)",
}

_OPERATIONS: dict[bytes, Callable[[PickleMachine], None]] = {
    b"\x80": PickleMachine._op_proto,
    b"\x95": PickleMachine._op_frame,
    b"N": PickleMachine._op_none,
    b"\x88": PickleMachine._op_true,
    b"\x89": PickleMachine._op_false,
    b"K": PickleMachine._op_int1,
    b"M": PickleMachine._op_int2,
    b"J": PickleMachine._op_int4,
    b"I": PickleMachine._op_int_line,
    b"L": PickleMachine._op_long_line,
    b"\x8a": PickleMachine._op_long1,
    b"\x8b": PickleMachine._op_long4,
    b"G": PickleMachine._op_float,
    b"F": PickleMachine._op_float_line,
    b"\x8c": PickleMachine._op_text1,
    b"X": PickleMachine._op_text4,
    b"\x8d": PickleMachine._op_text8,
    b"V": PickleMachine._op_text_line,
    b"C": PickleMachine._op_bytes1,
    b"B": PickleMachine._op_bytes4,
    b"\x8e": PickleMachine._op_bytes8,
    b"\x96": PickleMachine._op_bytearray8,
    b"(": PickleMachine._op_mark,
    b"0": PickleMachine._op_pop,
    b"1": PickleMachine._op_pop_mark,
    b"2": PickleMachine._op_dup,
    b")": PickleMachine._op_empty_tuple,
    b"\x85": PickleMachine._op_tuple1,
    b"\x86": PickleMachine._op_tuple2,
    b"\x87": PickleMachine._op_tuple3,
    b"t": PickleMachine._op_tuple,
    b"]": PickleMachine._op_empty_list,
    b"l": PickleMachine._op_list,
    b"}": PickleMachine._op_empty_dict,
    b"d": PickleMachine._op_dict,
    b"\x8f": PickleMachine._op_empty_set,
    b"\x91": PickleMachine._op_frozenset,
    b"a": PickleMachine._op_append,
    b"e": PickleMachine._op_appends,
    b"s": PickleMachine._op_setitem,
    b"u": PickleMachine._op_setitems,
    b"\x90": PickleMachine._op_additems,
    b"q": PickleMachine._op_put1,
    b"r": PickleMachine._op_put4,
    b"p": PickleMachine._op_put_line,
    b"\x94": PickleMachine._op_memoize,
    b"h": PickleMachine._op_get1,
    b"j": PickleMachine._op_get4,
    b"g": PickleMachine._op_get_line,
    b"c": PickleMachine._op_global,
    b"\x93": PickleMachine._op_stack_global,
    b"R": PickleMachine._op_reduce,
    b"\x81": PickleMachine._op_newobj,
    b"b": PickleMachine._op_build,
    b"Q": PickleMachine._op_persistent,
}

_HANDLERS: list[Callable[[PickleMachine], None]] = [PickleMachine._op_refused] * 256
for _code, _operation in _OPERATIONS.items():
    _HANDLERS[_code[0]] = _operation
