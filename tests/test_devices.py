"""GPU and NPU that are not there or lack their driver, and falling back only when asked."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from reference.tiny_model import make_tiny_ir, tiny_model

import ovyolo.runtime
from ovyolo import Detector
from ovyolo.core import shared_core
from ovyolo.devices import open_device
from ovyolo.errors import DeviceError, DimensionError, OvyoloWarning
from ovyolo.export.portable import save_ir
from ovyolo.runtime import read_model

HERE = shared_core().available_devices


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_ir(tmp_path / "m.xml")


@pytest.mark.parametrize(("device", "remedy"), [("NPU", "Intel's NPU driver"), ("GPU", "install Intel's G|graphics")])
def test_a_device_that_is_not_there(device: str, remedy: str, model: Path) -> None:
    if any(name.startswith(device) for name in HERE):
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(DeviceError, match=f"device '{device}' is not there; OpenVINO sees: .*: .*{remedy}"):
        Detector(model, device=device)


@pytest.mark.skipif(not sys.platform.startswith("linux") or "NPU" in HERE, reason="Linux without an NPU")
def test_an_npu_without_a_compiler(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real plugin's own words, as on a machine whose driver lacks the compiler."""
    monkeypatch.setattr(ovyolo.runtime, "check_device", lambda core, device: device)
    with pytest.raises(
        DeviceError, match=r"device NPU cannot run .*: the NPU('s compiler is missing| is not seen): install"
    ):
        Detector(model, device="NPU")


def test_an_npu_takes_one_picture_at_a_time(tmp_path: Path) -> None:
    network, card = tiny_model()
    network.reshape([2, 64, 64, 3])
    path = save_ir(network, card, tmp_path / "two.xml")
    with pytest.raises(DeviceError, match=r"two\.xml cannot run on NPU: its batch is 2"):
        Detector(path, device="NPU")
    assert "NPU" not in read_model(path, shared_core())[1].runs_on


def test_falling_back_when_asked(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = next(device for device in ("GPU.7", "NPU.7") if device not in HERE)
    with (
        caplog.at_level(logging.INFO, "ovyolo.devices"),
        pytest.warns(OvyoloWarning, match=f"'{missing}' is not there.*computing on CPU instead, as asked"),
    ):
        detector = Detector(model, device=missing, fallback="CPU")
    assert detector.device == "CPU"
    assert detector(np.zeros((64, 64, 3), np.uint8)).device == "CPU"
    assert [found.device for _, found in detector.stream([np.zeros((64, 64, 3), np.uint8)])] == ["CPU"]
    assert [record.levelname for record in caplog.records][:2] == ["WARNING", "INFO"]
    assert caplog.records[1].getMessage() == f"{model} runs on CPU"


def test_never_falling_back_unasked(model: Path) -> None:
    for device in ("GPU.7", "AUTO", "HETERO:NPU,CPU", "AUTO:MYRIAD,CPU"):
        with pytest.raises(DeviceError):
            Detector(model, device=device)
    with pytest.raises(DimensionError, match="fallback is 'AUTO'"):
        Detector(model, fallback="AUTO")


def test_a_model_that_is_broken_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    with pytest.raises(ovyolo.errors.ModelError, match="does not exist"):
        open_device(tmp_path / "none.xml", "GPU", fallback="CPU")


def test_compiled_models_for_gpu_and_npu_are_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def opened(path: Path, device: str, **settings: object) -> None:
        seen[device] = settings["cache_dir"]
        raise DeviceError("stop here")

    monkeypatch.setenv("OVYOLO_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("ovyolo.devices.open_session", opened)
    for device in ("CPU", "GPU.0", "NPU"):
        with pytest.raises(DeviceError):
            Detector(model, device=device)
    with pytest.raises(DeviceError):
        Detector(model, device="GPU", cache_dir=tmp_path / "mine")
    kept = tmp_path / "compiled"
    assert seen == {"CPU": None, "GPU.0": kept, "NPU": kept, "GPU": tmp_path / "mine"}
