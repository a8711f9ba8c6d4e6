"""Other runtimes in the benchmark: the same pixels in, the same boxes out, or a sentence that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from reference.onnx_models import Style, write_onnx
from reference.spots import spots
from reference.tiny_model import make_tiny_ir

from ovyolo import Detections
from ovyolo.bench import bench
from ovyolo.bench.against import agreement
from ovyolo.cli import main
from ovyolo.errors import DimensionError, ModelError, OvyoloError

# torch.jit is what files that are around today are made with
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("against") / "tiny.xml")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        cv2.imwrite(
            str(folder / f"{number}.png"), cv2.resize(spots(7 * number), (256, 256), interpolation=cv2.INTER_NEAREST)
        )
    return folder


def torch_network(bias: float = -10.0, red: bool = False) -> Any:
    """The network of ``tiny_model`` in PyTorch, which gets RGB from 0 to 1."""
    torch = pytest.importorskip("torch")
    conv = torch.nn.Conv2d(3, 6, 8, 8)
    with torch.no_grad():
        conv.weight[:4] = 0
        conv.weight[4:] = 20.0 / (3 * 64)
        if red:
            conv.weight[4:, 1:] = 0
        conv.bias[:] = torch.tensor([0.0, 0, 0, 0, bias, bias])
    return conv


def scripted(path: Path, **options: Any) -> Path:
    torch = pytest.importorskip("torch")
    torch.jit.trace(torch_network(**options), torch.zeros(1, 3, 64, 64)).save(str(path))
    return path


def measured(model: Path, pictures: Path, *against: str) -> Any:
    return bench(model, source=pictures, hints="latency", runs=16, cold_starts=0, against=against)


def test_torch_finds_the_same(model: Path, pictures: Path, tmp_path: Path) -> None:
    result = measured(model, pictures, f"torch={scripted(tmp_path / 'a.torchscript')}")
    ours, theirs = result.models
    assert theirs.name == "torch:a" and theirs.runtime.startswith("torch ") and ours.runtime is None
    assert theirs.same_boxes == (19, 19)  # 16 rounds and 3 to warm up, a spot a picture
    ratio = result.ratio("torch:a", "tiny")
    assert ratio.rounds == 16 and ratio.value > 0
    assert "boxes shared with tiny: 19 of 19" in result.table() and not [w for w in result.warnings if "share" in w]
    told = json.loads(result.to_json())
    assert told["ratios"]["latency"][0]["first"] == "torch:a" and told["models"][1]["same_boxes"] == [19, 19]


def test_another_network_is_told(model: Path, pictures: Path, tmp_path: Path) -> None:
    result = measured(model, pictures, f"torch={scripted(tmp_path / 'a.pt', bias=-30.0)}")
    assert result.models[1].same_boxes == (0, 19)
    assert any("torch:a and tiny share 0 of 19 boxes only" in warning for warning in result.warnings)


def test_litert_finds_the_same(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Its rows come as fractions of the picture."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("flatbuffers")
    from reference.tflite_model import write_tflite

    result = measured(model, pictures, f"litert={write_tflite(tmp_path / 'a.tflite')}")
    assert result.models[1].runtime.startswith("ai-edge-litert ") and result.models[1].same_boxes == (19, 19)


@pytest.mark.parametrize("decode", ["split", "raw4", "raw5"])
def test_onnxruntime_finds_the_same(tmp_path: Path, decode: str) -> None:
    """A model of random weights as exporters write it, and what we make of it."""
    pytest.importorskip("onnxruntime")
    from ovyolo.export import export

    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (90, 128, 3), np.uint8))
    onnx = write_onnx(tmp_path / "net.onnx", Style(decode=decode))
    options = {} if decode == "split" else {"anchors": [[list(pair) for pair in level] for level in Style().anchors]}
    export(onnx, tmp_path / "net.xml", fp32=True, **options)
    result = bench(
        tmp_path / "net.xml", source=str(tmp_path / "*.png"), hints="latency", runs=5, cold_starts=0, conf=0.2,
        against=[f"onnxruntime={onnx}"],
    )  # fmt: skip
    same, whole = result.models[1].same_boxes
    assert whole > 20 and same >= 0.98 * whole, (same, whole)


def test_the_onnx_that_is_measured_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    onnx = write_onnx(tmp_path / "net.onnx", Style())
    words = ["--against", "onnxruntime", "--hint", "latency", "--runs", "3", "--cold-starts", "0", "--json", "-"]
    assert main(["bench", str(onnx), *words]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models[1]["name"] == "onnxruntime:net" and models[1]["runtime"].startswith("onnxruntime ")


def test_agreement_counts_boxes_once() -> None:
    one = Detections.from_arrays([[0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10]], [0.9, 0.8, 0.7], [0, 0, 1])
    assert agreement([one], [one]) == (3, 3)
    assert agreement([one[:1]], [one]) == (1, 3)
    other = Detections.from_arrays([[0, 0, 10, 10], [50, 5, 60, 15]], [0.7, 0.7], [0, 1])
    assert agreement([one], [other]) == (0, 5)
    assert agreement([], []) == (0, 0)


@pytest.mark.parametrize(
    ("against", "error", "words"),
    [
        ("tensorrt=a.plan", DimensionError, "onnxruntime, torch, litert"),
        ("onnxruntime", DimensionError, "onnxruntime=FILE"),
        ("torch=", DimensionError, "torch=FILE"),
        ("torch=missing.pt", ModelError, "is not a file"),
        ("torch={tmp}/text.pt", ModelError, "cannot load"),
        ("onnxruntime={tmp}/text.pt", ModelError, "cannot load"),
        ("litert={tmp}/text.pt", (ModelError, OvyoloError), "cannot load|not installed"),
    ],
)
def test_refused(model: Path, tmp_path: Path, against: str, error: Any, words: str) -> None:
    if "text" in against and not against.startswith("litert"):
        pytest.importorskip(against.split("=")[0])
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(error, match=words) as caught:
        bench(model, hints="latency", runs=1, cold_starts=0, against=[against.format(tmp=tmp_path)])
    assert "\n" not in str(caught.value)


def test_a_runtime_that_is_missing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(OvyoloError, match=r"onnxruntime is not installed.*pip install onnxruntime"):
        bench(model, hints="latency", runs=1, cold_starts=0, against=[f"onnxruntime={tmp_path / 'a.onnx'}"])
    with pytest.raises(DimensionError, match="latency"):
        bench(model, hints="throughput", cold_starts=0, against=["onnxruntime=a.onnx"])


def test_another_kind_of_network_is_refused(model: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    other = tmp_path / "other.pt"
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 64, 64)).save(str(other))
    with pytest.raises(ModelError, match="neither rows of 6 numbers nor our model's heads"):
        bench(model, hints="latency", runs=1, cold_starts=0, against=[f"torch={other}"])
    pytest.importorskip("onnxruntime")
    large = write_onnx(tmp_path / "large.onnx", Style())
    with pytest.raises(ModelError, match=r"takes pictures of \(128, 128\), our model of \(64, 64\)"):
        bench(model, hints="latency", runs=1, cold_starts=0, against=[f"onnxruntime={large}"])
