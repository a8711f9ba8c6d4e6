"""The detector as a script uses it, on models small enough to make here (no shared data needed), and on real ones."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.tiny_model import make_tiny_ir

from ovyolo import Detections, Detector
from ovyolo.errors import (
    DeviceError,
    DimensionError,
    ExportError,
    ImageError,
    ModelError,
    OvyoloError,
    OvyoloWarning,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that marks bright 8-pixel cells, one class."""
    return make_tiny_ir(tmp_path_factory.mktemp("tiny") / "tiny.xml")


def picture(spots: list[tuple[int, int]], shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Black, with white 8x8 spots whose top-left corners (x, y) are multiples of 8."""
    image = np.zeros((*shape, 3), np.uint8)
    for x, y in spots:
        image[y : y + 8, x : x + 8] = 255
    return image


def test_finds_what_is_there(tiny: Path) -> None:
    with Detector(tiny) as detector:
        found = detector(picture([(8, 16), (40, 48)]))
    assert isinstance(found, Detections)
    assert sorted(found.xyxy.round().tolist()) == [[8, 16, 16, 24], [40, 48, 48, 56]]
    assert found.names == ("spot",) and found.image_shape == (64, 64) and found.device == "CPU"
    assert (found.confidence > 0.9).all() and found.nonfinite == 0 and not found.truncated


def test_boxes_are_in_source_pixels(tiny: Path) -> None:
    """A wide picture at twice the size: the letterbox is undone."""
    image = cv2.resize(picture([(8, 16)], (32, 64)), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    found = Detector(tiny)(image)
    np.testing.assert_allclose(found.xyxy, [[16, 32, 32, 48]], atol=0.5)


def test_list_of_pictures_and_paths(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bild ü.png"
    path.write_bytes(cv2.imencode(".png", picture([(0, 0)]))[1].tobytes())
    found = Detector(tiny)([picture([]), str(path), path])
    assert [len(f) for f in found] == [0, 1, 1]


@pytest.mark.parametrize(
    "convert",
    [
        lambda im: im[:, :, 0],
        lambda im: im[:, :, :1],
        lambda im: cv2.cvtColor(im, cv2.COLOR_BGR2BGRA),
        lambda im: im.astype(np.uint16) * 257,
        lambda im: im[::-1][::-1],
        np.asfortranarray,
    ],
    ids=["grey", "grey-3d", "bgra", "16-bit", "reversed-view", "fortran"],
)
def test_other_pictures_are_converted(convert, tiny: Path) -> None:
    found = Detector(tiny)(convert(picture([(24, 32)])))
    np.testing.assert_allclose(found.xyxy, [[24, 32, 32, 40]], atol=0.5)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros(3, np.uint8),
    ],
    ids=["float", "empty", "five-channels", "one-dimension"],
)
def test_what_is_no_picture_is_refused(bad: np.ndarray, tiny: Path) -> None:
    with pytest.raises(OvyoloError, match="image"):
        Detector(tiny)(bad)


def test_thresholds_classes_and_bounds(tiny: Path) -> None:
    many = picture([(8 * i, 8 * j) for i in range(8) for j in range(8)])
    found = Detector(tiny, max_det=5)(many)
    assert len(found) == 5 and found.truncated
    assert len(Detector(tiny, conf=1.0)(many)) == 0
    assert len(Detector(tiny, classes=[0])(many)) == 64
    with pytest.raises(DimensionError, match="class 1 is not one of the model's"):
        Detector(tiny, classes=[1])
    for argument in ({"conf": 1.5}, {"iou": -1}, {"max_det": 0}, {"threads": 0}):
        with pytest.raises(DimensionError, match=next(iter(argument))):
            Detector(tiny, **argument)


def test_threads_share_one_detector(tiny: Path) -> None:
    detector = Detector(tiny)
    pictures = [picture([(8 * (i % 8), 8 * (i // 8))]) for i in range(64)]
    expected = [found.xyxy.tolist() for found in detector(pictures)]
    results: dict[int, list[list[float]]] = {}

    def work(start: int) -> None:
        for i in range(start, 64, 8):
            results[i] = detector(pictures[i]).xyxy.tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [results[i] for i in range(64)] == expected


def test_a_broken_network_is_not_silent(tmp_path: Path) -> None:
    broken = make_tiny_ir(tmp_path / "nan.xml", bias=float("nan"))
    with pytest.warns(OvyoloWarning, match=r"nan\.xml gave NaN in 64 cells"):
        found = Detector(broken)(picture([(0, 0)]))
    assert len(found) == 0 and found.nonfinite == 64


def test_device_that_is_not_there(tiny: Path) -> None:
    with pytest.raises(DeviceError, match="'GNA' is not there; OpenVINO sees: CPU"):
        Detector(tiny, device="GNA")
    for silent in ("AUTO", "MULTI:CPU", "HETERO:GPU,CPU"):
        with pytest.raises(DeviceError, match="without a word"):
            Detector(tiny, device=silent)
    assert Detector(tiny, device="intel:cpu").device == "CPU"


def copy_of(tiny: Path, folder: Path) -> Path:
    for suffix in (".xml", ".bin"):
        shutil.copy(tiny.with_suffix(suffix), folder / f"m{suffix}")
    return folder / "m.xml"


def test_damaged_models(tiny: Path, tmp_path: Path) -> None:
    path = copy_of(tiny, tmp_path)
    weights = path.with_suffix(".bin")
    whole, text = weights.read_bytes(), path.read_bytes()

    for damaged in (whole[:-4], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"m\.(bin|xml).*ovyolo export"):
            Detector(path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"m\.bin is missing"):
        Detector(path)
    weights.write_bytes(whole)
    for damaged in (text[: len(text) // 2], b"", b"<html>404</html>", b"\x00" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"m\.xml cannot be read as an OpenVINO IR"):
            Detector(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"m\.xml does not exist"):
        Detector(path)


def test_ir_without_card(tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset1

    parameter = opset1.parameter([1, 8, 8, 3], np.uint8, name="x")
    ov.save_model(ov.Model([opset1.convert(parameter, "f32")], [parameter], "m"), tmp_path / "foreign.xml")
    with pytest.raises(ModelError, match=r"foreign\.xml has no ovyolo card.*ovyolo export"):
        Detector(tmp_path / "foreign.xml")


def test_other_paths(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\.txt is not a model"):
        Detector(tmp_path / "names.txt")
    with pytest.raises(ExportError, match=r"no\.pt does not exist"):
        Detector(tmp_path / "no.pt")
    with pytest.raises(DimensionError, match="imgsz cannot be given"):
        Detector(tiny, imgsz=320)
    with pytest.raises(ImageError, match=r"no\.png"):
        Detector(tiny)(tmp_path / "no.png")


def test_checkpoint_is_exported_once(shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights" / "yolov5n.pt"
    first = Detector(weights, cache_dir=tmp_path)
    stamp = first.path.stat().st_mtime_ns
    assert Detector(weights, cache_dir=tmp_path).path.stat().st_mtime_ns == stamp
    assert len(first(shared / "images" / "bus.jpg")) == 4
    assert Detector(weights, imgsz=320, cache_dir=tmp_path).imgsz == (320, 320)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_damaged_cache_is_made_anew(suffix: str, shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights" / "yolov5n.pt"
    made = Detector(weights, cache_dir=tmp_path).path.with_suffix(suffix)
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2])
    assert len(Detector(weights, cache_dir=tmp_path)(shared / "images" / "bus.jpg")) == 4
    assert made.stat().st_size == pytest.approx(len(whole), rel=0.01)  # OpenVINO numbers constants as it goes
