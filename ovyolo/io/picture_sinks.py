"""Annotated pictures and videos: into a folder, or on the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovyolo.detections import Detections
from ovyolo.errors import DeviceError, ImageError, OvyoloError
from ovyolo.io.draw import annotate
from ovyolo.io.frame import Frame
from ovyolo.io.images import Image, quiet_opencv
from ovyolo.io.output import BaseSink, Names, make_folder, replacing, stem_of, temporary, writing
from ovyolo.io.video import open_video

__all__ = ["PictureSink", "ShowSink"]

# kinds that are written as they came; others become PNG
KEPT_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
IDLE_FRAMES = 256
PROBE = "import cv2; cv2.namedWindow('ovyolo'); cv2.waitKey(1)"


class PictureSink(BaseSink):
    """Annotated pictures for stills, annotated videos (MPEG-4 in ``.mp4``) for videos.

    Names follow the sources: ``a.jpg`` from ``a.jpg``, ``b.mp4`` from ``b.avi``; a second source of the same name gets
    ``-2``, and so does the rest of a video whose frames change size. Arrays become ``image0.jpg`` and so on.
    Files of earlier runs are replaced, the source pictures never. A video appears when it is finished; one that is
    broken off by an exception ends with the last frame that was written.

    Args:
        folder: made where it is missing.
        line_width, labels, confidences: as in :func:`~ovyolo.io.draw.annotate`.

    Raises:
        OvyoloError: when something cannot be written, or would replace a source picture.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        line_width: int | None = None,
        labels: bool = True,
        confidences: bool = True,
    ) -> None:
        self.path: Path = make_folder(folder)
        self._style: dict[str, Any] = {"line_width": line_width, "labels": labels, "confidences": confidences}
        self._names = Names()
        self._videos: dict[str, _Video] = {}
        self._frames = 0

    def write(self, frame: Frame, detections: Detections) -> None:
        picture = annotate(frame.image, detections, **self._style)
        self._frames += 1
        if frame.video:
            self._write_frame(frame, picture)
        else:
            self._write_still(frame, picture)

    def close(self) -> None:
        videos, self._videos = self._videos, {}
        failures = [failure for video in videos.values() if (failure := _failure_of(video))]
        if failures:
            raise OvyoloError("; ".join(failures))

    def _write_still(self, frame: Frame, picture: Image) -> None:
        suffix = frame.path.suffix.lower() if frame.path else ".jpg"
        data = _encoded(picture, suffix) if suffix in KEPT_SUFFIXES else None
        if data is None:  # another kind, or more pixels a side than the format holds
            suffix, data = ".png", _encoded(picture, ".png")
        stem = self._names.claim(stem_of(frame), suffix)
        target = self.path / f"{stem}{suffix}"
        _spare_source(target, frame)
        if data is None:
            raise OvyoloError(f"{target} cannot be written: OpenCV cannot encode {picture.shape} as PNG")
        with replacing(target) as part:
            part.write_bytes(data)

    def _write_frame(self, frame: Frame, picture: Image) -> None:
        size = (picture.shape[1], picture.shape[0])
        video = self._videos.get(frame.source)
        if video is not None and (video.size != size or frame.index <= video.index):
            self._finish(frame.source)
            video = None
        if video is None:
            for source in [s for s, v in self._videos.items() if self._frames - v.last > IDLE_FRAMES]:
                self._finish(source)
            target = self.path / f"{self._names.claim(stem_of(frame), '.mp4')}.mp4"
            _spare_source(target, frame)
            part = temporary(self.path, ".mp4")
            video = _Video(target, part, size, _video_writer(part, target, frame.fps, size))
            self._videos[frame.source] = video
        video.writer.write(picture)
        video.count, video.index, video.last = video.count + 1, frame.index, self._frames

    def _finish(self, source: str) -> None:
        failure = _failure_of(self._videos.pop(source))
        if failure:
            raise OvyoloError(failure)


