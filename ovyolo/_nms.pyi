from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "HeadDecoder",
    "cpu_features",
    "decode_nms",
    "decode_nms_rows",
    "join_fragments",
    "matched",
    "merge",
    "nms",
    "set_merge_blocks",
    "set_simd_level",
    "simd_level",
]

_Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], bool, int]
_Transform = tuple[float, float, float, float, float, float]
_ClassMask = NDArray[np.bool_] | NDArray[np.uint8]

@final
class HeadDecoder:
    def __new__(
        cls,
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
    ) -> HeadDecoder: ...
    def __call__(self, heads: Sequence[NDArray[np.float32]], transform: _Transform | None = None) -> _Boxes: ...

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
def merge(
    xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    *,
    threshold: float,
    how: str = "nms",
    metric: str = "iou",
    agnostic: bool = False,
    sigma: float = 0.5,
    least: float = 0.001,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]: ...
def matched(
    xyxy: NDArray[np.float32],
    others: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None = None,
    other_classes: NDArray[np.int32] | None = None,
    *,
    threshold: float,
    metric: str = "iou",
    within: NDArray[np.float64] | None = None,
    slack: NDArray[np.float64] | None = None,
    scores: NDArray[np.float32] | None = None,
    other_scores: NDArray[np.float32] | None = None,
) -> NDArray[np.bool_]: ...
def join_fragments(
    xyxy: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    tile_ids: NDArray[np.int32],
    tiles: NDArray[np.float64],
    *,
    threshold: float,
    agnostic: bool = False,
) -> NDArray[np.int32]: ...
def cpu_features() -> tuple[str, ...]: ...
def set_merge_blocks(a_block: int = 1024, in_cache: int = 4096) -> None: ...
def simd_level() -> str: ...
def set_simd_level(name: str) -> None: ...
