# Greedy suppression and greedy merging: to which better box does each box belong, and what becomes of both.
#
# Best box first, a box is looked for in the grid of those that are kept. When these become more than the processor's
# nearest caches hold, the picture is cut into blocks, each of which is worked through alone. A box within one block has
# all its rivals there. One that lies in several blocks can be judged when all of these are through: until then it is
# pending, and so is whatever depends on it. What is pending keeps a list of its better rivals, and in the end all lists
# are looked through, best box first.

cdef enum:
    # of an owner: not known yet; NOTHING: the box is kept
    PENDING = -2
    MOST_BLOCKS_A_SIDE = 64
    # boxes ahead of the one at hand that are fetched into the cache, or whose places in the grid are
    FETCH_AHEAD = 8
    # an answer: more boxes in the grid, or rivals on lists, than were allowed
    GIVEN_UP = 1


# how many boxes a block should have, and how many in the grid are too many to go on without blocks
cdef int64_t boxes_a_block = 1024
cdef int64_t boxes_in_cache = 4096


def set_merge_blocks(a_block=1024, in_cache=4096):
    """Choose when greedy merging cuts a picture into blocks, and how large these are; the defaults suit most CPUs.

    Results do not depend on it; tests compare them. Not to be called while another thread merges.

    Args:
        a_block: about how many boxes a block holds.
        in_cache: without blocks, so many boxes of a class are kept at most, unless it has less than three times as many.

    Raises:
        DimensionError: a number is not an integer from 1 on.

    Example:
        >>> from ovyolo._nms import set_merge_blocks
        >>> set_merge_blocks(2048, 8192)
        >>> set_merge_blocks()
    """
    global boxes_a_block, boxes_in_cache
    cdef int64_t block = count(a_block, "a_block", MOST), cache = count(in_cache, "in_cache", MOST)
    boxes_a_block, boxes_in_cache = block, cache


cdef struct Rival:
    int32_t at, next


# columns and rows of blocks, both ends included
cdef struct Blocks:
    int8_t left, top, right, bottom


cdef struct Greedy:
    # a class's boxes, best first; boxes are named by their place here
    const Sorted* sorted
    int64_t n
    Grid* grid
    # boxes that the grid may hold; and how many of the first `soon` are so many that it will not do
    int64_t most, too_many, soon
    Reach reach
    double threshold
    bint smaller
    # for each box the better one that it belongs to
    int32_t* owner
    # for each pending box the first of its better rivals, in no order
    int32_t* first_rival
    Rival* rival
    int64_t rivals, rival_capacity
    # of each spot of the grid: whose it is
    int32_t* filed
    # the blocks: where they are, and the boxes of each, best first
    int64_t side
    double left, top, per_x, per_y
    int32_t* start
    int32_t* member
    # of each box
    Blocks* blocks
    int64_t member_capacity
    void* block


