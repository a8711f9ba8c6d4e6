"""The pictures to measure on: the user's, over and over, or one that every machine can make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import ImageError

__all__ = ["Frames", "synthetic_picture"]

SYNTHETIC = "a synthetic 1280x720 picture in memory (nothing to read)"


def synthetic_picture() -> NDArray[np.uint8]:
    """A 720p picture of smooth blobs and grain, always the same."""
    import cv2

    rng = np.random.default_rng(720)
    blobs = cv2.resize(rng.uniform(0, 255, (18, 32, 3)).astype(np.float32), (1280, 720))
    return np.clip(blobs + rng.normal(0, 8, blobs.shape), 0, 255).astype(np.uint8)


class Frames:
    """Frames of ``source`` without end: pictures are read anew each time, videos begin again.

    Args:
        source: what ``open_source`` takes; None is :func:`synthetic_picture`.
    """

    def __init__(self, source: Any = None) -> None:
        self._source = source
        self._picture = synthetic_picture() if source is None else None
        self._open: Any = None
        self._frames: Any = None
        self.description = SYNTHETIC if source is None else str(source)

    def next(self) -> NDArray[np.uint8]:
        """The next frame, u8 BGR.

        Raises:
            ImageError: the source cannot be read or has no frames.
        """
        if self._picture is not None:
            return self._picture
        for _ in range(2):  # at the end, once more from the beginning
            if self._frames is None:
                from ovyolo.io.sources import open_source

                self._open = open_source(self._source)
                self._frames = iter(self._open)
            frame = next(self._frames, None)
            if frame is not None:
                image: NDArray[np.uint8] = frame.image
                return image
            self.close()
        raise ImageError(f"{self._source} has no frames to measure on")

    def close(self) -> None:
        """Close the source."""
        if self._open is not None:
            self._open.close()
        self._open = self._frames = None
