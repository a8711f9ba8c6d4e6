"""What a file is when it is not a YOLOv5 detector, in words that help its owner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["REMEDY", "describe", "suppresses"]

REMEDY = (
    "ovyolo runs anchor-based YOLOv5 detectors: export their .pt, or an .onnx or .xml that YOLOv5's own exporter made "
    "without NMS"
)
NMS_OPERATIONS = {
    "NonMaxSuppression", "NonMaxSuppressionIEInternal", "NMSRotated", "MulticlassNms", "MatrixNms", "TopK",
    "DetectionOutput", "ExperimentalDetectronDetectionOutput",
}  # fmt: skip


def suppresses(operations: Iterable[str]) -> bool:
    """Whether one of ``operations`` picks boxes inside the graph."""
    return bool(NMS_OPERATIONS.intersection(operations))


def describe(
    shapes: Sequence[Sequence[int]], operations: Iterable[str], imgsz: tuple[int, int], reason: str = ""
) -> str:
    """What a graph with outputs of ``shapes`` (-1 for unknown) and ``operations`` behind them seems to be.

    ``reason`` is what is said where its outputs have the shapes of a YOLOv5 detector.
    """
    suppression = sorted(NMS_OPERATIONS.intersection(operations))
    if suppression:
        return f"it picks its boxes inside the graph ({', '.join(suppression)}), as end-to-end detectors do"
    text = ", ".join(str(list(shape)) for shape in shapes)
    boxes = next((shape for shape in shapes if len(shape) == 3), (0, 0, 0))
    # one box a cell on the usual strides, as detectors without anchors have
    strides = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
    cells = [sum(imgsz[0] // stride * (imgsz[1] // stride) for stride in levels) for levels in strides]
    if any(len(shape) == 2 for shape in shapes):
        return f"its output {text} is that of a classifier, not of a detector"
    if boxes[0] and any(len(shape) == 4 and shape[1] == 32 for shape in shapes):
        return f"its outputs {text} hold mask prototypes: it is a segmentation model"
    if boxes[2] in cells:
        return f"its output {text} is that of YOLOv8 or later (Ultralytics), without anchors and objectness"
    if boxes[1] in cells:
        return f"its output {text} has one box a cell, without anchors, as YOLOX and YOLOv6 have"
    if boxes[2] in (6, 7) and 0 < boxes[1] <= 1000:
        return f"its output {text} holds boxes that were picked inside the graph already"
    return f"its output {text} is not that of a YOLOv5 detector" + (f": {reason}" if reason else "")
