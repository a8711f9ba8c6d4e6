"""Whether the emitted graph computes what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ovyolo.evaluate.judge import run_pictures
from ovyolo.export.graph import build_model
from ovyolo.train.network import Network


def assert_graph_computes_the_same(network: Network, path: Path, size: tuple[int, int]) -> None:
    """Every head of ``network``, as if read from ``path``, for one picture of ``size`` pixels."""
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    model, card = build_model(network.checkpoint(path), size)
    assert len(card.head.outputs) == len(network.strides) == len(model.outputs)
    with torch.no_grad():
        x = torch.from_numpy(picture[None, ..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255
        expected = [head.numpy() for head in network(x)]
    (found,) = run_pictures(model, card, [picture])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 * max(1.0, float(np.abs(theirs).max())))
