# From raw logits or decoded rows to candidates.

cdef enum:
    CHUNK = 256


cdef struct Chunk:
    # groups of eight neighbouring cells of one plane; some room behind them for who takes four at a time
    int32_t start[CHUNK + 8]
    uint8_t active[CHUNK]
    # by lane
    float threshold[8 * CHUNK]
    double objectness[8 * CHUNK]
    int64_t cell[8 * CHUNK]
    int32_t hit[CHUNK]
    uint8_t hit_mask[CHUNK]


cdef inline float logit_below(double part, double whole) noexcept nogil:
    """A float that lies surely below the logit of part / whole, by 0.014 at most: without a logarithm.

    Between two powers of 2 log2(1 + t) is above t + 0.2786 t (1 - t), touching it at both ends.
    """
    cdef double rest = whole - part, odds, mantissa, value
    cdef uint64_t bits
    rest = rest if rest > 1e-12 * whole else 1e-12 * whole
    odds = part / rest
    memcpy(&bits, &odds, 8)
    value = <double> (<int64_t> (bits >> 52) - 1023)
    # IEEE 754: the same digits with the exponent of 1
    bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u
    memcpy(&mantissa, &bits, 8)
    mantissa -= 1.0
    value = 0.6931471805599453 * (value + mantissa + 0.2786 * mantissa * (1.0 - mantissa))
    return <float> (value - (1e-5 + 1e-6 * fabs(value)))


cdef int64_t admit_groups(
    Work* work, Chunk* chunk, const float* planes, int64_t size, int32_t plane_number,
    const int32_t* start, const uint8_t* mask, int64_t groups,
) noexcept nogil:
    """Judges the objectness of scanned groups exactly, makes their cells; returns how many groups have any left."""
    cdef int64_t g, at, n = 0
    cdef int lane
    cdef uint32_t bits, active
    cdef float logit, x, y, w, h
    cdef double objectness, least = work.conf
    cdef Cell* cell
    if work.full and found_score(&work.worst) > 1e-30:
        least = <double> found_score(&work.worst) * (1.0 - 1e-6)
        least = least if least > work.conf else work.conf
    for g in range(groups):
        active = 0
        bits = mask[g]
        for lane in range(8):
            chunk.threshold[8 * n + lane] = INFINITY
        while bits:
            lane = ovyolo_lowest_bit(bits)
            bits &= bits - 1
            at = start[g] + lane
            logit = planes[4 * size + at]
            if logit != logit:
                work.nonfinite += 1
                continue
            objectness = sigmoid(logit)
            if not <float> objectness > work.conf:
                continue
            x = planes[at]
            y = planes[size + at]
            w = planes[2 * size + at]
            h = planes[3 * size + at]
            if x != x or y != y or w != w or h != h:
                work.nonfinite += 1
                continue
            chunk.objectness[8 * n + lane] = objectness
            if work.multi_label:
                chunk.threshold[8 * n + lane] = logit_below(least, objectness)
            chunk.cell[8 * n + lane] = work.cells
            cell = &work.cell[work.cells]
            cell.box[0] = x
            cell.box[1] = y
            cell.box[2] = w
            cell.box[3] = h
            cell.plane = plane_number
            cell.position = <int32_t> at
            work.cells += 1
            active |= 1u << lane
        chunk.start[n] = start[g]
        chunk.active[n] = <uint8_t> active
        n += active != 0
    return n


cdef void mark_unusable(Work* work, int64_t number) noexcept nogil:
    if work.cell[number].plane != UNUSABLE:
        work.cell[number].plane = UNUSABLE
        work.any_unusable = True
        work.nonfinite += 1


cdef int best_classes(Work* work, Chunk* chunk, const float* planes, int64_t size, int64_t groups) noexcept nogil:
    cdef float best[4 * 8]
    cdef int32_t which[4 * 8]
    cdef int lane, place, lanes = 8 if size >= 8 else <int> size
    cdef int64_t first, g, number
    cdef uint32_t nan, bits
    cdef float score
    # four at a time: what is missing of the last four, and what comes after them, are the last group again
    for g in range(groups, groups + 7):
        chunk.start[g] = chunk.start[groups - 1]
    for first in range(0, groups, 4):
        nan = ovyolo_best(
            planes + 5 * size, size, work.classes, lanes, chunk.start + first, chunk.start + first + 4, best, which)
        if make_room(work, 4 * 8) < 0:
            return -1
        for g in range(first, first + 4 if first + 4 < groups else groups):
            bits = chunk.active[g]
            while bits:
                lane = ovyolo_lowest_bit(bits)
                bits &= bits - 1
                place = <int> (8 * (g - first)) + lane
                number = chunk.cell[8 * g + lane]
                if (nan >> place) & 1:
                    mark_unusable(work, number)
                    continue
                if work.wanted != NULL and not work.wanted[which[place]]:
                    continue
                score = <float> (chunk.objectness[8 * g + lane] * sigmoid(best[place]))
                if score > work.conf:
                    push(work, score, which[place], number)
    return 0


cdef void mark_nans(Work* work, Chunk* chunk, const float* planes, int64_t size, int64_t groups) noexcept nogil:
    """Finds all cells of the chunk with a NaN class at once, so that none of their candidates displaces another."""
    cdef int64_t g
    cdef int32_t k
    cdef int lane, lanes = 8 if size >= 8 else <int> size
    cdef const float* plane
    for k in range(work.classes):
        if work.wanted != NULL and not work.wanted[k]:
            continue
        plane = planes + (5 + <int64_t> k) * size
        for g in range(groups):
            for lane in range(lanes):
                if (chunk.active[g] >> lane) & 1 and plane[chunk.start[g] + lane] != plane[chunk.start[g] + lane]:
                    mark_unusable(work, chunk.cell[8 * g + lane])


