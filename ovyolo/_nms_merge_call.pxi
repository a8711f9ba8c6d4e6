# The Python faces of merging: they check, call, and hand out arrays.

cdef dict HOW = {"nms": MERGE_NMS, "nmm": MERGE_NMM, "wbf": MERGE_WBF, "soft": MERGE_SOFT}
cdef tuple METRICS = ("iou", "ios")


cdef class MergeScratch:
    """Owns the C memory of one call, so that it is freed however the call ends."""

    cdef Merge merge
    cdef Join join

    def __cinit__(self):
        memset(&self.merge, 0, sizeof(Merge))
        memset(&self.join, 0, sizeof(Join))

    def __dealloc__(self):
        merge_free(&self.merge)
        join_free(&self.join)


cdef object checked_boxes(object xyxy, str name):
    boxes = checked_array(xyxy, name)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DimensionError(f"{name} has shape {boxes.shape}; expected [n, 4]: x1, y1, x2, y2")
    if boxes.shape[0] >= MOST // 32:
        raise DimensionError(f"{name} holds {boxes.shape[0]} boxes; at most {MOST // 32 - 1} are supported")
    return boxes


cdef object checked_numbers_of(object numbers, str name, Py_ssize_t n):
    if not isinstance(numbers, ndarray) or numbers.dtype != np.int32:
        raise DimensionError(f"{name} is not an int32 array; pass {name}.astype(numpy.int32)")
    if numbers.shape != (n,):
        raise DimensionError(f"{name} has shape {numbers.shape}; expected ({n},), one a box")
    return np.require(numbers, np.int32, ("C", "A"))


cdef object checked_scores(object scores, str name, Py_ssize_t n):
    array = checked_array(scores, name)
    if array.shape != (n,):
        raise DimensionError(f"{name} has shape {array.shape}; expected ({n},), one a box")
    return array


cdef bint by_smaller(object metric) except -1:
    if metric not in METRICS:
        raise DimensionError(f"metric is {metric!r}; it takes 'iou' or 'ios' (intersection over the smaller area)")
    return metric == "ios"


