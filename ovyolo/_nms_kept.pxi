# Kept boxes, and the question "does one of them overlap this candidate?".
#
# Kept boxes lie in blocks of eight and are compared eight at a time. Where few can be kept, the blocks of a class form
# one chain. Where many can, they lie in a hashed grid: IoU > t bounds the ratio of two boxes' sizes by t and the
# distance of their centres by (1-t)/(1+t) times their mean size, so a box is filed under its size (a power of two) and
# the place of its centre, and a candidate looks only where a rival can be. Pruning errs to the safe side.

cdef enum:
    CHAINS_UP_TO = 1024
    LEVELS_OF_SIZE = 280
    NOTHING = -1
    # which of a block's two chains
    BY_PLACE = 0
    BY_LEVEL = 1


cdef struct Kept:
    float iou
    bint by_grid
    ovyolo_block* block
    int64_t blocks, block_capacity
    # first block for each class, or for each hash of a place
    int32_t* first
    # grid only
    int shift
    double ratio, reach
    # by level: no box of it is larger; places a pixel
    double span[LEVELS_OF_SIZE]
    double places[LEVELS_OF_SIZE]
    int lowest, highest
    int32_t first_of_level[LEVELS_OF_SIZE]
    int32_t blocks_of_level[LEVELS_OF_SIZE]


cdef int kept_init(Kept* kept, float iou, int64_t limit, int64_t classes, bint by_grid) noexcept nogil:
    cdef int64_t i, firsts = 64
    memset(kept, 0, sizeof(Kept))
    kept.iou = iou
    kept.by_grid = by_grid
    kept.shift = 58
    if by_grid:
        while firsts < 2 * limit and kept.shift > 34:
            firsts *= 2
            kept.shift -= 1
    else:
        firsts = classes
    kept.first = <int32_t*> malloc(<size_t> firsts * sizeof(int32_t))
    if kept.first == NULL:
        return -1
    for i in range(firsts):
        kept.first[i] = NOTHING
    for i in range(LEVELS_OF_SIZE):
        kept.first_of_level[i] = NOTHING
    kept.lowest = LEVELS_OF_SIZE
    kept.highest = -1
    # a little wider than the geometry asks, for rounding
    kept.ratio = <double> iou * 0.999
    kept.reach = ((1.0 - <double> iou) / (1.0 + <double> iou) + 1e-5) * 1.001
    if by_grid:
        for i in range(LEVELS_OF_SIZE):
            kept.span[i] = ldexp(1.0, <int> i - 149)
            kept.places[i] = 1.0 / (kept.span[i] * (2.0 * kept.reach if kept.reach > 0.015625 else 0.03125))
    return 0


cdef void kept_free(Kept* kept) noexcept nogil:
    free(kept.block)
    free(kept.first)


cdef inline int level_of(double size) noexcept nogil:
    """Exponent e with size < 2^e <= 2*size, as an index of levels."""
    cdef uint64_t bits
    cdef int exponent
    if not size > 0.0:
        return 0
    if size > 1e40:
        return LEVELS_OF_SIZE - 1
    memcpy(&bits, &size, 8)
    # IEEE 754: 1022 is the bias of frexp's exponent; a subnormal size counts as the smallest there is
    exponent = <int> (bits >> 52) - 1022 + 149
    return 0 if exponent < 0 else (LEVELS_OF_SIZE - 1 if exponent >= LEVELS_OF_SIZE else exponent)


cdef inline int64_t place(double coordinate, double places) noexcept nogil:
    cdef double at = coordinate * places
    # far outside any picture all places become one; order is kept, so ranges stay right
    cdef int64_t index = <int64_t> (-1e15 if at < -1e15 else (1e15 if at > 1e15 else at))
    return index - (<double> index > at)


cdef inline uint64_t home_of(const Kept* kept, int64_t x, int64_t y, int level, int32_t class_id) noexcept nogil:
    cdef uint64_t h = <uint64_t> x * 0x9E3779B97F4A7C15u
    h = (h ^ (h >> 29) ^ <uint64_t> y) * 0xBF58476D1CE4E5B9u
    h = (h ^ (h >> 32) ^ (<uint64_t> <uint32_t> class_id << 9) ^ <uint64_t> level) * 0x94D049BB133111EBu
    return h >> kept.shift


