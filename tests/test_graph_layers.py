"""Every layer of every generation: our graph computes what PyTorch computes on the same checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: layers are compared with it")
from reference import torch_yolo as ref  # noqa: E402
from torch import nn  # noqa: E402

from ovyolo.core import shared_core  # noqa: E402
from ovyolo.errors import DimensionError, OvyoloError, UnsupportedModelError  # noqa: E402
from ovyolo.export.checkpoint import read_checkpoint  # noqa: E402
from ovyolo.export.graph import build_model  # noqa: E402

ANCHORS = [
    [10, 13, 16, 30, 33, 23],
    [30, 61, 62, 45, 59, 119],
    [116, 90, 156, 198, 373, 326],
    [400, 300, 500, 450, 600, 600],
]


def finish(
    rows: list[tuple[Any, Any]], sources: list[int], channels: list[int], strides: list[int], nc: int = 3
) -> Any:
    """Add a Detect on the layers ``sources`` and make the weights interesting."""
    detect = ref.Detect(nc, ANCHORS[: len(sources)], channels)
    detect.stride = torch.tensor([float(s) for s in strides])
    detect.anchors /= detect.stride.view(-1, 1, 1)
    names = [f"part{i}" for i in range(nc)]
    return ref.randomize(ref.Model([*rows, (sources, detect)], names))


def save(model: Any, path: Path, **kwargs: Any) -> Path:
    torch.save({"epoch": 3, "model": model, "optimizer": None}, path, **kwargs)
    return path


def torch_heads(model: Any, image: np.ndarray) -> list[np.ndarray]:
    x = torch.from_numpy(np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2))).float() / 255
    with torch.no_grad():
        return [head.numpy() for head in model.float()(x)]


def graph_heads(path: Path, image: np.ndarray) -> list[np.ndarray]:

    model, card = build_model(read_checkpoint(path), image.shape[:2])
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled(image[None])
    return [result[name] for name in card.head.outputs]


def assert_same(model: Any, path: Path, size: tuple[int, int] = (64, 96)) -> None:
    image = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    ours = graph_heads(path, image)
    theirs = torch_heads(model, image)
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert float(b.std()) > 1e-3
        np.testing.assert_allclose(a, b, atol=2e-4 * float(b.std()) + 1e-6, rtol=1e-4)


PLAIN_ACTIVATIONS = [nn.SiLU, nn.Hardswish, nn.ReLU, nn.Identity, nn.Mish, nn.ReLU6, nn.Sigmoid, nn.Tanh]

STEM = {
    "conv6": lambda: ref.Conv(3, 16, 6, 2, 2),
    "focus": lambda: ref.Focus(3, 16, 3),
    "plain": lambda: nn.Conv2d(3, 16, 3, 2, 1),
    "contract": lambda: nn.Sequential(ref.Contract(2), ref.Conv(12, 16, 1)),
    "depthwise": lambda: nn.Sequential(ref.DWConv(3, 6, 3, 2), ref.Conv(6, 16)),
    "pooled": lambda: nn.Sequential(nn.MaxPool2d(2, 2), ref.Conv(3, 16)),
}

BLOCK = {
    "Conv": lambda: ref.Conv(16, 16, 3),
    "DWConv": lambda: ref.DWConv(16, 32, 3),
    "Bottleneck": lambda: ref.Bottleneck(16, 16),
    "Bottleneck-grouped": lambda: ref.Bottleneck(16, 24, g=2),
    "BottleneckCSP": lambda: ref.BottleneckCSP(16, 16, n=2),
    "C3": lambda: ref.C3(16, 16, n=2),
    "C3-noshortcut": lambda: ref.C3(16, 24, n=1, shortcut=False),
    "C3x": lambda: ref.C3x(16, 16, n=2),
    "C3TR": lambda: ref.C3TR(16, 16, n=2),
    "TransformerBlock-conv": lambda: ref.TransformerBlock(16, 24, 4, 1),
    "C3SPP": lambda: ref.C3SPP(16, 16),
    "C3Ghost": lambda: ref.C3Ghost(16, 16, n=2),
    "GhostConv": lambda: ref.GhostConv(16, 16),
    "GhostBottleneck": lambda: ref.GhostBottleneck(16, 16),
    "CrossConv": lambda: ref.CrossConv(16, 16, shortcut=True),
    "SPP": lambda: ref.SPP(16, 16),
    "SPP-odd": lambda: ref.SPP(16, 16, (3, 7, 5)),
    "SPPF": lambda: ref.SPPF(16, 16),
    "Expand-Contract": lambda: nn.Sequential(ref.Expand(2), ref.Contract(2)),
    "repeated": lambda: nn.Sequential(ref.Conv(16, 16), ref.Conv(16, 16, 3)),
    "BatchNorm2d": lambda: nn.BatchNorm2d(16),
    "FReLU": lambda: ref.Conv(16, 16, 3, act=ref.FReLU(16)),
    "ZeroPad2d": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)),
    "ConvTranspose2d": lambda: nn.Sequential(nn.ConvTranspose2d(16, 16, 3, 2, 1, 1, groups=2), ref.Conv(16, 16, 3, 2)),
    "DWConvTranspose2d": lambda: nn.Sequential(ref.DWConvTranspose2d(16, 16, 4, 2, 1), ref.Conv(16, 16, 3, 2)),
    "Upsample-nearest": lambda: nn.Sequential(nn.Upsample(None, 2, "nearest"), ref.Conv(16, 16, 3, 2)),
    "Upsample-bilinear": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), ref.Conv(16, 16, 3, 2)),
    "same-padding": lambda: nn.Conv2d(16, 16, 3, padding="same", dilation=2),
    "Dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Identity(), ref.Conv(16, 16)),
    "LeakyReLU": lambda: ref.Conv(16, 16, 3, act=nn.LeakyReLU(0.1)),
    **{kind.__name__: (lambda kind=kind: ref.Conv(16, 16, 3, act=kind())) for kind in PLAIN_ACTIVATIONS},
}  # fmt: skip


def one_level(stem: Any, block: Any) -> Any:
    with torch.no_grad():
        channels = block(torch.zeros(1, 16, 32, 32)).shape[1]
    rows = [(-1, stem), (-1, block), (-1, ref.Conv(channels, 24, 3, 2))]
    return finish(rows, [2], [24], [4])


@pytest.mark.parametrize("stem", STEM)
def test_first_layers(stem: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = one_level(STEM[stem]().eval(), ref.C3(16, 16).eval())
    assert_same(model, save(model, tmp_path / "m.pt"))


@pytest.mark.parametrize("block", BLOCK)
def test_blocks(block: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = one_level(ref.Conv(3, 16, 6, 2, 2).eval(), BLOCK[block]().eval())
    assert_same(model, save(model, tmp_path / "m.pt"))


def pyramid(levels: int, stem: Any, spp: Any, block: Any) -> Any:
    """A small network with top-down path, as YOLOv5's: ``levels`` heads from stride 8 (or 4 with a P2 head)."""
    rows: list[tuple[Any, Any]] = [(-1, stem), (-1, ref.Conv(16, 16, 3, 2)), (-1, block(16, 16))]
    marks = [2]
    for _ in range(levels - 1):
        rows += [(-1, ref.Conv(16, 16, 3, 2)), (-1, block(16, 16))]
        marks.append(len(rows) - 1)
    rows.append((-1, spp(16, 16)))
    tops = [len(rows) - 1]
    for mark in reversed(marks[:-1]):
        rows += [(-1, nn.Upsample(None, 2, "nearest")), ([-1, mark], ref.Concat(1)), (-1, block(32, 16))]
        tops.append(len(rows) - 1)
    sources = tops[::-1]
    return finish(rows, sources, [16] * levels, [4 * 2**i for i in range(levels)], nc=2)


