# Merging of boxes that several looks at one picture gave: greedy suppression, greedy merging, weighted fusion.
# Coordinates come and go in float32; overlaps are computed in float64, so that nothing is lost far from the origin.

cdef enum:
    MERGE_NMS = 0
    MERGE_NMM = 1
    MERGE_WBF = 2
    MERGE_SOFT = 3


cdef struct Sorted:
    float box[4]
    int32_t at, class_id


cdef struct Merge:
    int64_t n
    const float* xyxy
    const float* scores
    # NULL: one class
    const int32_t* class_ids
    int how
    # overlap is measured by the smaller of the two boxes, not by their union
    bint smaller
    double threshold
    # soft-NMS: the Gaussian's width, 0: linear; and the score below which a box is gone
    double sigma, least
    # the usable boxes, by class, then best score first; and room for sorting
    Sorted* sorted
    int64_t usable
    uint64_t* key
    # one class's kept boxes
    Grid grid
    # all kept boxes: where each lies in the input, its score, its box; in the end, `key` has them best first
    int64_t kept
    int64_t* index
    double* score
    double* box
    # for each input the kept box that it became part of, -1: none
    int64_t* group
    # the memory of all of these, the grid's too, in one piece: an allocator that gives large pieces back to the system
    # learns from its size to keep it for the next call, which then does not wait for fresh pages
    void* block


cdef void merge_free(Merge* merge) noexcept nogil:
    free(merge.block)
    grid_free(&merge.grid)


cdef inline bint share(const double* a, const double* b, bint smaller, double* both, double* whole) noexcept nogil:
    """The area that two boxes share, and that of their union or of the smaller; False where they share none."""
    cdef double width = (a[2] if a[2] < b[2] else b[2]) - (a[0] if a[0] > b[0] else b[0])
    cdef double height = (a[3] if a[3] < b[3] else b[3]) - (a[1] if a[1] > b[1] else b[1])
    cdef double first = (a[2] - a[0]) * (a[3] - a[1]), second = (b[2] - b[0]) * (b[3] - b[1])
    if not (width > 0.0 and height > 0.0):
        return False
    both[0] = width * height
    whole[0] = (first if first < second else second) if smaller else first + second - both[0]
    return True


cdef inline double overlap_of(const double* a, const double* b, bint smaller) noexcept nogil:
    """IoU of two boxes, or their intersection over the smaller area; 0 where either has no area."""
    cdef double both, whole
    return both / whole if share(a, b, smaller, &both, &whole) else 0.0


cdef inline bint overlaps(const double* a, const double* b, bint smaller, double threshold) noexcept nogil:
    """overlap_of(a, b, smaller) > threshold, without a division where it is far below."""
    cdef double both, whole
    return share(a, b, smaller, &both, &whole) and both > (threshold - 1e-9) * whole and both / whole > threshold


cdef inline void widen(const float* box, double* into) noexcept nogil:
    cdef int j
    for j in range(4):
        into[j] = box[j]


cdef struct Reach:
    # how much of a box's sides, from either end, a rival need not be looked for in
    double margin
    # the least and the most that a rival's sides can be, in those of the box
    double least, most
    # of the two the larger holds the other's centre
    bint by_centre


cdef inline Reach reach_of(double threshold, bint smaller) noexcept nogil:
    """Where rivals of an overlap above a threshold are, and how large.

    Intersection over the smaller area says nothing of sizes; above 1/2 the part that both share is more than half of the
    smaller's width and height, and so holds its centre.

    Of two boxes of IoU above t neither has a side t times as short as the other's, and the part that they share is longer
    than t times either's side. With k = ceil(1/t), the k - 1 points that divide a side into k equal parts lie closer than
    that, so the part holds one of them, and so does the rival: it is enough to look from the first of them to the last. A
    little less for rounding.
    """
    cdef Reach reach
    reach.margin = reach.least = 0.0
    reach.most = INFINITY
    reach.by_centre = smaller and threshold >= 0.5
    if threshold > 1e-9 and not smaller:
        reach.least = threshold - 1e-9
        reach.most = 1.0 / reach.least
        if threshold < 1.0:
            reach.margin = 1.0 / ceil(1.0 / threshold) - 1e-9
    return reach


