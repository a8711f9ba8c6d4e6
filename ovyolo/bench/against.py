"""What another runtime would cost: the same pixels in, the same boxes out, in turn with ours.

A rival gets the letterboxed picture that our network gets, as the float RGB tensor that it takes (made by OpenCV's
``blobFromImage``), and its outputs go through our decoding and suppression, which is the fastest there is here: what is
compared is the runtime and the conversions that it forces upon a user, not his Python.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo._nms import decode_nms, decode_nms_rows
from ovyolo.bench.frames import Frames
from ovyolo.bench.latency import by_part
from ovyolo.bench.rivals import RUNTIMES, Runtime, open_runtime
from ovyolo.card import Card
from ovyolo.detections import Detections
from ovyolo.errors import DimensionError, ModelError
from ovyolo.letterbox import Letterbox, fitting

__all__ = ["Rival", "agreement", "parse_against"]

IOU = 0.45  # of suppression, as in Latency
SAME_IOU, SAME_PIXELS, SAME_SCORE = 0.9, 0.5, 0.05


def parse_against(against: Sequence[str], models: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """``runtime=file`` pairs; ``onnxruntime`` alone takes the ``.onnx`` that is measured itself.

    Raises:
        DimensionError: an unknown runtime, or no file for it.

    Example:
        >>> parse_against(["onnxruntime=a.onnx", "onnxruntime"], ["best.onnx"])
        [('onnxruntime', PosixPath('a.onnx')), ('onnxruntime', PosixPath('best.onnx'))]
    """
    pairs = []
    for text in against:
        name, _, file = text.partition("=")
        if name not in RUNTIMES:
            raise DimensionError(f"against is {text!r}; it takes RUNTIME=FILE with one of {', '.join(RUNTIMES)}")
        if not file:
            own = [str(model) for model in models if str(model).lower().endswith(".onnx")]
            if name != "onnxruntime" or len(own) != 1:
                raise DimensionError(
                    f"against {name} needs the model in its own format: {name}=FILE ({RUNTIMES[name][1]})"
                )
            file = own[0]
        pairs.append((name, Path(file)))
    return pairs


class Rival:
    """A model in another runtime; calling it takes the next frame through all parts and returns their milliseconds.

    Args:
        runtime: one of ``RUNTIMES``.
        path: its file.
        card: of our model: input size, classes, anchors.
        frames: the same frames as ours.
        threads: CPU threads; None leaves it to the runtime.
        conf: confidence above which boxes count, 0 to 1.

    Raises:
        OvyoloError: the runtime is missing, cannot load the file, or the file is no such network.
    """

    def __init__(
        self, runtime: str, path: Path, card: Card, frames: Frames, *, threads: int | None, conf: float
    ) -> None:
        self._path, self._card, self._frames, self._conf = path, card, frames, conf
        self._runtime: Runtime = open_runtime(runtime, path, threads)
        if self._runtime.imgsz not in (None, card.imgsz):
            raise ModelError(
                f"{path} takes pictures of {self._runtime.imgsz}, our model of {card.imgsz}: export both alike"
            )
        self.version = self._runtime.version
        self._picture = np.empty((*card.imgsz, 3), np.uint8)
        self.found: list[Detections] = []
        self.boxes = 0

    def __call__(self) -> dict[str, float]:
        import cv2

        begin = time.perf_counter()
        image = self._frames.next()
        read = time.perf_counter()
        fit = fitting((image.shape[0], image.shape[1]), self._card.imgsz)
        fit.into(image, self._picture)
        blob: Any = (
            cv2.dnn.blobFromImage(self._picture, 1 / 255, swapRB=True)
            if self._runtime.planes_first
            else np.multiply(self._picture[None, :, :, ::-1], np.float32(1 / 255), dtype=np.float32)
        )
        boxed = time.perf_counter()
        outputs = self._compute(blob)
        inferred = time.perf_counter()
        found = self._decode(outputs, fit)
        end = time.perf_counter()
        self.boxes = len(found)
        self.found.append(found)
        return by_part(begin, read, boxed, inferred, end)

    def close(self) -> None:
        """Close the source."""
        self._frames.close()

    def _compute(self, blob: NDArray[np.float32]) -> list[NDArray[Any]]:
        try:
            return self._runtime(blob)
        except Exception as error:  # each runtime has errors of its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(f"{self.version} failed to compute {self._path}: {reason}") from error

    def _decode(self, outputs: list[NDArray[Any]], fit: Letterbox) -> Detections:
        nc, head = self._card.num_classes, self._card.head
        settings: dict[str, Any] = {"conf": self._conf, "iou": IOU, "transform": fit.transform}
        rows = [output for output in outputs if output.ndim == 3 and output.shape[-1] == 5 + nc]
        planes = [self._planes(output) for output in outputs if output.ndim in (4, 5)]
        if rows:
            one = np.ascontiguousarray(rows[0], np.float32)
            if self._runtime.relative:
                height, width = self._card.imgsz
                one = one * np.array([width, height, width, height, *[1] * (1 + nc)], np.float32)
            found = decode_nms_rows(one, nc, **settings)
        elif head.kind == "anchors" and len(planes) == len(head.strides):
            planes.sort(key=lambda plane: -plane.shape[-1])  # finest first, as the card's strides are
            anchors = np.array(head.anchors, np.float32)
            found = decode_nms(planes, anchors, np.array(head.strides, np.float32), nc, **settings)
        else:
            shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
            raise ModelError(f"{self._path} returns {shapes}: neither rows of {5 + nc} numbers nor our model's heads")
        xyxy, confidence, class_id, truncated, nonfinite = found
        return Detections(
            xyxy, confidence, class_id, self._card.names, fit.source, bool(truncated), int(nonfinite), self.version
        )

    def _planes(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """A raw head as ``[1, na*(5+nc), H, W]``."""
        if output.ndim == 5:  # [1, na, H, W, 5+nc]
            output = output.transpose(0, 1, 4, 2, 3)
            output = output.reshape(1, -1, *output.shape[-2:])
        return np.ascontiguousarray(output, np.float32)


def agreement(ours: Sequence[Detections], theirs: Sequence[Detections]) -> tuple[int, int]:
    """How many boxes both found, and how many there are in all.

    The same is: same class, score within 0.05, and an IoU above 0.9 or all sides within half a pixel.

    Example:
        >>> one = Detections.from_arrays([[0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.5], [0, 1])
        >>> agreement([one], [one[:1]])
        (1, 2)
    """
    same = whole = 0
    for a, b in zip(ours, theirs, strict=False):
        left = list(range(len(b)))
        matched = 0
        for i in range(len(a)):
            hit = next((j for j in left if _alike(a, i, b, j)), None)
            if hit is not None:
                left.remove(hit)
                matched += 1
        same += matched
        whole += len(a) + len(left)
    return same, whole


def _alike(a: Detections, i: int, b: Detections, j: int) -> bool:
    if a.class_id[i] != b.class_id[j] or abs(a.confidence[i] - b.confidence[j]) > SAME_SCORE:
        return False
    (x1, y1, x2, y2), (u1, v1, u2, v2) = a.xyxy[i].tolist(), b.xyxy[j].tolist()
    if float(np.abs(a.xyxy[i] - b.xyxy[j]).max()) < SAME_PIXELS:  # also boxes that were clipped to a line
        return True
    inter = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
    return inter > SAME_IOU * ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)