cdef bint level_suppresses(const Kept* kept, const ovyolo_box* box, int32_t class_id, int level) noexcept nogil:
    cdef double width = <double> box.x2 - box.x1, height = <double> box.y2 - box.y1
    cdef double x = 0.5 * (<double> box.x1 + box.x2), y = 0.5 * (<double> box.y1 + box.y2)
    # no rival of this level is larger than `span`; nor is one that matters wider than width / ratio
    cdef double span = kept.span[level], places = kept.places[level]
    cdef double reach_x = 0.5 * (width + (width / kept.ratio if width < span * kept.ratio else span)) * kept.reach
    cdef double reach_y = 0.5 * (height + (height / kept.ratio if height < span * kept.ratio else span)) * kept.reach
    cdef int64_t left = place(x - reach_x, places), right = place(x + reach_x, places)
    cdef int64_t top = place(y - reach_y, places), bottom = place(y + reach_y, places)
    cdef int64_t middle_x = place(x, places), middle_y = place(y, places), i, j
    if <double> (right - left + 1) * <double> (bottom - top + 1) > kept.blocks_of_level[level]:
        return ovyolo_chain(kept.block, kept.first_of_level[level], BY_LEVEL, class_id, box, kept.iou)
    # the nearest place first: it is the likeliest to hold a rival
    if ovyolo_chain(
        kept.block, kept.first[home_of(kept, middle_x, middle_y, level, class_id)], BY_PLACE, class_id, box, kept.iou
    ):
        return True
    for i in range(top, bottom + 1):
        for j in range(left, right + 1):
            if (i != middle_y or j != middle_x) and ovyolo_chain(
                kept.block, kept.first[home_of(kept, j, i, level, class_id)], BY_PLACE, class_id, box, kept.iou
            ):
                return True
    return False


cdef bint grid_suppresses(const Kept* kept, const ovyolo_box* box, int32_t class_id) noexcept nogil:
    cdef double width = <double> box.x2 - box.x1, height = <double> box.y2 - box.y1
    cdef double size = width if width > height else height
    cdef int own = level_of(size), low = level_of(size * kept.ratio), high, level
    high = level_of(size / kept.ratio) if kept.ratio > 0.0 else LEVELS_OF_SIZE - 1
    low = low if low > kept.lowest else kept.lowest
    high = high if high < kept.highest else kept.highest
    for level in range(own, high + 1):
        if level >= low and kept.blocks_of_level[level] and level_suppresses(kept, box, class_id, level):
            return True
    level = own - 1 if own - 1 < high else high
    while level >= low:
        if kept.blocks_of_level[level] and level_suppresses(kept, box, class_id, level):
            return True
        level -= 1
    return False


cdef int kept_add(Kept* kept, const ovyolo_box* box, int32_t class_id) noexcept nogil:
    cdef double width, height, places
    cdef int level = 0, lane
    cdef uint64_t home = class_id
    cdef int32_t at
    cdef int64_t capacity
    cdef void* grown
    cdef ovyolo_block* block
    # an empty box overlaps nothing
    if not box.area > 0.0:
        return 0
    if kept.by_grid:
        width = <double> box.x2 - box.x1
        height = <double> box.y2 - box.y1
        level = level_of(width if width > height else height)
        places = kept.places[level]
        home = home_of(
            kept,
            place(0.5 * (<double> box.x1 + box.x2), places),
            place(0.5 * (<double> box.y1 + box.y2), places),
            level,
            class_id,
        )
    at = kept.first[home]
    if at < 0 or kept.block[at].used == 8 or kept.block[at].class_id != class_id or kept.block[at].level != level:
        if kept.blocks == kept.block_capacity:
            capacity = 2 * kept.block_capacity + 16
            grown = realloc(kept.block, <size_t> capacity * sizeof(ovyolo_block))
            if grown == NULL:
                return -1
            kept.block = <ovyolo_block*> grown
            kept.block_capacity = capacity
        block = &kept.block[kept.blocks]
        for lane in range(8):
            block.x1[lane] = block.y1[lane] = INFINITY
            block.x2[lane] = block.y2[lane] = -INFINITY
            block.area[lane] = 0.0
        block.used = 0
        block.class_id = class_id
        block.level = level
        block.next[BY_PLACE] = at
        block.next[BY_LEVEL] = kept.first_of_level[level]
        at = <int32_t> kept.blocks
        kept.first[home] = at
        kept.first_of_level[level] = at
        kept.blocks_of_level[level] += 1
        kept.lowest = level if level < kept.lowest else kept.lowest
        kept.highest = level if level > kept.highest else kept.highest
        kept.blocks += 1
    block = &kept.block[at]
    lane = block.used
    block.x1[lane] = box.x1
    block.y1[lane] = box.y1
    block.x2[lane] = box.x2
    block.y2[lane] = box.y2
    block.area[lane] = box.area
    block.used += 1
    return 0


cdef inline bint kept_suppresses(const Kept* kept, const ovyolo_box* box, int32_t class_id) noexcept nogil:
    # nothing exceeds an IoU of 1, in float32 either
    if not box.area > 0.0 or kept.iou >= 1.0:
        return False
    if kept.by_grid:
        return kept.highest >= 0 and grid_suppresses(kept, box, class_id)
    return ovyolo_chain(kept.block, kept.first[class_id], BY_PLACE, class_id, box, kept.iou)
