"""Models for small objects: finer heads, more levels, inputs up to 2048 and not square, anchors fitted to the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: checkpoints are made with it")
from reference import torch_yolo as ref  # noqa: E402
from test_graph_layers import assert_same, pyramid, save  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo import Detector  # noqa: E402
from ovyolo.export.checkpoint import read_checkpoint  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402

FITTED = [
    [3.1, 4.7, 6.2, 5.9, 8.8, 11.3],
    [13, 9.5, 17, 21, 30, 16],
    [31, 40, 52, 33, 61, 70],
    [90, 80, 120, 140, 200, 190],
]


def p2_to_p5() -> Any:
    """Four heads, the finest at stride 4, with anchors as training would have fitted them to small parts."""
    model = pyramid(4, ref.Conv(3, 16, 6, 2, 2), ref.SPPF, ref.C3)
    return with_anchors(model, FITTED)


def p3_to_p6() -> Any:
    """Four heads, the coarsest at stride 64."""
    stem = nn.Sequential(ref.Conv(3, 8, 6, 2, 2), ref.Conv(8, 16, 3, 2))
    model = pyramid(4, stem, ref.SPPF, ref.C3)
    model.model[-1].stride *= 2
    return with_anchors(model, FITTED)


def with_anchors(model: Any, anchors: list[list[float]]) -> Any:
    detect = model.model[-1]
    detect.anchors = torch.tensor(anchors).view(len(anchors), -1, 2) / detect.stride.view(-1, 1, 1)
    return model.eval()


MODELS = {"p2-p5": (p2_to_p5, (4, 8, 16, 32)), "p3-p6": (p3_to_p6, (8, 16, 32, 64))}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("imgsz", [(256, 640), (1088, 64), (128, 2048)])
def test_heads_and_anchors(name: str, imgsz: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(5)
    make, strides = MODELS[name]
    model = make()
    path = save(model, tmp_path / "m.pt")
    assert_same(model, path, imgsz)
    _, card = build_model(read_checkpoint(path), imgsz)
    assert card.head.strides == strides and card.imgsz == imgsz
    for level, anchors in enumerate(card.head.anchors):
        np.testing.assert_allclose(np.ravel(anchors), FITTED[level], rtol=1e-3)


def test_the_largest_input(tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = p2_to_p5()
    assert_same(model, save(model, tmp_path / "m.pt"), (2048, 2048))


@pytest.mark.parametrize("name", MODELS)
def test_tiles_of_an_input_that_is_not_square(name: str, tmp_path: Path) -> None:
    """Exported, found and cut into tiles; a tile is rounded to the model's own largest stride."""
    torch.manual_seed(7)
    make, strides = MODELS[name]
    path = save(make(), tmp_path / "m.pt")
    detector = Detector(path, imgsz=(128, 256), conf=0.3, cache_dir=tmp_path)
    assert detector.imgsz == (128, 256)
    image = np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8)
    plain = detector(image)
    whole = detector(image, tile=4096, full=True)
    np.testing.assert_array_equal(whole.xyxy, plain.xyxy)
    np.testing.assert_array_equal(whole.confidence, plain.confidence)
    found = detector(image, tile=(128, 256), full=True)
    assert found.image_shape == (300, 700) and found.nonfinite == 0
    with pytest.warns(UserWarning, match=f"largest stride is {strides[-1]} pixels"):
        detector(image, tile=(120, 250))
