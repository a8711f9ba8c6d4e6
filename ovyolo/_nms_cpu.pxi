# Which vector code runs, and what the CPU has.

cdef extern from "_cpu.h" nogil:
    int ovyolo_cpu_features()

cdef tuple FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")

cdef tuple LEVELS = ("plain", "sse2", "avx2")
cdef int current_level = ovyolo_widest_level()
ovyolo_use_level(current_level)


def cpu_features():
    """Instruction sets beyond the baseline that this CPU has and the operating system allows, of those that matter.

    A tuple of names such as ``"avx2"``, ``"avx512_vnni"``, ``"avx_vnni"``, ``"amx_int8"``; empty on other architectures.

    >>> from ovyolo._nms import cpu_features
    >>> isinstance(cpu_features(), tuple)
    True
    """
    cdef int found = ovyolo_cpu_features()
    return tuple([name for bit, name in enumerate(FEATURES) if found >> bit & 1])


def simd_level():
    """Name of the vector code in use: ``"avx2"``, ``"sse2"`` or ``"plain"``."""
    return LEVELS[current_level]


def set_simd_level(name):
    """Choose the vector code: ``"auto"`` (the widest this CPU has, the default), ``"avx2"``, ``"sse2"``, ``"plain"``.

    Results do not depend on it; tests compare them. Not to be called while another thread decodes.
    """
    global current_level
    cdef int widest = ovyolo_widest_level(), level
    if name == "auto":
        level = widest
    elif name in LEVELS:
        level = LEVELS.index(name)
    else:
        raise DimensionError(f"simd level is {name!r}; it takes 'auto', 'avx2', 'sse2' or 'plain'")
    if level > widest:
        raise DimensionError(f"simd level {name!r} is not available here; this CPU has {LEVELS[widest]!r}")
    current_level = level
    ovyolo_use_level(level)
