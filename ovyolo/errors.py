"""The errors that ovyolo raises.

Every error of ours is an :class:`OvyoloError`. Its message is one sentence or two that name the file or argument,
say what is wrong with it, and what to do. Commands print it after ``error:`` and exit with status 2.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DimensionError",
    "ExportError",
    "ImageError",
    "ModelError",
    "OvyoloError",
    "OvyoloWarning",
    "TargetError",
    "TrainingError",
    "UnsafeCheckpointError",
    "UnsupportedModelError",
    "reason_of",
    "require",
]


class OvyoloError(Exception):
    """Root of every error that ovyolo raises on purpose."""


class CheckpointError(OvyoloError):
    """A checkpoint file is missing, damaged, or is not a checkpoint at all."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint asks for something that only code could do; nothing of it was executed."""


class UnsupportedModelError(OvyoloError):
    """A file is intact, but what it holds is not a detector that ovyolo can run."""


class ExportError(OvyoloError):
    """A model was understood, but could not be turned into an IR that computes the same."""


class ModelError(OvyoloError):
    """An IR cannot be read, does not explain itself (no card), or broke while running."""


class DeviceError(OvyoloError):
    """The device that was asked for is not there or cannot run the model."""


class ImageError(OvyoloError):
    """A picture or video cannot be read or is not a picture."""


class DataError(OvyoloError):
    """A data.yaml, label file or other description of data is missing or inconsistent."""


class TrainingError(OvyoloError):
    """A training cannot go on: its numbers or memory ran out, or its state cannot be read."""


class DimensionError(OvyoloError, ValueError):
    """An argument or array has the wrong shape, dtype, range or size."""


class TargetError(OvyoloError):
    """What was asked of a compression cannot be reached; the message says how near it came."""


class OvyoloWarning(UserWarning):
    """Something was odd but work went on: the message says what and what it cost."""


def reason_of(error: Exception) -> str:
    """The telling line of a foreign error, such as OpenVINO's, without source locations and shortened.

    Example:
        >>> from ovyolo.errors import reason_of
        >>> reason_of(RuntimeError("Exception from src/core.cpp:124:\\nCheck 'a' failed\\nthe file is empty"))
        'the file is empty'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "While "))]
    text = (telling or lines or [type(error).__name__])[-1]
    return text if len(text) <= 200 else text[:197] + "..."


def require(holds: bool, name: str, value: Any, takes: str) -> None:
    """Raise DimensionError unless the argument ``name`` with this ``value`` ``holds``; ``takes`` says what it may be.

    Example:
        >>> from ovyolo.errors import require
        >>> require(True, "epochs", 3, "a whole number from 1")
    """
    if not holds:
        raise DimensionError(f"{name} is {value}; it takes {takes}")