cdef inline Window window_of(const double* box, const Reach* reach) noexcept nogil:
    """Where the rivals of a box with an area are."""
    cdef Window window
    cdef double side
    cdef int j
    window.by_centre = reach.by_centre
    for j in range(2):
        side = box[2 + j] - box[j]
        window.least[j] = side * reach.least
        window.most[j] = side * reach.most
        window.low[j] = box[j] + reach.margin * side
        window.high[j] = box[2 + j] - reach.margin * side
    return window


cdef inline bint has_area(const double* box) noexcept nogil:
    return box[2] > box[0] and box[3] > box[1]


cdef inline int64_t rivals_of(Grid* grid, const double* box, const Reach* reach, int32_t class_id=0) noexcept nogil:
    """Writes to grid.found the filed boxes that may overlap `box`; returns how many. One without area has no rivals."""
    cdef Window window
    if not has_area(box):
        return 0
    window = window_of(box, reach)
    return grid_search(grid, &window, class_id)


cdef bint sort_by_digit(
    const uint64_t* source, uint64_t* target, int64_t n, int shift, int64_t* counts
) noexcept nogil:
    """One stable pass of a radix sort, by 11 bits; False, and nothing written, where all keys have the same."""
    cdef int64_t i, number, total = 0
    memset(counts, 0, 2048 * sizeof(int64_t))
    for i in range(n):
        counts[(source[i] >> shift) & 2047] += 1
    if n == 0 or counts[(source[0] >> shift) & 2047] == n:
        return False
    for i in range(2048):
        number = counts[i]
        counts[i] = total
        total += number
    for i in range(n):
        number = (source[i] >> shift) & 2047
        target[counts[number]] = source[i]
        counts[number] += 1
    return True


cdef int sort_stable(uint64_t* keys, uint64_t* spare, int64_t n) noexcept nogil:
    """Sorts by the upper half of each key, ascending; `spare` has room for n, too. -1: no memory."""
    cdef int64_t* counts = <int64_t*> malloc(2048 * sizeof(int64_t))
    cdef uint64_t* source = keys
    cdef uint64_t* target = spare
    cdef int shift
    if counts == NULL:
        return -1
    for shift in range(32, 64, 11):
        if sort_by_digit(source, target, n, shift, counts):
            source, target = target, source
    if source != keys:
        memcpy(keys, source, <size_t> n * sizeof(uint64_t))
    free(counts)
    return 0


cdef inline uint64_t key_of_score(float score) noexcept nogil:
    """Ascending as scores descend."""
    return <uint64_t> (0xFFFFFFFFu - ovyolo_ordered(score)) << 32


cdef int merge_prepare(Merge* merge) noexcept nogil:
    """Memory, and the order in which boxes are looked at: by class, then score, then index. -1: no memory."""
    cdef int64_t i, largest = 0, n = merge.n
    cdef size_t room = <size_t> (n + 1)
    cdef const float* box
    cdef bint usable
    merge.block = malloc(
        room * (sizeof(int64_t) + 5 * sizeof(double) + 2 * sizeof(uint64_t) + sizeof(Sorted)) + grid_room(n)
    )
    if merge.block == NULL:
        return -1
    merge.index = <int64_t*> merge.block
    merge.score = <double*> (merge.index + room)
    merge.box = merge.score + room
    merge.key = <uint64_t*> (merge.box + 4 * room)
    merge.sorted = <Sorted*> (merge.key + 2 * room)
    for i in range(n):
        merge.group[i] = NOTHING
        box = merge.xyxy + 4 * i
        usable = isfinite(merge.scores[i]) and (merge.scores[i] > 0.0 or merge.how < MERGE_WBF)
        if usable and isfinite(box[0]) and isfinite(box[1]) and isfinite(box[2]) and isfinite(box[3]):
            merge.key[merge.usable] = key_of_score(merge.scores[i]) | <uint64_t> i
            merge.usable += 1
    if sort_stable(merge.key, merge.key + n, merge.usable) < 0:
        return -1
    if merge.class_ids != NULL:
        for i in range(merge.usable):
            merge.key[i] = (
                <uint64_t> (<uint32_t> merge.class_ids[merge.key[i] & 0xFFFFFFFFu] ^ 0x80000000u) << 32
                | (merge.key[i] & 0xFFFFFFFFu)
            )
        if sort_stable(merge.key, merge.key + n, merge.usable) < 0:
            return -1
    for i in range(merge.usable):
        merge.sorted[i].at = <int32_t> (merge.key[i] & 0xFFFFFFFFu)
        merge.sorted[i].class_id = 0 if merge.class_ids == NULL else merge.class_ids[merge.sorted[i].at]
        memcpy(merge.sorted[i].box, merge.xyxy + 4 * merge.sorted[i].at, 4 * sizeof(float))
    i = 0
    while i < merge.usable:
        n = end_of_class(merge, i)
        largest = n - i if n - i > largest else largest
        i = n
    grid_lay_out(&merge.grid, merge.sorted + room, largest)
    return 0


