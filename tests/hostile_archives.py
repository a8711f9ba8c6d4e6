"""Hostile files whose trick lies in the container: archives that lie or grow, and the format before torch 1.6."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hostile_calls import live_payloads, pickled_text, touch
from reference.torch_save import (
    Call,
    Name,
    Persistent,
    Tensor,
    Writer,
    checkpoint,
    detector,
    legacy_file,
    legacy_pickle,
    pickle_zip,
    zip_bytes,
    zip_file,
)

WEIGHTS = np.arange(64, dtype=np.float32)


def zips(canary: Path) -> dict[str, bytes]:
    """Archives that lie, and archives that grow."""
    honest = zip_file(checkpoint())
    with zipfile.ZipFile(io.BytesIO(honest)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    data = entries["archive/data.pkl"]
    end = honest.rindex(b"PK\5\6")
    (start,) = struct.unpack("<I", honest[end + 16 : end + 20])

    def patched(position: int, new: bytes) -> bytes:
        return honest[:position] + new + honest[position + len(new) :]

    def named(name: str) -> bytes:
        return zip_bytes(entries | {name: b"x"})

    encrypted = bytearray(honest)
    encrypted[start + 8] |= 1
    second = honest.index(b"PK\1\2", start + 1)
    return {
        "1 GiB of zeros": _deflated_zeros(),
        "compressed": zip_bytes(entries, zipfile.ZIP_DEFLATED),
        "checkpoint within a zip": zip_bytes({"best.pt": honest}),
        "zip within a zip within a zip": zip_bytes({"a.zip": zip_bytes({"b.zip": honest})}),
        "encrypted": bytes(encrypted),
        "100000 entries": _many_entries(100_000),
        "entries that overlap": patched(second + 42, honest[start + 42 : start + 46]),
        "the same bytes for all entries": _overlapping(entries),
        "path traversal": named("archive/../../../../tmp/evil"),
        "path traversal at the root": named("../evil"),
        "absolute path": named(str(canary) if str(canary).startswith("/") else "/evil"),
        "Windows path": named("C:/evil"),
        "backslashes": named("archive\\..\\evil"),
        "NUL in a name": named("archive/data/0\0.txt"),
        "file outside the folder": named("evil.py"),
        "duplicate data.pkl": _duplicate(entries),
        "two data.pkl": named("archive/data/data.pkl"),
        "data.pkl in a folder too deep": zip_bytes({f"a/{name}": value for name, value in entries.items()}),
        "no data.pkl": zip_bytes({name: value for name, value in entries.items() if name != "archive/data.pkl"}),
        "TorchScript with code": zip_bytes(
            entries | {"archive/constants.pkl": b"x", "archive/code/x.py": b"import os"}
        ),
        "big-endian": zip_bytes(entries | {"archive/byteorder": b"big"}),
        "local name differs": patched(honest.index(b"archive/data/0"), b"archive/data/9"),
        "local header missing": patched(0, b"PK\3\5"),
        "local size differs": patched(18, struct.pack("<II", 5, 5)),
        "local method differs": patched(8, struct.pack("<H", 8)),
        "offset beyond the end": patched(start + 42, struct.pack("<I", 0x7FFFFFFF)),
        "size beyond the end": patched(start + 20, struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)),
        "directory beyond the end": patched(end + 16, struct.pack("<I", 0x7FFFFFFF)),
        "directory of 4 GiB": patched(end + 12, struct.pack("<I", 0xFFFFFFFE)),
        "65535 entries claimed": patched(end + 8, struct.pack("<HH", 65535, 65535)),
        "fewer entries claimed": patched(end + 8, struct.pack("<HH", 1, 1)),
        "end record of another disk": patched(end + 4, struct.pack("<H", 1)),
        "zip64 of 2^60 entries": _zip64(honest, 1 << 60),
        "something behind it": honest + b"#!/bin/sh\n",
        "something before it": b"#!/bin/sh\n" + honest,
        "wrong checksum": patched(honest.index(data) + 40, b"\0" if data[40] else b"\1"),
        "truncated in the middle": honest[: len(honest) // 2],
        "truncated at the end": honest[:-1],
        "truncated storage": zip_bytes(entries | {"archive/data/0": entries["archive/data/0"][:-2]}),
        "storage too long": zip_bytes(entries | {"archive/data/0": entries["archive/data/0"] + b"xx"}),
        "storage missing": zip_bytes({name: value for name, value in entries.items() if name != "archive/data/0"}),
        "empty archive": zip_bytes({}),
        "empty pickle": pickle_zip(b""),
        "header only": b"PK\3\4",
    }


def _deflated_zeros() -> bytes:
    """An honest deflated gibibyte in a megabyte: one compressed block, repeated."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(1 << 22)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed, size = block * 256 + squeeze.flush(), 1 << 30
    name = b"archive/data.pkl"
    numbers = (8, 0, 0, 0, len(packed), size, len(name))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, *numbers, 0) + name + packed
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, *numbers, 0, 0, 0, 0, 0, 0) + name
    return local + central + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)


def _many_entries(count: int) -> bytes:
    """A directory of ``count`` entries that all share one local header."""
    name = b"archive/data.pkl"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = count * len(central)
    return (
        local
        + central * count
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count % 65536, count % 65536, size, len(local), 0)
    )


