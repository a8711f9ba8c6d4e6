"""What a user names as a source, expanded into files and arrays in order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.errors import DimensionError, ImageError
from ovyolo.io.address import Address, address_of
from ovyolo.io.images import Image, as_bgr

__all__ = ["PICTURE_SUFFIXES", "VIDEO_SUFFIXES", "Listing", "is_video"]

# fmt: off
PICTURE_SUFFIXES = (".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
                    ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
                  ".ts", ".webm", ".wmv")
# fmt: on
TAKEN = f"pictures end in {' '.join(PICTURE_SUFFIXES)}, videos in {' '.join(VIDEO_SUFFIXES)}"


class Listing:
    """Files and arrays in order (``items``), and with ``skip`` what was named but is not there (``errors``).

    With ``live`` items may be live sources, too; else they are refused.
    """

    def __init__(self, skip: bool, live: bool = False) -> None:
        self.skip = skip
        self.live = live
        self.items: list[Path | Image | Address] = []
        self.arrays = 0
        self.errors: list[tuple[str, str]] = []

    def add(self, source: Any) -> None:
        """Append what ``source`` stands for; :func:`~ovyolo.io.sources.open_source` says what it may be."""
        if isinstance(source, np.ndarray):
            if source.ndim == 4:
                raise DimensionError(
                    f"the source is an array of shape {source.shape}: give the pictures as list(array)"
                )
            count = sum(isinstance(item, np.ndarray) for item in self.items)
            self.items.append(as_bgr(source, f"image{count}"))
        elif isinstance(source, (str, os.PathLike)):
            self._add_path(os.fspath(source))
        elif isinstance(source, (int, np.integer)) and not isinstance(source, bool):
            self._add_live(Address(int(source), "camera"))
        elif isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray, memoryview)):
            for part in source:
                if isinstance(part, Sequence) and not isinstance(part, str):
                    raise ImageError(f"the list of sources holds a {type(part).__name__}: give one flat list")
                self._or_skip(part)
        else:
            raise ImageError(
                f"the source is a {type(source).__name__}: give a path, a folder, a glob pattern, "
                "a BGR array (height, width, 3), or a list of these"
            )

    def _or_skip(self, part: Any, inside: Path | None = None) -> None:
        """Add one part of a list; with ``skip``, a part that is not there is recorded instead of raised."""
        try:
            if inside is None:
                self.add(part)
            else:
                self._add_path(part, inside)
        except ImageError as error:
            if not self.skip:
                raise
            self.errors.append((str(part), str(error)))

    def _add_path(self, text: Any, listed_in: Path | None = None) -> None:
        if not isinstance(text, str):
            raise ImageError(f"the path {text!r} is not text: decode it with os.fsdecode")
        if not text or "\0" in text:
            raise ImageError(f"the source {text!r} is no path: give a picture, a video, a folder or a pattern")
        if (address := address_of(text)) is not None:
            self._add_live(address)
            return
        if listed_in is not None:
            beside = os.path.join(listed_in.parent, text)
            text = beside if _is_there(beside) or not _is_there(text) else text
        path = Path(text)
        try:
            if path.is_dir():
                self._add_folder(path)
            elif path.exists():
                self._add_file(path, listed_in)
            elif glob.has_magic(text):
                self._add_pattern(text)
            else:
                raise ImageError(f"{text} does not exist: check the path")
        except OSError as error:
            raise ImageError(f"{text:.500} cannot be read ({error.strerror}): check its permissions") from error

    def _add_live(self, address: Address) -> None:
        if not self.live:
            raise ImageError(
                f"{address.name} is a live source, which is not taken here: record a video and give its path"
            )
        if isinstance(address.value, int) and address.value < 0:
            raise ImageError(f"camera {address.value} is no camera: they are numbered from 0")
        if address in self.items:
            raise ImageError(f"{address.name} is named twice: name each live source once")
        self.items.append(address)

    def _add_folder(self, folder: Path) -> None:
        names = [p for p in folder.iterdir() if _is_known(p) and not p.name.startswith(".") and p.is_file()]
        if not names:
            raise ImageError(f"{folder} holds no pictures or videos ({TAKEN}); folders below it: '{folder}/**/*'")
        self.items += [*sorted(names, key=_natural)]

    def _add_pattern(self, pattern: str) -> None:
        matches = _expand(pattern)
        names = [p for p in matches if _is_known(p) and p.is_file()]
        if not names:
            what = f"matches {len(matches)} paths, but no picture or video" if matches else "matches nothing"
            raise ImageError(f"the pattern {pattern} {what}: check it ({TAKEN})")
        self.items += [*sorted(names, key=_natural)]

    def _add_file(self, path: Path, listed_in: Path | None) -> None:
        if path.suffix.lower() == ".txt":
            if listed_in is not None:
                raise ImageError(f"{listed_in} lists another list, {path}: list pictures, videos and folders only")
            self._add_list(path)
        elif _is_known(path):
            self.items.append(path)
        else:
            suffix = f"has the unknown suffix '{path.suffix}'" if path.suffix else "has no suffix"
            raise ImageError(f"{path} {suffix}: {TAKEN}; a list of paths in .txt")

    def _add_list(self, path: Path) -> None:
        if not path.is_file():  # reading a pipe could wait for ever
            raise ImageError(f"{path} is no regular file: write the list to a file")
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ImageError(f"{path} is no list of paths: it is not UTF-8 text (byte {error.start})") from error
        lines = [line.strip() for line in lines]
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise ImageError(f"{path} lists nothing: write one path a line")
        for line in lines:
            self._or_skip(line, inside=path)


def _expand(pattern: str) -> list[Path]:
    """What a glob pattern matches; nothing for a text without wildcards."""
    return [Path(match) for match in glob.glob(pattern, recursive=True)] if glob.has_magic(pattern) else []


def _is_there(text: str) -> bool:
    return os.path.exists(text) or bool(_expand(text))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES


def is_video(item: Any) -> bool:
    """Whether an item is the path of a video."""
    return isinstance(item, Path) and item.suffix.lower() in VIDEO_SUFFIXES


def _natural(path: Path) -> tuple[Any, ...]:
    """A sort key that puts ``part2`` before ``part10``."""
    parts = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(t) if i % 2 else t for i, t in enumerate(part)] for part in parts], str(path)
