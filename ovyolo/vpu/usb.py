"""Sticks as the operating system sees them (Linux), and whether we may open them: it takes no driver or library."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RULE", "RULE_FILE", "UsbStick", "rule_files", "usb_sticks"]

VENDOR = "03e7"
RULE_FILE = "/etc/udev/rules.d/97-myriad-usbboot.rules"
RULE = f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{VENDOR}", MODE="0666", ENV{{ID_MM_DEVICE_IGNORE}}="1"'


@dataclass(frozen=True)
class UsbStick:
    """A stick on the bus: ``product`` is 2485 (or 2150) before it is booted, f63b after."""

    product: str
    node: Path
    speed: str
    """Mbit/s: 480 is USB 2, 5000 is USB 3."""

    @property
    def allowed(self) -> bool:
        """Whether this user may open it."""
        return os.access(self.node, os.R_OK | os.W_OK)


def usb_sticks(root: Path = Path("/sys/bus/usb/devices"), nodes: Path = Path("/dev/bus/usb")) -> list[UsbStick] | None:
    """The sticks on the bus; None where this system cannot say."""
    if not sys.platform.startswith("linux") or not root.is_dir():
        return None
    found = []
    for folder in sorted(root.iterdir()):
        if _read(folder / "idVendor") == VENDOR:
            bus, number = _read(folder / "busnum"), _read(folder / "devnum")
            node = nodes / bus.zfill(3) / number.zfill(3)
            found.append(UsbStick(_read(folder / "idProduct"), node, _read(folder / "speed")))
    return found


def rule_files(
    folders: tuple[str, ...] = ("/etc/udev/rules.d", "/lib/udev/rules.d", "/run/udev/rules.d"),
) -> list[Path]:
    """The files with udev rules that mention the stick's vendor."""
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.rules"))]
    return [path for path in files if VENDOR in _read(path).lower()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
