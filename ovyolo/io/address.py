"""What a user may call a live source: a camera's number, a URL, a GStreamer pipeline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Address", "address_of"]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
CREDENTIALS = re.compile(r"(?<=://)[^/\s!\"']*@")
# some cameras take them in the query or path: ?user=a&password=b, /user=a_password=b_channel=1
PASSWORD = re.compile(r"((?:password|passwd|pass|pwd)=)(?:(?!_[a-z]+=)[^&\s])*", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where a live source is found.

    Args:
        value: a camera's number, or the text that was given.
        kind: ``"camera"``, ``"gstreamer"``, ``"http"``, ``"rtsp"`` or ``"url"`` (anything else that FFmpeg reads).
    """

    value: int | str
    kind: str

    @property
    def name(self) -> str:
        """What results and messages call it: never with the password in it.

        Example:
            >>> address_of("rtsp://operator:s3cret@10.0.0.7/line1").name
            'rtsp://10.0.0.7/line1'
        """
        if isinstance(self.value, int):
            return f"camera {self.value}"
        return PASSWORD.sub(r"\1***", CREDENTIALS.sub("", self.value))


def address_of(source: int | str) -> Address | None:
    """The live source that ``source`` names; None for a path.

    Example:
        >>> address_of("0").kind, address_of("rtsp://10.0.0.7/line1").kind, address_of("belt.mp4")
        ('camera', 'rtsp', None)
    """
    if isinstance(source, int):
        return Address(source, "camera")
    if re.fullmatch(r"[0-9]{1,4}", source):
        return Address(int(source), "camera")
    if match := re.fullmatch(r"/dev/video([0-9]+)", source):
        return Address(int(match[1]), "camera")
    if re.search(r"!\s*appsink\b", source):
        return Address(source, "gstreamer")
    if URL.match(source):
        scheme = urlsplit(source).scheme.lower() if "[" not in source else source.split(":", 1)[0].lower()
        kind = {"rtsp": "rtsp", "http": "http", "https": "http"}.get(scheme, "url")
        return Address(source, kind)
    return None
