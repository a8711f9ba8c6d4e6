"""SAHI's sliced prediction on an IR of ovyolo's, for ``tiles.py``: with two kinds of detector.

"As users write it": the same network with YOLOv5's decoding in the graph (what its exporter makes), letterboxed with
OpenCV, filtered by NumPy and suppressed by ``cv2.dnn``, at most 300 boxes a slice. "ovyolo's detector": our own
letterbox, native decode and NMS, so that what differs is slicing, scheduling, prediction objects and merging. Both are
subclasses of SAHI's DetectionModel and are called slice by slice; merging is at SAHI's defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from decode_nms import with_opencv
from graph import request_for, usual_model
from numpy.typing import NDArray

from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.detector import model_file
from ovyolo.letterbox import Letterbox
from ovyolo.runtime import open_session

__all__ = ["MAX_DET", "sahi_way"]

MAX_DET = 3000  # boxes a tile, of ovyolo's detector
Image = NDArray[np.uint8]
Rows = list[tuple[list[float], float, int]]


def as_users_write_it(path: Path, conf: float, precision: str) -> tuple[Callable[[Image], Rows], tuple[str, ...]]:
    model, card = usual_model(path)
    request = request_for(model, precision=precision)
    height, width = card.imgsz

    def detect(image: Image) -> Rows:
        h, w = image.shape[:2]
        gain = min(height / h, width / w)
        inner = round(w * gain), round(h * gain)
        resized = image if inner == (w, h) else cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        right, bottom = width - inner[0] - left, height - inner[1] - top
        padded = cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))
        # scale and channel order lie in the first convolution, as in ovyolo's own
        planes = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)
        request.infer([planes], share_inputs=True)
        xyxy, scores, labels = with_opencv(request.get_output_tensor(0).data, conf, 0.6, conf < 0.1)
        xyxy = np.clip((xyxy - [left, top, left, top]) / gain, 0, [w, h, w, h])
        return list(zip(xyxy.tolist(), scores.tolist(), labels.tolist(), strict=True))

    return detect, card.names


def with_our_detector(
    path: Path, conf: float, precision: str, stack: ExitStack
) -> tuple[Callable[[Image], Rows], tuple[str, ...]]:
    session, card = open_session(path, slots=1, precision=precision)
    stack.callback(session.close)
    decode = partial(
        Decoder(card), conf=conf, iou=0.6, max_det=MAX_DET, multi_label=conf < 0.1, device=session.device
    )  # fmt: skip

    def detect(image: Image) -> Rows:
        fit = Letterbox((image.shape[0], image.shape[1]), card.imgsz)
        fit.into(image, session.input(0)[0])
        session.submit(0)
        found = decode(session.wait(0), fit)
        return list(zip(found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True))

    return detect, card.names


def sahi_way(
    path: Path, tile: int, full: bool, *, native: bool, conf: float, precision: str, stack: ExitStack
) -> Callable[[Image], Detections]:
    """SAHI over a picture, its detector being ovyolo's (``native``) or one as its users write it."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    file = model_file(path, None, None)
    detect, names = (
        with_our_detector(file, conf, precision, stack) if native else as_users_write_it(file, conf, precision)
    )

    class Detector(DetectionModel):
        def load_model(self) -> None:
            self.model = detect

        @property
        def num_categories(self) -> int:
            return len(names)

        def perform_inference(self, image: Image) -> None:
            self._original_predictions = detect(image)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            shift = shift_amount_list[0] if isinstance(shift_amount_list[0], (list, tuple)) else shift_amount_list
            full_shape = full_shape_list[0] if isinstance(full_shape_list[0], (list, tuple)) else full_shape_list
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box, category_id=kind, category_name=names[kind], score=confidence,
                        shift_amount=shift, full_shape=full_shape,
                    )
                    for box, confidence, kind in self._original_predictions
                    if box[2] > box[0] and box[3] > box[1]
                ]
            ]  # fmt: skip

    model = Detector(model_path=str(path), confidence_threshold=conf, device="cpu")

    def look(image: Image) -> Detections:
        result = get_sliced_prediction(
            image, model, slice_height=tile, slice_width=tile, overlap_height_ratio=0.2, overlap_width_ratio=0.2,
            perform_standard_pred=full, verbose=0,
        )  # fmt: skip
        rows = [(*one.bbox.to_xyxy(), one.score.value, one.category.id) for one in result.object_prediction_list]
        table = np.array(rows, float).reshape(-1, 6)
        order = np.argsort(-table[:, 4], kind="stable")
        return Detections.from_arrays(table[order, :4], table[order, 4], table[order, 5], names)

    return look
