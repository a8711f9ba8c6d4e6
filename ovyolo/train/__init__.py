"""Training: the network in PyTorch, YOLOv5's loss, the pictures, and the loop; the only rooms that import torch."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovyolo.train.api import TrainResult
    from ovyolo.train.settings import TrainSettings

__all__ = ["TrainSettings", "resume", "train"]


def train(*args: Any, **kwargs: Any) -> TrainResult:
    """See :func:`ovyolo.train.api.train`."""
    require_torch()
    from ovyolo.train import api

    return api.train(*args, **kwargs)


def resume(*args: Any, **kwargs: Any) -> TrainResult:
    """See :func:`ovyolo.train.api.resume`."""
    require_torch()
    from ovyolo.train import api

    return api.resume(*args, **kwargs)


def require_torch(extra: str = "train") -> None:
    """Raise TrainingError where PyTorch is not installed, with what to install."""
    from importlib.util import find_spec

    from ovyolo.errors import TrainingError

    if find_spec("torch") is None:
        raise TrainingError(f'this needs PyTorch, which is not installed: pip install "ovyolo[{extra}]"')


def __getattr__(name: str) -> Any:
    if name == "TrainSettings":
        require_torch()
        from ovyolo.train.settings import TrainSettings

        return TrainSettings
    raise AttributeError(name)


class _Room(ModuleType):
    """Lets ``ovyolo.train(...)`` mean :func:`train`, whether or not this package was imported before."""

    def __call__(self, *args: Any, **kwargs: Any) -> TrainResult:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