cdef int greedy_init(Greedy* greedy, Merge* merge, int64_t begin, int64_t end) noexcept nogil:
    """-1: no memory (and nothing to free)."""
    cdef size_t n = <size_t> (end - begin)
    memset(greedy, 0, sizeof(Greedy))
    greedy.sorted = merge.sorted + begin
    greedy.n = end - begin
    greedy.grid = &merge.grid
    greedy.reach = reach_of(merge.threshold, merge.smaller)
    greedy.threshold = merge.threshold
    greedy.smaller = merge.smaller
    greedy.member_capacity = greedy.n + greedy.n // 4
    greedy.rival_capacity = 2 * greedy.n
    greedy.block = malloc(
        (2 * n + 1) * sizeof(Rival)
        + (3 * n + n // 4 + n + MOST_BLOCKS_A_SIDE * MOST_BLOCKS_A_SIDE + 1) * sizeof(int32_t)
        + n * sizeof(Blocks)
    )
    if greedy.block == NULL:
        return -1
    greedy.rival = <Rival*> greedy.block
    greedy.owner = <int32_t*> (greedy.rival + 2 * n + 1)
    greedy.first_rival = greedy.owner + n
    greedy.filed = greedy.first_rival + n
    greedy.member = greedy.filed + n
    greedy.start = greedy.member + greedy.member_capacity
    greedy.blocks = <Blocks*> (greedy.start + MOST_BLOCKS_A_SIDE * MOST_BLOCKS_A_SIDE + 1)
    return 0


cdef inline int8_t block_at(double coordinate, double begin, double per, int64_t side) noexcept nogil:
    """The row or column of blocks that a coordinate lies in: the first and the last reach to infinity."""
    cdef double index = (coordinate - begin) * per
    return 0 if not index > 0.0 else <int8_t> (side - 1 if index >= <double> side else <int64_t> index)


cdef inline Blocks blocks_of(const Greedy* greedy, const float* box) noexcept nogil:
    """The blocks that a box lies in: none where it has no area."""
    cdef Blocks blocks
    if not (box[2] > box[0] and box[3] > box[1]):
        blocks.left = blocks.top = 0
        blocks.right = blocks.bottom = -1
        return blocks
    blocks.left = block_at(box[0], greedy.left, greedy.per_x, greedy.side)
    blocks.top = block_at(box[1], greedy.top, greedy.per_y, greedy.side)
    blocks.right = block_at(box[2], greedy.left, greedy.per_x, greedy.side)
    blocks.bottom = block_at(box[3], greedy.top, greedy.per_y, greedy.side)
    return blocks


cdef void one_block(Greedy* greedy) noexcept nogil:
    cdef int64_t i
    greedy.side = 1
    greedy.start[0] = 0
    greedy.start[1] = <int32_t> greedy.n
    for i in range(greedy.n):
        greedy.member[i] = <int32_t> i


cdef void cut_into_blocks(Greedy* greedy) noexcept nogil:
    """Blocks of some boxes_a_block; one, where there are few boxes, or where too many lie in several.

    They cover what evenly spread centres of this mean and deviation would: a few boxes far away do not matter.
    """
    cdef double sums[4]
    cdef double x, y
    cdef const float* box
    cdef Blocks blocks
    cdef int64_t i, members = 0, number, row, column
    greedy.side = <int64_t> ceil(sqrt(<double> greedy.n / <double> boxes_a_block))
    greedy.side = greedy.side if greedy.side < MOST_BLOCKS_A_SIDE else MOST_BLOCKS_A_SIDE
    if greedy.side <= 2:
        one_block(greedy)
        return
    memset(sums, 0, sizeof(sums))
    for i in range(greedy.n):
        box = &greedy.sorted[i].box[0]
        x = 0.5 * (<double> box[0] + box[2])
        y = 0.5 * (<double> box[1] + box[3])
        sums[0] += x
        sums[1] += y
        sums[2] += x * x
        sums[3] += y * y
    span_of_blocks(greedy.n, sums[0], sums[2], greedy.side, &greedy.left, &greedy.per_x)
    span_of_blocks(greedy.n, sums[1], sums[3], greedy.side, &greedy.top, &greedy.per_y)
    memset(greedy.start, 0, <size_t> (greedy.side * greedy.side + 1) * sizeof(int32_t))
    for i in range(greedy.n):
        blocks = greedy.blocks[i] = blocks_of(greedy, greedy.sorted[i].box)
        members += (blocks.right - blocks.left + 1) * (blocks.bottom - blocks.top + 1)
        if members > greedy.member_capacity:
            one_block(greedy)
            return
        for row in range(blocks.top, blocks.bottom + 1):
            for column in range(blocks.left, blocks.right + 1):
                greedy.start[row * greedy.side + column] += 1
    # from how many each has to where each ends, and, filled from the end, to where each begins
    for i in range(1, greedy.side * greedy.side):
        greedy.start[i] += greedy.start[i - 1]
    greedy.start[greedy.side * greedy.side] = <int32_t> members
    for number in range(greedy.n):
        i = greedy.n - 1 - number
        blocks = greedy.blocks[i]
        for row in range(blocks.top, blocks.bottom + 1):
            for column in range(blocks.left, blocks.right + 1):
                greedy.start[row * greedy.side + column] -= 1
                greedy.member[greedy.start[row * greedy.side + column]] = <int32_t> i


cdef inline void span_of_blocks(
    int64_t n, double total, double squares, int64_t side, double* begin, double* per
) noexcept nogil:
    """Where blocks begin along one axis, and how many there are a pixel; 0: all boxes are in the first."""
    cdef double mean = total / <double> n, variance = squares / <double> n - mean * mean
    # evenly spread numbers lie within the root of 3 deviations of their mean
    cdef double half = sqrt(3.0 * variance) if variance > 0.0 else 0.0
    begin[0] = mean - half
    per[0] = <double> side / (2.0 * half) if half > 0.0 and isfinite(half) and isfinite(mean) else 0.0


cdef int add_rival(Greedy* greedy, int32_t at, int32_t better) noexcept nogil:
    """Puts a better rival on a box's list; GIVEN_UP: there is no room."""
    cdef Rival* rival
    if greedy.rivals == greedy.rival_capacity:
        return GIVEN_UP
    rival = &greedy.rival[greedy.rivals]
    rival.at = better
    rival.next = greedy.first_rival[at]
    greedy.first_rival[at] = <int32_t> greedy.rivals
    greedy.rivals += 1
    return 0


cdef inline void fetch_cells(const Greedy* greedy, int32_t at) noexcept nogil:
    cdef double box[4]
    cdef Window window
    widen(greedy.sorted[at].box, box)
    if has_area(box):
        window = window_of(box, &greedy.reach)
        grid_fetch(greedy.grid, &window)


cdef int judge_block(Greedy* greedy, int64_t begin, int64_t end) noexcept nogil:
    """Finds the owners of the boxes member[begin:end], and the better rivals of those that stay pending.

    0; -1: no memory; GIVEN_UP: there are too many of either.
    """
    cdef Grid* grid = greedy.grid
    cdef double box[4]
    cdef double other[4]
    cdef Blocks blocks
    cdef int64_t i, k, found, matching
    cdef int32_t at, better, best, surely, spot
    cdef bint alone = greedy.side == 1
    grid_reset(grid, end - begin if end - begin < greedy.most else greedy.most)
    for i in range(begin, end):
        if i + FETCH_AHEAD < end:
            if alone:
                fetch_cells(greedy, greedy.member[i + FETCH_AHEAD])
            else:
                ovyolo_prefetch(&greedy.sorted[greedy.member[i + FETCH_AHEAD]])
        at = greedy.member[i]
        widen(greedy.sorted[at].box, box)
        found = rivals_of(grid, box, &greedy.reach)
        matching = 0
        # the best rival, and the best that is kept for certain: lower is better, and -1, unsigned, is the worst
        best = surely = NOTHING
        for k in range(found):
            spot = grid.found[k]
            better = greedy.filed[spot]
            if <uint32_t> better > <uint32_t> surely:
                continue
            widen(grid.spot[spot].box, other)
            if overlaps(box, other, greedy.smaller, greedy.threshold):
                grid.found[matching] = better
                matching += 1
                if <uint32_t> better < <uint32_t> best:
                    best = better
                if greedy.owner[better] == NOTHING:
                    surely = better
        if not alone:
            blocks = greedy.blocks[at]
        if alone or (blocks.left == blocks.right and blocks.top == blocks.bottom):
            greedy.owner[at] = best if best == surely else PENDING
        # another block may have better rivals
        if greedy.owner[at] == PENDING:
            for k in range(matching):
                better = grid.found[k]
                if <uint32_t> better <= <uint32_t> surely and add_rival(greedy, at, better) != 0:
                    return GIVEN_UP
        # what is surely gone takes nothing with it
        if surely == NOTHING:
            if grid.spots == greedy.most or (grid.spots == greedy.too_many and i < greedy.soon):
                return GIVEN_UP
            spot = <int32_t> grid.spots
            memcpy(grid.spot[spot].box, greedy.sorted[at].box, 4 * sizeof(float))
            grid.spot[spot].class_id = 0
            greedy.filed[spot] = at
            grid.spots += 1
            if grid_file(grid, spot) < 0:
                return -1
    return 0


cdef int find_owners(Greedy* greedy) noexcept nogil:
    """Block by block, then those that are pending. A result as above."""
    cdef int64_t i
    cdef int32_t at, link
    cdef int status
    for i in range(greedy.n):
        greedy.owner[i] = PENDING
        greedy.first_rival[i] = NOTHING
    greedy.rivals = 0
    for i in range(greedy.side * greedy.side):
        status = judge_block(greedy, greedy.start[i], greedy.start[i + 1])
        if status != 0:
            return status
    for i in range(greedy.n):
        if greedy.owner[i] == PENDING:
            at = NOTHING
            link = greedy.first_rival[i]
            while link != NOTHING:
                if greedy.owner[greedy.rival[link].at] == NOTHING and <uint32_t> greedy.rival[link].at < <uint32_t> at:
                    at = greedy.rival[link].at
                link = greedy.rival[link].next
            greedy.owner[i] = at
    return 0


cdef int merge_greedy(Merge* merge, int64_t begin, int64_t end) noexcept nogil:
    """A box that matches a kept one goes, or (merging) makes it the box around both, if it still matches what that has
    become. Of several kept ones it is the best that it belongs to. -1: no memory."""
    cdef Greedy greedy
    cdef double box[4]
    cdef double* grown
    cdef const Sorted* candidate
    cdef int64_t i
    cdef int32_t owner
    cdef int j, status = greedy_init(&greedy, merge, begin, end)
    if status < 0:
        return status
    one_block(&greedy)
    greedy.most = greedy.n
    if greedy.n > 3 * boxes_in_cache:
        # to begin again costs what was done: at most a third, and mostly less. Where boxes belong to N objects, m of
        # them, a few, to about m - m^2 / 2N: with N what the caches hold and m a quarter of it, to seven eighths of m
        greedy.most = boxes_in_cache
        greedy.soon = boxes_in_cache // 4
        greedy.too_many = greedy.soon * 7 // 8
    status = find_owners(&greedy)
    greedy.most, greedy.soon = greedy.n, 0
    if status == GIVEN_UP:
        cut_into_blocks(&greedy)
        status = find_owners(&greedy)
    if status == GIVEN_UP:
        # crowds on the borders of blocks
        one_block(&greedy)
        status = find_owners(&greedy)
    for i in range(greedy.n if status == 0 else 0):
        candidate = &greedy.sorted[i]
        owner = greedy.owner[i]
        widen(candidate.box, box)
        if owner == NOTHING:
            # `filed` is free by now: where each kept box is among those of all classes
            greedy.filed[i] = <int32_t> merge.kept
            keep(merge, candidate, box)
            continue
        owner = greedy.filed[owner]
        merge.group[candidate.at] = owner
        if merge.how == MERGE_NMM:
            grown = merge.box + 4 * owner
            if overlap_of(box, grown, merge.smaller) > merge.threshold:
                for j in range(2):
                    grown[j] = box[j] if box[j] < grown[j] else grown[j]
                    grown[2 + j] = box[2 + j] if box[2 + j] > grown[2 + j] else grown[2 + j]
    free(greedy.block)
    return status
