"""Motion JPEG over HTTP, the way IP cameras have it: ``multipart/x-mixed-replace``, a JPEG a part (RFC 2046, 5.1).

OpenCV reads it, too, but scales every picture to the size of the first and has no word for a picture that is damaged.
"""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from ovyolo.errors import ImageError
from ovyolo.io.images import JPEG_START, Image, as_bgr, jpeg_is_cut, quiet_opencv

__all__ = ["MjpegCapture", "open_mjpeg"]

LARGEST = 1 << 26  # bytes of a picture; more is no picture


def open_mjpeg(url: str, name: str, open_timeout: float, read_timeout: float) -> MjpegCapture | None:
    """Ask for ``url``; None when what comes is no motion JPEG, so that OpenCV must see to it.

    Raises:
        ImageError: nobody answers, or the answer is an error.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        plain = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            passwords.add_password(None, plain, unquote(parts.username), unquote(parts.password or ""))
        opener = urllib.request.build_opener(
            urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
        )
        answer = opener.open(urllib.request.Request(plain, headers={"User-Agent": "ovyolo"}), timeout=open_timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{name} answers {error.code} {error.reason}: check the address and the password") from error
    except TimeoutError as error:
        raise ImageError(f"{name} did not answer within {open_timeout:g} s: check that the camera is on") from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            raise ImageError(f"{name} did not answer within {open_timeout:g} s: check that the camera is on") from error
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise ImageError(f"{name} cannot be reached ({told}): check the address and the network") from error
    boundary = boundary_of(answer.headers)
    if boundary is None:
        answer.close()
        return None
    connection = getattr(getattr(answer.fp, "raw", None), "_sock", None)
    if connection is not None:
        connection.settimeout(read_timeout)
    return MjpegCapture(answer, boundary, name, connection)


def boundary_of(headers: Message) -> bytes | None:
    """The line that parts begin with; None when it is not motion JPEG.

    Example:
        >>> from email.message import Message
        >>> headers = Message()
        >>> headers["Content-Type"] = 'multipart/x-mixed-replace; boundary="--line"'
        >>> boundary_of(headers)
        b'--line'
    """
    boundary = headers.get_boundary()
    if headers.get_content_maintype() != "multipart" or not boundary:
        return None
    # many cameras announce the boundary with the two dashes that only its use should have
    return b"--" + boundary.encode("latin-1", "replace").lstrip(b"-")


class MjpegCapture:
    """The parts of an answer, decoded one by one; a part that is not a whole JPEG is passed over."""

    fps = 0.0
    ends = False

    def __init__(self, answer: Any, boundary: bytes, name: str, connection: socket.socket | None = None) -> None:
        self._answer, self._boundary, self._name, self._connection = answer, boundary, name, connection
        self._begun = False  # the boundary before the next part has been read

    def __iter__(self) -> Iterator[Image]:
        import cv2

        while (data := self._part()) is not None:
            if not data.startswith(JPEG_START) or jpeg_is_cut(data):
                continue
            try:
                with quiet_opencv():
                    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            except cv2.error:
                continue
            if decoded is not None:
                yield as_bgr(decoded, self._name)

    def interrupt(self) -> None:
        """Wake a thread that waits for the next part: it finds the connection at its end."""
        if self._connection is not None:
            with suppress(OSError):  # it has ended already
                self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()

    def _part(self) -> bytes | None:
        """The body of the next part; None at the end."""
        try:
            while not self._begun:
                line = self._line()
                if not line:
                    return None
                self._begun = self._is_boundary(line)
            self._begun = False
            length = None
            while (line := self._line()).strip():
                key, _, value = line.partition(b":")
                if key.strip().lower() == b"content-length" and value.strip().isdigit():
                    length = int(value)
            if not line:
                return None
            if length is None:
                return self._until_boundary()
            if length > LARGEST:
                raise ImageError(f"{self._name} announces a picture of {length} bytes: it is no camera")
            data: bytes = self._answer.read(length)
            return data if len(data) == length else None
        except TimeoutError as error:
            raise ImageError(f"{self._name} gave no picture in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: closed meanwhile
            raise ImageError(f"{self._name} broke off ({error or type(error).__name__})") from error

    def _line(self) -> bytes:
        line: bytes = self._answer.readline(1 << 16)
        return line

    def _until_boundary(self) -> bytes | None:
        """Bytes up to the next boundary, for cameras that announce no length."""
        data = bytearray()
        while True:
            line = self._line()
            if not line or len(data) > LARGEST:
                return None
            if self._is_boundary(line):
                self._begun = True
                return bytes(data)
            data += line

    def _is_boundary(self, line: bytes) -> bool:
        return line.startswith(self._boundary) or line.rstrip() == self._boundary.lstrip(b"-")
