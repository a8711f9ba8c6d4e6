# Candidates in their total order, and selecting and sorting them in O(n log n) whatever the input.

cdef struct Found:
    # score (high half, inverted so that smaller is better) and class (low half, ascending)
    uint64_t key
    int64_t cell


cdef inline Found make_found(float score, int32_t class_id, int64_t cell) noexcept nogil:
    cdef Found found
    found.key = (<uint64_t> (0xFFFFFFFFu - ovyolo_ordered(score)) << 32) | (<uint32_t> class_id ^ 0x80000000u)
    found.cell = cell
    return found


cdef inline float found_score(const Found* found) noexcept nogil:
    return ovyolo_unordered(0xFFFFFFFFu - <uint32_t> (found.key >> 32))


cdef inline int32_t found_class(const Found* found) noexcept nogil:
    return <int32_t> (<uint32_t> (found.key & 0xFFFFFFFFu) ^ 0x80000000u)


cdef inline bint before(const Found* a, const Found* b) noexcept nogil:
    return a.key < b.key or (a.key == b.key and a.cell < b.cell)


cdef inline void swap(Found* a, Found* b) noexcept nogil:
    cdef Found kept = a[0]
    a[0] = b[0]
    b[0] = kept


cdef void insertion_sort(Found* a, int64_t n) noexcept nogil:
    cdef int64_t i, j
    cdef Found moved
    for i in range(1, n):
        moved = a[i]
        j = i
        while j > 0 and before(&moved, &a[j - 1]):
            a[j] = a[j - 1]
            j -= 1
        a[j] = moved


cdef void sift_down(Found* a, int64_t root, int64_t n) noexcept nogil:
    cdef int64_t child
    cdef Found moved = a[root]
    while True:
        child = 2 * root + 1
        if child >= n:
            break
        if child + 1 < n and before(&a[child], &a[child + 1]):
            child += 1
        if not before(&moved, &a[child]):
            break
        a[root] = a[child]
        root = child
    a[root] = moved


cdef void heap_sort(Found* a, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n // 2 - 1, -1, -1):
        sift_down(a, i, n)
    for i in range(n - 1, 0, -1):
        swap(&a[0], &a[i])
        sift_down(a, 0, i)


cdef int64_t split(Found* a, int64_t n) noexcept nogil:
    """Partitions a[0:n], n >= 3, about a median of three; returns where the pivot came to lie."""
    cdef int64_t i = 0, j = n - 1
    cdef Found pivot
    if before(&a[n // 2], &a[0]):
        swap(&a[n // 2], &a[0])
    if before(&a[n - 1], &a[0]):
        swap(&a[n - 1], &a[0])
    if before(&a[n - 1], &a[n // 2]):
        swap(&a[n - 1], &a[n // 2])
    swap(&a[n // 2], &a[n - 2])
    pivot = a[n - 2]
    j = n - 2
    while True:
        i += 1
        while before(&a[i], &pivot):
            i += 1
        j -= 1
        while before(&pivot, &a[j]):
            j -= 1
        if i >= j:
            break
        swap(&a[i], &a[j])
    swap(&a[i], &a[n - 2])
    return i


cdef int64_t patience(int64_t n) noexcept nogil:
    """Partitions allowed before heap sort takes over: what makes an adversary's order harmless."""
    cdef int64_t steps = 8
    while n > 1:
        steps += 2
        n >>= 1
    return steps


cdef void sort_within(Found* a, int64_t n, int64_t budget) noexcept nogil:
    cdef int64_t middle
    while n > 24:
        if budget == 0:
            heap_sort(a, n)
            return
        budget -= 1
        middle = split(a, n)
        # recursing into the smaller side bounds the stack by log2(n)
        if middle < n - middle - 1:
            sort_within(a, middle, budget)
            a += middle + 1
            n -= middle + 1
        else:
            sort_within(a + middle + 1, n - middle - 1, budget)
            n = middle
    insertion_sort(a, n)


cdef void sort_found(Found* a, int64_t n) noexcept nogil:
    sort_within(a, n, patience(n))


cdef void select_top(Found* a, int64_t n, int64_t top) noexcept nogil:
    """Moves the first `top` in order to the front, themselves in no order."""
    cdef int64_t middle, budget = patience(n)
    while n > 24 and 0 < top < n:
        if budget == 0:
            heap_sort(a, n)
            return
        budget -= 1
        middle = split(a, n)
        if top <= middle:
            n = middle
        else:
            a += middle + 1
            n -= middle + 1
            top -= middle + 1
    if 0 < top < n:
        insertion_sort(a, n)
