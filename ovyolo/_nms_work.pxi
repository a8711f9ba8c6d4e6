# The work of one call: candidates in bounded memory, then greedy suppression in score order.

cdef enum:
    # states of Cell.plane besides the number of the plane whose logits the cell still holds
    DECODED = -1
    UNUSABLE = -2


# of one anchor of one level, 5 + nc planes of `size` logits, `width` a row
cdef struct Plane:
    double stride, anchor_width, anchor_height
    const float* logits
    int64_t size, width


cdef struct Cell:
    # x1 y1 x2 y2, or the logits x y w h until somebody asks for the box
    float box[4]
    int32_t plane
    int32_t position


cdef struct Work:
    float conf, iou
    bint multi_label, agnostic
    int32_t classes
    # NULL: all classes
    const uint8_t* wanted
    int64_t max_det, max_nms
    Plane* plane
    Cell* cell
    int64_t cells, cell_capacity
    Found* found
    int64_t founds, found_capacity
    # once max_nms was exceeded: candidates behind this one are out
    bint full
    Found worst
    bint any_unusable, truncated
    int64_t nonfinite


cdef void work_free(Work* work) noexcept nogil:
    free(work.plane)
    free(work.cell)
    free(work.found)


cdef int reserve_cells(Work* work, int64_t more) noexcept nogil:
    cdef int64_t capacity
    cdef void* grown
    if work.cells + more <= work.cell_capacity:
        return 0
    capacity = 2 * work.cell_capacity + more
    grown = realloc(work.cell, <size_t> capacity * sizeof(Cell))
    if grown == NULL:
        return -1
    work.cell = <Cell*> grown
    work.cell_capacity = capacity
    return 0


cdef void drop_unusable(Work* work) noexcept nogil:
    cdef int64_t i, n = 0
    if not work.any_unusable:
        return
    for i in range(work.founds):
        if work.cell[work.found[i].cell].plane != UNUSABLE:
            work.found[n] = work.found[i]
            n += 1
    work.founds = n


cdef void keep_best(Work* work) noexcept nogil:
    """Leaves the best max_nms candidates and remembers the worst of them."""
    cdef int64_t i
    drop_unusable(work)
    if work.founds <= work.max_nms:
        return
    select_top(work.found, work.founds, work.max_nms)
    work.founds = work.max_nms
    work.truncated = True
    work.full = True
    work.worst = work.found[0]
    for i in range(1, work.founds):
        if before(&work.worst, &work.found[i]):
            work.worst = work.found[i]


cdef inline int make_room(Work* work, int64_t more) noexcept nogil:
    """Room for up to 64 more candidates: more memory up to twice max_nms, from then on by dropping the worse half."""
    cdef int64_t capacity, limit = 2 * work.max_nms + 64
    cdef void* grown
    while work.founds + more > work.found_capacity:
        if work.found_capacity == limit:
            keep_best(work)
            return 0
        capacity = 2 * work.found_capacity + 1024
        capacity = capacity if capacity < limit else limit
        grown = realloc(work.found, <size_t> capacity * sizeof(Found))
        if grown == NULL:
            return -1
        work.found = <Found*> grown
        work.found_capacity = capacity
    return 0


cdef inline void push(Work* work, float score, int32_t class_id, int64_t cell) noexcept nogil:
    """Adds a candidate; the caller has made room."""
    cdef Found found = make_found(score, class_id, cell)
    if work.full and not before(&found, &work.worst):
        work.truncated = True
        return
    work.found[work.founds] = found
    work.founds += 1


cdef inline double sigmoid(double logit) noexcept nogil:
    return 1.0 / (1.0 + exp(-logit))


cdef void decode_cell(const Work* work, Cell* cell) noexcept nogil:
    cdef const Plane* plane = &work.plane[cell.plane]
    cdef double x = (2.0 * sigmoid(cell.box[0]) - 0.5 + <double> (cell.position % plane.width)) * plane.stride
    cdef double y = (2.0 * sigmoid(cell.box[1]) - 0.5 + <double> (cell.position // plane.width)) * plane.stride
    cdef double w = 2.0 * sigmoid(cell.box[2]), h = 2.0 * sigmoid(cell.box[3])
    w = 0.5 * (w * w * plane.anchor_width)
    h = 0.5 * (h * h * plane.anchor_height)
    cell.box[0] = <float> (x - w)
    cell.box[1] = <float> (y - h)
    cell.box[2] = <float> (x + w)
    cell.box[3] = <float> (y + h)
    cell.plane = DECODED


cdef inline ovyolo_box box_of(const float* xyxy) noexcept nogil:
    cdef ovyolo_box box
    cdef float width = xyxy[2] - xyxy[0], height = xyxy[3] - xyxy[1]
    box.x1 = xyxy[0]
    box.y1 = xyxy[1]
    box.x2 = xyxy[2]
    box.y2 = xyxy[3]
    box.area = width * height if width > 0.0 and height > 0.0 else 0.0
    return box


cdef int64_t suppress(Work* work, bint by_class_chains) noexcept nogil:
    """Greedy NMS. Moves the kept candidates, best first, to the front of `found`; returns their number, -1: no memory.

    Candidates are sorted in growing portions, because often a few hundred boxes fill the result.
    """
    cdef Kept kept
    cdef int64_t i, n, limit, done = 0, portion = 256, result = 0
    cdef int64_t chains = 1 if work.agnostic else work.classes
    cdef int32_t class_id
    cdef Cell* cell
    cdef ovyolo_box box
    drop_unusable(work)
    if work.founds > work.max_nms:
        keep_best(work)
    if work.founds == 0:
        return 0
    limit = work.founds if work.founds < work.max_det else work.max_det
    if kept_init(&kept, work.iou, limit, chains, limit > CHAINS_UP_TO or not by_class_chains) < 0:
        kept_free(&kept)
        return -1
    while done < work.founds:
        n = work.founds - done
        if n > portion:
            select_top(work.found + done, n, portion)
            n = portion
        sort_found(work.found + done, n)
        for i in range(done, done + n):
            class_id = 0 if work.agnostic else found_class(&work.found[i])
            cell = &work.cell[work.found[i].cell]
            if cell.plane >= 0:
                decode_cell(work, cell)
            box = box_of(cell.box)
            if kept_suppresses(&kept, &box, class_id):
                continue
            if result == work.max_det:
                work.truncated = True
                kept_free(&kept)
                return result
            if kept_add(&kept, &box, class_id) < 0:
                kept_free(&kept)
                return -1
            work.found[result] = work.found[i]
            result += 1
        done += n
        portion *= 2
    kept_free(&kept)
    return result
