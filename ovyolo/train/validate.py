"""Validation while training: the network becomes an IR in memory and is judged as ``ovyolo val`` judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ovyolo.card import Card
from ovyolo.dataset import DataSet
from ovyolo.evaluate.judge import Judge
from ovyolo.export.graph import build_model
from ovyolo.train.network import Network

__all__ = ["Validation", "card_of"]


def card_of(network: Network, imgsz: tuple[int, int]) -> Card:
    """What an export of the network will say of itself."""
    return build_model(network.checkpoint(Path("network.pt")), imgsz)[1]


class Validation:
    """Judges networks of one kind on one data set.

    Args:
        dataset: checked, with objects.
        network: of the kind.
        imgsz: ``(height, width)`` of the input in pixels.

    Raises:
        DataError: the classes do not fit together, or there is nothing to find.
    """

    def __init__(self, dataset: DataSet, network: Network, imgsz: tuple[int, int], *, skip_bad: bool = False) -> None:
        self.imgsz = imgsz
        self.judge = Judge(dataset, card_of(network, imgsz), skip_bad=skip_bad)

    def __call__(self, network: nn.Module) -> dict[str, Any]:
        """Figures in points of AP."""
        assert isinstance(network, Network)
        model, _ = build_model(network.checkpoint(Path("network.pt")), self.imgsz)
        return self.judge.score(self.judge.predict(model))