def _overlapping(entries: dict[str, bytes]) -> bytes:
    honest = zip_bytes(entries | {"archive/x": b"y" * 100})
    changed = bytearray(honest)
    end = honest.rindex(b"PK\5\6")
    (position,) = struct.unpack("<I", honest[end + 16 : end + 20])
    while changed[position : position + 4] == b"PK\1\2":
        changed[position + 42 : position + 46] = bytes(4)
        name, extra, comment = struct.unpack("<3H", changed[position + 28 : position + 34])
        position += 46 + name + extra + comment
    return bytes(changed)


def _duplicate(entries: dict[str, bytes]) -> bytes:
    """Two entries ``archive/data.pkl``: one of which a checker might look at, and the other a loader."""
    other = zip_bytes(entries | {"archive/dat2.pkl": entries["archive/data.pkl"]})
    return other.replace(b"archive/dat2.pkl", b"archive/data.pkl")


def _zip64(honest: bytes, count: int) -> bytes:
    end = honest.rindex(b"PK\5\6")
    size, start = struct.unpack("<II", honest[end + 12 : end + 20])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    return honest[:end] + record + locator + honest[end:]


def legacy_files(canary: Path) -> dict[str, bytes]:
    """The same tricks in the format before torch 1.6, and those that only it knows."""
    honest = legacy_file(checkpoint())
    code = Call(Name("builtins", "exec"), (touch(canary),))
    view = ("storage", Name("torch", "FloatStorage"), "v", "cpu", 4)
    tail = struct.pack("<q", 4) + bytes(16)

    def viewed(metadata: object) -> bytes:
        tensor = Call(Name("torch._utils", "_rebuild_tensor"), (Persistent((*view, metadata)), 0, (1,), (1,)))
        return legacy_file({"model": tensor}, keys=["v"], tail=tail)

    return {
        "exec": legacy_file(checkpoint(opt=code)),
        "exec as sys_info": honest[:14] + b"\x80\x02" + live_payloads(canary)["builtins.exec"],
        "exec as list of storages": legacy_pickle(b"\x80\x02}.")[:-4] + live_payloads(canary)["os.system"],
        "magic number only": honest[:14],
        "another magic number": honest[:5] + b"x" + honest[6:],
        "text for a magic number": b"\x80\x02" + pickled_text("x") + b".",
        "array for a magic number": b"\x80\x02" + zip_array() + b".",
        "another version": honest.replace(b"J\xe9\x03\x00\x00", b"J\xea\x03\x00\x00", 1),
        "big-endian": legacy_file(checkpoint(), little=False),
        "source file of a module": legacy_file(
            checkpoint(opt=Persistent(("module", Name("os", "system"), "models/yolo.py", "import os")))
        ),
        "source without a class": legacy_file(checkpoint(opt=Persistent(("module", "os.system", "f", "import os")))),
        "a storage of 2^60 elements": legacy_file(checkpoint(opt=Tensor(WEIGHTS, count=1 << 60))),
        "storages larger than the file": legacy_file(
            checkpoint(opt=[Tensor(WEIGHTS, key=f"big{i}", count=1000, size=(1,), stride=(1,)) for i in range(100)])
        ),
        "fewer elements than stored": legacy_file(checkpoint(opt=Tensor(WEIGHTS, count=63, size=(1,), stride=(1,)))),
        "negative number of elements": legacy_file(checkpoint(opt=Tensor(WEIGHTS, count=-1, size=(1,), stride=(1,)))),
        "storage list with a stranger": legacy_file(checkpoint(), keys=["0", "1", "evil"]),
        "storage list of numbers": legacy_file(checkpoint(), keys=[0, 1]),
        "storage listed twice": legacy_file(detector(), keys=["0", "0", "1", "2", "3", "4", "5"]),
        "storage list missing": legacy_file(checkpoint(), keys={}),
        "truncated storage": honest[:-3],
        "storages missing": legacy_file(checkpoint(), tail=b""),
        "a count that lies": legacy_file(checkpoint(), tail=struct.pack("<q", 1 << 60) + bytes(100)),
        "something behind it": honest + b"evil",
        "a view beyond its storage": viewed(("w", 2, 3)),
        "a view before its storage": viewed(("w", -1, 2)),
        "a view of negative length": viewed(("w", 2, -1)),
        "a view that is text": viewed("os.system"),
        "persistent id of the new format": legacy_file(
            checkpoint(opt=Persistent(("storage", Name("torch", "FloatStorage"), "0", "cpu", 4)))
        ),
        "100000 nested tuples": legacy_pickle(b"\x80\x02)" + b"\x85" * 100_000 + b"."),
    }


def zip_array() -> bytes:
    """Opcodes that make an honest NumPy array."""
    number = Call(Name("numpy", "dtype"), ("f8", 0, 1), (3, "<", None, None, None, -1, -1, 0))
    reconstruct = Call(
        Name("numpy.core.multiarray", "_reconstruct"),
        (Name("numpy", "ndarray"), (0,), b"b"),
        (1, (2,), number, False, bytes(16)),
    )
    return Writer().pickled(reconstruct)[2:-1]
