# One call's memory, settings and results.


cdef class Scratch:
    """Owns the C memory of one call, so that it is freed however the call ends."""

    cdef Work work

    def __cinit__(self):
        memset(&self.work, 0, sizeof(Work))

    def __dealloc__(self):
        work_free(&self.work)


cdef int settle(
    Work* work, object num_classes, object conf, object iou, object max_det, object multi_label, object agnostic,
    object max_nms,
) except -1:
    """Checks the settings of a call, and puts them into work that has no memory."""
    work.conf = <float> fraction(conf, "conf")
    work.iou = <float> fraction(iou, "iou")
    work.max_det = count(max_det, "max_det", MOST)
    work.max_nms = count(max_nms, "max_nms", MOST)
    work.classes = <int32_t> count(num_classes, "num_classes", MOST - 8)
    work.multi_label = bool(multi_label)
    work.agnostic = bool(agnostic)
    return 0


cdef inline float mapped(float value, double gain, double pad, double most) noexcept nogil:
    cdef double result = (<double> value - pad) / gain
    return <float> (0.0 if result < 0.0 else (most if result > most else result))


cdef tuple results(const Work* work, int64_t n, const double* transform):
    """The first n candidates as arrays; `transform` is as of `decode_nms`, NULL being None."""
    xyxy = empty((n, 4), FLOAT32)
    confidence = empty(n, FLOAT32)
    class_id = empty(n, INT32)
    cdef Py_buffer boxes, scores, classes
    cdef int64_t i
    cdef int j
    cdef const float* box
    # plain buffers: three memoryviews would take longer than most calls' boxes; they are of this function alone
    PyObject_GetBuffer(xyxy, &boxes, PyBUF_WRITABLE)
    PyObject_GetBuffer(confidence, &scores, PyBUF_WRITABLE)
    PyObject_GetBuffer(class_id, &classes, PyBUF_WRITABLE)
    for i in range(n):
        box = work.cell[work.found[i].cell].box
        for j in range(4):
            (<float*> boxes.buf)[4 * i + j] = (
                box[j] if transform == NULL
                else mapped(box[j], transform[j & 1], transform[2 + (j & 1)], transform[4 + (j & 1)])
            )
        (<float*> scores.buf)[i] = found_score(&work.found[i])
        (<int32_t*> classes.buf)[i] = found_class(&work.found[i])
    PyBuffer_Release(&boxes)
    PyBuffer_Release(&scores)
    PyBuffer_Release(&classes)
    return xyxy, confidence, class_id, bool(work.truncated), work.nonfinite
