"""Myriad support without any old runtime: refusals before a device is asked, sentences, the report, the command."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset1
from reference.int8_model import make_int8_ir
from reference.onnx_models import Style, write_onnx
from reference.tiny_model import make_tiny_ir, tiny_model

from ovyolo import Detector
from ovyolo.card import read_card, write_card
from ovyolo.cli import main
from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, DimensionError, ExportError, ModelError
from ovyolo.export import export
from ovyolo.export.portable import save_ir
from ovyolo.vpu import Environment, find_environment, make_blob
from ovyolo.vpu.diagnosis import explain, no_stick
from ovyolo.vpu.environment import limits_from_environment, python_in
from ovyolo.vpu.install import RECIPES, find_python, plan
from ovyolo.vpu.process import WORKER_FILE
from ovyolo.vpu.usb import usb_sticks


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No old runtime is found: who asks for one fails, and a refusal that comes anyway asked none."""
    folder = tmp_path / "vpu-home"
    monkeypatch.setenv("OVYOLO_VPU_HOME", str(folder))
    return folder


def test_the_worker_is_one_file_for_python_3_7() -> None:
    text = WORKER_FILE.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 7))
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "openvino", "libusb_package"}


def test_int8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_int8_ir(tmp_path / "int8.xml")
    sentence = "it is INT8, which a Myriad stick cannot compute: use the FP16 file that it was quantized from"
    with pytest.raises(ExportError, match=sentence):
        make_blob(path)
    for device in ("MYRIAD", "myriad.1.2-ma2480"):
        with pytest.raises(DeviceError, match=sentence):
            Detector(path, device=device)
    assert main(["vpu", "blob", str(path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*.blob*"))


def test_int8_is_refused_at_export(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "q.onnx", Style(int8=True))
    with pytest.raises(ExportError, match="cannot run on MYRIAD: it is INT8"):
        export(source, tmp_path / "m.xml", device="MYRIAD")
    assert not (tmp_path / "m.xml").exists()
    assert export(source, tmp_path / "m.xml", device="NPU").is_file()
    with pytest.raises(DeviceError, match="'TPU' is not a kind of device"):
        export(source, tmp_path / "m.xml", device="TPU")


def make_dynamic(path: Path) -> Path:
    """The tiny IR with a batch of any size."""
    model, card = tiny_model()
    model.reshape([-1, 64, 64, 3])
    write_card(model, card)
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def test_dynamic_shapes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_dynamic(tmp_path / "dynamic.xml")
    sentence = "has dynamic shapes: export .* at a fixed input size"
    with pytest.raises(ModelError, match=sentence):
        make_blob(path)
    for device in ("MYRIAD", "NPU", "CPU"):
        with pytest.raises((ModelError, DeviceError), match=f"{sentence}|is not there"):
            Detector(path, device=device)
    assert main(["vpu", "blob", str(path)]) == 2
    assert "dynamic shapes" in capsys.readouterr().err


def test_export_makes_dynamic_models_static(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "d.onnx", Style(dynamic=True))
    path = export(source, tmp_path / "m.xml", 128, device="MYRIAD")
    assert not shared_core().read_model(path).is_dynamic()


def test_the_card_says_where_a_file_runs(tmp_path: Path) -> None:
    def runs(path: Path) -> str:
        return read_card(shared_core().read_model(path), path.name).runs_on

    assert runs(make_tiny_ir(tmp_path / "m.xml")) == "OpenVINO 2021.4 and later, on CPU, GPU, NPU, MYRIAD"
    assert runs(make_int8_ir(tmp_path / "q.xml")) == "OpenVINO 2021.4 and later, on CPU, GPU, NPU"
    model, card = tiny_model()
    newer = ov.opset10.is_nan(model.get_results()[0].input_value(0))
    head = opset1.select(newer, opset1.constant(np.float32(0)), model.get_results()[0].input_value(0))
    head.output(0).get_tensor().set_names({"head0"})
    newer.input_value(0).get_tensor().set_names(set())
    path = save_ir(ov.Model([opset1.result(head)], model.get_parameters(), "new"), card, tmp_path / "n.xml")
    assert runs(path) == "OpenVINO 2022.3 and later, on CPU, GPU, NPU"


def test_no_environment_is_explained(tmp_path: Path, empty_home: Path) -> None:
    path = make_tiny_ir(tmp_path / "m.xml")
    for device in ("MYRIAD", "LEGACY.CPU"):
        with pytest.raises(DeviceError, match="run `ovyolo vpu setup`"):
            Detector(path, device=device)
    with pytest.raises(DeviceError, match=r"the old runtime computes on LEGACY\.CPU or MYRIAD"):
        Detector(path, device="LEGACY.GPU")
    broken = python_in(empty_home / "2022.2.0")
    broken.parent.mkdir(parents=True)
    broken.write_text("not a program")
    with pytest.raises(DeviceError, match=r"cannot be started .*: run `ovyolo vpu setup` again"):
        find_environment().probe()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 2}, "threads is not for MYRIAD"),
        ({"pin": True}, "pin is not for MYRIAD"),
        ({"precision": "f32"}, "MYRIAD computes in f16 only"),
        ({"fallback": "GPU"}, 'it takes "CPU"'),
    ],
)
def test_settings_that_a_stick_has_not(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DimensionError, match=message):
        Detector(make_tiny_ir(tmp_path / "m.xml"), device="MYRIAD", **settings)


