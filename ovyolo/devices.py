"""One way to every device: this process's OpenVINO, or a worker for what it no longer knows."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from ovyolo.card import Card
from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, DimensionError, OvyoloWarning
from ovyolo.runtime import OpenVINOSession, open_session, read_model
from ovyolo.vpu.environment import is_worker_device
from ovyolo.vpu.session import WorkerSession, open_worker_session

__all__ = ["open_device"]

_log = logging.getLogger("ovyolo.devices")

NPU_DRIVER = (
    "install Intel's NPU driver with its compiler (intel-level-zero-npu and intel-driver-compiler-npu) and see that "
    "you may use /dev/accel/accel0 (group render)"
    if sys.platform.startswith("linux")
    else "install Intel's NPU driver"
)
GPU_DRIVER = (
    "install Intel's GPU compute runtime (intel-opencl-icd) and see that you may use /dev/dri/renderD128 (group render)"
    if sys.platform.startswith("linux")
    else "install Intel's graphics driver"
)


def open_device(
    path: Path, device: str = "CPU", *, fallback: str | None = None, **settings: Any
) -> tuple[OpenVINOSession | WorkerSession, Card]:
    """Open the IR ``path`` on ``device``, whichever runtime it takes.

    Args:
        path: the ``.xml``.
        device: ``CPU``, ``GPU``, ``NPU`` (see :func:`ovyolo.runtime.open_session`), ``MYRIAD``, ``MYRIAD.<id>`` or
            ``LEGACY.CPU`` (see :func:`ovyolo.vpu.open_worker_session`).
        fallback: ``"CPU"``: when the device is not there or cannot run the model, compute there, with a warning.
        settings: as for those functions. On GPU and NPU compiled models are kept in the user's cache folder unless
            ``cache_dir`` names another, because compiling takes them long.

    What runs is in ``device`` of the session, and goes to the log ``ovyolo.devices``.

    Raises:
        OvyoloError: as those functions; of a missing driver it says which.
    """
    if fallback not in (None, "CPU"):
        raise DimensionError(f'fallback is {fallback!r}; it takes "CPU", or None to have no other device')
    try:
        session, card = _open(path, device, settings)
    except DeviceError as error:
        if fallback is None or device.strip().upper() == fallback:
            raise
        _log.warning("%s: %s; falling back to %s", path, error, fallback)
        warnings.warn(f"{error}; computing on {fallback} instead, as asked", OvyoloWarning, stacklevel=3)
        session, card = _open(path, fallback, settings)
    _log.info("%s runs on %s", path, session.device)
    return session, card


def _open(path: Path, device: str, settings: dict[str, Any]) -> tuple[OpenVINOSession | WorkerSession, Card]:
    kind = device.strip().upper().removeprefix("INTEL:").split(".")[0]
    if is_worker_device(device):
        return open_worker_session(path, device, **{k: v for k, v in settings.items() if k != "cache_dir"})
    if kind in ("GPU", "NPU"):
        from ovyolo.export.cached import cache_folder

        settings = {**settings, "cache_dir": settings.get("cache_dir") or cache_folder() / "compiled"}
        _refuse(path, kind)
    try:
        return open_session(path, device, **settings)
    except DeviceError as error:
        if remedy := _remedy(kind, str(error)):
            raise DeviceError(f"{error}: {remedy}") from error
        raise


def _refuse(path: Path, kind: str) -> None:
    """Raise DeviceError for what such a device is known not to compute, before it is asked."""

    from ovyolo.export.targets import objection

    if (reason := objection(read_model(path, shared_core())[0], kind)) is not None:
        raise DeviceError(f"{path} cannot run on {kind}: {reason}")


def _remedy(kind: str, text: str) -> str | None:
    """What to do about a GPU or NPU that is missing or has no compiler."""
    missing = "is not there" in text
    if kind == "GPU":
        return GPU_DRIVER if missing or "opencl" in text.lower() else None
    if kind != "NPU":
        return None
    if missing:
        return NPU_DRIVER
    compiler = any(words in text for words in ("compiler loading failed", "compiler_loader", "No available backend"))
    if compiler:
        return f"the NPU's compiler is missing: {NPU_DRIVER}"
    # some releases (2025.0) look for the device before they look for its compiler
    unseen = any(words in text for words in ("No available devices", "No NPU devices"))
    return f"the NPU is not seen: {NPU_DRIVER}" if unseen else None
