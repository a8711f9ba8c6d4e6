"""Cameras on the loopback that misbehave on demand: MJPEG over HTTP, and RTSP with MPEG-4 video over TCP.

Each serves pictures whose one spot says which they are (:func:`reference.spots.spots`, enlarged), to any number of
readers, and each reader begins where the camera is now. ``stop`` closes all connections and the port, ``start`` opens
the same port again.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from reference.spots import spots

FPS = 50.0
BOUNDARY = b"--picture"
PICTURE = b"\x00\x00\x01\xb6"


def picture(number: int, side: int = 128) -> np.ndarray:
    """Spot ``number``, ``side`` pixels square: boxes come out at the same share of the picture whatever its size."""
    return cv2.resize(spots(number), (side, side), interpolation=cv2.INTER_NEAREST)


class Camera:
    """A port that is served by ``serve(connection)`` in a thread a reader.

    Knobs: ``stalled`` (nothing more is sent, connections stay open), ``side`` (pixels of the pictures), ``cut`` (the
    next pictures are sent half, then the connection ends), ``deaf`` (requests are not answered), ``keyless`` (RTSP
    begins between key frames), ``readers`` (connections so far). ``sent`` are the numbers that a reader got whole.
    """

    scheme = "http"

    def __init__(self) -> None:
        self.stalled = self.deaf = self.cut = self.keyless = False
        self.side = 128
        self.readers = 0
        self.sent: list[int] = []
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._port = 0
        self._began = time.monotonic()
        self.start()

    @property
    def url(self) -> str:
        """Where it is found; the password must never be seen again."""
        return f"{self.scheme}://operator:s3cret@127.0.0.1:{self._port}/line1"

    @property
    def now(self) -> int:
        """The number of the picture that is taken now."""
        return int((time.monotonic() - self._began) * FPS)

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._running = True
        self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Die: every connection is reset and nobody listens any more."""
        self._running = False
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            self.stop()

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.readers += 1
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            self.serve(connection)
        self._open.discard(connection)

    def paced(self) -> Iterator[int]:
        """The numbers of pictures, at the camera's pace."""
        last = -1
        while self._running:
            number = self.now
            if number == last or self.stalled:
                time.sleep(0.3 / FPS)
                continue
            last = number
            yield number


class MjpegCamera(Camera):
    """``multipart/x-mixed-replace``, as IP cameras have it."""

    def serve(self, connection: socket.socket) -> None:
        read_head(connection)
        while self.deaf and self._running:
            time.sleep(0.01)
        kind = b"multipart/x-mixed-replace; boundary=" + BOUNDARY[2:]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nConnection: close\r\n\r\n")
        for number in self.paced():
            data = cv2.imencode(".jpg", picture(number, self.side), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            head = BOUNDARY + b"\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
            if self.cut:
                connection.sendall(head + data[: len(data) // 2])
                return
            connection.sendall(head + data + b"\r\n")
            self.sent.append(number)


def read_head(connection: socket.socket) -> str:
    """A request up to its empty line."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError
        data += byte
        if data[0] == 0x24:  # RTP of ours that the reader answers, RFC 2326 10.12
            size = struct.unpack(">H", read_exactly(connection, 3)[1:])[0]
            read_exactly(connection, size)
            data = b""
    return data.decode("ascii")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def mpeg4(folder: Path, side: int) -> tuple[bytes, list[bytes]]:
    """The decoder's configuration, and pictures 0 to 63 in MPEG-4 part 2; key frames begin with the configuration."""
    path = folder / f"{side}.avi"
    fourcc = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, FPS, (side, side))
    assert writer.isOpened()
    for number in range(64):
        writer.write(picture(number, side))
    writer.release()
    data = path.read_bytes()
    at = data.index(b"movi") + 4
    frames = []
    while data[at : at + 4] == b"00dc":  # a chunk a picture
        size = struct.unpack_from("<I", data, at + 4)[0]
        frames.append(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return frames[0][: frames[0].index(PICTURE)], [frame for frame in frames if frame]


def is_key(frame: bytes) -> bool:
    """Whether two zero bits follow the start code (ISO/IEC 14496-2)."""
    return frame[frame.index(PICTURE) + 4] >> 6 == 0


class RtspCamera(Camera):
    """RTSP 1.0 (RFC 2326) with MPEG-4 part 2 (RFC 6416) in interleaved TCP."""

    scheme = "rtsp"

    films: ClassVar[dict[int, tuple[bytes, list[bytes]]]] = {}

    def __init__(self, folder: Path) -> None:
        for side in (128, 192):  # beforehand: OpenCV cannot open a writer while it opens a reader
            if side not in self.films:
                self.films[side] = mpeg4(folder, side)
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        lock = threading.Lock()
        while True:
            head = read_head(connection)
            while self.deaf and self._running:
                time.sleep(0.01)
            method = head.split(" ", 1)[0]
            sequence = re.search(r"CSeq: *(\d+)", head, re.IGNORECASE)
            assert sequence is not None
            more, body = f"CSeq: {sequence[1]}\r\n", ""
            if method == "OPTIONS":
                more += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                    "c=IN IP4 0.0.0.0\r\na=rtpmap:96 MP4V-ES/90000\r\n"
                    f"a=fmtp:96 profile-level-id=1; config={self.films[self.side][0].hex()}\r\na=control:track1\r\n"
                )
                more += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                more += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7;timeout=60\r\n"
            elif method == "PLAY":
                more += "Session: 7\r\n"
            with lock:
                connection.sendall(f"RTSP/1.0 200 OK\r\n{more}\r\n{body}".encode())
            if method == "PLAY":
                threading.Thread(target=self._play, args=(connection, lock), daemon=True).start()
            elif method == "TEARDOWN":
                return

    def _play(self, connection: socket.socket, lock: threading.Lock) -> None:
        sequence, keyed, side, before = 0, self.keyless, self.side, None
        with contextlib.suppress(OSError):
            for number in self.paced():
                frame = self.films[self.side][1][number % 64]
                if side != self.side:  # a decoder can begin, or change, with a key frame only
                    side, keyed = self.side, False
                if before is not None and number > before + 1:  # on a slow machine: what follows a gap tells changes of
                    keyed = False  # a picture that was never sent
                before = number
                keyed = keyed or is_key(frame)
                if not keyed:
                    continue
                with lock:
                    for at in range(0, len(frame), 1400):
                        part = frame[at : at + 1400]
                        last = at + 1400 >= len(frame)
                        stamp = int(number * 90000 / FPS)
                        packet = struct.pack(">BBHII", 0x80, 96 | 0x80 * last, sequence & 0xFFFF, stamp, 7) + part
                        connection.sendall(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)
                        sequence += 1
                        if self.cut:
                            connection.shutdown(socket.SHUT_RDWR)
                            return


class Pulse:
    """How much later than asked for this process woke up at worst, in seconds: other programs may run."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Pulse:
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.01):
            now = time.monotonic()
            self.worst, before = max(self.worst, now - before - 0.01), now


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what must become true soon."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)
