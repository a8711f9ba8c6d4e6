"""Where the old runtime lives: environments that ``ovyolo vpu setup`` made, each with its own Python and OpenVINO."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovyolo.errors import DeviceError, DimensionError
from ovyolo.vpu.members import Limits
from ovyolo.vpu.process import WorkerLostError, WorkerProcess, WorkerRefusalError

__all__ = ["RELEASES", "Environment", "default_release", "find_environment", "home", "is_worker_device"]

RELEASES = ("2022.2.0", "2021.4.2")
"""Releases whose Myriad plugin can be had from the package index, the better first."""


@dataclass(frozen=True)
class Environment:
    """An interpreter with an old OpenVINO, and the release of it."""

    python: Path
    release: str

    def probe(self) -> dict[str, Any]:
        """What a worker finds there: ``runtime``, ``api``, ``devices``, ``libusb``, ``python``, ``numpy``, and of
        ``myriad`` its ``plugin``, ``firmware``, ``sticks`` and ``problem``.

        Raises:
            DeviceError: no worker runs there.
        """
        try:
            process = WorkerProcess(self.python)
            try:
                found = process.request("probe", 60.0)
            finally:
                process.stop()
        except (WorkerLostError, WorkerRefusalError) as error:
            raise DeviceError(
                f"the old OpenVINO in {self.python.parent.parent} does not run: {error}; run `ovyolo vpu setup` again"
            ) from error
        return {**found, "python": process.hello["python"], "numpy": process.hello["numpy"]}


def is_worker_device(device: str) -> bool:
    """Whether ``device`` is computed by a worker process.

    Example:
        >>> is_worker_device("MYRIAD.1.2-ma2480"), is_worker_device("legacy.cpu"), is_worker_device("CPU")
        (True, True, False)
    """
    return device.strip().upper().removeprefix("INTEL:").split(".")[0] in ("MYRIAD", "LEGACY")


def home() -> Path:
    """The folder of the environments: ``OVYOLO_VPU_HOME``, or where the system keeps users' data."""
    named = os.environ.get("OVYOLO_VPU_HOME")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "ovyolo" / "vpu"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "ovyolo" / "vpu"


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def default_release() -> str:
    """2022.2.0's plugin is on the package index for Linux only."""
    return RELEASES[0] if sys.platform.startswith("linux") else RELEASES[1]


def find_environment(stick: bool = True) -> Environment:
    """The environment to use: the release that ``OVYOLO_VPU_RELEASE`` names, or the best that is there.

    Args:
        stick: whether it is for a stick; otherwise any release serves.

    Raises:
        DeviceError: there is none.
    """
    folder = home()
    named = os.environ.get("OVYOLO_VPU_RELEASE")
    others = () if stick else tuple(sorted((p.name for p in folder.glob("20*")), reverse=True))
    for release in (named,) if named else (*RELEASES, *others):
        python = python_in(folder / release)
        if python.exists():
            return Environment(python, release)
    raise DeviceError(
        f"no environment with an old OpenVINO{' ' + named if named else ''} is in {folder}: "
        f"run `ovyolo vpu setup{' --release ' + named if named else ''}`"
    )


def limits_from_environment() -> Limits:
    """The default limits, with the ``timeout`` that ``OVYOLO_VPU_TIMEOUT`` names, in seconds."""
    text = os.environ.get("OVYOLO_VPU_TIMEOUT")
    if not text:
        return Limits()
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise DimensionError(f"OVYOLO_VPU_TIMEOUT is {text!r}; it takes seconds, more than 0")
    return Limits(timeout=seconds)
