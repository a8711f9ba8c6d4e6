"""How fast a network will be once it is compressed: what counts is its form, not its weights, so it is known before any
training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["Form", "float_form", "int8_form"]

Form = Callable[[Network], "tuple[openvino.Model, Card]"]
"""From a network to what will run."""


def float_form(imgsz: tuple[int, int]) -> Form:
    """Networks that stay in floating point."""
    from ovyolo.export.graph import build_model

    return lambda network: build_model(network.checkpoint(Path("network.pt")), imgsz)


def int8_form(imgsz: tuple[int, int], pictures: Sequence[NDArray[np.uint8]], keep_float: Sequence[str] = ()) -> Form:
    """Networks that will get quantizers; the few ``pictures`` only give them some range."""
    from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
    from ovyolo.compress.qat.to_ir import trained_ir
    from ovyolo.train.fusing import fuse_batch_norms

    def form(network: Network) -> tuple[openvino.Model, Card]:
        quantized = insert_quantizers(fuse_batch_norms(network), picture_tensors(pictures), ignored=keep_float)
        return trained_ir(quantized, imgsz)

    return form
