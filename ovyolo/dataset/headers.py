"""A picture's size from its first bytes, and whether the file is whole, without decoding it.

JPEG (ITU-T T.81; orientation by Exif 2.3), PNG (W3C PNG, third edition) and BMP are read here; whatever is
unusual, and every other kind, is decoded by OpenCV. The size is what OpenCV's ``IMREAD_COLOR`` gives: turned as EXIF
says.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ovyolo.errors import ImageError

__all__ = ["PICTURE_SUFFIXES", "picture_size"]

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".hdr", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm"}
    | {".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"}
)
# baseline, extended and progressive Huffman: what every OpenCV decodes
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
TAIL = 65536
REMEDY = "copy it again from where it came from, or save it anew"


class _UnusualError(Exception):
    """The header does not say enough: decode the picture."""


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """``(height, width)`` in pixels of the picture that OpenCV would read from ``path``.

    Raises:
        ImageError: the file is missing, empty, cut off, or no picture.

    Example:
        >>> import tempfile, pathlib, cv2, numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.png"
        >>> _ = path.write_bytes(cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes())
        >>> picture_size(path)
        (4, 6)
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ImageError(f"{path} {'is not a file' if path.exists() else 'does not exist'}: check the path")
        size = path.stat().st_size
        if size == 0:
            raise ImageError(f"{path} is empty (0 bytes): {REMEDY}")
        with path.open("rb") as file:
            start = file.read(8)
            try:
                if start.startswith(b"\xff\xd8\xff"):
                    return _jpeg_size(file, size, path)
                if start == b"\x89PNG\r\n\x1a\n":
                    return _png_size(file, path)
                if start.startswith(b"BM"):
                    return _bmp_size(file, size)
            except _UnusualError:
                pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path!s:.500} cannot be read ({reason}): check the path and its permissions") from error
    return _decoded_size(path)


def _jpeg_size(file: BinaryIO, size: int, path: Path) -> tuple[int, int]:
    """Walk the segments to the frame header; then look for the end marker."""
    orientation: int | None = None
    position = 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            raise ImageError(f"{path} is a JPEG that is cut off in its header: {REMEDY}")
        if head[0] != 0xFF:
            raise _UnusualError
        code, length = head[1], int.from_bytes(head[2:4], "big")
        if code == 0xFF:  # a fill byte
            position += 1
            continue
        if code == 0x01 or 0xD0 <= code <= 0xD8:
            position += 2
            continue
        if code in OTHER_FRAMES or code in (0xD9, 0xDA) or length < 2:
            raise _UnusualError
        if code in PLAIN_FRAMES:
            frame = file.read(5)
            if len(frame) < 5:
                raise ImageError(f"{path} is a JPEG that is cut off in its header: {REMEDY}")
            depth, height, width = struct.unpack(">BHH", frame)
            if depth != 8 or not height or not width:
                raise _UnusualError
            break
        if code == 0xE1 and orientation is None:
            orientation = _exif_orientation(file.read(length - 2))
        position += 2 + length
    # entropy-coded data holds no FF D9; thumbnails, which may, stand before the frame
    file.seek(max(position, size - TAIL))
    if b"\xff\xd9" not in file.read():
        file.seek(position)
        if b"\xff\xd9" not in file.read():
            raise ImageError(f"{path} is a JPEG that is cut off (its end marker is missing): {REMEDY}")
    return (width, height) if orientation is not None and 5 <= orientation <= 8 else (height, width)


def _exif_orientation(segment: bytes) -> int | None:
    """The orientation tag of an APP1 segment; None when the segment is no EXIF or has none."""
    if not segment.startswith(b"Exif\x00\x00"):
        return None
    tiff = segment[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise _UnusualError
    try:
        (first,) = struct.unpack_from(f"{order}4xI", tiff)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, first + 2 + 12 * index)
            if tag == 0x0112:
                if kind != 3:
                    raise _UnusualError
                return int(value)
    except struct.error:
        raise _UnusualError from None
    return 0


def _png_size(file: BinaryIO, path: Path) -> tuple[int, int]:
    """Walk the chunks to the end and compare the checksums of the critical ones, as the reader will."""
    size: tuple[int, int] | None = None
    turned = False
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ImageError(f"{path} is a PNG that is cut off (its end chunk is missing): {REMEDY}")
        length, kind = struct.unpack(">I4s", head)
        if kind[0] & 0x20:  # ancillary
            turned |= kind == b"eXIf"
            file.seek(length + 4, os.SEEK_CUR)
            continue
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise ImageError(f"{path} is a PNG that is cut off (its end chunk is missing): {REMEDY}")
        if zlib.crc32(memoryview(body)[:-4], zlib.crc32(kind)) != int.from_bytes(body[-4:], "big"):
            raise ImageError(f"{path} is a damaged PNG (a checksum is wrong): {REMEDY}")
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack(">II", body[:8])
            size = height, width
        if kind == b"IEND":
            break
    if turned or size is None or not min(size):  # whether OpenCV turns a PNG depends on its version
        raise _UnusualError
    return size


def _bmp_size(file: BinaryIO, file_size: int) -> tuple[int, int]:
    """Size of an uncompressed BMP whose rows are all there."""
    file.seek(0)
    head = file.read(34)
    if len(head) < 34:
        raise _UnusualError
    offset, header, width, height, _, bits, compression = struct.unpack("<10xIIiiHHI", head)
    if header < 40 or compression != 0 or width <= 0 or height == 0 or bits not in (8, 24, 32):
        raise _UnusualError
    if file_size < offset + (width * bits + 31) // 32 * 4 * abs(height):
        raise _UnusualError
    return abs(height), width


def _decoded_size(path: Path) -> tuple[int, int]:
    """Decode the picture to learn its size."""
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError, MemoryError) as error:
        reason = " ".join((getattr(error, "err", "") or str(error) or "out of memory").split())
        raise ImageError(f"{path} cannot be decoded ({reason}): {REMEDY}") from error
    if image is None:
        raise ImageError(f"{path} is damaged or of a kind that this OpenCV does not decode: {REMEDY}")
    return int(image.shape[0]), int(image.shape[1])