GENERATIONS = {
    "v3-csp-hardswish": lambda: pyramid(3, ref.Focus(3, 16, 3, act=nn.Hardswish()), ref.SPP, ref.BottleneckCSP),
    "v5-focus-spp": lambda: pyramid(3, ref.Focus(3, 16, 3), ref.SPP, ref.C3),
    "v7-p5": lambda: pyramid(3, ref.Conv(3, 16, 6, 2, 2), ref.SPPF, ref.C3),
    "v7-p6": lambda: pyramid(4, ref.Conv(3, 16, 6, 2, 2), ref.SPPF, ref.C3),
    "ghost": lambda: pyramid(3, ref.Conv(3, 16, 6, 2, 2), ref.SPPF, ref.C3Ghost),
}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("saved", ["zip", "legacy", "half", "fused", "names-dict"])
def test_generations(generation: str, saved: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = GENERATIONS[generation]().eval()
    keywords: dict[str, Any] = {}
    if saved == "legacy":
        keywords["_use_new_zipfile_serialization"] = False
    if saved == "half":
        model.half()
    if saved == "fused":
        for module in model.modules():
            if isinstance(module, ref.Conv):
                module.conv = torch.nn.utils.fuse_conv_bn_eval(module.conv, module.bn)
                del module.bn
    if saved == "names-dict":
        model.names = dict(enumerate(model.names))
    path = save(model, tmp_path / "m.pt", **keywords)
    assert_same(model, path, (128, 64))
    _, card = build_model(read_checkpoint(path), (64, 64))
    assert card.names == ("part0", "part1")
    assert card.head.strides == tuple(4 * 2**i for i in range(len(card.head.strides)))
    for level, anchors in enumerate(card.head.anchors):
        np.testing.assert_allclose(np.ravel(anchors), ANCHORS[level], rtol=1e-3)


def test_heads_are_put_finest_first(tmp_path: Path) -> None:
    model = GENERATIONS["v7-p5"]().eval()
    detect = model.model[-1]
    detect.f = detect.f[::-1]
    detect.m = nn.ModuleList(list(detect.m)[::-1])
    detect.stride = detect.stride.flip(0)
    detect.anchors = detect.anchors.flip(0)
    _, card = build_model(read_checkpoint(save(model, tmp_path / "m.pt")), (64, 64))
    assert card.head.strides == (4, 8, 16)
    assert card.head.anchors[0][0] == (10.0, 13.0)


class Unknown(nn.Module):
    __module__ = "models.common"

    def forward(self, x: Any) -> Any:
        return x


def test_unknown_layer_is_named(tmp_path: Path) -> None:
    import sys

    sys.modules["models.common"].Unknown = Unknown  # type: ignore[attr-defined]
    path = save(one_level(STEM["conv6"]().eval(), Unknown()), tmp_path / "odd.pt")
    with pytest.raises(UnsupportedModelError, match=r"odd\.pt: layer model\.1 .*models\.common\.Unknown.*ONNX"):
        build_model(read_checkpoint(path), (64, 64))


@pytest.mark.parametrize("imgsz", [(60, 64), (64, 24), (8, 8)])
def test_size_must_fit_the_stride(imgsz: tuple[int, int], tmp_path: Path) -> None:
    path = save(GENERATIONS["v7-p5"]().eval(), tmp_path / "m.pt")
    with pytest.raises(DimensionError, match=r"m\.pt: imgsz .* not a multiple of the model's largest stride 16: try"):
        build_model(read_checkpoint(path), imgsz)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_diverged_weights_are_refused(bad: float, tmp_path: Path) -> None:
    model = GENERATIONS["v7-p5"]().eval()
    model.model[1].conv.weight.data[0, 0, 0, 0] = bad
    with pytest.raises(UnsupportedModelError, match=r"m\.pt: its weights hold NaN or infinity: the training diverged"):
        build_model(read_checkpoint(save(model, tmp_path / "m.pt")), (64, 64))


def test_more_names_than_classes(tmp_path: Path) -> None:
    model = GENERATIONS["v7-p5"]().eval()
    model.names = ["a", "b", "c"]
    with pytest.raises(UnsupportedModelError, match="names 3 classes, but its head tells 2 apart"):
        build_model(read_checkpoint(save(model, tmp_path / "m.pt")), (64, 64))


def test_only_operations_of_old_opsets(tmp_path: Path) -> None:
    model = GENERATIONS["v5-focus-spp"]().eval()
    graph, _ = build_model(read_checkpoint(save(model, tmp_path / "m.pt")), (64, 64))
    versions = {op.get_type_info().version_id for op in graph.get_ordered_ops()}
    assert versions <= {f"opset{i}" for i in range(1, 8)}


def set_deep(module: Any, path: str, value: Any) -> None:
    *parts, leaf = path.split(".")
    for part in parts:
        module = getattr(module, part) if not part.isdigit() else module[int(part)]
    module.__dict__[leaf] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.0.conv.groups", "two"),
        ("model.0.conv.groups", 0),
        ("model.0.conv.groups", 10**30),
        ("model.0.conv.stride", (0, 0)),
        ("model.0.conv.stride", None),
        ("model.0.conv.padding", (-9, -9)),
        ("model.0.conv.padding", "same"),
        ("model.0.conv.dilation", []),
        ("model.0.bn.eps", "small"),
        ("model.0.bn.eps", float("-inf")),
        ("model.0.f", {}),
        ("model.0.f", "previous"),
        ("model.3.f", 99),
        ("model.3.f", [-1, -1]),
        ("model.7.m.kernel_size", 10**9),
        ("model.7.m.kernel_size", None),
        ("model.8.scale_factor", float("nan")),
        ("model.8.scale_factor", 1e30),
        ("model.9.d", 7),
        ("model.9.d", "channels"),
        ("model.0.conv.weight", None),
    ],
)
def test_numbers_that_do_not_fit_are_refused(path: str, value: Any, tmp_path: Path) -> None:
    model = GENERATIONS["v7-p5"]().eval()
    set_deep(model, path, value)
    if path.endswith("weight"):
        model.model[0].conv._parameters.pop("weight")
    with pytest.raises(OvyoloError, match=r"odd\.pt: "):
        build_model(read_checkpoint(save(model, tmp_path / "odd.pt")), (64, 64))
