# The question "which of the boxes in the grid, of these sizes, can touch this window?".

cdef inline bint touches(const Spot* spot, const Window* window, int32_t class_id) noexcept nogil:
    return spot.class_id == class_id and ovyolo_touches(spot.box, window.low, window.high)


cdef inline bint may_hold(const Shape* shape, const Window* window) noexcept nogil:
    return (
        shape.boxes > 0
        and shape.least[0] <= window.most[0] and shape.most[0] >= window.least[0]
        and shape.least[1] <= window.most[1] and shape.most[1] >= window.least[1]
    )


cdef inline void look_within(double* begin, double* end, double least) noexcept nogil:
    """Makes a window smaller along one axis: a box that has its centre in it holds `least` / 2 on either side."""
    cdef double middle = 0.5 * (begin[0] + end[0]), inset = 0.5 * least * (1.0 - 1e-9)
    begin[0] = begin[0] + inset if begin[0] + inset < middle else middle
    end[0] = end[0] - inset if end[0] - inset > middle else middle


cdef inline Window window_for(const Shape* shape, const Window* window) noexcept nogil:
    """Where boxes of a shape are looked for."""
    cdef Window own = window[0]
    if window.by_centre:
        look_within(&own.low[0], &own.high[0], shape.least[0])
        look_within(&own.low[1], &own.high[1], shape.least[1])
    return own


cdef int64_t grid_search(Grid* grid, const Window* asked, int32_t class_id) noexcept nogil:
    """Writes to grid.found the filed boxes of a class that touch a window, each once, and perhaps not those that the
    window says need not be found; returns how many."""
    cdef int64_t count = 0, x, y
    cdef int i
    cdef Shape* shape
    cdef Window window
    cdef Cells cells
    cdef Spot* spot
    cdef Head* head
    cdef uint64_t hashed
    cdef int32_t link, at
    if grid.stamp == 0x7FFFFFFF:
        for at in range(<int32_t> grid.spots):
            grid.spot[at].stamp = 0
        grid.stamp = 0
    grid.stamp += 1
    for i in range(grid.shapes):
        shape = &grid.shape[i]
        if not may_hold(shape, asked):
            continue
        window = window_for(shape, asked)
        if not shape.wide:
            cells = cells_of(shape, window.low, window.high)
            if number_of(&cells) <= 2 * shape.boxes + 4:
                for y in range(cells.low[1], cells.high[1] + 1):
                    for x in range(cells.low[0], cells.high[0] + 1):
                        hashed = hash_of(shape, x, y, class_id)
                        head = head_of(grid, hashed)
                        link = head.link if head.seen & mark_of(hashed) else NOTHING
                        while link != NOTHING:
                            at = grid.link[link].spot
                            link = grid.link[link].next
                            spot = &grid.spot[at]
                            if spot.stamp != grid.stamp and touches(spot, &window, class_id):
                                spot.stamp = grid.stamp
                                grid.found[count] = at
                                count += 1
                continue
        at = shape.first
        while at != NOTHING:
            spot = &grid.spot[at]
            if spot.stamp != grid.stamp and touches(spot, &window, class_id):
                spot.stamp = grid.stamp
                grid.found[count] = at
                count += 1
            at = spot.next
    return count


cdef void grid_fetch(const Grid* grid, const Window* asked) noexcept nogil:
    """Begins to fetch into the cache what a search will read. A hint: it changes nothing."""
    cdef int64_t x, y
    cdef int i
    cdef const Shape* shape
    cdef Window window
    cdef Cells cells
    for i in range(grid.shapes):
        shape = &grid.shape[i]
        if not may_hold(shape, asked):
            continue
        window = window_for(shape, asked)
        cells = cells_of(shape, window.low, window.high)
        if number_of(&cells) <= 9.0:
            for y in range(cells.low[1], cells.high[1] + 1):
                for x in range(cells.low[0], cells.high[0] + 1):
                    ovyolo_prefetch(head_of(grid, hash_of(shape, x, y, 0)))
