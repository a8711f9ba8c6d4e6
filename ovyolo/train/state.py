"""The state of a training as a file: plain tensors and text, written whole, refused when it is of something else."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ovyolo.errors import TrainingError, reason_of
from ovyolo.train.network import save_atomically
from ovyolo.train.settings import TrainSettings

__all__ = ["load_state", "save_state"]

FORMAT = "ovyolo-training"
VERSION = 1


def save_state(path: Path, settings: TrainSettings, state: dict[str, Any]) -> None:
    """Write ``state``, with the settings that it belongs to.

    Raises:
        CheckpointError: the file cannot be written.
    """
    save_atomically({"format": FORMAT, "version": VERSION, "settings": settings.to_json(), **state}, path)


def load_state(path: Path, settings: TrainSettings | None = None) -> dict[str, Any] | None:
    """What :func:`save_state` wrote; None where there is no file.

    Raises:
        TrainingError: it is damaged, or of other settings.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} cannot be read ({reason_of(error)}): train again in a new folder, from last.pt if it is whole"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
        raise TrainingError(f"{path} is no state of a training that this ovyolo reads: train again in a new folder")
    if settings is not None and TrainSettings.from_json(state["settings"]) != settings:
        raise TrainingError(f"{path} belongs to a training with other settings: train in a new folder")
    return state