def merge(
    xyxy, scores, class_ids=None, *, threshold, how="nms", metric="iou", agnostic=False, sigma=0.5, least=0.001,
):
    """Make one box of each object of boxes that several looks at a picture gave.

    In practice O(n log n): boxes lie in a grid by size and place. Overlaps are computed in float64. Boxes with a coordinate
    or score that is not finite are dropped, with ``"wbf"`` and ``"soft"`` also those with a score of 0 or less. Boxes
    without area overlap nothing. Equal scores rank by class, then
    index.

    Args:
        xyxy: float32 ``(n, 4)``: x1, y1, x2, y2 in pixels of any picture.
        scores: float32 ``(n,)``.
        class_ids: int32 ``(n,)``; only boxes of one class merge. None: one class.
        threshold: boxes belong together when their overlap is above this, 0 to 1.
        how: ``"nms"``: the best box stays, those that belong to it go. ``"nmm"``: it becomes the smallest box around
            itself and those that belong to it and still do as it grows, best first; the others go. ``"wbf"``: weighted
            boxes fusion (Solovyev et al., 2019), with the score of a fused box the mean of its boxes'. ``"soft"``:
            soft-NMS (Bodla et al., 2017).
        metric: ``"iou"``, or ``"ios"``: intersection over the smaller of the two areas.
        agnostic: boxes merge with boxes of other classes too.
        sigma: for ``"soft"``: scores are multiplied by ``exp(-overlap**2 / sigma)``; 0: by ``1 - overlap`` where that
            is above ``threshold``.
        least: for ``"soft"``: boxes go when their score has fallen below this.

    Returns:
        ``(boxes, confidence, index, group)``, best first: float32 ``(m, 4)`` and ``(m,)``; int64 ``(m,)``: the best
        of the boxes that each was made of; int64 ``(n,)``: which of the m each box became part of, -1: none.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import merge
        >>> boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [20, 0, 30, 10]], np.float32)
        >>> made, confidence, index, group = merge(boxes, np.array([0.5, 0.75, 0.25], np.float32), threshold=0.5, how="nmm")
        >>> made.tolist(), index.tolist(), group.tolist()
        ([[0.0, 0.0, 12.0, 10.0], [20.0, 0.0, 30.0, 10.0]], [1, 2], [0, 0, 1])
    """
    cdef MergeScratch scratch = MergeScratch()
    cdef Merge* work = &scratch.merge
    cdef const float[::1] box_view, score_view
    cdef const int32_t[::1] class_view
    cdef int64_t[::1] group_view
    cdef int64_t i, n, at
    cdef int j, status = 0
    boxes = checked_boxes(xyxy, "xyxy")
    n = boxes.shape[0]
    score_array = checked_scores(scores, "scores", n)
    if not isinstance(how, str) or how not in HOW:
        raise DimensionError(f"how is {how!r}; it takes one of {', '.join(HOW)}")
    work.how = HOW[how]
    work.smaller = by_smaller(metric)
    work.threshold = fraction(threshold, "threshold")
    work.least = fraction(least, "least")
    try:
        work.sigma = sigma
    except (TypeError, ValueError, OverflowError):
        raise DimensionError(f"sigma is {sigma!r:.40}; pass a number from 0 on") from None
    if not 0.0 <= work.sigma <= FLT_MAX:
        raise DimensionError(f"sigma is {work.sigma:g}; it must be 0 or more")
    if class_ids is not None:
        class_array = checked_numbers_of(class_ids, "class_ids", n)
    group = np.empty(n, np.int64)
    if n > 0:
        box_view = boxes.reshape(-1)
        score_view = score_array
        group_view = group
        work.xyxy = &box_view[0]
        work.scores = &score_view[0]
        work.group = &group_view[0]
        if class_ids is not None and not agnostic:
            class_view = class_array
            work.class_ids = &class_view[0]
        work.n = n
        with nogil:
            status = merge_all(work)
        if status < 0:
            raise MemoryError("no memory for the merging of boxes")
    made, confidence = np.empty((work.kept, 4), np.float32), np.empty(work.kept, np.float32)
    index, rank = np.empty(work.kept, np.int64), np.empty(work.kept + 1, np.int64)
    cdef float[:, ::1] made_view = made
    cdef float[::1] confidence_view = confidence
    cdef int64_t[::1] index_view = index, rank_view = rank
    for i in range(work.kept):
        at = <int64_t> (work.key[i] & 0xFFFFFFFFu)
        for j in range(4):
            made_view[i, j] = <float> work.box[4 * at + j]
        confidence_view[i] = <float> work.score[at]
        index_view[i] = work.index[at]
        rank_view[at] = i
    for i in range(n):
        if group_view[i] != NOTHING:
            group_view[i] = rank_view[group_view[i]]
    return made, confidence, index, group


