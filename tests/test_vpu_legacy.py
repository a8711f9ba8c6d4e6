"""The real old runtimes: the portable IR, blobs without a stick, and the real plugin's failures with false sticks.

``OVYOLO_VPU_HOME`` names the folder of their environments (``ovyolo vpu setup`` makes them there, one a release).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest
from openvino import opset4
from reference.int8_model import make_int8_ir
from reference.tiny_model import make_tiny_ir, tiny_model
from reference.workers import pictures

import ovyolo.devices
from ovyolo import Detector
from ovyolo.cli import main
from ovyolo.errors import DeviceError, ExportError, OvyoloWarning
from ovyolo.export import export
from ovyolo.export.portable import save_ir
from ovyolo.runtime import open_session, read_model
from ovyolo.vpu import Environment, make_blob, open_worker_session
from ovyolo.vpu.blob import fitting_blob, record_of
from ovyolo.vpu.environment import home, python_in
from ovyolo.vpu.install import fault, find_python, make_environment
from ovyolo.vpu.members import Limits

RELEASES = ("2021.4.2", "2022.2.0", "2022.3.2")
WITH_PLUGIN = ("2021.4.2", "2022.2.0")
MODELS = ("yolov5n", "yolov5s-v6.0", "custom-2021-focus-spp-2class")


def environment(release: str) -> Environment:
    python = python_in(home() / release)
    if not os.environ.get("OVYOLO_VPU_HOME") or not python.exists():
        pytest.skip(f"no OpenVINO {release} here: set OVYOLO_VPU_HOME, and see `ovyolo vpu setup`")
    return Environment(python, release)


@pytest.fixture(scope="module")
def irs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The IR of a model at a size, made once."""
    folder, made = tmp_path_factory.mktemp("irs"), {}

    def get(model: str, imgsz: int) -> Path:
        key = (model, imgsz)
        if key not in made:
            made[key] = export(shared / "weights" / f"{model}.pt", folder / f"{model}-{imgsz}.xml", imgsz)
        return made[key]

    return get


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("release", RELEASES)
def test_the_portable_ir_computes_the_same(
    release: str, model: str, irs: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = environment(release)
    path = irs(model, 320)
    here, card = open_session(path)
    there, _ = open_worker_session(path, "LEGACY.CPU", environment=old)
    assert there.effective["RUNTIME"].startswith(release.removesuffix(".0"))
    noise = np.random.default_rng(0).integers(0, 256, here.input_shape, np.uint8)
    for session in (here, there):
        session.input(0)[:] = noise
        session.submit(0)
    for name, ours, theirs in zip(card.head.outputs, here.wait(0), there.wait(0), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-3 * ours.std(), name
    there.close()

    monkeypatch.setenv("OVYOLO_VPU_RELEASE", release)
    boxes = 0
    with Detector(path, conf=0.05) as new, Detector(path, device="LEGACY.CPU", conf=0.05) as legacy:
        for picture in sorted((shared / "images").glob("*.jpg")):
            expected, found = new(picture), legacy(picture)
            assert found.device == "LEGACY.CPU"
            np.testing.assert_array_equal(found.class_id, expected.class_id)
            np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.02)
            np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
            boxes += len(found)
    assert boxes > 0


@pytest.mark.parametrize("imgsz", [320, 640])
@pytest.mark.parametrize("model", MODELS)
def test_blobs_compile_without_a_stick(model: str, imgsz: int, irs: Any, tmp_path: Path) -> None:
    """The worker imports each blob again before it answers."""
    old, path = environment("2022.2.0"), irs(model, imgsz)
    blob = make_blob(path, tmp_path / f"{path.stem}.blob", old)
    record = json.loads(record_of(blob).read_text())
    _, card = read_model(path, ov.Core())
    assert blob.stat().st_size > 3e6
    assert record["input"]["shape"] == [1, imgsz, imgsz, 3] and record["input"]["type"] == "u8"
    assert [port["name"] for port in record["outputs"]] == list(card.head.outputs)
    assert record["runtime"].startswith("2022.2") and record["card"]["names"] == list(card.names)
    assert sorted(p.name for p in tmp_path.iterdir()) == [blob.name, blob.name + ".json"]


def test_blobs_of_2021(tmp_path: Path) -> None:
    old = environment("2021.4.2")
    if not list(old.python.parent.parent.rglob("myriad_compile")):
        pytest.skip("myriad_compile is not in this environment: `ovyolo vpu setup --release 2021.4.2` puts it there")
    blob = make_blob(make_tiny_ir(tmp_path / "m.xml"), environment=old)
    assert blob.stat().st_size > 1000 and fitting_blob(tmp_path / "m.xml", "2021.4.2") == blob


def test_a_blob_of_another_model_is_not_used(tmp_path: Path) -> None:
    model = make_tiny_ir(tmp_path / "m.xml")
    blob = make_blob(model, environment=environment("2022.2.0"))
    assert fitting_blob(model, "2022.2.0") == blob
    with pytest.warns(OvyoloWarning, match="run `ovyolo vpu blob .*m.xml` again"):
        assert fitting_blob(model, "2021.4.2") is None
    make_tiny_ir(model, bias=-9.0)
    with pytest.warns(OvyoloWarning, match="made of another model"):
        assert fitting_blob(model, "2022.2.0") is None


def test_a_layer_that_no_stick_has_is_named(tmp_path: Path) -> None:
    tiny, card = tiny_model()
    head = opset4.asinh(tiny.get_results()[0].input_value(0))
    head.set_friendly_name("odd")
    head.output(0).get_tensor().set_names({"head0"})
    tiny.get_results()[0].input_value(0).get_tensor().set_names(set())
    model = ov.Model([ov.opset1.result(head)], tiny.get_parameters(), "odd")
    path = save_ir(model, card, tmp_path / "odd.xml")
    with pytest.raises(ExportError, match=r"odd\.xml cannot run on a Myriad stick: its layer .*a stick has no Asinh"):
        make_blob(path, environment=environment("2022.2.0"))
    assert sorted(p.suffix for p in tmp_path.glob("odd*")) == [".bin", ".xml"]


@pytest.mark.parametrize("release", RELEASES)
def test_int8_runs_on_old_cpus(release: str, tmp_path: Path) -> None:
    path = make_int8_ir(tmp_path / "int8.xml")
    (picture,) = pictures(1)
    heads = []
    for opened in (open_session(path), open_worker_session(path, "LEGACY.CPU", environment=environment(release))):
        session = opened[0]
        session.input(0)[0] = picture
        session.submit(0)
        heads.append(session.wait(0)[0].copy())
        session.close()
    np.testing.assert_allclose(heads[1], heads[0], atol=0.02 * heads[0].std())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of POSIX")
@pytest.mark.parametrize("release", WITH_PLUGIN)
def test_killed_and_stopped_in_mid_stream(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, path, frames = environment(release), make_tiny_ir(tmp_path / "tiny.xml"), pictures(300)

    def opened(*arguments: Any, **settings: Any) -> Any:
        return open_worker_session(*arguments, environment=old, limits=Limits(timeout=3.0), **settings)

    monkeypatch.setattr(ovyolo.devices, "open_worker_session", opened)
    with Detector(path, device="LEGACY.CPU") as detector, Detector(path) as here:
        seen = []
        with pytest.warns(OvyoloWarning) as told:
            for frame, found in detector.stream(iter(frames)):
                seen.append(frame.index)
                assert sorted(map(tuple, found.xyxy)) == sorted(map(tuple, here(frames[frame.index]).xyxy))
                if frame.index in (100, 200):
                    os.kill(detector._session.pids[0], signal.SIGKILL if frame.index == 100 else signal.SIGSTOP)
        assert seen == list(range(300)) and detector._session.restarts == 2
        assert "SIGKILL" in str(told[0].message) and "no result for 3 s" in str(told[1].message)


@pytest.fixture(scope="module")
def fake_libusb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the libusb without sticks is built by a C compiler on Linux")
    folder = tmp_path_factory.mktemp("libusb")
    source = Path(__file__).parent / "reference" / "fake_libusb.c"
    how = ["-shared", "-fPIC", "-Wl,-soname,libusb-1.0.so.0", "-o", str(folder / "libusb-1.0.so.0")]
    subprocess.run([compiler, *how, str(source)], check=True)
    return folder


@pytest.fixture
def sticks(fake_libusb: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plugs so many sticks in."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_libusb))
    return lambda count: monkeypatch.setenv("FAKE_MYRIAD", str(count))


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("release", WITH_PLUGIN)
def test_sticks_are_listed(release: str, count: int, sticks: Any) -> None:
    sticks(count)
    found = environment(release).probe()
    assert found["myriad"]["sticks"] == [f"1.1.{k + 1}-ma2480" for k in range(count)]
    assert len([name for name in found["devices"] if name.startswith("MYRIAD")]) == count


@pytest.mark.slow
@pytest.mark.parametrize("release", WITH_PLUGIN)
def test_a_stick_without_permission_is_explained(release: str, sticks: Any, tmp_path: Path) -> None:
    old, path = environment(release), make_tiny_ir(tmp_path / "tiny.xml")
    sticks(1)
    with pytest.raises(DeviceError, match=r"a stick is plugged in but MYRIAD cannot be opened.*idVendor}==\"03e7\""):
        open_worker_session(path, "MYRIAD", environment=old)
    with pytest.raises(DeviceError, match=r"no stick MYRIAD\.7; there are: MYRIAD\.1\.1\.1-ma2480"):
        open_worker_session(path, "MYRIAD.7", environment=old)


@pytest.mark.parametrize("release", WITH_PLUGIN)
def test_no_stick_is_explained(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(release)
    monkeypatch.setenv("OVYOLO_VPU_RELEASE", release)
    path = make_tiny_ir(tmp_path / "tiny.xml")
    with pytest.raises(DeviceError, match="no Myriad stick is plugged in"):
        Detector(path, device="MYRIAD")
    with pytest.warns(OvyoloWarning, match="no Myriad stick.*computing on CPU instead, as asked"):
        detector = Detector(path, device="MYRIAD", fallback="CPU")
    assert detector.device == "CPU"


def test_a_missing_plugin_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"the Myriad plugin is missing in .*2022\.3\.2: run `ovyolo vpu setup`"):
        open_worker_session(make_tiny_ir(tmp_path / "tiny.xml"), "MYRIAD", environment=environment("2022.3.2"))


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment("2022.2.0")
    model, source, boxes = make_tiny_ir(tmp_path / "m.xml"), tmp_path / "p.png", tmp_path / "boxes.json"
    cv2.imwrite(str(source), pictures(1)[0])
    detect = ["detect", "--model", str(model), "--source", str(source), "--no-save", "--json", str(boxes), "--device"]
    found = []
    for device in ("CPU", "LEGACY.CPU"):
        assert main([*detect, device]) == 0
        found.append(json.loads(boxes.read_text())[0]["boxes"])
    assert found[0] == found[1] and found[0]
    assert "computed on LEGACY.CPU" in capsys.readouterr().err
    assert main(["vpu", "blob", str(model)]) == 0
    assert "MB, its record in m.blob.json" in capsys.readouterr().out
    assert main(["vpu", "check", "--model", str(model), "--device", "LEGACY.CPU"]) == 0
    told = capsys.readouterr().out
    assert "head0        differs from the CPU by" in told and "pictures/s" in told and "myriad_plugin" in told
    assert main(["vpu", "check"]) == 2
    assert "no Myriad stick is plugged in" in capsys.readouterr().err
    assert main(["doctor"]) == 0
    assert "OpenVINO 2022.2.0 in" in capsys.readouterr().out


@pytest.mark.parametrize("release", WITH_PLUGIN)
def test_setup_leaves_what_works(release: str) -> None:
    old = environment(release)
    assert fault(old, release) is None
    said: list[str] = []
    assert make_environment(release, say=said.append) == old
    assert said == [f"{home() / release} is there and works"]


def test_a_setup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        python = find_python()
    except DeviceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    said: list[str] = []
    with pytest.raises(DeviceError, match=r"openvino==2021\.4\.2 libusb-package cannot be installed: .*No matching"):
        make_environment("2021.4.2", python, tmp_path / "home", said.append)
    assert list((tmp_path / "home").iterdir()) == []
    assert any("proprietary licence" in line for line in said)
