"""Pictures in: what is converted, what is refused, and that refusals are sentences."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovyolo.errors import DimensionError, ImageError, OvyoloError
from ovyolo.io.images import as_bgr, quiet_opencv, read_image


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth enough for JPEG, different in every channel."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]).astype(np.uint8)


def encoded(image: np.ndarray, suffix: str, *settings: int) -> bytes:
    done, data = cv2.imencode(suffix, image, list(settings))
    assert done
    return data.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path)[:400] in message and "\n" not in message and "OpenCV(" not in message
    return message


@pytest.mark.parametrize("name", ["plain.png", "grün und weiß.png", "図 面.png", "a[1]*.png", 'quote"comma,.png'])
def test_any_path(tmp_path: Path, name: str) -> None:
    if sys.platform == "win32" and set(name) & set('*"'):
        pytest.skip("Windows allows no such name")
    path = tmp_path / name
    path.write_bytes(encoded(picture(), ".png"))
    for given_path in (path, str(path)):
        np.testing.assert_array_equal(read_image(given_path), picture())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".jp2", ".webp", ".jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(picture(), suffix))
    read = read_image(path)
    assert read.shape == (48, 64, 3) and read.dtype == np.uint8
    assert np.abs(read.astype(int) - picture()).mean() < 4


def test_by_content_not_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(), ".png"))
    np.testing.assert_array_equal(read_image(path), picture())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_conversions(tmp_path: Path, suffix: str) -> None:
    grey = picture()[:, :, 0]
    deep = grey.astype(np.uint16) * 256 + 200
    alpha = np.dstack([picture(), np.full((48, 64), 255, np.uint8)])
    for given_image, expected in (
        (grey, np.dstack([grey] * 3)),
        (deep, np.dstack([grey] * 3)),  # the high byte
        (alpha, picture()),
    ):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encoded(given_image, suffix))
        np.testing.assert_array_equal(read_image(path), expected)


def test_palette_png(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes([0, 1, 1]) for _ in range(2))
    head = struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0)
    body = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + chunk(b"IDAT", zlib.compress(rows))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b""))
    assert read_image(path)[0].tolist() == [[0, 0, 255], [255, 0, 0], [255, 0, 0]]


def test_exif_orientation(tmp_path: Path) -> None:
    data = encoded(picture(), ".jpg")
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # 6: turn clockwise
    body = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(turned)
    read = read_image(path)
    assert read.shape == (64, 48, 3)
    path.write_bytes(data)
    np.testing.assert_array_equal(read, cv2.rotate(read_image(path), cv2.ROTATE_90_CLOCKWISE))


def test_same_as_imread(shared: Path) -> None:
    for path in sorted((shared / "images").glob("*.[jp]*g")):
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 1.0])
def test_truncated_jpeg(tmp_path: Path, share: float, progressive: int) -> None:
    data = encoded(picture(200, 300), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(len(data) * share) - 1])
    assert "cut off" in refusal(path)


def test_truncated_jpeg_with_whole_thumbnail(tmp_path: Path) -> None:
    thumbnail = encoded(picture(16, 16), ".jpg")
    body = b"Exif\0\0" + thumbnail
    data = encoded(picture(200, 300), ".jpg")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (200, 300, 3)
    for cut in (len(body) + 6, len(data) // 2, len(data) - 2):
        path.write_bytes(data[:cut])
        assert "cut off" in refusal(path)


def test_jpeg_with_more_behind_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(), ".jpg") + b"\0" * 999 + b"a film")
    assert read_image(path).shape == (48, 64, 3)


@given(share=st.floats(0, 1, exclude_max=True), suffix=st.sampled_from([".jpg", ".png", ".webp", ".bmp", ".tif"]))
@settings(max_examples=60, deadline=None)
def test_truncated_anything_is_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, share: float, suffix: str
) -> None:
    data = encoded(picture(), suffix)
    path = tmp_path_factory.mktemp("cut") / f"a{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    if suffix in (".jpg", ".png"):
        refusal(path)
        return
    try:
        read_image(path)
    except ImageError as error:
        assert str(path) in str(error)


@given(
    data=st.binary(max_size=300), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"])
)
@settings(max_examples=150, deadline=None)
def test_garbage_is_an_image_error(tmp_path_factory: pytest.TempPathFactory, start: bytes, data: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "a.png"
    path.write_bytes(start + data)
    try:
        assert read_image(path).ndim == 3
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_damaged_png(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(), ".png"))
    path = tmp_path / "a.png"
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert "checksum" in refusal(path)


def test_missing_folder_empty(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.png")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "is empty" in refusal(tmp_path / "empty.png")
    refusal(tmp_path / ("x" * 5000))
    with pytest.raises(ImageError, match=r"cannot be read|does not exist"):
        read_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "neither a file" in refusal(tmp_path / "a.png")


def test_pixel_bomb(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert "2**30 pixels" in refusal(path)


def test_nothing_of_opencv_on_the_terminal(tmp_path: Path) -> None:
    """In a process of its own, because libraries write to the file descriptor."""
    good = encoded(picture(), ".png")
    broken = {
        "cut.png": good[: len(good) // 2],
        "bmp.bmp": encoded(picture(), ".bmp")[:500],
        "jp2.jp2": encoded(picture(), ".jp2")[:300],
        "tif.tif": encoded(picture(), ".tif")[:300],
        "garbage.png": b"nothing",
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    # a colour profile that libpng would complain of
    (tmp_path / "profile.png").write_bytes(good[:33] + chunk(b"iCCP", b"bad\0\0" + zlib.compress(b"x")) + good[33:])
    code = (
        "import sys\nfrom pathlib import Path\nfrom ovyolo.errors import ImageError\n"
        "from ovyolo.io.images import read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        print(path.name, read_image(path).shape)\n"
        "    except ImageError as error:\n        print(path.name, 'refused')\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    told = [line for line in done.stderr.splitlines() if line.strip()]
    if int(cv2.__version__.split(".")[0]) < 5:  # these it printed past its own log
        told = [line for line in told if not line.startswith("imdecode_(")]
    assert told == []
    assert sorted(done.stdout.splitlines()) == [
        "bmp.bmp refused", "cut.png refused", "garbage.png refused", "jp2.jp2 refused", "profile.png (48, 64, 3)",
        "tif.tif refused",
    ]  # fmt: skip


def test_log_level_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    level: Any = getattr(cv2, "getLogLevel", None) or cv2.utils.logging.getLogLevel
    before = level()

    def work() -> None:
        for _ in range(50):
            with quiet_opencv(), quiet_opencv():
                assert level() == 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert level() == before


def test_as_bgr_passes_through() -> None:
    image = picture()
    assert as_bgr(image) is image
    view = image[::2, ::-1]
    assert as_bgr(view) is view


@given(
    image=hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.uint16, np.bool_]),
        shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1, 3, 4])),
    ),
)
@settings(max_examples=80, deadline=None)
def test_as_bgr_converts(image: np.ndarray) -> None:
    # channel count 0 stands for no channel axis
    if image.shape[2] == 0:
        image = np.zeros(image.shape[:2], image.dtype)
    converted = as_bgr(image)
    assert converted.shape == (*image.shape[:2], 3) and converted.dtype == np.uint8
    byte = {"uint8": lambda a: a, "uint16": lambda a: a // 256, "bool": lambda a: a * 255}[image.dtype.name](image)
    full = np.broadcast_to(byte[..., None] if byte.ndim == 2 else byte, (*image.shape[:2], max(1, image.shape[-1])))
    expected = (
        full[..., :3] if image.ndim == 3 and image.shape[2] > 1 else np.dstack([byte.reshape(image.shape[:2])] * 3)
    )
    np.testing.assert_array_equal(converted, expected)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), object), "object"),
        (np.zeros((4, 4, 2), np.uint8), "(4, 4, 2)"),
        (np.zeros((3, 4, 5, 3), np.uint8), "as a list"),
        (np.zeros(4, np.uint8), "(4,)"),
        (np.zeros((), np.uint8), "()"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
        (None, "NoneType"),
        ([[1, 2]], "list"),
        ("a.png", "str"),
    ],
)
def test_as_bgr_refuses(image: Any, words: str) -> None:
    with pytest.raises(OvyoloError) as caught:
        as_bgr(image, "the seventh picture")
    assert isinstance(caught.value, DimensionError if isinstance(image, np.ndarray) else ImageError)
    assert words in str(caught.value) and str(caught.value).startswith("the seventh picture")