cdef int all_classes(Work* work, Chunk* chunk, const float* planes, int64_t size, int64_t groups) noexcept nogil:
    cdef int lane, lanes = 8 if size >= 8 else <int> size
    # far enough ahead for main memory to answer
    cdef int64_t hits, i, g, number, planes_ahead = 1 + 64 // groups
    cdef int32_t k
    cdef uint32_t bits
    cdef const float* plane
    cdef float logit, score
    cdef bint nans_marked = False
    for k in range(work.classes):
        if work.wanted != NULL and not work.wanted[k]:
            continue
        plane = planes + (5 + <int64_t> k) * size
        hits = ovyolo_hits(
            plane, chunk.start, chunk.threshold, chunk.active, groups, lanes,
            size * planes_ahead if k + planes_ahead < work.classes else 0, chunk.hit, chunk.hit_mask,
        )
        for i in range(hits):
            g = chunk.hit[i]
            if work.founds + 8 > work.found_capacity:
                if not nans_marked and work.founds > work.max_nms:
                    mark_nans(work, chunk, planes, size, groups)
                    nans_marked = True
                if make_room(work, 8) < 0:
                    return -1
            bits = chunk.hit_mask[i]
            while bits:
                lane = ovyolo_lowest_bit(bits)
                bits &= bits - 1
                number = chunk.cell[8 * g + lane]
                logit = plane[chunk.start[g] + lane]
                if logit != logit:
                    mark_unusable(work, number)
                elif work.cell[number].plane != UNUSABLE:
                    score = <float> (chunk.objectness[8 * g + lane] * sigmoid(logit))
                    if score > work.conf:
                        push(work, score, k, number)
    return 0


cdef int walk_anchor(
    Work* work, Chunk* chunk, const Plane* plane, const Plane* next_plane, int32_t* start, uint8_t* mask
) noexcept nogil:
    """Candidates of one anchor of one level; `next_plane` will be asked for next. -1: no memory."""
    cdef int64_t scanned, groups, first = 0, n, size = plane.size
    cdef const float* planes = plane.logits
    scanned = ovyolo_scan(
        planes + 4 * size, size, next_plane.logits + 4 * next_plane.size, logit_below(work.conf, 1.0), start, mask)
    while first < scanned:
        n = scanned - first if scanned - first < CHUNK else CHUNK
        if reserve_cells(work, 8 * n) < 0:
            return -1
        groups = admit_groups(work, chunk, planes, size, <int32_t> (plane - work.plane), start + first, mask + first, n)
        first += n
        if groups == 0:
            continue
        if work.multi_label:
            if all_classes(work, chunk, planes, size, groups) < 0:
                return -1
        elif best_classes(work, chunk, planes, size, groups) < 0:
            return -1
    return 0


cdef inline bint usable_box(const float* row, float* box) noexcept nogil:
    """cx cy w h to x1 y1 x2 y2; False where the row holds no box."""
    cdef double x1 = row[0] - 0.5 * row[2], y1 = row[1] - 0.5 * row[3]
    cdef double x2 = row[0] + 0.5 * row[2], y2 = row[1] + 0.5 * row[3]
    if not (row[2] >= 0.0 and row[3] >= 0.0):
        return False
    if not (x1 >= -FLT_MAX and y1 >= -FLT_MAX and x2 <= FLT_MAX and y2 <= FLT_MAX):
        return False
    if not (x2 >= -FLT_MAX and y2 >= -FLT_MAX and x1 <= FLT_MAX and y1 <= FLT_MAX):
        return False
    box[0] = <float> x1
    box[1] = <float> y1
    box[2] = <float> x2
    box[3] = <float> y2
    return True


cdef int walk_rows(Work* work, const float* rows, int64_t n, bint with_objectness) noexcept nogil:
    cdef int64_t i, columns = work.classes + (5 if with_objectness else 4)
    cdef int32_t k, best, above
    cdef const float* row
    cdef const float* classes
    cdef float objectness = 1.0, value
    cdef float unused[4]
    cdef double score
    cdef bint usable
    cdef Cell* cell
    for i in range(n):
        row = rows + i * columns
        classes = row + columns - work.classes
        if with_objectness:
            objectness = row[4]
            if objectness != objectness:
                work.nonfinite += 1
                continue
            if not objectness > work.conf:
                continue
        else:
            # most rows have no class above the threshold: a loop that compilers turn into vector code
            above = 0
            for k in range(work.classes):
                above |= not fabsf(classes[k]) <= work.conf
            if not above and usable_box(row, unused):
                continue
        if reserve_cells(work, 1) < 0:
            return -1
        cell = &work.cell[work.cells]
        usable = fabsf(objectness) <= FLT_MAX and usable_box(row, cell.box)
        best = 0
        for k in range(work.classes):
            if work.multi_label and work.wanted != NULL and not work.wanted[k]:
                continue
            value = classes[k]
            usable = usable and fabsf(value) <= FLT_MAX
            if value > classes[best]:
                best = k
        if not usable:
            work.nonfinite += 1
            continue
        cell.plane = DECODED
        for k in range(0 if work.multi_label else best, work.classes if work.multi_label else best + 1):
            if work.wanted != NULL and not work.wanted[k]:
                continue
            score = <double> objectness * <double> classes[k]
            score = score if score < FLT_MAX else FLT_MAX
            if <float> score > work.conf:
                if make_room(work, 1) < 0:
                    return -1
                push(work, <float> score, k, work.cells)
        cell.position = 0
        work.cells += 1
    return 0
