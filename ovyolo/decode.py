"""From raw network outputs to :class:`~ovyolo.Detections`: the card says how, the extension does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo._nms import HeadDecoder, decode_nms_rows
from ovyolo.card import Card
from ovyolo.detections import Detections
from ovyolo.errors import DimensionError
from ovyolo.letterbox import Letterbox

__all__ = ["Decoder"]


class Decoder:
    """Decodes and suppresses the outputs of the model that ``card`` describes.

    Example:
        >>> import numpy as np
        >>> from ovyolo.card import Card, Head
        >>> head = Head("anchors", ("head0",), (32,), (((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),))
        >>> decode = Decoder(Card(("scratch",), (64, 64), head))
        >>> nothing = np.full((1, 18, 2, 2), -9, np.float32)
        >>> len(decode([nothing], Letterbox((480, 640), (64, 64)), conf=0.25, iou=0.45))
        0
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        self._anchors = np.array(card.head.anchors, np.float32)
        self._strides = np.array(card.head.strides, np.float32)
        self._last: tuple[dict[str, Any], NDArray[np.uint8] | None, HeadDecoder] | None = None

    def class_mask(self, classes: Sequence[int] | None) -> NDArray[np.uint8] | None:
        """``classes`` as a mask over all classes; None keeps all.

        Raises:
            DimensionError: a class is not one of the model's.
        """
        if classes is None:
            return None
        mask = np.zeros(self.card.num_classes, np.uint8)
        for class_id in classes:
            if not 0 <= class_id < self.card.num_classes:
                raise DimensionError(
                    f"class {class_id} is not one of the model's: it has 0 to {self.card.num_classes - 1}"
                )
            mask[class_id] = 1
        return mask

    def __call__(
        self,
        outputs: Sequence[NDArray[np.float32]],
        fit: Letterbox,
        *,
        conf: float = 0.25,
        iou: float = 0.45,
        class_mask: NDArray[np.uint8] | None = None,
        agnostic: bool = False,
        max_det: int = 300,
        multi_label: bool = False,
        device: str = "",
    ) -> Detections:
        """Boxes in pixels of the source picture that ``fit`` letterboxed.

        Args:
            outputs: the network's outputs in the card's order, float32.
            fit: where the source picture lies in the network's input.
            conf: candidates need more confidence than this, 0 to 1.
            iou: a box that overlaps a better one of its class by more than this is suppressed, 0 to 1.
            class_mask: from :meth:`class_mask`; not to be changed afterwards.
            agnostic: suppress across classes.
            max_det: at most so many boxes.
            multi_label: every class above ``conf`` makes a box, not only a cell's best.
            device: noted in the result.

        Raises:
            DimensionError: an argument is out of range, or an output is not what the card says.
        """
        settings: dict[str, Any] = {
            "conf": conf, "iou": iou, "max_det": max_det, "multi_label": multi_label, "agnostic": agnostic
        }  # fmt: skip
        if self.card.head.kind == "anchors":
            found = self._kernel(settings, class_mask)(outputs, fit.transform)
        else:
            found = decode_nms_rows(
                outputs[0], self.card.num_classes, **settings, class_mask=class_mask, transform=fit.transform
            )
        xyxy, confidence, class_id, truncated, nonfinite = found
        return Detections(xyxy, confidence, class_id, self.card.names, fit.source, truncated, nonfinite, device)

    def _kernel(self, settings: dict[str, Any], class_mask: NDArray[np.uint8] | None) -> HeadDecoder:
        """The kernel for these settings; the last is kept, because picture after picture has the same."""
        last = self._last
        if last is None or last[0] != settings or last[1] is not class_mask:
            kernel = HeadDecoder(self._anchors, self._strides, self.card.num_classes, **settings, class_mask=class_mask)
            self._last = last = settings, class_mask, kernel
        return last[2]
