"""One connection to a camera: opened, read, and gone when it breaks. :mod:`ovyolo.io.live` makes the next one."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np

from ovyolo.errors import DeviceError, ImageError
from ovyolo.io.address import Address
from ovyolo.io.images import Image, as_bgr, quiet_opencv
from ovyolo.io.mjpeg import open_mjpeg

__all__ = ["Capture", "connect"]

GRACE = 1.0  # seconds by which OpenCV's own limits come after ours: what it hands out when they strike is stale
FRAME_TYPE = 69  # cv2.CAP_PROP_FRAME_TYPE, from 4.11 on


class Capture(Protocol):
    """An open connection: an iterable of u8 BGR pictures, each in memory of its own, that ends when it breaks."""

    @property
    def fps(self) -> float:
        """Pictures a second as it announces; 0 where it does not."""

    @property
    def ends(self) -> bool:
        """Whether the end, when it comes, is the end of a recording and not a loss."""

    def __iter__(self) -> Iterator[Image]:
        """The pictures."""

    def close(self) -> None:
        """Free what is held."""


def connect(address: Address, open_timeout: float, read_timeout: float) -> Capture:
    """Open ``address``; what it takes is bounded by about ``open_timeout`` seconds, a read by ``read_timeout``.

    Raises:
        ImageError: nobody is there, or what answers is no video.
        DeviceError: the installed OpenCV cannot read such a source.
    """
    import cv2

    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * open_timeout),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * (read_timeout + GRACE)),
    ]  # fmt: skip
    if address.kind == "gstreamer":
        if cv2.CAP_GSTREAMER not in cv2.videoio_registry.getBackends():
            raise DeviceError(
                "the installed OpenCV was built without GStreamer, so it cannot run a pipeline: install one that has "
                "it, or give the camera's rtsp:// address"
            )
        return OpenCVCapture(address, cv2.CAP_GSTREAMER, [])
    if address.kind == "camera":
        return OpenCVCapture(address, camera_backend(), [])
    if address.kind == "http":
        mjpeg = open_mjpeg(str(address.value), address.name, open_timeout, read_timeout + GRACE)
        if mjpeg is not None:
            return mjpeg
    if address.kind == "rtsp":
        knock(str(address.value), address.name, open_timeout)
    # one decoding thread: several would hold pictures back, and hand them out when they are old
    return OpenCVCapture(address, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *limits], patience=open_timeout)


def camera_backend() -> int:
    """The system's own; OpenCV's free choice would try the number as the first of a series of pictures."""
    import cv2

    return {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_MSMF, "darwin": cv2.CAP_AVFOUNDATION}.get(sys.platform, cv2.CAP_ANY)


def knock(url: str, name: str, timeout: float) -> None:
    """Ask an RTSP server whether it is there (RFC 2326, OPTIONS) before OpenCV does.

    OpenCV opens one source at a time in a process: a camera that is dead, or accepts and never answers, would keep all
    others from being opened for as long as its own limit.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 554
    except ValueError as error:
        raise ImageError(f"{name} is no address ({error}): check it") from error
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: ovyolo\r\n\r\n")
            answer = connection.recv(64)
    except TimeoutError as error:
        raise ImageError(f"{name} did not answer within {timeout:g} s: check that the camera is on") from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be reached ({reason}): check the address and the network") from error
    if not answer.startswith(b"RTSP/"):
        raise ImageError(f"{name} does not speak RTSP: check the port")


class OpenCVCapture:
    """A camera, a network stream or a pipeline, read by OpenCV.

    Args:
        address: what to open.
        backend: by which of OpenCV's back ends.
        settings: pairs of its properties.
        patience: seconds for which pictures before the first key frame are thrown away: they are half grey.
    """

    def __init__(self, address: Address, backend: int, settings: list[int], patience: float = 0.0) -> None:
        import cv2

        self._name, self._patience = address.name, patience
        try:
            with quiet_opencv():
                self._capture = cv2.VideoCapture(address.value, backend, settings)
        except cv2.error as error:
            reason = " ".join(error.err.split()).replace(str(address.value), self._name)[:200]
            raise ImageError(f"{self._name} cannot be opened ({reason})") from error
        if not self._capture.isOpened():
            self._capture.release()
            what = "check the address, the name and the password"
            if address.kind == "camera":
                what = "check that it is connected and that no other program has it"
                if os.path.exists(str(address.value)):
                    what += f" (the file or folder of that name is ./{address.value})"
            raise ImageError(f"{self._name} cannot be opened: {what}")
        fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._fps = float(fps) if math.isfinite(fps) and 1 <= fps <= 240 else 0.0
        self._count = int(count) if math.isfinite(count) and 0 < count < 2**40 else 0
        self._read = 0

    @property
    def fps(self) -> float:
        """Pictures a second; 0 where it does not say."""
        return self._fps

    @property
    def ends(self) -> bool:
        """A recording announces its length; it has ended when (nearly) so many pictures came."""
        return self._count > 0 and self._read >= self._count - max(3, 0.02 * self._count)

    def __iter__(self) -> Iterator[Image]:
        import cv2

        whole, begun = self._patience <= 0, time.monotonic()
        while True:
            try:
                with quiet_opencv():
                    read, image = self._capture.read()
            except cv2.error as error:
                raise ImageError(f"{self._name} broke off ({' '.join(error.err.split())[:200]})") from error
            if not read:
                return
            self._read += 1
            if not whole:
                kind = self._capture.get(FRAME_TYPE)
                whole = kind not in (ord("P"), ord("B")) or time.monotonic() - begun > self._patience
                if not whole:
                    continue
            yield as_bgr(np.asarray(image), self._name)

    def close(self) -> None:
        """Free it. Not while another thread reads."""
        with quiet_opencv():
            self._capture.release()
