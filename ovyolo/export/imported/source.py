"""An ``.onnx`` or ``.xml`` file's network at one size, and what its outputs are."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovyolo.errors import ExportError, UnsupportedModelError, reason_of
from ovyolo.export.imported.cut import operations_behind
from ovyolo.export.imported.input_stage import find_stage
from ovyolo.export.imported.quantized import drop_behind_heads, join_quantizers, take_stored
from ovyolo.export.imported.reading import float32_graph, weights_precision
from ovyolo.export.imported.refusals import REMEDY, describe, suppresses

__all__ = ["Source"]

DEFAULT_SIDE = 640
LARGEST_SIDE = 16384


class Source:
    """A file's network, made static: as the file has it, and as a graph to work on.

    Attributes:
        original: the network as it is.
        exact: the same in FP32; quantizers before the heads stay.
        stored: how weights in 8 bits are stored, by layer; ``exact`` and ``work`` have them in FP32.
        eased: how many quantizers behind the heads were left out of both.
        work: that again, to be changed.
        outputs: the values in ``work`` that are its outputs.
        unexplained: outputs that nobody has accounted for yet.
        decoded: which of them is the decoded output ``[N, R, 5+nc]``; None where all are raw heads.
        imgsz: ``(height, width)`` of its input in pixels.
        precision: what its weights are stored in.
        stage: how its input is prepared.

    Args:
        original: the network.
        imgsz: for one whose input is of no fixed size.
        rgb: its kind of file takes RGB unless it says otherwise.

    Raises:
        UnsupportedModelError: its outputs are not those of a YOLOv5 detector.
        ExportError: it does not work at that size, or its preprocessing is not understood.
    """

    def __init__(self, original: ov.Model, imgsz: tuple[int, int] | None, *, rgb: bool = False) -> None:
        self.precision = weights_precision(original)
        _make_static(original, imgsz)
        self.original = original
        self.exact = original.clone()
        self.stored = take_stored(self.exact) if self.quantized else {}
        float32_graph(self.exact)
        self.eased = 0
        if self.quantized:
            join_quantizers(self.exact)
            self.eased = drop_behind_heads(self.exact)
        self.work = self.exact.clone()
        self.outputs = [result.input_value(0) for result in self.work.get_results()]
        self.unexplained = list(self.outputs)
        self._operations = {node.get_type_name() for node in operations_behind(self.outputs)}
        self._shapes = [
            [int(d.get_length()) if d.is_static else -1 for d in o.partial_shape]
            if o.partial_shape.rank.is_static
            else []
            for o in original.outputs
        ]
        shape = list(original.input(0).get_shape())
        self.imgsz = (shape[2], shape[3]) if len(shape) == 4 and shape[1] == 3 else (shape[1], shape[2])
        ranks = [len(shape) for shape in self._shapes]
        self.decoded = ranks.index(3) if ranks.count(3) == 1 else None
        raw = all(rank in (4, 5) for rank in ranks)
        if suppresses(self._operations) or any(-1 in s for s in self._shapes) or (self.decoded is None and not raw):
            raise self.refusal()
        if self.decoded is not None:
            del self.unexplained[self.decoded]
        self.stage = find_stage(self.work, rgb=rgb)

    def feed(self, image: NDArray[np.uint8], model: ov.Model) -> list[NDArray[Any]]:
        """The u8 BGR ``image`` as ``model``, which is ``original`` or ``exact``, takes it."""
        return [self.stage.feed(image, model.get_parameters()[0])]

    @property
    def halved(self) -> bool:
        """Whether it takes or returns FP16, which is too coarse to compare boxes of."""
        return any(port.element_type == ov.Type.f16 for port in (*self.original.inputs, *self.original.outputs))

    @property
    def quantized(self) -> bool:
        """Whether it computes in INT8."""
        return self.precision == "INT8"

    def refusal(self, reason: str = "") -> UnsupportedModelError:
        """The error that says what the file is; ``reason`` is used where that cannot be told from its outputs."""
        text = describe(self._shapes, self._operations, self.imgsz, reason)
        return UnsupportedModelError(f"{text}; {REMEDY}")


def _make_static(model: ov.Model, imgsz: tuple[int, int] | None) -> None:
    """Give ``model`` a static input, in place, where it left something open."""
    if len(model.inputs) != 1:
        raise UnsupportedModelError(f"it has {len(model.inputs)} inputs, where a detector has one; {REMEDY}")
    shape = model.input(0).partial_shape
    if shape.rank.is_dynamic or len(shape) != 4:
        raise UnsupportedModelError(f"its input {shape} is not a picture; {REMEDY}")
    if any(d.is_static and d.get_length() > LARGEST_SIDE for d in shape):
        raise UnsupportedModelError(f"its input {shape} is larger than {LARGEST_SIDE} pixels a side")
    if shape.is_static:
        return
    nhwc = shape[3].is_static and shape[3].get_length() == 3 and not (shape[1].is_static and shape[1].get_length() == 3)
    height, width = imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)
    wanted = [1, height, width, 3] if nhwc else [1, 3, height, width]
    filled = [d.get_length() if d.is_static else size for d, size in zip(shape, wanted, strict=True)]
    try:
        model.reshape(filled)
    except RuntimeError as error:
        raise ExportError(
            f"it cannot take an input of {height} x {width} pixels: choose another imgsz, a multiple of its largest "
            f"stride, usually 32 ({reason_of(error)})"
        ) from error