class ShowSink(BaseSink):
    """Shows annotated frames in a window. ``q``, Escape or closing the window sets ``stopped``.

    A still stays until a key is pressed; a video runs on.

    Args:
        title: of the window.
        line_width, labels, confidences: as in :func:`~ovyolo.io.draw.annotate`.

    Raises:
        DeviceError: when there is no screen, or OpenCV was built without windows.
    """

    def __init__(
        self,
        title: str = "ovyolo",
        *,
        line_width: int | None = None,
        labels: bool = True,
        confidences: bool = True,
    ) -> None:
        import cv2

        self._title = title
        self._style: dict[str, Any] = {"line_width": line_width, "labels": labels, "confidences": confidences}
        _require_screen()
        try:
            with quiet_opencv():
                cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise _no_screen("OpenCV cannot open a window; is opencv-python-headless installed?") from error
        self._open = True
        self._sized = False

    def write(self, frame: Frame, detections: Detections) -> None:
        import cv2

        if self.stopped or not self._open:
            return
        picture = annotate(frame.image, detections, **self._style)
        try:
            if not self._sized:
                scale = min(1.0, 1280 / picture.shape[1], 800 / picture.shape[0])
                cv2.resizeWindow(self._title, round(picture.shape[1] * scale), round(picture.shape[0] * scale))
                self._sized = True
            cv2.imshow(self._title, picture)
            while True:  # polling lets Ctrl-C and the window's own close button through
                key = cv2.waitKey(1 if frame.video else 50) & 0xFF
                if key in (ord("q"), 27) or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                    self.stopped = True
                if frame.video or self.stopped or key != 0xFF:
                    return
        except cv2.error as error:
            raise _no_screen(f"the window failed: {error.err}") from error

    def close(self) -> None:
        import cv2

        if not self._open:
            return
        self._open = False
        try:
            cv2.destroyWindow(self._title)
        except cv2.error:
            self.stopped = True  # the user has closed it already


@dataclass
class _Video:
    """A video that is being written, under the name ``part`` until it is whole."""

    target: Path
    part: Path
    size: tuple[int, int]
    writer: Any
    count: int = 0
    index: int = -1
    last: int = 0


def _video_writer(part: Path, target: Path, fps: float, size: tuple[int, int]) -> Any:
    import cv2

    # MPEG-4 part 2 counts time in at most 65535 parts of a second
    fps = min(240.0, max(1.0, round(fps, 3))) if fps > 0 else 25.0
    fourcc = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
    with quiet_opencv():
        for backend in (cv2.CAP_FFMPEG, cv2.CAP_ANY):
            try:
                writer = cv2.VideoWriter(str(part), backend, fourcc, fps, size)
            except cv2.error:
                continue
            if writer.isOpened():
                return writer
            writer.release()
    part.unlink(missing_ok=True)
    raise OvyoloError(
        f"{target} cannot be written: OpenCV cannot encode {size[0]}x{size[1]} pixels as MPEG-4 there; "
        "check the folder and its free space, or write JSON Lines instead"
    )


def _failure_of(video: _Video) -> str:
    """Finish a video; what went wrong as a sentence, or nothing. OpenCV itself is silent about a full disk."""
    try:
        with quiet_opencv():
            video.writer.release()
        try:
            with open_video(video.part) as written:
                whole = written.count >= video.count
        except ImageError:
            whole = False
        if not whole:
            return f"{video.target} cannot be written whole: free some space or choose another place"
        with writing(video.target):
            os.replace(video.part, video.target)
    except OvyoloError as error:
        return str(error)
    finally:
        video.part.unlink(missing_ok=True)
    return ""


def _encoded(picture: Image, suffix: str) -> bytes | None:
    """The picture as a file's bytes, or None when OpenCV cannot do that."""
    import cv2

    settings = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix in (".jpg", ".jpeg") else []
    try:
        with quiet_opencv():
            done, data = cv2.imencode(suffix, picture, settings)
    except cv2.error:
        return None
    return data.tobytes() if done else None


def _spare_source(target: Path, frame: Frame) -> None:
    """Refuse to write over the very picture that was read."""
    with writing(target):
        if frame.path is not None and target.exists() and frame.path.exists() and target.samefile(frame.path):
            raise OvyoloError(f"{target} is the source itself: choose another folder for the annotated pictures")


def _require_screen() -> None:
    """Raise where opening a window would end the whole process: Qt aborts when it finds no display."""
    if not sys.platform.startswith("linux"):
        return
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise _no_screen("neither DISPLAY nor WAYLAND_DISPLAY is set")
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=20, check=False)
        works = probe.returncode == 0
    except (OSError, subprocess.SubprocessError):
        works = False
    if not works:
        raise _no_screen("a window could not be opened there")


def _no_screen(why: str) -> DeviceError:
    return DeviceError(f"there is no screen to show pictures on ({why}): save annotated pictures instead")
