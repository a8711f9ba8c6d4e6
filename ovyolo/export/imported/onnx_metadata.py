"""What an ONNX file says about itself, read from its bytes: OpenVINO's reader does not hand all of it on.

A ``ModelProto`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) is a row of protobuf fields: everything that
is not wanted, the graph with its weights above all, is skipped without being read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

__all__ = ["OnnxDamagedError", "read_onnx_metadata"]

PRODUCER_NAME, PRODUCER_VERSION, OPSET_IMPORT, METADATA_PROPS = 2, 3, 8, 14
ENTRY_LIMIT = 1 << 20  # bytes of one entry
ENTRIES_LIMIT = 4096


class OnnxDamagedError(ValueError):
    """The bytes are not those of an ONNX model."""


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """The file's ``metadata_props``, and ``"onnx.producer"`` and ``"onnx.opset"`` where it names them.

    Reads at most the wanted fields: 4096 of at most 1 MiB each; larger ones are passed over.

    Raises:
        OnnxDamagedError: when it is not a protobuf message, or is cut short.
        OSError: when it cannot be read.
    """
    found: dict[str, str] = {}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, data in islice(_fields(file, size), ENTRIES_LIMIT):
            if number == METADATA_PROPS:
                entry = dict(_small_fields(data))
                found[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
            elif number == OPSET_IMPORT:
                entry = dict(_small_fields(data))
                if not entry.get(1) and 2 in entry:
                    found["onnx.opset"] = str(int.from_bytes(entry[2], "little"))
            elif number in (PRODUCER_NAME, PRODUCER_VERSION):
                found["onnx.producer"] = f"{found.get('onnx.producer', '')} {_text(data)}".strip()
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """The wanted length-delimited fields of the message that fills ``file``; all others are skipped."""
    wanted = (PRODUCER_NAME, PRODUCER_VERSION, OPSET_IMPORT, METADATA_PROPS)
    while file.tell() < size:
        key = _varint(file)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _varint(file)
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length = _varint(file)
        if length is None or number == 0 or length > size - file.tell():
            raise OnnxDamagedError("it is not an ONNX model, or is cut short")
        if wire == 2 and number in wanted and length <= ENTRY_LIMIT:
            yield number, file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise OnnxDamagedError("it is not an ONNX model, or is cut short")


def _small_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a small message; a number comes as 8 little-endian bytes."""
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        key = _varint(stream)
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, (_varint(stream) & (2**64 - 1)).to_bytes(8, "little")
        elif wire == 2:
            length = _varint(stream)
            if length > len(data) - stream.tell():
                raise OnnxDamagedError("it is not an ONNX model, or is cut short")
            yield number, stream.read(length)
        else:
            raise OnnxDamagedError("it is not an ONNX model, or is cut short")
