# Heads to boxes, with all that stays the same from picture to picture checked and laid out once. After a network has run,
# nothing else is in the processor's caches, and each function of Python and NumPy that is called costs some 10 us.

cdef int take_head(object head, Py_ssize_t level, Py_buffer* view) except -1:
    """A buffer of aligned, C-contiguous float32, to be released: of the array itself, or of a copy."""
    cdef bint usable = False
    if type(head) is ndarray:
        try:
            PyObject_GetBuffer(head, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError):  # not contiguous, or of a type that has no buffer
            pass
        else:
            usable = strcmp(view.format, b"f") == 0 and <size_t> view.buf % sizeof(float) == 0
            if not usable:
                PyBuffer_Release(view)
    if not usable:
        PyObject_GetBuffer(checked_array(head, "heads", level), view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    return 0


cdef int64_t walk_heads(Work* work, const Plane* end, Chunk* chunk, int32_t* start, uint8_t* mask) noexcept nogil:
    """Candidates of all planes, and those of them that are kept, as `suppress` says."""
    cdef const Plane* plane = work.plane
    while plane < end:
        if plane.size > 0 and walk_anchor(work, chunk, plane, plane + 1 if plane + 1 < end else plane, start, mask) < 0:
            return -1
        plane += 1
    return suppress(work, True)


@cython.final
cdef class HeadDecoder:
    """:func:`decode_nms` for many pictures: what does not change is checked here, once.

    Args:
        anchors, strides, num_classes, conf, iou, max_det, multi_label, agnostic, class_mask, max_nms: as of
            :func:`decode_nms`; they are copied.

    Calling it with ``heads`` and, if wanted, ``transform`` gives what :func:`decode_nms` gives. Any number of threads may.

    Raises:
        DimensionError: an argument has a wrong type, shape, dtype or range.

    Example:
        >>> import numpy as np
        >>> from ovyolo._nms import HeadDecoder
        >>> decode = HeadDecoder([[[10, 20]]], [8], 2, conf=0.25, iou=0.45)
        >>> head = np.full((1, 7, 4, 4), -9, np.float32)  # one anchor, two classes
        >>> head[0, :, 1, 2] = [0, 0, 0, 0, 9, -9, 9]  # a box in row 1, column 2, class 1
        >>> decode([head])[0].tolist()
        [[15.0, 2.0, 25.0, 22.0]]
    """

    # without memory; each call works on a copy
    cdef Work settings
    # without what depends on the heads
    cdef Plane* plane
    cdef uint8_t* wanted
    cdef Py_ssize_t levels, na

    def __cinit__(
        self, anchors, strides, num_classes, *, conf, iou, max_det=300, multi_label=False, agnostic=False,
        class_mask=None, max_nms=30000,
    ):
        cdef const double[::1] sizes, steps
        cdef const uint8_t[::1] mask
        cdef Py_ssize_t i
        settle(&self.settings, num_classes, conf, iou, max_det, multi_label, agnostic, max_nms)
        shape = shape_of(anchors)
        if len(shape) != 3 or shape[0] < 1 or shape[1] < 1 or shape[2] != 2:
            raise DimensionError(
                f"anchors have shape {shape}; pass [levels, anchors, 2]: width and height in network pixels"
            )
        self.levels, self.na = shape[0], shape[1]
        if <double> self.levels * <double> self.na > MOST:
            raise DimensionError(f"anchors have {self.levels} levels of {self.na}; that is too many")
        sizes = checked_numbers(anchors, "anchors", shape, "anchor widths and heights in network pixels")
        steps = checked_numbers(strides, "strides", shape[:1], "strides in network pixels, one for each level")
        self.plane = <Plane*> malloc(<size_t> (self.levels * self.na) * sizeof(Plane))
        if self.plane == NULL:
            raise MemoryError("no memory for the anchors")
        for i in range(self.levels * self.na):
            self.plane[i].stride = steps[i // self.na]
            self.plane[i].anchor_width = sizes[2 * i]
            self.plane[i].anchor_height = sizes[2 * i + 1]
        mask_array = checked_mask(class_mask, self.settings.classes)
        if mask_array is not None:
            mask = mask_array
            self.wanted = <uint8_t*> malloc(<size_t> self.settings.classes)
            if self.wanted == NULL:
                raise MemoryError("no memory for the mask of classes")
            memcpy(self.wanted, &mask[0], <size_t> self.settings.classes)
            self.settings.wanted = self.wanted

    def __dealloc__(self):
        free(self.plane)
        free(self.wanted)

    cdef int64_t lay(self, Plane* plane, const Py_buffer* view, Py_ssize_t level, object head) except -1:
        """Fills in where the planes of a level lie; returns their size."""
        cdef int64_t channels = self.na * (5 + <int64_t> self.settings.classes), size
        cdef const Py_ssize_t* shape = view.shape
        cdef Py_ssize_t anchor
        if view.ndim == 4 and shape[0] == 1:
            shape += 1
        if view.ndim - (shape - view.shape) != 3 or shape[0] != channels:
            raise DimensionError(
                f"heads[{level}] has shape {head.shape}; expected [1, {channels}, H, W]: "
                f"{self.na} anchors times (5 + {self.settings.classes} classes)"
            )
        size = shape[1] * shape[2]
        if size > MOST - 64:
            raise DimensionError(f"heads[{level}] has {size} cells; at most {MOST - 64} are supported")
        for anchor in range(self.na):
            plane[anchor] = self.plane[level * self.na + anchor]
            plane[anchor].width = shape[2]
            plane[anchor].size = size
            plane[anchor].logits = <const float*> view.buf + anchor * (5 + <int64_t> self.settings.classes) * size
        return size

    def __call__(self, heads, transform=None):
        cdef Work work = self.settings
        cdef Py_ssize_t planes = self.levels * self.na, level, taken = 0
        cdef double mapping[6]
        cdef int64_t n = -1, size, most = 0
        cdef Py_buffer* view
        cdef Chunk* chunk = NULL
        cdef int32_t* start
        if transform is not None:
            checked_transform(transform, mapping)
        if isinstance(heads, ndarray):
            raise DimensionError("heads is one array; pass a sequence of arrays, one for each level")
        try:
            given = tuple(heads)
        except TypeError:
            raise DimensionError(f"heads is a {type(heads).__name__}; pass a sequence of float32 arrays") from None
        if len(given) == 0:
            raise DimensionError("heads is empty; pass at least one level")
        if len(given) != self.levels:
            raise DimensionError(
                f"heads has {len(given)} levels, but anchors have shape {(self.levels, self.na, 2)}; pass [{len(given)}, "
                "anchors, 2]: width and height in network pixels"
            )
        work.plane = <Plane*> malloc(<size_t> planes * sizeof(Plane) + <size_t> self.levels * sizeof(Py_buffer))
        if work.plane == NULL:
            raise MemoryError("no memory for the planes of the heads")
        view = <Py_buffer*> (work.plane + planes)
        try:
            for level in range(self.levels):
                take_head(given[level], level, &view[level])
                taken += 1
                size = self.lay(work.plane + level * self.na, &view[level], level, given[level])
                most = size if size > most else most
            size = most // 8 + 8
            chunk = <Chunk*> malloc(sizeof(Chunk) + <size_t> size * (sizeof(int32_t) + 1))
            if chunk != NULL:
                start = <int32_t*> (chunk + 1)
                with nogil:
                    n = walk_heads(&work, work.plane + planes, chunk, start, <uint8_t*> (start + size))
            if n < 0:
                raise MemoryError("no memory for the candidates of decoding")
            return results(&work, n, NULL if transform is None else mapping)
        finally:
            for level in range(taken):
                PyBuffer_Release(&view[level])
            free(chunk)
            work_free(&work)
