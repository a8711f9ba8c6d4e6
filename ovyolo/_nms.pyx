"""Decoding of YOLOv5 heads and non-maximum suppression, with the GIL released.

The Python functions here check everything that a caller passes; the kernels behind them (``_nms_*.pxi``, ``_simd.h``)
rely on that, allocate bounded scratch memory, and report failure by return codes.
"""

cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.float cimport FLT_MAX
from libc.math cimport INFINITY, ceil, exp, fabs, fabsf, floor, frexp, isfinite, ldexp, sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset, strcmp

import operator

import numpy as np

from ovyolo.errors import DimensionError

__all__ = [
    "HeadDecoder", "cpu_features", "decode_nms", "decode_nms_rows", "join_fragments", "matched", "merge", "nms",
    "set_merge_blocks", "set_simd_level", "simd_level",
]

cdef extern from "_simd.h" nogil:
    enum:
        OVYOLO_PLAIN
        OVYOLO_SSE2
        OVYOLO_AVX2

    ctypedef struct ovyolo_block:
        float x1[8]
        float y1[8]
        float x2[8]
        float y2[8]
        float area[8]
        int32_t used
        int32_t class_id
        int32_t level
        int32_t next[2]

    ctypedef struct ovyolo_box:
        float x1
        float y1
        float x2
        float y2
        float area

    int64_t ovyolo_scan(const float*, int64_t, const float*, float, int32_t*, uint8_t*)
    uint32_t ovyolo_best(const float*, int64_t, int32_t, int, const int32_t*, const int32_t*, float*, int32_t*)
    int64_t ovyolo_hits(
        const float*, const int32_t*, const float*, const uint8_t*, int64_t, int, int64_t, int32_t*, uint8_t*)
    bint ovyolo_chain(const ovyolo_block*, int32_t, int, int32_t, const ovyolo_box*, float)
    int ovyolo_widest_level()
    void ovyolo_use_level(int)

cdef extern from "_steps.h" nogil:
    uint32_t ovyolo_ordered(float)
    float ovyolo_unordered(uint32_t)
    void ovyolo_prefetch(const void*)
    int ovyolo_lowest_bit(uint32_t)
    bint ovyolo_touches(const float*, const double*, const double*)
    void ovyolo_cells(const double*, const double*, int32_t*)

include "_nms_sort.pxi"
include "_nms_kept.pxi"
include "_nms_work.pxi"
include "_nms_heads.pxi"
include "_nms_check.pxi"
include "_nms_call.pxi"
include "_nms_decoder.pxi"
include "_nms_cpu.pxi"
include "_nms_grid.pxi"
include "_nms_search.pxi"
include "_nms_merge.pxi"
include "_nms_greedy.pxi"
include "_nms_soft.pxi"
include "_nms_fragments.pxi"
include "_nms_merge_call.pxi"