cdef inline int64_t end_of_class(const Merge* merge, int64_t begin) noexcept nogil:
    cdef int64_t end = begin
    while end < merge.usable and merge.sorted[end].class_id == merge.sorted[begin].class_id:
        end += 1
    return end


cdef int merge_all(Merge* merge) noexcept nogil:
    """Class by class, so that the grid stays small; then what was kept, best first. -1: no memory."""
    cdef int64_t begin = 0, end, i
    cdef int status = merge_prepare(merge)
    while status == 0 and begin < merge.usable:
        end = end_of_class(merge, begin)
        grid_reset(&merge.grid, end - begin)
        if merge.how == MERGE_SOFT:
            status = merge_soft(merge, begin, end)
        elif merge.how == MERGE_WBF:
            status = merge_fused(merge, begin, end)
        else:
            status = merge_greedy(merge, begin, end)
        begin = end
    if status < 0:
        return status
    for i in range(merge.kept):
        merge.key[i] = key_of_score(<float> merge.score[i]) | <uint64_t> i
    # of one class the best came first, and greedy ways change no score
    if merge.how < MERGE_WBF and (merge.usable == 0 or end_of_class(merge, 0) == merge.usable):
        return 0
    return sort_stable(merge.key, merge.key + merge.n, merge.kept)


cdef inline void keep(Merge* merge, const Sorted* candidate, const double* box) noexcept nogil:
    """Makes a candidate the next kept box."""
    memcpy(merge.box + 4 * merge.kept, box, 4 * sizeof(double))
    merge.index[merge.kept] = candidate.at
    merge.score[merge.kept] = merge.scores[candidate.at]
    merge.group[candidate.at] = merge.kept
    merge.kept += 1


cdef int merge_fused(Merge* merge, int64_t begin, int64_t end) noexcept nogil:
    """Weighted boxes fusion (Solovyev et al.): a box joins the fused box that it overlaps most, which becomes the mean
    of its boxes, weighted by score; its score is their mean. -1: no memory."""
    cdef Grid* grid = &merge.grid
    cdef Reach reach = reach_of(merge.threshold, merge.smaller)
    # of each fused box: the weighted sums of its corners, of the weights, and how many boxes it is of
    cdef double* sums = <double*> malloc(<size_t> (6 * (end - begin) + 1) * sizeof(double))
    cdef double box[4]
    cdef double rival[4]
    cdef double overlap, most, weight
    cdef double* own
    cdef const Sorted* candidate
    cdef int64_t r, k, found, first = merge.kept
    cdef int32_t owner
    cdef int j, status = 0
    if sums == NULL:
        return -1
    for r in range(begin, end):
        candidate = &merge.sorted[r]
        widen(candidate.box, box)
        owner = NOTHING
        most = merge.threshold
        found = rivals_of(grid, box, &reach)
        for k in range(found):
            widen(grid.spot[grid.found[k]].box, rival)
            overlap = overlap_of(box, rival, merge.smaller)
            if overlap > most or (overlap == most and owner != NOTHING and grid.found[k] < owner):
                most = overlap
                owner = grid.found[k]
        if owner == NOTHING:
            owner = <int32_t> grid.spots
            grid.spot[owner].class_id = 0
            grid.spots += 1
            keep(merge, candidate, box)
            memset(sums + 6 * owner, 0, 6 * sizeof(double))
        else:
            merge.group[candidate.at] = first + owner
            grid_take_out(grid, owner)
        own = sums + 6 * owner
        weight = merge.scores[candidate.at]
        for j in range(4):
            own[j] += weight * box[j]
        own[4] += weight
        own[5] += 1.0
        for j in range(4):
            merge.box[4 * (first + owner) + j] = own[j] / own[4]
            grid.spot[owner].box[j] = <float> (own[j] / own[4])
        merge.score[first + owner] = own[4] / own[5]
        status = grid_file(grid, owner)
        if status < 0:
            break
    free(sums)
    return status
