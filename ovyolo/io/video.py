"""Video files, read through OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.errors import ImageError
from ovyolo.io.images import Image, as_bgr, quiet_opencv

__all__ = ["Video", "open_video"]


class Video:
    """An open video: ``count`` frames as its file announces, at ``fps`` a second; 0 where it does not say."""

    def __init__(self, path: Path, capture: Any) -> None:
        import cv2

        self._path, self._capture = path, capture
        count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.count = int(count) if math.isfinite(count) and 0 < count < 2**40 else 0
        self.fps = float(fps) if math.isfinite(fps) and 0 < fps < 1e5 else 0.0

    def frames(self) -> Iterator[tuple[Image, float]]:
        """The frames as u8 BGR ``(h, w, 3)``, each with its time in seconds since the start.

        The time is what the file says of the frame; where it says nothing, it is counted from the frame rate.

        Raises:
            ImageError: when not a single frame can be decoded, or OpenCV gives up.
        """
        import cv2

        index, last = 0, 0.0
        while True:
            try:
                with quiet_opencv():
                    read, image = self._capture.read()
            except cv2.error as error:
                raise ImageError(
                    f"{self._path} broke off at frame {index} ({error.err}): copy or encode it again"
                ) from error
            if not read:
                break
            told = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if math.isfinite(told) and told > last:
                last = float(told)
            elif index > 0:
                last += 1 / self.fps if self.fps else 0.0
            yield as_bgr(np.asarray(image), str(self._path)), last
            index += 1
        if index == 0:
            raise ImageError(f"{self._path} holds no frame that can be decoded: copy it again or encode it as H.264")


@contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[Video]:
    """Open a video file for the length of the block.

    Raises:
        ImageError: when the file is missing, empty or cannot be opened as a video.
    """
    import cv2

    path = Path(path)
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise ImageError(f"{path} {what}: check the path")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes): copy it again from where it came from")
    except OSError as error:
        raise ImageError(f"{path!s:.500} cannot be read ({error.strerror}): check its permissions") from error
    capture: Any = None
    with quiet_opencv():
        # OpenCV would also take "clip1.mp4" for the first of a numbered series of pictures: that is not asked for
        backends = [b for b in cv2.videoio_registry.getStreamBackends() if b != cv2.CAP_IMAGES]
        for backend in backends:
            try:
                capture = cv2.VideoCapture(str(path), backend)
            except cv2.error:
                continue
            if capture.isOpened():
                break
            capture.release()
    if capture is None or not capture.isOpened():
        raise ImageError(f"{path} cannot be opened as a video: it is damaged, cut off, or of a kind not known here")
    try:
        yield Video(path, capture)
    finally:
        capture.release()
