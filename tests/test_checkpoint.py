"""Checkpoints of every kind: an honest one is read, what is no detector is named, what is damaged is refused."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import torch_save as writer
from reference.fresh import run_python
from reference.torch_save import Call, Name, New, Tensor, checkpoint, detector, legacy_file, module, zip_bytes, zip_file

from ovyolo.errors import CheckpointError, OvyoloError, OvyoloWarning, UnsupportedModelError
from ovyolo.export.checkpoint import (
    Checkpoint,
    attr,
    children,
    class_name,
    is_kind,
    read_checkpoint,
    tensor,
    walk,
)

HONEST = {"zip": zip_file(checkpoint()), "legacy": legacy_file(checkpoint())}


def read(folder: Path, data: bytes, name: str = "best.pt") -> Checkpoint:
    path = folder / name
    path.write_bytes(data)
    return read_checkpoint(path)


# the shared checkpoints, without torch


def test_what_the_shared_checkpoints_hold(shared: Path) -> None:
    found = read_checkpoint(shared / "weights" / "yolov5n-deeppcb.pt")
    assert found.names[2] == "mousebite" and len(found.names) == 6
    assert found.generation == "v6.2 or later" and found.epoch == -1 and str(found.date).startswith("20")
    opt = found.meta["opt"]
    assert isinstance(opt, dict) and opt["imgsz"] == 640 and opt["evolve_population"] == "data/hyps"
    old = read_checkpoint(shared / "weights" / "custom-2021-focus-spp-2class.pt")
    assert old.names == {0: "Apoptosis", 1: "Mitosis"} and old.generation == "v3 to v5"
    head = list(children(children(old.model)["model"]).values())[-1]
    anchors = tensor(head, "anchors")
    assert is_kind(head, "Detect") and anchors is not None and anchors.shape == (3, 3, 2)
    data = (shared / "weights" / "yolov5n-deeppcb.pt").read_bytes()
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_face_head_is_refused(shared: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"29 numbers a box.*landmarks"):
        read_checkpoint(shared / "weights" / "face-head-refuse.pt")


def test_reading_is_fast(shared: Path) -> None:
    path = shared / "weights" / "yolov5n.pt"
    times = []
    for _ in range(5):
        began = time.perf_counter()
        read_checkpoint(path)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.1


def test_torch_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(HONEST["zip"])
    code = (
        "import sys; from ovyolo.export.checkpoint import read_checkpoint; read_checkpoint(sys.argv[1]);"
        "print(sorted({'torch', 'openvino', 'cv2'} & set(sys.modules)))"
    )
    assert run_python(code, tmp_path / "best.pt").strip() == "[]"


# other forms of an honest checkpoint


@pytest.mark.parametrize("form", HONEST)
def test_both_formats(form: str, tmp_path: Path) -> None:
    found = read(tmp_path, HONEST[form])
    assert found.names == {0: "thing 0", 1: "thing 1"} and found.stride == (8,) and found.meta["best_fitness"] == 0.5
    assert [path for path, _ in walk(found.model)] == [
        "",
        "model",
        "model.0",
        "model.0.conv",
        "model.1",
        "model.1.m",
        "model.1.m.0",
    ]
    conv = children(children(children(found.model)["model"])["0"])["conv"]
    weight = tensor(conv, "weight")
    assert weight is not None and weight.dtype == np.float16 and weight.shape == (4, 3, 3, 3)
    assert attr(conv, "kernel_size") == (3, 3) and attr(conv, "nothing", 5) == 5 and tensor(conv, "nothing") is None
    assert repr(conv) == "<Record torch.nn.modules.conv.Conv2d>"


@pytest.mark.parametrize(
    ("tree", "which"),
    [
        (checkpoint(ema=detector()), "ema"),
        (checkpoint(ema=(detector(), 100)), "ema"),
        (checkpoint(ema=New("utils.torch_utils", "ModelEMA", {"ema": detector(), "updates": 3})), "ema"),
        (New("utils.torch_utils", "ModelEMA", {"ema": detector()}), "ema"),
        (checkpoint(model=module("torch.nn.parallel", "DataParallel", {"module": detector()})), "model"),
        (detector(), "module"),
    ],
)
def test_where_the_network_is(tree: object, which: str, tmp_path: Path) -> None:
    found = read(tmp_path, zip_file(tree))
    assert found.which == which and found.names[1] == "thing 1" and class_name(found.model) == "Model"


def with_names(names: object) -> bytes:
    network = detector()
    network.state["names"] = names
    return zip_file({"model": network})


def test_names(tmp_path: Path) -> None:
    assert read(tmp_path, with_names({0: "a", 1: "b"})).names == {0: "a", 1: "b"}
    assert read(tmp_path, with_names({"0": "a", "1": "b"})).names == {0: "a", 1: "b"}
    assert read(tmp_path, with_names(None)).names == {0: "class0", 1: "class1"}
    assert read(tmp_path, with_names([0, 1])).names == {0: "0", 1: "1"}
    with pytest.warns(OvyoloWarning, match="names 1 classes"):
        read(tmp_path, with_names(["a"]))
    for broken in (3, [[1]], {"x": "a"}, {-1: "a"}, [None]):
        with pytest.raises(CheckpointError, match="class names"):
            read(tmp_path, with_names(broken))


def test_namespaces_and_cycles_in_honest_files(tmp_path: Path) -> None:
    options = New("argparse", "Namespace", {"imgsz": 640, "data": Call(Name("pathlib", "PosixPath"), ("a", "b"))})
    network = detector()
    cycle = writer.Raw(b"]q\x63h\x63a")
    found = read(tmp_path, zip_file({"model": network, "opt": options, "loop": cycle}))
    assert found.meta["opt"] == {"imgsz": 640, "data": "a/b"}


def test_optimizer_state_does_not_matter(tmp_path: Path) -> None:
    state = {
        "state": {i: {"momentum_buffer": Tensor(np.ones(50, np.float32))} for i in range(20)},
        "param_groups": [{}],
    }
    assert "optimizer" not in read(tmp_path, zip_file(checkpoint(optimizer=state))).meta


def test_the_file_can_be_replaced_while_its_arrays_live(tmp_path: Path) -> None:
    for form in HONEST.values():
        found = read(tmp_path, form)
        (tmp_path / "best.pt").write_bytes(b"")
        os.replace(tmp_path / "best.pt", tmp_path / "other.pt")
        assert len(list(walk(found.model))) == 7


# other kinds of models


def head_changed(**changes: object) -> bytes:
    return zip_file({"model": detector(**changes)})


def head_called(module_name: str, name: str) -> bytes:
    network = detector()
    network.state["_modules"]["model"].state["_modules"]["1"].__dict__.update(module=module_name, name=name)
    return zip_file({"model": network})


def network_called(module_name: str, name: str) -> bytes:
    network = detector()
    network.module, network.name = module_name, name
    return zip_file({"model": network})


def without(part: str) -> bytes:
    network = detector()
    head = network.state["_modules"]["model"].state["_modules"]["1"]
    head.state.pop(part)
    return zip_file({"model": network})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (network_called("ultralytics.nn.tasks", "DetectionModel"), "Ultralytics.*yolo export"),
        (network_called("models.yolo", "SegmentationModel"), "segmentation"),
        (network_called("models.yolo", "ClassificationModel"), "classification"),
        (network_called("yolox.models.yolox", "YOLOX"), "YOLOX"),
        (head_called("models.yolo", "Segment"), "segmentation"),
        (head_called("models.common", "Classify"), "classification"),
        (head_called("models.yolo", "IDetect"), "YOLOv7"),
        (head_called("models.yolo", "IAuxDetect"), "YOLOv7"),
        (head_called("models.yolo", "Decoupled"), r"models\.yolo\.Decoupled and not Detect"),
        (head_changed(no=22), "22 numbers a box.*landmarks"),
        (head_changed(nc="2"), "no proper nc"),
        (head_changed(na=True), "no proper na"),
        (head_changed(nl=2), "no anchors"),
        (without("_buffers"), "no anchors"),
        (without("_modules"), "one convolution a level"),
        (zip_file({"model": module("torch.nn.modules.conv", "Conv2d")}), "not put together"),
        (zip_file({"model": {"a": Tensor(np.ones(3, np.float32))}}), "state_dict"),
        (zip_file({"a": Tensor(np.ones(3, np.float32)), "b": Tensor(np.ones(3, np.float32))}), "state_dict"),
        (zip_file({"model": {"head.cls_preds.0.weight": Tensor(np.ones(3, np.float32))}}), "YOLOX"),
        (zip_file(Tensor(np.ones(3, np.float32))), "single tensor"),
        (zip_file({"weights": "x"}), "no network .but 'weights'"),
        (zip_file({"model": None}), "no network"),
        (zip_file([1]), "something of type list and no network"),
        (zip_file(Call(Name("torch._utils", "_rebuild_qtensor"))), "quantized"),
    ],
)
def test_other_models_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "best.pt"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (bytes(1000), "nothing but zeros"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b"\n  <html lang=en>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b'{"message": "Not Found"}', "JSON"),
        (b'<?xml version="1.0"?><net name="x">', "XML"),
        (b"\x08\x07\x12\x07pytorch\x1a\x031.9", "ONNX"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":"F16"}}', "safetensors"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x89PNG\r\n", "PNG"),
        (b"hello", "not a checkpoint"),
        (b"PK\x05\x06" + bytes(18), "empty zip"),
        (zip_bytes({"run/weights/best.pt": HONEST["zip"]}), "unpack it first"),
        (zip_bytes({"word/document.xml": b"<x/>"}), "no data.pkl"),
    ],
)
def test_other_files_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(OvyoloError, match=words) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "best.pt"))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="regular file"):
        read_checkpoint("a\0b.pt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pt")
        with pytest.raises(CheckpointError, match="regular file"):
            read_checkpoint(tmp_path / "pipe.pt")


# damage


def read_or_refuse(folder: Path, data: bytes) -> None:
    try:
        read(folder, data)
    except OvyoloError as error:
        assert str(error).startswith(str(folder))
        assert str(error).isprintable()


hostile = settings(max_examples=200, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")
@pytest.mark.parametrize("form", HONEST)
@hostile
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutations_raise_only_our_errors(form: str, changes: list[tuple[int, int]], tmp_path: Path) -> None:
    data = bytearray(HONEST[form])
    for position, value in changes:
        data[position % len(data)] = value
    read_or_refuse(tmp_path, bytes(data))


@pytest.mark.filterwarnings("ignore::ovyolo.errors.OvyoloWarning")
@hostile
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutated_pickles_in_sound_archives(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    """As above, but the archive around the pickle agrees with it: checksums do not catch this."""
    made = writer.Writer()
    data = bytearray(made.pickled(checkpoint()))
    for position, value in changes:
        data[position % len(data)] = value
    entries = {f"archive/data/{key}": array.tobytes() for key, array in made.storages.items()}
    read_or_refuse(tmp_path, zip_bytes({"archive/data.pkl": bytes(data)} | entries))


@pytest.mark.parametrize("form", HONEST)
def test_every_truncation_is_refused(form: str, tmp_path: Path) -> None:
    data = HONEST[form]
    for length in range(0, len(data), 7):
        with pytest.raises(OvyoloError):
            read(tmp_path, data[:length])


@hostile
@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"PK\3\4", HONEST["legacy"][:60], b"\x80\x02"]))
def test_random_bytes_raise_only_our_errors(data: bytes, start: bytes, tmp_path: Path) -> None:
    read_or_refuse(tmp_path, start + data)
