"""The networks of a compression as they run: each becomes an IR, with quantizers and masks or without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import nn

from ovyolo.compress.qat.quantizers import is_quantized
from ovyolo.compress.qat.sparsify import is_sparse
from ovyolo.compress.qat.to_ir import trained_ir
from ovyolo.evaluate.predictions import Predictions
from ovyolo.train.loop import Figures
from ovyolo.train.network import Network
from ovyolo.train.validate import Validation

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["StepValidation", "form_of"]

Looked: TypeAlias = "tuple[openvino.Model, Card, Predictions]"


def form_of(network: Network, imgsz: tuple[int, int]) -> tuple[openvino.Model, Card]:
    """The network as it runs."""
    if is_quantized(network) or is_sparse(network):
        return trained_ir(network, imgsz)
    from ovyolo.export.graph import build_model

    return build_model(network.checkpoint(Path("network.pt")), imgsz)


class StepValidation(Validation):
    """Judges networks by the IR that they become, with quantizers and masks or without."""

    def __call__(self, network: nn.Module) -> Figures:
        """Figures in points of AP."""
        assert isinstance(network, Network)
        return self.figures(network, self.boxes(network))

    def boxes(self, network: Network) -> Predictions:
        """What the network finds in the validation pictures."""
        return self.look(network)[2]

    def look(self, network: Network) -> Looked:
        """What the network becomes, and finds in the validation pictures."""
        model, card = form_of(network, self.imgsz)
        return model, card, self.judge.predict(model, card=card)

    def figures(self, network: Network, found: Predictions) -> Figures:
        """Figures in points of AP of what ``network`` found."""
        return self.judge.score(found)
