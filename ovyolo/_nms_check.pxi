# Checks of what callers pass: every failure is a DimensionError of one sentence.

cdef enum:
    MOST = 0x7FFFFFFF

cdef object FLOAT32 = np.dtype(np.float32)
cdef object INT32 = np.dtype(np.int32)
cdef object ndarray = np.ndarray
cdef object empty = np.empty


cdef double fraction(object value, str name) except -1.0:
    cdef double result
    try:
        result = value
    except (TypeError, ValueError, OverflowError):
        raise DimensionError(f"{name} is {value!r:.40}; pass a number from 0 to 1") from None
    if not 0.0 <= result <= 1.0:
        raise DimensionError(f"{name} is {result:g}; it must lie between 0 and 1")
    return result


cdef int64_t count(object value, str name, int64_t most) except -1:
    """A whole number from 1 on, cut to `most`, since more is never needed."""
    try:
        number = operator.index(value)
    except TypeError:
        raise DimensionError(f"{name} is {value!r}; pass a whole number from 1 on") from None
    if number < 1:
        raise DimensionError(f"{name} is {number}; it must be at least 1")
    return most if number > most else number


cdef object checked_array(object array, str name, Py_ssize_t index=-1):
    """A contiguous, aligned float32 array of the same values; a copy only where the one given is not so."""
    if not isinstance(array, ndarray) or array.dtype != FLOAT32:
        if index >= 0:
            name = f"{name}[{index}]"
        if not isinstance(array, ndarray):
            raise DimensionError(f"{name} is a {type(array).__name__}; pass a float32 NumPy array")
        raise DimensionError(f"{name} has dtype {array.dtype}; pass float32 (array.astype(numpy.float32))")
    if type(array) is not ndarray:
        array = np.asarray(array)
    flags = array.flags
    if not flags.c_contiguous or not flags.aligned:
        array = np.array(array, dtype=FLOAT32, order="C", copy=True)
    return array


cdef const double[::1] checked_numbers(object values, str name, tuple shape, str meaning):
    """Finite, positive float64 numbers of the given shape, flat."""
    try:
        array = np.asarray(values, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError):
        raise DimensionError(f"{name} cannot be read as numbers; pass {meaning}") from None
    if array.shape != shape:
        raise DimensionError(f"{name} has shape {array.shape}, not {shape}; pass {meaning}")
    cdef const double[::1] flat = array.reshape(-1)
    cdef Py_ssize_t i
    for i in range(flat.shape[0]):
        if not 0.0 < flat[i] <= 1e6:
            raise DimensionError(f"{name} holds {flat[i]:g}; pass {meaning}, positive and at most 1e6")
    return flat


cdef object checked_mask(object class_mask, int64_t num_classes):
    if class_mask is None:
        return None
    if not isinstance(class_mask, ndarray) or class_mask.dtype.char not in "?B":
        raise DimensionError("class_mask is not an array of bool or uint8; pass one with a value for each class")
    if class_mask.shape != (num_classes,):
        raise DimensionError(f"class_mask has shape {class_mask.shape}; it must be ({num_classes},), one a class")
    return np.ascontiguousarray(class_mask).view(np.uint8)


cdef int checked_transform(object transform, double* into) except -1:
    cdef int i
    try:
        values = tuple(transform)
        if len(values) != 6:
            raise ValueError
        for i in range(6):
            into[i] = values[i]
    except (TypeError, ValueError, OverflowError):
        raise DimensionError(
            "transform is not six numbers; pass (gain_x, gain_y, pad_x, pad_y, width, height)"
        ) from None
    for i in range(6):
        if not isfinite(into[i]):
            raise DimensionError(f"transform holds {into[i]}; all six numbers must be finite")
    if into[0] <= 0.0 or into[1] <= 0.0:
        raise DimensionError("transform has a gain that is not positive; gains are network pixels per source pixel")
    if into[4] < 0.0 or into[5] < 0.0:
        raise DimensionError("transform has a negative width or height; pass the source picture's size in pixels")
    return 0


cdef tuple shape_of(object values):
    try:
        return np.shape(values)
    except ValueError:
        raise DimensionError("anchors are ragged; pass the same number of anchors for each level") from None