def decode_nms(
    heads, anchors, strides, num_classes, *, conf, iou, max_det=300, multi_label=False, agnostic=False,
    class_mask=None, max_nms=30000, transform=None,
):
    """Turn the raw heads of an anchor-based YOLOv5 detector into boxes: decode, threshold, suppress.

    Decoding is YOLOv5's: with s the sigmoid, ``xy = (2 s(t) - 0.5 + grid) * stride``, ``wh = (2 s(t))**2 * anchor``,
    ``score = s(objectness) * s(class)``. A candidate needs ``s(objectness) > conf`` and ``score > conf``, all rounded
    to float32. The best ``max_nms`` candidates go through greedy suppression: a box goes when its IoU with a kept box
    of higher score is above ``iou``. Order, and rank among equal scores: score descending, class, level, anchor, y, x.

    Args:
        heads: for each level a float32 array ``[1, na*(5+nc), H, W]`` or ``[na*(5+nc), H, W]`` of logits; for each
            anchor the channels x, y, w, h, objectness, class 0 and on. Infinite logits are fine. Arrays that are not
            C-contiguous are copied first.
        anchors: ``[levels, na, 2]``, width and height in pixels of the network's input.
        strides: ``[levels]``, in pixels of the network's input.
        num_classes: nc, 1 or more.
        conf: score threshold, 0 to 1.
        iou: suppression threshold, 0 to 1.
        max_det: most boxes returned.
        multi_label: every class above ``conf`` is a candidate, not only the best class of a cell (the first of equals).
        agnostic: boxes suppress boxes of other classes too.
        class_mask: ``[nc]`` bool or uint8, classes wanted; without ``multi_label`` applied to the best class.
        max_nms: most candidates that enter suppression, by score.
        transform: ``(gain_x, gain_y, pad_x, pad_y, width, height)`` of a letterbox; kept boxes become
            ``(x - pad_x) / gain_x`` clipped to ``[0, width]``, likewise y: pixels of the source picture.
            None leaves them in pixels of the network's input, not clipped.

    Returns:
        ``(xyxy, confidence, class_id, truncated, nonfinite)``: float32 ``(n, 4)``, float32 ``(n,)``, int32 ``(n,)``;
        True if ``max_nms`` left candidates out or one more box would have been kept but for ``max_det``; the number of
        cells without boxes because objectness, or with sufficient objectness a box or examined class logit, is NaN.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import decode_nms
        >>> head = np.full((1, 7, 4, 4), -9, np.float32)  # one anchor, two classes
        >>> head[0, :, 1, 2] = [0, 0, 0, 0, 9, -9, 9]  # a box in row 1, column 2, class 1
        >>> xyxy, confidence, class_id, truncated, nonfinite = decode_nms(
        ...     [head], [[[10, 20]]], [8], 2, conf=0.25, iou=0.45)
        >>> xyxy.tolist(), class_id.tolist()
        ([[15.0, 2.0, 25.0, 22.0]], [1])
    """
    return HeadDecoder(
        anchors, strides, num_classes, conf=conf, iou=iou, max_det=max_det, multi_label=multi_label, agnostic=agnostic,
        class_mask=class_mask, max_nms=max_nms,
    )(heads, transform)


def decode_nms_rows(
    rows, num_classes, *, conf, iou, max_det=300, multi_label=False, agnostic=False,
    class_mask=None, max_nms=30000, transform=None, objectness=True,
):
    """Turn rows that are already decoded into boxes: threshold and suppress, as :func:`decode_nms` does.

    Args:
        rows: float32 ``[1, N, 5+nc]`` or ``[N, 5+nc]``: cx, cy, w, h in pixels of the network's input, objectness and
            class probabilities. Any values may occur.
        objectness: False: rows are ``[N, 4+nc]`` and lack objectness; the score is the class probability.
        num_classes, conf, iou, max_det, multi_label, agnostic, class_mask, max_nms, transform: as in
            :func:`decode_nms`, "cell" being a row.

    Returns:
        As :func:`decode_nms`. ``nonfinite`` counts rows dropped because objectness is NaN or, where objectness is above
        ``conf``, because it, a box value or an examined class is NaN or infinite, the width or height is negative, or a
        corner exceeds float32. (Without objectness: rows with a class above ``conf``, or with such a fault.)

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import decode_nms_rows
        >>> rows = np.array([[50, 50, 20, 20, 1, 0.75], [51, 50, 20, 20, 1, 0.5]], np.float32)
        >>> xyxy, confidence, *_ = decode_nms_rows(rows, 1, conf=0.25, iou=0.45)
        >>> xyxy.tolist(), confidence.tolist()
        ([[40.0, 40.0, 60.0, 60.0]], [0.75])
    """
    cdef Scratch scratch = Scratch()
    cdef Work* work = &scratch.work
    cdef bint with_objectness = bool(objectness)
    cdef const float[::1] flat
    cdef const uint8_t[::1] wanted
    cdef double mapping[6]
    cdef int64_t columns, n = 0, total
    cdef int status = 0

    settle(work, num_classes, conf, iou, max_det, multi_label, agnostic, max_nms)
    columns = <int64_t> work.classes + (5 if with_objectness else 4)
    array = checked_array(rows, "rows")
    shape = array.shape
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or shape[1] != columns:
        raise DimensionError(
            f"rows has shape {array.shape}; expected [1, N, {columns}]: cx, cy, w, h, "
            f"{'objectness, ' if with_objectness else ''}{work.classes} class scores"
        )
    total = shape[0]
    if total > MOST:
        raise DimensionError(f"rows has {total} rows; at most {MOST} are supported")
    wanted_array = checked_mask(class_mask, work.classes)
    if wanted_array is not None:
        wanted = wanted_array
        work.wanted = &wanted[0]
    if transform is not None:
        checked_transform(transform, mapping)
    if total > 0:
        flat = array.reshape(-1)
        with nogil:
            status = walk_rows(work, &flat[0], total, with_objectness)
            if status == 0:
                n = suppress(work, True)
    if status < 0 or n < 0:
        raise MemoryError("no memory for the candidates of decoding")
    return results(work, n, NULL if transform is None else mapping)


