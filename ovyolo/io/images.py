"""One picture: read from a file, or checked when a caller hands an array over. Always u8 BGR ``(h, w, 3)`` after."""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError, ImageError

__all__ = ["Image", "as_bgr", "quiet_opencv", "read_image"]

Image = NDArray[np.uint8]

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# in entropy-coded JPEG data FF is followed by 00 (stuffing), D0..D7 (restarts) or FF (fill) unless it is a marker
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
REMEDY = "copy it again from where it came from, or save it anew"

_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_level = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's log, and FFmpeg's, off the terminal inside the block: our exceptions say the same in one sentence.

    What the user set in ``OPENCV_LOG_LEVEL``, ``OPENCV_FFMPEG_LOGLEVEL`` and ``OPENCV_FFMPEG_DEBUG`` is respected.
    OpenCV's level is what it was when the last thread leaves.
    """
    global _quiet_depth, _quiet_level  # noqa: PLW0603 (OpenCV's log level is global too)
    if "OPENCV_FFMPEG_DEBUG" not in os.environ:  # OpenCV reads these when it first opens a video
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" in os.environ:
        yield
        return
    import cv2

    # OpenCV 5 moved it into a submodule
    set_level: Any = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_level = set_level(0)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                set_level(_quiet_level)


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read a picture file as u8 BGR ``(h, w, 3)``.

    Takes whatever the installed OpenCV decodes, by content and not by suffix: JPEG, PNG, BMP, TIFF (its first page),
    WebP, JPEG 2000, PNM and more. Grey, palette and RGBA pictures are converted (transparency is dropped), 16-bit
    ones by their high byte, and EXIF orientation is applied, as ``cv2.IMREAD_COLOR`` does. Paths may hold any
    characters.

    Raises:
        ImageError: when the file is missing, is no regular file, is empty, cut off, or cannot be decoded, or
            has more than 2**30 pixels (OpenCV's limit).

    Example:
        >>> import tempfile, pathlib, cv2, numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "grün.png"
        >>> _ = path.write_bytes(cv2.imencode(".png", np.full((4, 6), 65535, np.uint16))[1].tobytes())
        >>> image = read_image(path)
        >>> image.shape, image.dtype.name, int(image.max())
        ((4, 6, 3), 'uint8', 255)
    """
    path = Path(path)
    data = _read_bytes(path)
    if data.startswith(JPEG_START):
        if jpeg_is_cut(data):
            raise ImageError(f"{path} is a JPEG that is cut off (its end marker is missing): {REMEDY}")
    elif data.startswith(PNG_START):
        data = _checked_png(data, path)

    import cv2

    decoded: Any
    try:
        with quiet_opencv():
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageError(f"{path} is larger than OpenCV decodes (2**30 pixels): cut it into smaller ones") from None
        reason = getattr(error, "err", "") or "out of memory"
        raise ImageError(f"{path} cannot be decoded ({' '.join(reason.split())}): {REMEDY}") from error
    if decoded is None:
        raise ImageError(
            f"{path} is damaged or of a kind that this OpenCV does not decode: "
            "copy it again, or save it as JPEG or PNG with 8 or 16 bits a channel"
        )
    return as_bgr(decoded, str(path))


def as_bgr(image: Any, name: str = "image") -> Image:
    """Check an array and return it as u8 BGR ``(h, w, 3)``; ``name`` is what messages call it.

    A u8 ``(h, w, 3)`` array is returned as it is, without a copy, contiguous or not. Converted are: grey ``(h, w)``
    and ``(h, w, 1)``, BGRA ``(h, w, 4)`` (transparency is dropped), uint16 (its high byte) and bool (0 and 255).

    Raises:
        ImageError: when it is no NumPy array.
        DimensionError: when its shape or dtype is another, or it has no pixels.

    Example:
        >>> import numpy as np
        >>> as_bgr(np.full((2, 5), 0x1234, np.uint16))[0, 0].tolist()
        [18, 18, 18]
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{name} is a {type(image).__name__}, but a NumPy array is taken: uint8, (height, width, 3), "
            "channels in the order blue, green, red"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise DimensionError(
            f"{name} has shape {image.shape}, but (height, width, 3) BGR is taken, or (h, w) and (h, w, 1) grey, "
            "or (h, w, 4) BGRA; give several pictures as a list"
        )
    if 0 in image.shape:
        raise DimensionError(f"{name} has shape {image.shape}: it has no pixels; check where it was cut or read")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype != np.uint8:
        raise DimensionError(
            f"{name} has dtype {image.dtype}, but uint8 is taken (or uint16, or bool): "
            "scale it to 0..255 and convert it with .astype(np.uint8)"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    channels = image.shape[2]
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3]) if channels == 4 else image


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file (reading a pipe or a device could wait for ever)."""
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not a picture: name a file in it")
        if not path.exists():
            raise ImageError(f"{path} does not exist: check the path")
        if not path.is_file():
            raise ImageError(f"{path} is neither a file nor a folder: name a picture file")
        data = path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        raise ImageError(f"{path!s:.500} cannot be read ({reason}): check the path and its permissions") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes): {REMEDY}")
    return data


def jpeg_is_cut(data: bytes) -> bool:
    """Whether a JPEG ends before its end marker (ITU-T T.81, annex B): OpenCV 4 fills what is missing with grey.

    Segments are stepped over by their length, so that the end marker of a thumbnail inside one does not count.
    What follows the end marker is ignored: cameras append previews and films there.
    """
    position = 2
    while True:
        marker = JPEG_MARKER.search(data, position)
        if marker is None:
            return True
        code, position = data[marker.end() - 1], marker.end()
        if code == 0xD9:
            return False
        if code in (0x01, 0xD8):  # these have no length
            continue
        if position + 2 > len(data):
            return True
        position += max(2, int.from_bytes(data[position : position + 2], "big"))


def _checked_png(data: bytes, path: Path) -> bytes:
    """The PNG without its colour profile (libpng complains of those on the terminal; OpenCV ignores them).

    Raises:
        ImageError: when it ends before its end chunk, or a critical chunk's checksum is wrong.
    """
    position, profile = len(PNG_START), False
    view = memoryview(data)
    kept: list[bytes | memoryview] = [PNG_START]
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"{path} is a damaged PNG (a checksum is wrong at byte {position}): {REMEDY}")
        if kind == b"iCCP":
            profile = True
        else:
            kept.append(view[position:end])
        if kind == b"IEND":
            return b"".join(kept) if profile else data
        position = end
    raise ImageError(f"{path} is a PNG that is cut off (its end chunk is missing): {REMEDY}")
