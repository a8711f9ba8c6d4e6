"""How a compression's file gets as small as it is to be: by wider steps of the quantized weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovyolo.compress.forms import form_of
from ovyolo.compress.qat.compensate import round_weights
from ovyolo.compress.qat.widen import choose_widths, harms_of, shapes_of, widths_at, zipped_sizes
from ovyolo.compress.stages import Stages
from ovyolo.compress.tuning import fresh
from ovyolo.errors import TargetError
from ovyolo.export.portable import file_sizes, save_ir
from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card
    from ovyolo.compress.pipeline import Compression

__all__ = ["WIDER", "with_wider_steps"]

WIDER = "steps are wider, times"
SLACK = 0.98  # of the limit: training moves the weights a little
ROUNDS = 4


def with_wider_steps(run: Compression, quantized: Network) -> Network:
    """A copy of ``quantized`` whose file is as small as the recipe's ``size`` asks; the widths are journaled.

    Args:
        run: whose recipe and original; some of its calibration pictures say what the layers bear.
        quantized: with quantizers, not trained yet.

    Raises:
        TargetError: it cannot become that small; says how near it came.
    """
    assert run.recipe.size is not None
    whole = _zipped(*form_of(run.dense.to("cpu"), run.imgsz), run.folder)
    limit = SLACK * run.recipe.size * whole
    model, card = form_of(quantized, run.imgsz)
    pictures = run.pictures_to_calibrate()
    shapes = shapes_of(quantized, pictures)
    sizes = zipped_sizes(quantized, shapes)
    with Stages(run.quiet).stage("what wider steps cost", len(sizes), "layer") as tell:
        harms = harms_of(quantized, pictures, card, tell, shapes)
    widths: dict[str, Any] = {}
    network, found = quantized, _zipped(model, card, run.folder)
    around = float(found - sum(size[0] for size in sizes.values()))
    for _ in range(ROUNDS):  # what is around the weights, and their zip as one file, are only known from the file
        if found <= limit:
            break
        try:
            chosen = choose_widths(sizes, harms, limit - around)
        except TargetError as error:
            least = (sum(min(size) for size in sizes.values()) + around) / (SLACK * whole)
            raise TargetError(
                f"the file cannot be {run.recipe.size:g} of the original's {whole / 1e6:.2f} MB, both zipped: {error}; "
                f"ask for a size of {np.ceil(100 * least) / 100:g}, or for fewer channels"
            ) from error
        widths = {name: widths_at(shapes, name, width) for name, width in chosen.items()}
        network = fresh(quantized).eval()
        round_weights(network, widths, pictures)
        found = _zipped(*form_of(network, run.imgsz), run.folder)
        around += max(0.0, found - limit)
    run.journal.keep(WIDER, widths)
    return network


def _zipped(model: openvino.Model, card: Card, beside: Path) -> int:
    """Bytes of a network's file, zipped."""
    with tempfile.TemporaryDirectory(prefix=".size-", dir=beside) as folder:
        return file_sizes(save_ir(model, card, Path(folder) / "network.xml"))[1]