def matched(
    xyxy, others, class_ids=None, other_classes=None, *, threshold, metric="iou", within=None, slack=None, scores=None,
    other_scores=None,
):
    """Which boxes are matched by one of ``others``.

    Args:
        xyxy: float32 ``(n, 4)``: x1, y1, x2, y2.
        others: float32 ``(m, 4)``, in pixels of the same picture.
        class_ids, other_classes: int32 ``(n,)`` and ``(m,)``; only boxes of one class match. None: one class.
        threshold: boxes match when their overlap is above this, 0 to 1.
        metric: ``"iou"``, or ``"ios"``: intersection over the smaller of the two areas.
        within: float64 ``(n, 4)``: for each box the tile that it was seen in; others are cut by it first. A fragment
            of an object, cut at its tile's border, so matches the whole object.
        slack: float64 ``(m,)``: how uncertain the sides of each of ``others`` are, in pixels: where its IoU with a box
            is above half the threshold, they are taken to lie as near to that box's as this allows, and half its side.
        scores, other_scores: float32 ``(n,)`` and ``(m,)``; of others only those with at least a box's score match it.

    Returns:
        bool ``(n,)``.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import matched
        >>> fragment = np.array([[0, 10, 20, 40]], np.float32)  # of a tile that begins at x = 0
        >>> whole = np.array([[-60, 11, 19, 40]], np.float32)
        >>> matched(fragment, whole, threshold=0.5).tolist()
        [False]
        >>> matched(fragment, whole, threshold=0.5, within=np.array([[0, 0, 100, 100]], float)).tolist()
        [True]
    """
    cdef MergeScratch scratch = MergeScratch()
    cdef Grid* grid = &scratch.merge.grid
    cdef const float[::1] box_view, other_view, score_view, other_score_view
    cdef const double[:, ::1] tile_view
    cdef const double[::1] slack_view
    cdef const int32_t[::1] class_view, other_class_view
    cdef uint8_t[::1] result_view
    cdef double limit = fraction(threshold, "threshold")
    cdef Reach reach
    cdef bint smaller = by_smaller(metric), cut = within is not None, classed = class_ids is not None
    cdef bint scored = scores is not None, slackened = slack is not None
    cdef double box[4]
    cdef double other[4]
    cdef double seen[4]
    cdef int64_t n, m, i, k, found
    cdef int j, status = 0
    boxes, rivals = checked_boxes(xyxy, "xyxy"), checked_boxes(others, "others")
    n, m = boxes.shape[0], rivals.shape[0]
    if classed != (other_classes is not None):
        raise DimensionError("class_ids and other_classes go together: pass both or neither")
    if scored != (other_scores is not None):
        raise DimensionError("scores and other_scores go together: pass both or neither")
    if scored:
        score_view, other_score_view = checked_scores(scores, "scores", n), checked_scores(other_scores, "other_scores", m)
    if classed:
        class_view = checked_numbers_of(class_ids, "class_ids", n)
        other_class_view = checked_numbers_of(other_classes, "other_classes", m)
    if cut:
        tile_array = np.ascontiguousarray(within, np.float64)
        if tile_array.shape != (n, 4):
            raise DimensionError(f"within has shape {tile_array.shape}; expected ({n}, 4), a tile a box")
        tile_view = tile_array
    if slackened:
        slack_array = np.ascontiguousarray(slack, np.float64)
        if slack_array.shape != (m,) or not ((slack_array >= 0) & (slack_array < 1e9)).all():
            raise DimensionError(f"slack takes ({m},) numbers of pixels from 0 on, one for each of others")
        slack_view = slack_array
    result = np.zeros(n, np.uint8)
    if n == 0 or m == 0:
        return result.view(np.bool_)
    box_view, other_view, result_view = boxes.reshape(-1), rivals.reshape(-1), result
    # with slack, others may match from further away
    reach = reach_of(0.0 if slackened else limit, smaller)
    if cut:
        # an object may be any number of times as large as its fragment, and have its centre elsewhere
        reach.least, reach.most, reach.by_centre = 0.0, INFINITY, False
    with nogil:
        status = grid_init(grid, m)
        for i in range(m):
            if status < 0:
                break
            for j in range(4):
                grid.spot[i].box[j] = other_view[4 * i + j]
            grid.spot[i].class_id = other_class_view[i] if classed else 0
            grid.spots = i + 1
            grid.spot[i].shape = NOTHING
            if isfinite(other_view[4 * i]) and isfinite(other_view[4 * i + 1]) and (
                isfinite(other_view[4 * i + 2]) and isfinite(other_view[4 * i + 3])
            ):
                status = grid_file(grid, <int32_t> i)
        if status == 0:
            for i in range(n):
                widen(&box_view[4 * i], box)
                found = rivals_of(grid, box, &reach, class_view[i] if classed else 0)
                for k in range(found):
                    # false for NaN, too
                    if scored and not other_score_view[grid.found[k]] >= score_view[i]:
                        continue
                    widen(grid.spot[grid.found[k]].box, other)
                    if slackened:
                        memcpy(seen, other, 4 * sizeof(double))
                        if cut:
                            cut_by(seen, &tile_view[i, 0], seen)
                        if overlap_of(box, seen, False) <= 0.5 * limit:
                            continue
                        bend(other, box, slack_view[grid.found[k]])
                    if cut:
                        cut_by(other, &tile_view[i, 0], other)
                    if overlap_of(box, other, smaller) > limit:
                        result_view[i] = 1
                        break
    if status < 0:
        raise MemoryError("no memory for the merging of boxes")
    return result.view(np.bool_)