HERE = Environment(Path("/v/bin/python"), "2022.2.0")
WORDS = {
    'Device with "MYRIAD" name is not registered in the OpenVINO Runtime': "is missing in /v: run `ovyolo vpu setup`",
    "Cannot load library '/v/x_myriad_plugin.so': libusb-1.0.so.0: cannot open shared object": "needs libusb: run",
    "Cannot load library '/v/libmyriadPlugin.so': no such file": "the Myriad plugin is missing",
    "Failed to allocate graph: MYRIAD device is not opened.": "cannot be opened: no permission, or another program",
    "Can not init Myriad device: NC_ERROR": "cannot be opened: no permission, or another program",
    "Myriad device: 1.2-ma2480 not found.": "is gone: plug it in again",
    'Failed to compile layer "up/odd": unsupported layer type "Asinh"': "is not supported (a stick has no Asinh)",
    "Cannot get length of dynamic dimension": "it has dynamic shapes",
    "Exception from x.cpp:1:\nsomething else": "device MYRIAD cannot run m.xml: something else",
}


@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
@pytest.mark.parametrize(("words", "sentence"), WORDS.items())
def test_known_failures_have_a_sentence(words: str, sentence: str) -> None:
    assert sentence in explain(words, "MYRIAD", Path("m.xml"), HERE)


def test_probes_without_a_stick_have_a_sentence() -> None:
    myriad = {"plugin": "p", "firmware": "f", "sticks": [], "problem": None}
    found = {"libusb": "system", "myriad": myriad}
    assert "no Myriad stick is plugged in" in no_stick(found, "MYRIAD", HERE)
    assert "needs libusb" in no_stick({**found, "libusb": None}, "MYRIAD", HERE)
    assert "plugin is missing" in no_stick({**found, "myriad": {**myriad, "plugin": None}}, "MYRIAD", HERE)
    assert "there are: MYRIAD.1.1-x" in no_stick({**found, "myriad": {**myriad, "sticks": ["1.1-x"]}}, "MYRIAD.2", HERE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells of USB devices in files")
def test_sticks_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, product, number in (("1-1", "03E7".lower(), "2485", 7), ("1-2", "8087", "0026", 8)):
        (tmp_path / name).mkdir()
        facts = {"idVendor": vendor, "idProduct": product, "busnum": "1", "devnum": str(number), "speed": "480"}
        for fact, text in facts.items():
            (tmp_path / name / fact).write_text(text + "\n")
    node = tmp_path / "nodes" / "001" / "007"
    node.parent.mkdir(parents=True)
    (found,) = usb_sticks(tmp_path, tmp_path / "nodes") or []
    assert (found.product, found.node, found.speed, found.allowed) == ("2485", node, "480", False)
    node.write_text("")
    assert found.allowed


def test_limits_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVYOLO_VPU_TIMEOUT", "2.5")
    assert limits_from_environment().timeout == 2.5
    for text in ("soon", "0", "nan", "-1"):
        monkeypatch.setenv("OVYOLO_VPU_TIMEOUT", text)
        with pytest.raises(DimensionError, match="OVYOLO_VPU_TIMEOUT"):
            limits_from_environment()


def test_setup_says_what_and_under_which_licence() -> None:
    for release, recipe in RECIPES.items():
        lines = plan(release)
        assert len(lines) == len(recipe.packages) + bool(recipe.wheel)
        assert all("Apache-2.0" in line or "proprietary" in line for line in lines)


def test_setup_refuses_other_pythons(capsys: pytest.CaptureFixture[str], empty_home: Path) -> None:
    with pytest.raises(DeviceError, match=r"no Python that starts, but the old OpenVINO needs Python 3\.7"):
        find_python("no-such-python")
    assert main(["vpu", "setup", "--python", sys.executable]) == 2
    assert "needs Python 3.7, 3.8 or 3.9" in capsys.readouterr().err
    assert not empty_home.exists()


def test_check_without_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vpu", "check"]) == 2
    told = capsys.readouterr()
    assert told.out.startswith("ovyolo ") and "USB" in told.out
    assert told.err.startswith("error: no environment") and told.err.count("\n") == 1


def test_doctor_tells_of_sticks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "run `ovyolo vpu setup`" in capsys.readouterr().out


def test_card_without_the_new_field_is_read() -> None:
    _, card = tiny_model()
    old = json.loads(card.to_json())
    del old["runs_on"]
    assert type(card).from_json(json.dumps(old)) == card
