# Soft-NMS (Bodla et al., "Improving Object Detection With One Line of Code", 2017): boxes lose score, not their life.

cdef struct Heap:
    # spots by score, best at the top; and where each spot is
    int32_t* spot
    int32_t* place
    double* score
    int64_t size


cdef inline bint better(const Heap* heap, int32_t a, int32_t b) noexcept nogil:
    return heap.score[a] > heap.score[b] or (heap.score[a] == heap.score[b] and a < b)


cdef void heap_sink(Heap* heap, int64_t at) noexcept nogil:
    cdef int64_t child
    cdef int32_t moved = heap.spot[at]
    while True:
        child = 2 * at + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and better(heap, heap.spot[child + 1], heap.spot[child]):
            child += 1
        if not better(heap, heap.spot[child], moved):
            break
        heap.spot[at] = heap.spot[child]
        heap.place[heap.spot[at]] = <int32_t> at
        at = child
    heap.spot[at] = moved
    heap.place[moved] = <int32_t> at


cdef int merge_soft(Merge* merge, int64_t begin, int64_t end) noexcept nogil:
    """The best box is kept and all that overlap it lose score, over and over. -1: no memory."""
    cdef Grid* grid = &merge.grid
    cdef Heap heap
    cdef int64_t n = end - begin, k, found
    cdef int32_t top, rival
    cdef const Sorted* candidate
    cdef double box[4]
    cdef double other[4]
    cdef double overlap
    # the least overlap counts
    cdef Reach anywhere = reach_of(0.0, merge.smaller)
    cdef int status = 0
    heap.size = n
    heap.spot = <int32_t*> malloc(<size_t> (n + 1) * sizeof(int32_t))
    heap.place = <int32_t*> malloc(<size_t> (n + 1) * sizeof(int32_t))
    heap.score = <double*> malloc(<size_t> (n + 1) * sizeof(double))
    if heap.spot == NULL or heap.place == NULL or heap.score == NULL:
        status = -1
    else:
        grid.spots = n
        for top in range(<int32_t> n):
            candidate = &merge.sorted[begin + top]
            memcpy(grid.spot[top].box, candidate.box, 4 * sizeof(float))
            grid.spot[top].class_id = 0
            heap.score[top] = merge.scores[candidate.at]
            # sorted already, and so a heap
            heap.spot[top] = heap.place[top] = top
            if grid_file(grid, top) < 0:
                status = -1
                break
    while status == 0 and heap.size > 0 and heap.score[heap.spot[0]] >= merge.least:
        top = heap.spot[0]
        candidate = &merge.sorted[begin + top]
        widen(candidate.box, box)
        merge.index[merge.kept] = candidate.at
        merge.score[merge.kept] = heap.score[top]
        merge.group[candidate.at] = merge.kept
        memcpy(merge.box + 4 * merge.kept, box, 4 * sizeof(double))
        merge.kept += 1
        heap.size -= 1
        if heap.size > 0:
            heap.spot[0] = heap.spot[heap.size]
            heap.place[heap.spot[0]] = 0
            heap_sink(&heap, 0)
        grid_take_out(grid, top)
        found = rivals_of(grid, box, &anywhere)
        for k in range(found):
            rival = grid.found[k]
            widen(grid.spot[rival].box, other)
            overlap = overlap_of(box, other, merge.smaller)
            if merge.sigma > 0.0:
                heap.score[rival] *= exp(-overlap * overlap / merge.sigma)
            elif overlap > merge.threshold:
                heap.score[rival] *= 1.0 - overlap
            # scores only fall, so a box only sinks
            heap_sink(&heap, heap.place[rival])
    free(heap.spot)
    free(heap.place)
    free(heap.score)
    return status
