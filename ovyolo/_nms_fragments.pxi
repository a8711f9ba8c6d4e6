# Boxes that a tile's border cut, and joining those that are of one object.
#
# Of an object that it does not hold whole, a tile sees a fragment: the object's box, cut at the tile's border. So a box
# explains a fragment when, cut by the fragment's tile, it is about that fragment. Two fragments are of one object when
# their tiles see the same where both look (or along the border, where tiles only touch), and the box around both
# explains both. The same holds for more.

cdef enum:
    # pixels that two tiles may share, or fragments lie apart, where tiles only touch
    TOUCHING = 2


cdef struct Pair:
    double agreement
    int32_t first, second


cdef struct Join:
    int64_t n
    const float* xyxy
    const int32_t* class_ids
    # the number of each fragment's tile, and the tiles
    const int32_t* tile
    const double* tiles
    double threshold
    # fragments that join are a ring; its box stands at the lowest of them, which all of them name
    int32_t* root
    int32_t* ring
    double* box
    Pair* pair
    int64_t pairs, pair_capacity
    Grid grid


cdef void join_free(Join* join) noexcept nogil:
    free(join.ring)
    free(join.box)
    free(join.pair)
    grid_free(&join.grid)


cdef inline void cut_by(const double* box, const double* tile, double* into) noexcept nogil:
    cdef int j
    for j in range(2):
        into[j] = box[j] if box[j] > tile[j] else tile[j]
        into[2 + j] = box[2 + j] if box[2 + j] < tile[2 + j] else tile[2 + j]


cdef inline void bend(double* box, const double* target, double slack) noexcept nogil:
    """Moves each side of a box towards the target's, by `slack` at most, and by half of what the target measures."""
    cdef int j
    cdef double reach
    for j in range(4):
        reach = 0.5 * (target[2 + (j & 1)] - target[j & 1])
        reach = slack if slack < reach else reach
        if box[j] < target[j]:
            box[j] = box[j] + reach if box[j] + reach < target[j] else target[j]
        else:
            box[j] = box[j] - reach if box[j] - reach > target[j] else target[j]


cdef inline double share_of(const double* a, const double* b, int axis) noexcept nogil:
    """IoU of two boxes' extents along one axis."""
    cdef double both = (a[2 + axis] if a[2 + axis] < b[2 + axis] else b[2 + axis]) - (
        a[axis] if a[axis] > b[axis] else b[axis]
    )
    cdef double whole = (a[2 + axis] if a[2 + axis] > b[2 + axis] else b[2 + axis]) - (
        a[axis] if a[axis] < b[axis] else b[axis]
    )
    return both / whole if both > 0.0 and whole > 0.0 else 0.0


cdef double agreement_of(const Join* join, int32_t a, int32_t b) noexcept nogil:
    """How much two tiles see the same where both look: IoU there, or along the border where they only touch."""
    cdef const double* first = join.tiles + 4 * join.tile[a]
    cdef const double* second = join.tiles + 4 * join.tile[b]
    cdef double shared[4]
    cdef double one[4]
    cdef double other[4]
    cut_by(first, second, shared)
    widen(join.xyxy + 4 * a, one)
    widen(join.xyxy + 4 * b, other)
    # a strip of a pixel or two says nothing across
    if shared[2] - shared[0] <= TOUCHING and shared[3] - shared[1] <= TOUCHING:
        return 0.0
    if shared[2] - shared[0] <= TOUCHING:
        return share_of(one, other, 1)
    if shared[3] - shared[1] <= TOUCHING:
        return share_of(one, other, 0)
    cut_by(one, shared, one)
    cut_by(other, shared, other)
    return overlap_of(one, other, False)


cdef bint explains(const Join* join, const double* box, int32_t fragment) noexcept nogil:
    cdef double part[4]
    cdef double seen[4]
    cut_by(box, join.tiles + 4 * join.tile[fragment], part)
    widen(join.xyxy + 4 * fragment, seen)
    return overlap_of(part, seen, False) > join.threshold


