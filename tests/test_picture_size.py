"""Sizes read from headers are OpenCV's, and a broken file is named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovyolo.dataset import picture_size
from ovyolo.errors import ImageError

SAME_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 255, (height, width, channels), np.uint8)


def encoded(suffix: str, image: np.ndarray, *flags: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, list(flags))[1].tobytes())


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(f"{order}HHIHH", 0x0112, kind, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + value + bytes(4)


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def opencv_size(data: bytes) -> tuple[int, int]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]


@pytest.mark.parametrize("shape", [(1, 1), (40, 60), (61, 7)])
@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
        (".png", ()),
        (".bmp", ()),
        (".webp", ()),
        (".tif", ()),
        (".ppm", ()),
    ],
)
def test_size_is_opencvs(tmp_path: Path, suffix: str, flags: tuple[int, ...], shape: tuple[int, int]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, picture(*shape), *flags))
    assert picture_size(path) == shape == opencv_size(path.read_bytes())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_opencvs(tmp_path: Path, orientation: int, order: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif(encoded(".jpg", picture()), exif(orientation, order)))
    assert picture_size(path) == opencv_size(path.read_bytes())


@pytest.mark.parametrize("tiff", [b"", b"II*\0", b"XX*\0" + bytes(20), exif(6, kind=4), exif(6)[:15]])
def test_broken_exif_is_left_to_opencv(tmp_path: Path, tiff: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif(encoded(".jpg", picture()), tiff))
    assert picture_size(path) == opencv_size(path.read_bytes())


def test_png_with_exif_is_opencvs(tmp_path: Path) -> None:
    png, path = encoded(".png", picture()), tmp_path / "a.png"
    body = b"eXIf" + exif(6)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(png[:33] + chunk + png[33:])
    assert picture_size(path) == opencv_size(path.read_bytes())


def test_size_of_grey_and_alpha_and_16_bit(tmp_path: Path) -> None:
    for number, image in enumerate([picture()[:, :, 0], picture(channels=4), picture().astype(np.uint16) * 257]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(".png", image))
        assert picture_size(path) == (40, 60)


def test_end_marker_of_a_thumbnail_does_not_count(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", picture(300, 400))
    whole = with_exif(jpeg, exif(1) + encoded(".jpg", picture(8, 8)))
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert picture_size(path) == (300, 400)
    path.write_bytes(whole[:-2000])
    with pytest.raises(ImageError, match=r"a\.jpg is a JPEG that is cut off"):
        picture_size(path)
    path.write_bytes(whole + bytes(200_000))  # what cameras append does no harm
    assert picture_size(path) == (300, 400)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jpg", b"", "is empty"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "cut off"),
        ("a.jpg", b"hello", "does not decode"),
        ("a.png", encoded(".png", picture())[:-12], "cut off"),
        ("a.png", encoded(".png", picture())[:60], "cut off"),
        ("a.png", encoded(".png", picture())[:100] + b"\0" + encoded(".png", picture())[101:], "checksum"),
        ("a.bmp", encoded(".bmp", picture())[:40], "does not decode"),
        ("a.tif", encoded(".tif", picture())[:20], "a.tif"),
    ],
)
def test_broken_pictures_are_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=said) as error:
        picture_size(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg does not exist"):
        picture_size(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        picture_size(tmp_path)
    with pytest.raises(ImageError):
        picture_size("a\0.jpg")


@SAME_FOLDER
@given(data=st.data(), suffix=st.sampled_from([".jpg", ".png", ".bmp"]))
def test_damaged_headers_never_escape(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    raw = bytearray(encoded(suffix, picture(9, 13)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 200)))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        height, width = picture_size(path)
    except ImageError:
        return
    assert height > 0 and width > 0
