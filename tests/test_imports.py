"""What is loaded when: the promise that nothing heavy comes with a light import."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference.fresh import run_python
from reference.tiny_model import make_tiny_ir

HEAVY = ("openvino", "cv2", "torch", "nncf", "yaml", "tqdm", "onnx")


def test_import_loads_nothing_heavy() -> None:
    loaded = run_python("import sys, ovyolo; print(*{m.split('.')[0] for m in sys.modules})").split()
    assert not {*HEAVY, "numpy"} & set(loaded)


def test_results_need_numpy_only() -> None:
    loaded = run_python(
        "import sys; from ovyolo import Detections; print(*{m.split('.')[0] for m in sys.modules})"
    ).split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_a_detector_needs_openvino_only_when_made() -> None:
    loaded = run_python(
        "import sys; from ovyolo import Detector; print(*{m.split('.')[0] for m in sys.modules})"
    ).split()
    assert not {"openvino", "cv2", "torch"} & set(loaded)


def test_import_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import ovyolo; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.1


def test_export_never_imports_torch(shared: Path, tmp_path: Path) -> None:
    source, target = shared / "weights" / "yolov5n.pt", tmp_path / "n.xml"
    code = f"""
import sys
from ovyolo.cli import main
assert main(["export", {str(source)!r}, "-o", {str(target)!r}]) == 0
print("TORCH" if "torch" in sys.modules else "CLEAN", "CV2" if "cv2" in sys.modules else "")
"""
    assert run_python(code).split()[-1] == "CLEAN"
    assert target.is_file()


def test_detecting_never_imports_torch(shared: Path, tmp_path: Path) -> None:
    source, picture = shared / "weights" / "yolov5n.pt", shared / "images" / "bus.jpg"
    code = f"""
import sys
from ovyolo import Detector
print(len(Detector({str(source)!r}, cache_dir={str(tmp_path)!r})({str(picture)!r})))
print(*[m for m in ("torch", "nncf", "onnx") if m in sys.modules])
"""
    assert run_python(code).split() == ["4"]


@pytest.mark.parametrize("first", ["", "import ovyolo.export.api; ", "from ovyolo.export import export; "])
def test_export_can_be_called_however_it_was_imported(first: str) -> None:
    code = f"{first}import ovyolo; from ovyolo import export; print(callable(export), callable(ovyolo.export))"
    assert run_python(code).split() == ["True", "True"]


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """OpenVINO's own telemetry would write a client id to the home folder and send events from there."""
    model = make_tiny_ir(tmp_path / "tiny.xml")
    home = tmp_path / "home"
    home.mkdir()
    code = """
import os, socket, sys
for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
    os.environ[name] = sys.argv[2]
for name in ("CI", "NNCF_CI", "PYTEST_CURRENT_TEST"):
    os.environ.pop(name, None)
class Refuse(socket.socket):
    def connect(self, *arguments): raise SystemExit(f"phones {arguments}")
    connect_ex = connect
socket.socket = Refuse
socket.create_connection = socket.getaddrinfo = lambda *a, **k: sys.exit(f"phones {a}")
from ovyolo import Detector
import numpy as np
print(len(Detector(sys.argv[1])(np.zeros((64, 64, 3), np.uint8))))
"""
    assert run_python(code, model, home).split() == ["0"]
    assert list(home.rglob("*")) == []