cdef bint explains_all(const Join* join, const double* box, int32_t fragment) noexcept nogil:
    cdef int32_t at = fragment
    while True:
        if not explains(join, box, at):
            return False
        at = join.ring[at]
        if at == fragment:
            return True


cdef int add_pair(Join* join, int32_t first, int32_t second, double agreement) noexcept nogil:
    cdef int64_t capacity
    cdef void* grown
    if join.pairs == join.pair_capacity:
        capacity = 2 * join.pair_capacity + 256
        grown = realloc(join.pair, <size_t> capacity * sizeof(Pair))
        if grown == NULL:
            return -1
        join.pair = <Pair*> grown
        join.pair_capacity = capacity
    join.pair[join.pairs].agreement = agreement
    join.pair[join.pairs].first = first
    join.pair[join.pairs].second = second
    join.pairs += 1
    return 0


cdef int by_agreement(const void* a, const void* b) noexcept nogil:
    cdef const Pair* one = <const Pair*> a
    cdef const Pair* other = <const Pair*> b
    if one.agreement != other.agreement:
        return -1 if one.agreement > other.agreement else 1
    if one.first != other.first:
        return -1 if one.first < other.first else 1
    return -1 if one.second < other.second else (1 if one.second > other.second else 0)


cdef int join_pairs(Join* join) noexcept nogil:
    """Joins fragments, the pairs that agree most first. -1: no memory."""
    cdef int64_t i, k, found
    cdef int32_t a, b, at, last
    cdef int j
    cdef double agreement
    cdef double hull[4]
    cdef Spot* spot
    cdef Window window
    for j in range(2):
        window.least[j], window.most[j] = 0.0, INFINITY
    window.by_centre = False
    join.ring = <int32_t*> malloc(<size_t> (join.n + 1) * sizeof(int32_t))
    join.box = <double*> malloc(<size_t> (4 * join.n + 1) * sizeof(double))
    if join.ring == NULL or join.box == NULL or grid_init(&join.grid, join.n) < 0:
        return -1
    for i in range(join.n):
        join.root[i] = join.ring[i] = <int32_t> i
        widen(join.xyxy + 4 * i, join.box + 4 * i)
        spot = &join.grid.spot[i]
        for j in range(4):
            spot.box[j] = join.xyxy[4 * i + j]
        spot.class_id = 0 if join.class_ids == NULL else join.class_ids[i]
        # searched before it is filed, so that each pair comes once
        for j in range(2):
            window.low[j], window.high[j] = spot.box[j] - TOUCHING, spot.box[2 + j] + TOUCHING
        found = grid_search(&join.grid, &window, spot.class_id)
        for k in range(found):
            a = join.grid.found[k]
            if join.tile[a] == join.tile[i]:
                continue
            agreement = agreement_of(join, a, <int32_t> i)
            if agreement > join.threshold and add_pair(join, a, <int32_t> i, agreement) < 0:
                return -1
        join.grid.spots = i + 1
        if grid_file(&join.grid, <int32_t> i) < 0:
            return -1
    if join.pairs > 1:
        qsort(join.pair, <size_t> join.pairs, sizeof(Pair), by_agreement)
    for i in range(join.pairs):
        a = join.root[join.pair[i].first]
        b = join.root[join.pair[i].second]
        if a == b:
            continue
        if b < a:
            a, b = b, a
        for j in range(2):
            hull[j] = join.box[4 * a + j] if join.box[4 * a + j] < join.box[4 * b + j] else join.box[4 * b + j]
            hull[2 + j] = (
                join.box[4 * a + 2 + j] if join.box[4 * a + 2 + j] > join.box[4 * b + 2 + j] else join.box[4 * b + 2 + j]
            )
        if not (explains_all(join, hull, a) and explains_all(join, hull, b)):
            continue
        for j in range(4):
            join.box[4 * a + j] = hull[j]
        at = b
        while True:
            join.root[at] = a
            last = at
            at = join.ring[at]
            if at == b:
                break
        # two rings become one
        join.ring[last] = join.ring[a]
        join.ring[a] = b
    return 0
