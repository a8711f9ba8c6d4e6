"""Boxes of ONNX files and of models made from them, to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from ovyolo._nms import decode_nms, decode_nms_rows
from ovyolo.card import Card
from ovyolo.core import shared_core
from ovyolo.export.imported.reading import Runner


def original_rows(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The decoded output of an ONNX file for a u8 BGR picture, as YOLOv5 feeds it: RGB, 0 to 1."""
    model = shared_core().read_model(path)
    batch = 1 if model.input(0).partial_shape[0].is_dynamic else model.input(0).partial_shape[0].get_length()
    model.reshape([batch, 3, *image.shape[:2]])
    feed = (image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)
    kind = model.input(0).element_type.to_dtype()
    return Runner(model)([np.ascontiguousarray(np.broadcast_to(feed, (batch, *feed.shape))).astype(kind)])[0][:1]


def made_boxes(model: ov.Model, card: Card, image: np.ndarray[Any, Any], conf: float = 0.25) -> tuple[Any, ...]:
    outputs = Runner(model)([image[None]])
    if card.head.kind == "rows":
        return decode_nms_rows(outputs[0], card.num_classes, conf=conf, iou=0.45)
    anchors, strides = np.array(card.head.anchors, np.float32), np.array(card.head.strides, np.float32)
    return decode_nms(outputs, anchors, strides, card.num_classes, conf=conf, iou=0.45)


def share_matched(one: tuple[Any, ...], other: tuple[Any, ...], pixels: float, score: float) -> float:
    """The share of boxes that have a partner on the other side, in whatever order equal scores were left."""
    if not len(one[1]) or not len(other[1]):
        return 0.0
    near = np.abs(one[0][:, None] - other[0][None]).max(axis=2) <= pixels
    near &= np.abs(one[1][:, None] - other[1][None]) <= score
    near &= one[2][:, None] == other[2][None]
    return float(min(near.any(axis=1).mean(), near.any(axis=0).mean()))


def same_boxes(one: tuple[Any, ...], other: tuple[Any, ...], pixels: float = 0.05, score: float = 1e-3) -> bool:
    return len(one[1]) == len(other[1]) and share_matched(one, other, pixels, score) == 1