cdef int fill_from_boxes(
    Work* work, const float* xyxy, const float* scores, const int32_t* class_ids, int64_t n
) noexcept nogil:
    cdef int64_t i
    cdef int j
    cdef Cell* cell
    if reserve_cells(work, n) < 0:
        return -1
    work.cells = n
    for i in range(n):
        cell = &work.cell[i]
        cell.plane = DECODED
        for j in range(4):
            cell.box[j] = xyxy[4 * i + j]
        if scores[i] != scores[i] or not (
            isfinite(cell.box[0]) and isfinite(cell.box[1]) and isfinite(cell.box[2]) and isfinite(cell.box[3])
        ):
            continue
        if make_room(work, 1) < 0:
            return -1
        push(work, scores[i], 0 if class_ids == NULL else class_ids[i], i)
    return 0


def nms(xyxy, scores, class_ids=None, *, iou, max_det=None, agnostic=False):
    """Greedy non-maximum suppression: indices of the boxes kept, best first.

    In practice O(n log n): kept boxes lie in a grid by size and place. Boxes with NaN or infinite coordinates, or a NaN
    score, are dropped. Boxes without area overlap nothing.

    Args:
        xyxy: float32 ``(n, 4)``: x1, y1, x2, y2 in pixels of any picture.
        scores: float32 ``(n,)``.
        class_ids: int32 ``(n,)``; only boxes of one class suppress each other. None: one class.
        iou: a box goes when its IoU with a kept box of higher score is above this, 0 to 1.
        max_det: most indices returned; None: no limit.
        agnostic: boxes suppress boxes of other classes too.

    Returns:
        int64 indices, score descending; equal scores by class, then index.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import nms
        >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
        >>> nms(boxes, np.array([0.8, 0.9, 0.3], np.float32), iou=0.5).tolist()
        [1, 2]
    """
    cdef Scratch scratch = Scratch()
    cdef Work* work = &scratch.work
    cdef const float[::1] box_view, score_view
    cdef const int32_t[::1] class_view
    cdef const int32_t* classes = NULL
    cdef int64_t n, i, found = 0
    cdef int status = 0

    settle(
        work, 1, 0.0, iou, MOST if max_det is None else max_det, False, bool(agnostic) or class_ids is None, MOST)
    boxes = checked_array(xyxy, "xyxy")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DimensionError(f"xyxy has shape {boxes.shape}; expected [n, 4]: x1, y1, x2, y2")
    n = boxes.shape[0]
    if n >= MOST:
        raise DimensionError(f"xyxy holds {n} boxes; at most {MOST - 1} are supported")
    score_array = checked_array(scores, "scores")
    if score_array.shape != (n,):
        raise DimensionError(f"scores has shape {score_array.shape}; expected ({n},), one a box")
    if class_ids is not None:
        if not isinstance(class_ids, ndarray) or class_ids.dtype != np.int32:
            raise DimensionError("class_ids is not an int32 array; pass class_ids.astype(numpy.int32) or None")
        if class_ids.shape != (n,):
            raise DimensionError(f"class_ids has shape {class_ids.shape}; expected ({n},), one a box")
    if n > 0:
        box_view = boxes.reshape(-1)
        score_view = score_array
        if class_ids is not None:
            class_view = np.require(class_ids, np.int32, ("C", "A"))
            classes = &class_view[0]
        with nogil:
            status = fill_from_boxes(work, &box_view[0], &score_view[0], classes, n)
            if status == 0:
                found = suppress(work, bool(work.agnostic))
    if status < 0 or found < 0:
        raise MemoryError("no memory for the candidates of NMS")
    kept = np.empty(found, np.int64)
    cdef int64_t[::1] kept_view = kept
    for i in range(found):
        kept_view[i] = work.found[i].cell
    return kept
