"""Where a model can run: what each kind of device refuses is told when the file is made, before any device is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovyolo.errors import DeviceError

if TYPE_CHECKING:
    import openvino

__all__ = ["KINDS", "objection", "runs_on"]

KINDS = ("CPU", "GPU", "NPU", "MYRIAD")


def objection(model: openvino.Model, device: str) -> str | None:
    """Why ``model`` cannot run on ``device`` and what to do; None when nothing is known to speak against it.

    Args:
        model: the network.
        device: a kind of device, also with a number or id: ``"MYRIAD.1.2-ma2480"``.

    Raises:
        DeviceError: the kind is not one of :data:`KINDS`.
    """
    from ovyolo.export.imported.reading import weights_precision

    kind = device.strip().upper().removeprefix("INTEL:").split(".")[0]
    if kind not in KINDS:
        raise DeviceError(f"device {device!r} is not a kind of device that is known: {', '.join(KINDS)}")
    if kind in ("NPU", "MYRIAD") and model.is_dynamic():
        return f"it has dynamic shapes, which {kind} cannot compute: export it at a fixed input size (imgsz)"
    if kind == "MYRIAD" and weights_precision(model) == "INT8":
        return "it is INT8, which a Myriad stick cannot compute: use the FP16 file that it was quantized from"
    if kind == "NPU" and (batch := int(model.input(0).get_shape()[0])) != 1:
        return f"its batch is {batch}, but NPU computes one picture at a time: export it again"
    return None


def runs_on(model: openvino.Model) -> str:
    """The releases and devices for which the file is made, as the card says it.

    A device in this list may still lack what it needs on a machine: a driver, a stick.
    """
    from ovyolo.export.opsets import oldest_release

    release = oldest_release(model)
    # the last Myriad plugins that can be had are those of 2021.4 and 2022.2
    kinds = [k for k in KINDS if objection(model, k) is None and (k != "MYRIAD" or release in ("2021.4", "2022.1"))]
    return f"OpenVINO {release} and later, on {', '.join(kinds)}"
