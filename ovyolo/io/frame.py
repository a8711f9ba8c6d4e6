"""One picture with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ovyolo.io.images import Image

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture on its way through the network.

    Args:
        image: u8 BGR ``(h, w, 3)``.
        source: what it came from: the path of the picture or video as text, or ``image0``, ``image1``, … for arrays.
        index: its number within its source, from 0; always 0 for stills.
        path: the file, or None for arrays.
        timestamp: seconds since the start of the video, or since the first frame of a live source; 0 for stills.
        video: whether it is part of a video or live.
        fps: frames a second of the video, as its file or camera says; 0 for stills and where it does not say.
        gap: seconds that are missing before it because its live source was lost; else 0.
    """

    image: Image
    source: str
    index: int = 0
    path: Path | None = None
    timestamp: float = 0.0
    video: bool = False
    fps: float = 0.0
    gap: float = 0.0
