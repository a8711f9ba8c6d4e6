"""Every known failure of a Myriad runtime in one sentence, with the remedy."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from ovyolo.errors import reason_of
from ovyolo.vpu.environment import Environment
from ovyolo.vpu.usb import RULE, RULE_FILE, usb_sticks

__all__ = ["explain", "no_stick"]

NO_PERMISSION = (
    "failed to find booted device",
    "device is not opened",
    "nc_error",
    "access denied",
    "insufficient perm",
)
_LAYER = re.compile(r"Failed to compile layer \"([^\"]+)\": (.*)", re.DOTALL)
_KIND = re.compile(r"unsupported layer type \"([^\"]+)\"")


def explain(text: str, device: str, model: Path, environment: Environment) -> str:
    """What the runtime's words ``text`` mean for who asked for ``device``, and what to do.

    Example:
        >>> print(explain('Device with "MYRIAD" name is not registered', "MYRIAD", Path("a.xml"),
        ...               Environment(Path("/v/bin/python"), "2022.2.0")))
        the Myriad plugin is missing in /v: run `ovyolo vpu setup`
    """
    folder, lower = environment.python.parent.parent, text.lower()
    if "libusb" in lower:
        return libusb_missing(folder)
    if "not registered" in lower or ("myriad" in lower and "cannot load library" in lower):
        return f"the Myriad plugin is missing in {folder}: run `ovyolo vpu setup`"
    if layer := _LAYER.search(text):
        kind = _KIND.search(layer[2])
        why = f"a stick has no {kind[1]}" if kind else reason_of(RuntimeError(layer[2]))
        return f"{model} cannot run on a Myriad stick: its layer {layer[1]} is not supported ({why}): use another model"
    if "dynamic" in lower:
        return f"{model} cannot run on a Myriad stick: it has dynamic shapes: export it at a fixed input size (imgsz)"
    if device.upper().startswith("MYRIAD") and any(words in lower for words in NO_PERMISSION):
        return no_permission(device)
    if re.search(r"myriad device: \S+ not found", lower):
        return f'the stick {device} is gone: plug it in again, or use device="MYRIAD" for any'
    return f"device {device} cannot run {model}: {reason_of(RuntimeError(text))}"


def no_permission(device: str) -> str:
    """A stick is there and cannot be opened."""
    sentence = f"a stick is plugged in but {device} cannot be opened: no permission, or another program has it"
    if sys.platform.startswith("linux"):
        sentence += (
            f": put the line {RULE} into {RULE_FILE}, "
            "run `sudo udevadm control --reload-rules && sudo udevadm trigger`, and plug the stick in again"
        )
    else:
        sentence += ": end other programs that use it, and plug it in again"
    return sentence


def libusb_missing(folder: Path) -> str:
    """The plugin cannot load without it."""
    return (
        f"the Myriad plugin in {folder} needs libusb: run `ovyolo vpu setup` again, "
        "or `sudo apt-get install libusb-1.0-0`"
    )


def no_stick(found: dict[str, Any], device: str, environment: Environment) -> str:
    """Why the sticks that a probe ``found`` do not hold ``device``."""
    folder, myriad = environment.python.parent.parent, found["myriad"]
    if myriad["plugin"] is None:
        return f"the Myriad plugin is missing in {folder}: run `ovyolo vpu setup`"
    if found["libusb"] is None:
        return libusb_missing(folder)
    if myriad["problem"]:
        return explain(myriad["problem"], device, Path("the model"), environment)
    if myriad["sticks"]:
        return f"there is no stick {device}; there are: {', '.join('MYRIAD.' + stick for stick in myriad['sticks'])}"
    on_bus = usb_sticks()
    if on_bus:
        return no_permission(device)
    return (
        "no Myriad stick is plugged in (USB vendor 03e7): plug one in, into a USB 3 port without a hub, "
        "and run `ovyolo vpu check`"
    )
