"""The README's industrial camera, with a stand-in for the vendor's library."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from reference.spots import spots
from reference.tiny_model import make_tiny_ir

from ovyolo import Detector
from ovyolo.errors import ImageError, OvyoloWarning
from ovyolo.io import LiveSource


def test_the_camera_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(__file__).resolve().parents[1] / "README.md"
    block = re.search(r"<!-- test: camera -->\n```python\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)
    assert block is not None
    grabs = iter(range(12))

    class Grabbed:
        def __init__(self, number: int) -> None:
            self.number = number

        def GrabSucceeded(self) -> bool:  # noqa: N802
            return self.number != 3  # an incomplete buffer

    @contextmanager
    def retrieve(timeout: int, handling: str) -> Any:
        assert timeout > 0 and handling == "throw"
        yield Grabbed(next(grabs))  # StopIteration becomes an error at the end: the camera is gone

    convert = SimpleNamespace(Convert=lambda grabbed: SimpleNamespace(GetArray=lambda: spots(grabbed.number)))
    camera = SimpleNamespace(StartGrabbing=lambda strategy: None, IsGrabbing=lambda: True, RetrieveResult=retrieve)
    factory = SimpleNamespace(GetInstance=lambda: SimpleNamespace(CreateFirstDevice=lambda: "device"))
    package, pylon = ModuleType("pypylon"), ModuleType("pypylon.pylon")
    values = {
        "InstantCamera": lambda device: camera, "TlFactory": factory, "ImageFormatConverter": lambda: convert,
        "GrabStrategy_LatestImageOnly": 1, "PixelType_BGR8packed": 2, "TimeoutHandling_ThrowException": "throw",
    }  # fmt: skip
    for name, value in values.items():
        setattr(pylon, name, value)
    package.pylon = pylon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pypylon", package)
    monkeypatch.setitem(sys.modules, "pypylon.pylon", pylon)
    # the README's loop goes on for ever; here it ends soon after the camera has gone
    monkeypatch.setattr("ovyolo.io.LiveSource", partial(LiveSource, give_up=0.2))
    with (
        Detector(make_tiny_ir(tmp_path / "tiny.xml")) as detector,
        pytest.warns(OvyoloWarning, match="line3 failed"),
        pytest.raises(ImageError, match=r"line3 has given no picture for 0\.2 s"),
    ):
        exec(block[1], {"detector": detector, "__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.endswith("{'spot': 1}") for line in lines)
