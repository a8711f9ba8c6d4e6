# One call's memory, settings and results.


cdef class Scratch:
    """Owns the C memory of one call, so that it is freed however the call ends."""

    cdef Work work

    def __cinit__(self):
        memset(&self.work, 0, sizeof(Work))

    def __dealloc__(self):
        work_free(&self.work)


cdef Scratch prepare(
    object num_classes, object conf, object iou, object max_det, object multi_label, object agnostic, object max_nms,
):
    cdef Scratch scratch = Scratch()
    cdef Work* work = &scratch.work
    work.conf = <float> fraction(conf, "conf")
    work.iou = <float> fraction(iou, "iou")
    work.max_det = count(max_det, "max_det", MOST)
    work.max_nms = count(max_nms, "max_nms", MOST)
    work.classes = <int32_t> count(num_classes, "num_classes", MOST - 8)
    work.multi_label = bool(multi_label)
    work.agnostic = bool(agnostic)
    return scratch


cdef inline float mapped(float value, double gain, double pad, double most) noexcept nogil:
    cdef double result = (<double> value - pad) / gain
    return <float> (0.0 if result < 0.0 else (most if result > most else result))


cdef tuple results(Scratch scratch, int64_t n, object transform):
    cdef Work* work = &scratch.work
    cdef double t[6]
    xyxy = np.empty((n, 4), np.float32)
    confidence = np.empty(n, np.float32)
    class_id = np.empty(n, np.int32)
    cdef Py_buffer boxes, scores, classes
    cdef int64_t i
    cdef int j
    cdef const float* box
    if transform is not None:
        checked_transform(transform, t)
    # plain buffers: three memoryviews would take longer than most calls' boxes; they are of this function alone
    PyObject_GetBuffer(xyxy, &boxes, PyBUF_WRITABLE)
    PyObject_GetBuffer(confidence, &scores, PyBUF_WRITABLE)
    PyObject_GetBuffer(class_id, &classes, PyBUF_WRITABLE)
    for i in range(n):
        box = work.cell[work.found[i].cell].box
        for j in range(4):
            (<float*> boxes.buf)[4 * i + j] = (
                box[j] if transform is None else mapped(box[j], t[j & 1], t[2 + (j & 1)], t[4 + (j & 1)])
            )
        (<float*> scores.buf)[i] = found_score(&work.found[i])
        (<int32_t*> classes.buf)[i] = found_class(&work.found[i])
    PyBuffer_Release(&boxes)
    PyBuffer_Release(&scores)
    PyBuffer_Release(&classes)
    return xyxy, confidence, class_id, bool(work.truncated), work.nonfinite
