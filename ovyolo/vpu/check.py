"""The report of ``ovyolo vpu check``: what is here, and with a stick, whether it computes right and how fast."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.errors import DeviceError
from ovyolo.version import __version__
from ovyolo.vpu.diagnosis import no_stick
from ovyolo.vpu.environment import Environment, find_environment, is_worker_device
from ovyolo.vpu.usb import RULE, RULE_FILE, rule_files, usb_sticks

__all__ = ["Report", "check", "compare", "summary"]

FP16_TOLERANCE = 0.02  # of a head's standard deviation: FP16 through some sixty layers


@dataclass
class Report:
    """Lines to read and paste, and what is wrong."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        self.lines.append(f"  {name:<12} {value}")


def check(model: Path | None = None, device: str = "MYRIAD", seconds: float = 5.0) -> Report:
    """Look at everything that a stick needs.

    Args:
        model: an ``.xml`` to compute on ``device`` and on this CPU.
        device: where; ``"LEGACY.CPU"`` tries everything but the stick; ``"GPU"`` and ``"NPU"`` are compared likewise.
        seconds: how long to measure the speed.

    Raises:
        OvyoloError: the model cannot be read.
    """
    report = Report()
    report.lines.append(f"ovyolo {__version__}, Python {platform.python_version()}, {platform.platform()}")
    if not is_worker_device(device):
        _compare(report, model, device, seconds)
        return report
    _bus(report)
    try:
        environment = find_environment(device.upper().startswith("MYRIAD"))
        found = environment.probe()
    except DeviceError as error:
        report.problems.append(str(error))
        return report
    _runtime(report, environment, found)
    if device.upper().startswith("MYRIAD") and not found["myriad"]["sticks"]:
        report.problems.append(no_stick(found, "MYRIAD", environment))
    else:
        _compare(report, model, device, seconds)
    return report


def _compare(report: Report, model: Path | None, device: str, seconds: float) -> None:
    if model is None:
        report.lines.append("  give --model to compute on it")
        return
    try:
        report.lines += compare(model, device, seconds)
    except DeviceError as error:
        report.problems.append(str(error))


def _bus(report: Report) -> None:
    sticks = usb_sticks()
    if sticks is None:
        report.add("USB", "this system does not tell")
        return
    report.add("USB", f"{len(sticks)} stick(s) of vendor 03e7")
    for stick in sticks:
        access = "may be opened" if stick.allowed else "may NOT be opened by this user"
        slow = ", USB 2: slow" if stick.speed == "480" else ""
        report.add("", f"product {stick.product}, {stick.node}, {access}{slow}")
    rules = ", ".join(map(str, rule_files()))
    report.add("udev rule", rules or f"none; when a stick cannot be opened, put this line into {RULE_FILE}:")
    if not rules:
        report.add("", RULE)


def _runtime(report: Report, environment: Environment, found: dict[str, Any]) -> None:
    myriad = found["myriad"]
    report.add("environment", f"{environment.python.parent.parent}, Python {found['python']}, NumPy {found['numpy']}")
    report.add("OpenVINO", f"{found['runtime']}, devices {', '.join(found['devices']) or 'none'}")
    report.add("plugin", myriad["plugin"] or "missing")
    report.add("firmware", myriad["firmware"] or "missing")
    report.add("libusb", found["libusb"] or "missing")
    report.add("sticks", ", ".join(f"MYRIAD.{stick}" for stick in myriad["sticks"]) or "none")


def compare(model: Path, device: str, seconds: float) -> list[str]:
    """Heads of ``model`` on ``device`` against this process's CPU, then pictures a second.

    Raises:
        DeviceError: the device cannot run it, or computes something else.
    """
    from ovyolo.devices import open_device
    from ovyolo.runtime import open_session

    here, card = open_session(model)
    there, _ = open_device(model, device, slots=None)
    lines = [f"  {model.name} on {there.device} ({', '.join(f'{k} {v}' for k, v in there.effective.items())})"]
    try:
        noise = np.random.default_rng(0).integers(0, 256, here.input_shape, np.uint8)
        for session in (here, there):
            session.input(0)[:] = noise
            session.submit(0)
        worst = 0.0
        for name, expected, value in zip(card.head.outputs, here.wait(0, 60), there.wait(0, 60), strict=True):
            error = float(np.abs(value - expected).max() / expected.std())
            lines.append(f"  {name:<12} differs from the CPU by {error:.1e} of its standard deviation at most")
            worst = max(worst, error)
        lines += _speed(there, seconds)
    finally:
        here.close()
        there.close()
    if not worst <= FP16_TOLERANCE:
        raise DeviceError(
            f"{device} computes other heads than the CPU: {worst:.1e} of the standard deviation, where FP16 costs up "
            f"to {FP16_TOLERANCE:g}; please report the lines of `ovyolo vpu check`"
        )
    return lines


def _speed(session: Any, seconds: float) -> list[str]:
    """All slots full: pictures a second; one at a time: the median."""
    one = []
    for _ in range(10):
        begin = time.perf_counter()
        session.submit(0)
        session.wait(0, 60)
        one.append(time.perf_counter() - begin)
    begin, done = time.perf_counter(), 0
    for slot in range(session.slots):
        session.submit(slot)
    while time.perf_counter() - begin < seconds:
        session.wait(done % session.slots, 60)
        session.submit(done % session.slots)
        done += 1
    rate = done / (time.perf_counter() - begin)
    for slot in range(session.slots):
        session.wait(slot, 60)
    return [f"  one at a time {1e3 * statistics.median(one):.1f} ms, {session.slots} at a time {rate:.1f} pictures/s"]


def summary() -> list[str]:
    """The state of Myriad support in a line or two, for ``ovyolo doctor``; no worker is started for it."""
    sticks = usb_sticks()
    plugged = "" if sticks is None else f"{len(sticks)} stick(s) plugged in; "
    try:
        environment = find_environment()
    except DeviceError:
        wanted = sticks or sticks is None
        remedy = "run `ovyolo vpu setup` to use one" if not wanted else "run `ovyolo vpu setup`"
        return [f"  {plugged}no old OpenVINO for sticks here: {remedy}"]
    lines = [f"  {plugged}OpenVINO {environment.release} in {environment.python.parent.parent}: `ovyolo vpu check`"]
    if sticks and not any(stick.allowed for stick in sticks):
        lines.append(
            f"  the stick may not be opened by this user: `ovyolo vpu check` says what to put into {RULE_FILE}"
        )
    return lines