def join_fragments(xyxy, class_ids, tile_ids, tiles, *, threshold, agnostic=False):
    """Find out which fragments, boxes that the border of a tile cut, are of one object.

    Two join when their tiles see the same where both look (IoU there, or along the border where tiles only touch, above
    ``threshold``), and when the box around both, cut by each tile, matches what that tile saw. Pairs that agree most
    come first, and what they became goes on joining.

    Args:
        xyxy: float32 ``(n, 4)``: x1, y1, x2, y2, finite.
        class_ids: int32 ``(n,)``; only fragments of one class join.
        tile_ids: int32 ``(n,)``: which of ``tiles`` each was seen in.
        tiles: float64 ``(m, 4)``: x1, y1, x2, y2 of each tile, in pixels of the same picture.
        threshold: 0 to 1.
        agnostic: fragments join those of other classes, too.

    Returns:
        int32 ``(n,)``: for each fragment the lowest index of those that it joined; its own when it joined none.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import join_fragments
        >>> tiles = np.array([[0, 0, 100, 100], [80, 0, 180, 100]], float)
        >>> seen = np.array([[50, 10, 100, 40], [80, 11, 130, 40], [80, 60, 95, 70]], np.float32)
        >>> join_fragments(seen, np.zeros(3, np.int32), np.array([0, 1, 1], np.int32), tiles, threshold=0.5).tolist()
        [0, 0, 2]
    """
    cdef MergeScratch scratch = MergeScratch()
    cdef Join* work = &scratch.join
    cdef const float[::1] box_view
    cdef const double[:, ::1] tile_view
    cdef const int32_t[::1] class_view, tile_id_view
    cdef int32_t[::1] root_view
    cdef int status = 0
    boxes = checked_boxes(xyxy, "xyxy")
    work.n = boxes.shape[0]
    work.threshold = fraction(threshold, "threshold")
    class_array = checked_numbers_of(class_ids, "class_ids", work.n)
    tile_id_array = checked_numbers_of(tile_ids, "tile_ids", work.n)
    tile_array = np.ascontiguousarray(tiles, np.float64)
    if tile_array.ndim != 2 or tile_array.shape[1] != 4:
        raise DimensionError(f"tiles has shape {tile_array.shape}; expected [m, 4]: x1, y1, x2, y2")
    root = np.empty(work.n, np.int32)
    if work.n == 0:
        return root
    if not np.isfinite(boxes).all():
        raise DimensionError("xyxy holds a coordinate that is not finite; leave such boxes out")
    if tile_id_array.min() < 0 or tile_id_array.max() >= tile_array.shape[0]:
        raise DimensionError(f"tile_ids names a tile that is not one of the {tile_array.shape[0]} in tiles")
    box_view, class_view, tile_id_view, root_view = boxes.reshape(-1), class_array, tile_id_array, root
    tile_view = tile_array
    work.xyxy = &box_view[0]
    if not agnostic:
        work.class_ids = &class_view[0]
    work.tile = &tile_id_view[0]
    work.tiles = &tile_view[0, 0]
    work.root = &root_view[0]
    with nogil:
        status = join_pairs(work)
    if status < 0:
        raise MemoryError("no memory for the joining of boxes")
    return root
