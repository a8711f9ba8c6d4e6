"""The zip archive of ``torch.save``, taken only in the form that torch writes: stored entries, one after the other.

Everything that the directory says is checked against the entries' own headers and against each other before a byte of
contents is read.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from ovyolo.errors import CheckpointError, UnsafeCheckpointError, UnsupportedModelError

__all__ = ["MEMORY_FLOOR", "ZipReader", "find_prefix", "list_entries"]

# what reading any file may take, however small it is
MEMORY_FLOOR = 8 << 20


def _read_exactly(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise CheckpointError("it became shorter while it was read; is something still writing it?")
    return data


def list_entries(file: BinaryIO, size: int) -> tuple[dict[str, zipfile.ZipInfo], int]:
    """The entries by name, and where the last one's data must end.

    :mod:`zipfile` parses the directory, after its size was found to be in proportion to the file's.

    Raises:
        CheckpointError: the directory is damaged, or entries are compressed or encrypted.
        UnsupportedModelError: it is a TorchScript archive.
        UnsafeCheckpointError: an entry's name points outside the archive or is there twice.
    """
    count, length, start = _directory(file, size)
    if count * 1024 > size + MEMORY_FLOOR or length > size // 2 + MEMORY_FLOOR or count > length // 46:
        raise CheckpointError(f"it is a zip archive of {count} entries in {size} bytes; it is damaged or a trap.")
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError, EOFError) as error:
        raise CheckpointError(f"its zip directory is damaged ({error}); download or copy the file again.") from error
    if len(listed) != count:
        raise CheckpointError("its zip directory has another number of entries than it says; it is damaged.")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in listed:
        name = info.orig_filename
        shown = ascii(name)[:60]
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:/|.*[\\\0]", name) or not name:
            raise UnsafeCheckpointError(f"its zip entry {shown} points outside the archive.")
        if name in entries:
            raise UnsafeCheckpointError(f"its zip entry {shown} is there twice.")
        entries[name] = info
    _refuse_torchscript(entries)
    for name, info in entries.items():
        if info.flag_bits & 0x41 or info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(
                f"its zip entry {ascii(name)[:60]} is compressed or encrypted, which torch.save never does; "
                "if it is an archive with a checkpoint in it, unpack it first."
            )
    if not entries:
        raise CheckpointError("it is an empty zip archive; download or copy the file again.")
    return entries, start


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Number of entries, length and offset of the central directory, as the end record says."""
    tail_length = min(size, 98)
    tail = _read_exactly(file, size - tail_length, tail_length)
    if tail_length < 22 or tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise CheckpointError("it is a zip archive that breaks off or has something behind it; download it again.")
    disk, first_disk, here, count, length, start = struct.unpack("<4H2L", tail[-18:-2])
    directory_end = size - 22
    if tail[-42:-38] == b"PK\6\7":
        if tail_length < 98 or tail[:4] != b"PK\6\6":
            raise CheckpointError("its zip64 record is not where torch.save puts it; the file is damaged.")
        disk, first_disk, here, count, length, start = struct.unpack("<2L4Q", tail[16:56])
        (record_at,) = struct.unpack("<Q", tail[-34:-26])
        directory_end = size - 98
        if record_at != directory_end:
            raise CheckpointError("its zip64 record is not where torch.save puts it; the file is damaged.")
    if disk or first_disk or here != count or start + length != directory_end:
        raise CheckpointError("its zip directory is not where its end record says; it is damaged or a trap.")
    return count, length, start


def _refuse_torchscript(entries: Iterable[str]) -> None:
    """Its code is compressed, so that it must be known before compressed entries are refused."""
    for name in entries:
        folder, _, rest = name.partition("/")
        if folder and (rest == "constants.pkl" or rest.startswith("code/")):
            raise UnsupportedModelError(
                "it is a TorchScript archive, which holds code; export the .pt file that it was made from."
            )


def find_prefix(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder that holds everything, with its slash: torch names it after the file.

    Raises:
        CheckpointError: it is a zip archive of something else.
    """
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    inner = [name for name in entries if name.endswith((".pt", ".pth"))]
    if len(pickles) != 1:
        if pickles:
            raise CheckpointError(f"it holds {len(pickles)} pickles instead of one; it is damaged or a trap.")
        if inner:
            raise CheckpointError(f"it is an archive that holds {ascii(inner[0])[:60]}; unpack it first.")
        raise CheckpointError("it is a zip archive, but not one of torch.save: it holds no data.pkl.")
    prefix = pickles[0].removesuffix("data.pkl")
    if prefix.count("/") != 1:
        raise CheckpointError("its data.pkl is not in a folder of its own; it was not made by torch.save.")
    if not all(name.startswith(prefix) for name in entries):
        raise CheckpointError("it holds files beside its checkpoint; it was not made by torch.save.")
    return prefix


class ZipReader:
    """Reads stored entries, whose extents it checked against each other first."""

    def __init__(self, file: BinaryIO, entries: dict[str, zipfile.ZipInfo], end: int) -> None:
        self._file = file
        self.entries = entries
        self._starts: dict[str, int] = {}
        ordered = sorted(entries.values(), key=lambda info: info.header_offset)
        limits = [info.header_offset for info in ordered[1:]] + [end]
        for info, limit in zip(ordered, limits, strict=True):
            self._starts[info.orig_filename] = self._data_start(info, limit)

    def _data_start(self, info: zipfile.ZipInfo, limit: int) -> int:
        if not 0 <= info.header_offset <= limit - 30:
            raise CheckpointError("its zip entries overlap; it is damaged or a trap.")
        header = _read_exactly(self._file, info.header_offset, 30)
        signature, flags, method, packed, plain, name_length, extra_length = struct.unpack("<4s2xHH8xLLHH", header)
        name = self._file.read(name_length)
        sizes_agree = all(size in (0, info.file_size, 0xFFFFFFFF) for size in (packed, plain))
        encoding = "utf-8" if flags & 0x800 else "cp437"
        same = signature == b"PK\3\4" and not flags & 0x41 and method == 0 and sizes_agree
        if not same or name != info.orig_filename.encode(encoding, "replace"):
            raise CheckpointError("a zip entry in it contradicts the directory; it is damaged or a trap.")
        start = info.header_offset + 30 + name_length + extra_length
        if start + info.file_size > limit:
            raise CheckpointError("its zip entries overlap or reach beyond its end; it is damaged or a trap.")
        return start

    def read(self, name: str) -> bytes:
        info = self.entries[name]
        data = _read_exactly(self._file, self._starts[name], info.file_size)
        # torch can be told to write no checksums: all are 0 then
        if info.CRC and zlib.crc32(data) != info.CRC:
            raise CheckpointError("its checksum does not match its contents; download or copy the file again.")
        return data
