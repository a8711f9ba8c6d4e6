from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cpu_features", "decode_nms", "decode_nms_rows", "nms", "set_simd_level", "simd_level"]

_Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], bool, int]
_Transform = tuple[float, float, float, float, float, float]
_ClassMask = NDArray[np.bool_] | NDArray[np.uint8]

def decode_nms(
    heads: Sequence[NDArray[np.float32]],
    anchors: ArrayLike,
    strides: ArrayLike,
    num_classes: int,
    *,
    conf: float,
    iou: float,
    max_det: int = 300,
    multi_label: bool = False,
    agnostic: bool = False,
    class_mask: _ClassMask | None = None,
    max_nms: int = 30000,
    transform: _Transform | None = None,
) -> _Boxes: ...
def decode_nms_rows(
    rows: NDArray[np.float32],
    num_classes: int,
    *,
    conf: float,
    iou: float,
    max_det: int = 300,
    multi_label: bool = False,
    agnostic: bool = False,
    class_mask: _ClassMask | None = None,
    max_nms: int = 30000,
    transform: _Transform | None = None,
    objectness: bool = True,
) -> _Boxes: ...
def nms(
    xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    *,
    iou: float,
    max_det: int | None = None,
    agnostic: bool = False,
) -> NDArray[np.int64]: ...
def cpu_features() -> tuple[str, ...]: ...
def simd_level() -> str: ...
def set_simd_level(name: str) -> None: ...
