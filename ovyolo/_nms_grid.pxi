# Boxes in a hashed grid; `_nms_search.pxi` asks it which of them can touch a window.
#
# Boxes of about one width and height (powers of four) are a shape; each shape has cells of that size, and a box is filed
# under the few cells that it touches. So neither tiny nor huge nor thin boxes crowd a cell that others search. Where a
# window has more cells of a shape than the shape has boxes, those are looked at one by one.

cdef enum:
    LOWEST_LEVEL = -6
    HIGHEST_LEVEL = 13
    LEVELS_OF_SIDE = HIGHEST_LEVEL - LOWEST_LEVEL + 1
    MOST_SHAPES = LEVELS_OF_SIDE * LEVELS_OF_SIDE


# more cells cost more filing, fewer more looking
cdef double CELLS_A_SIDE = 0.5


cdef struct Spot:
    float box[4]
    int32_t class_id
    int32_t shape
    # of the last search that saw it
    int32_t stamp
    # its neighbours in the chain of all boxes of its shape
    int32_t next, previous


cdef struct Link:
    int32_t spot, next


cdef struct Head:
    int32_t link
    # a bit for each cell filed here since the last reset, so that most cells that only share the hash end the search here
    uint32_t seen


cdef struct Shape:
    # cells a pixel
    double per[2]
    uint64_t salt
    int64_t boxes
    int32_t first
    int key
    bint wide
    # widths and heights of its boxes lie from `least` to `most`
    double least[2]
    double most[2]


cdef struct Grid:
    Spot* spot
    int64_t spots
    Link* link
    int64_t links, link_capacity
    int32_t free_link
    Head* head
    int64_t heads
    int shift
    int32_t stamp
    Shape* shape
    int shapes
    int16_t* shape_at
    # what a search found
    int32_t* found
    # the memory of all of these but the links; NULL where it is someone else's
    void* block


# columns and rows of cells, both ends included
cdef struct Cells:
    int32_t low[2]
    int32_t high[2]


cdef struct Window:
    # its corners
    double low[2]
    double high[2]
    # boxes of other widths and heights than these need not be found
    double least[2]
    double most[2]
    # nor do those that have their centre outside, unless they hold the window's
    bint by_centre


cdef void grid_free(Grid* grid) noexcept nogil:
    free(grid.link)
    free(grid.block)
    memset(grid, 0, sizeof(Grid))


cdef inline int64_t heads_for(int64_t n) noexcept nogil:
    cdef int64_t heads = 64
    while heads < 4 * n and heads < 1 << 30:
        heads *= 2
    return heads


cdef void grid_reset(Grid* grid, int64_t n) noexcept nogil:
    """Empties the grid, for n boxes, no more than it has room for."""
    cdef int64_t i
    grid.heads = heads_for(n)
    grid.shift = 64
    while (<int64_t> 1 << (64 - grid.shift)) < grid.heads:
        grid.shift -= 1
    for i in range(grid.heads):
        grid.head[i].link = NOTHING
        grid.head[i].seen = 0
    for i in range(grid.shapes):
        grid.shape_at[grid.shape[i].key] = NOTHING
    grid.shapes = 0
    grid.spots = grid.links = 0
    grid.stamp = 0
    grid.free_link = NOTHING


cdef inline size_t grid_room(int64_t n) noexcept nogil:
    """Bytes of a grid of n boxes, its links not counted."""
    # one shape more than there are pairs of levels: boxes too large for any cell
    return (
        (MOST_SHAPES + 1) * (sizeof(Shape) + sizeof(int16_t)) + <size_t> heads_for(n) * sizeof(Head)
        + <size_t> (n + 1) * (sizeof(Spot) + sizeof(int32_t))
    )


cdef void grid_lay_out(Grid* grid, void* room, int64_t n) noexcept nogil:
    """An empty grid of n boxes in `grid_room(n)` bytes, aligned for doubles."""
    memset(grid, 0, sizeof(Grid))
    grid.shape = <Shape*> room
    grid.head = <Head*> (grid.shape + MOST_SHAPES + 1)
    grid.spot = <Spot*> (grid.head + heads_for(n))
    grid.found = <int32_t*> (grid.spot + n + 1)
    grid.shape_at = <int16_t*> (grid.found + n + 1)
    memset(grid.shape_at, 0xFF, (MOST_SHAPES + 1) * sizeof(int16_t))  # NOTHING, everywhere
    grid_reset(grid, n)


cdef int grid_init(Grid* grid, int64_t n) noexcept nogil:
    """Room for n boxes; -1: no memory (and nothing to free)."""
    cdef void* block = malloc(grid_room(n))
    memset(grid, 0, sizeof(Grid))
    if block == NULL:
        return -1
    grid_lay_out(grid, block, n)
    grid.block = block
    return 0


cdef inline int level_of_side(double side) noexcept nogil:
    """j with side in [4^j / 2, 2 * 4^j), within limits."""
    cdef int exponent = 0
    frexp(side, &exponent)
    exponent >>= 1
    return LOWEST_LEVEL if exponent < LOWEST_LEVEL else (HIGHEST_LEVEL if exponent > HIGHEST_LEVEL else exponent)


cdef inline Cells cells_of(const Shape* shape, const double* low, const double* high) noexcept nogil:
    """Of the corners of a window or a box."""
    cdef Cells cells
    ovyolo_cells(low, shape.per, cells.low)
    ovyolo_cells(high, shape.per, cells.high)
    return cells


cdef inline double number_of(const Cells* cells) noexcept nogil:
    return (<double> cells.high[0] - cells.low[0] + 1.0) * (<double> cells.high[1] - cells.low[1] + 1.0)


cdef inline uint64_t hash_of(const Shape* shape, int64_t x, int64_t y, int32_t class_id) noexcept nogil:
    cdef uint64_t h = <uint64_t> x * 0x9E3779B97F4A7C15u + <uint64_t> y * 0xC2B2AE3D27D4EB4Fu
    h += shape.salt + <uint64_t> <uint32_t> class_id * 0x165667B19E3779F9u
    h = (h ^ (h >> 32)) * 0x94D049BB133111EBu
    return h ^ (h >> 29)


cdef inline Head* head_of(const Grid* grid, uint64_t hashed) noexcept nogil:
    return &grid.head[hashed >> grid.shift]


cdef inline uint32_t mark_of(uint64_t hashed) noexcept nogil:
    """The bit of Head.seen: from the low end of the hash, the head being from the high end."""
    return <uint32_t> 1 << (hashed & 31)


cdef inline int shape_of_box(Grid* grid, const float* box) noexcept nogil:
    """The shape of a box with an area; made where it is new."""
    cdef int across = level_of_side(<double> box[2] - box[0]), down = level_of_side(<double> box[3] - box[1])
    cdef int key = (across - LOWEST_LEVEL) * LEVELS_OF_SIDE + down - LOWEST_LEVEL
    cdef bint wide = (
        <double> box[2] - box[0] > ldexp(2.0, 2 * HIGHEST_LEVEL) or <double> box[3] - box[1] > ldexp(2.0, 2 * HIGHEST_LEVEL)
    )
    cdef int level[2]
    cdef Shape* shape
    cdef int j
    if wide:
        key = MOST_SHAPES
    if grid.shape_at[key] == NOTHING:
        grid.shape_at[key] = <int16_t> grid.shapes
        shape = &grid.shape[grid.shapes]
        shape.per[0] = ldexp(CELLS_A_SIDE, -2 * across)
        shape.per[1] = ldexp(CELLS_A_SIDE, -2 * down)
        shape.salt = <uint64_t> (key + 1) * 0xD6E8FEB86659FD93u
        shape.boxes = 0
        shape.first = NOTHING
        shape.key = key
        shape.wide = wide
        level[0], level[1] = across, down
        for j in range(2):
            shape.least[j] = 0.0 if wide or level[j] == LOWEST_LEVEL else ldexp(0.5, 2 * level[j])
            shape.most[j] = INFINITY if wide else ldexp(2.0, 2 * level[j])
        grid.shapes += 1
    return grid.shape_at[key]


cdef int grid_file(Grid* grid, int32_t at) noexcept nogil:
    """Files the spot `at`, whose box and class are set; a box without area is left out. -1: no memory."""
    cdef Spot* spot = &grid.spot[at]
    cdef double box[4]
    cdef Shape* shape
    cdef Cells cells
    cdef int64_t x, y, capacity
    cdef uint64_t hashed
    cdef Head* head
    cdef int32_t link
    cdef void* grown
    spot.stamp = 0
    spot.shape = NOTHING
    if not (spot.box[2] > spot.box[0] and spot.box[3] > spot.box[1]):
        return 0
    spot.shape = shape_of_box(grid, spot.box)
    shape = &grid.shape[spot.shape]
    spot.next = shape.first
    spot.previous = NOTHING
    if shape.first != NOTHING:
        grid.spot[shape.first].previous = at
    shape.first = at
    shape.boxes += 1
    if shape.wide:
        return 0
    widen(spot.box, box)
    cells = cells_of(shape, box, box + 2)
    for y in range(cells.low[1], cells.high[1] + 1):
        for x in range(cells.low[0], cells.high[0] + 1):
            hashed = hash_of(shape, x, y, spot.class_id)
            head = head_of(grid, hashed)
            link = grid.free_link
            if link != NOTHING:
                grid.free_link = grid.link[link].next
            else:
                if grid.links == grid.link_capacity:
                    capacity = 2 * grid.link_capacity + 1024
                    if capacity > MOST:
                        return -1
                    grown = realloc(grid.link, <size_t> capacity * sizeof(Link))
                    if grown == NULL:
                        return -1
                    grid.link = <Link*> grown
                    grid.link_capacity = capacity
                link = <int32_t> grid.links
                grid.links += 1
            grid.link[link].spot = at
            grid.link[link].next = head.link
            head.link = link
            head.seen |= mark_of(hashed)
    return 0


cdef void grid_take_out(Grid* grid, int32_t at) noexcept nogil:
    """Undoes grid_file."""
    cdef Spot* spot = &grid.spot[at]
    cdef double box[4]
    cdef Shape* shape
    cdef Cells cells
    cdef int64_t x, y
    cdef int32_t* place
    cdef int32_t link
    if spot.shape == NOTHING:
        return
    shape = &grid.shape[spot.shape]
    shape.boxes -= 1
    if spot.previous == NOTHING:
        shape.first = spot.next
    else:
        grid.spot[spot.previous].next = spot.next
    if spot.next != NOTHING:
        grid.spot[spot.next].previous = spot.previous
    if not shape.wide:
        widen(spot.box, box)
        cells = cells_of(shape, box, box + 2)
        for y in range(cells.low[1], cells.high[1] + 1):
            for x in range(cells.low[0], cells.high[0] + 1):
                place = &head_of(grid, hash_of(shape, x, y, spot.class_id)).link
                while grid.link[place[0]].spot != at:
                    place = &grid.link[place[0]].next
                link = place[0]
                place[0] = grid.link[link].next
                grid.link[link].next = grid.free_link
                grid.free_link = link
    spot.shape = NOTHING
