"""Builds the one extension, ``ovyolo/_nms.pyx``; everything else is in pyproject.toml.

The result runs on any CPU of its architecture: no ``-march`` is given. Wider vector code lies in ``ovyolo/_simd.h``
and is chosen at run time.

``OVYOLO_BUILD`` in the environment selects a build for tests:
``debug`` turns bounds checks on, ``sanitize`` also builds with AddressSanitizer and UndefinedBehaviorSanitizer,
``annotate`` writes Cython's HTML report beside the source.
"""

import glob
import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

mode = os.environ.get("OVYOLO_BUILD", "")
if mode not in ("", "debug", "sanitize", "annotate"):
    sys.exit(f"OVYOLO_BUILD is {mode!r}; it takes 'debug', 'sanitize', 'annotate' or nothing")
checked = mode in ("debug", "sanitize")

if sys.platform == "win32":
    compile_args, link_args = ["/O2"], []
else:
    # contraction (FMA) would make results depend on the CPU
    compile_args, link_args = ["-O3", "-ffp-contract=off", "-fno-math-errno"], []
    if mode == "sanitize":
        # Python builds with -fwrapv, which would hide signed overflow from the sanitizer
        flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-wrapv"]
        flags += ["-fno-omit-frame-pointer", "-g"]
        compile_args, link_args = ["-O1", "-ffp-contract=off", *flags], flags

setup(
    ext_modules=cythonize(
        [
            Extension(
                "ovyolo._nms",
                ["ovyolo/_nms.pyx"],
                depends=[*sorted(glob.glob("ovyolo/_*.h")), *sorted(glob.glob("ovyolo/_nms_*.pxi"))],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
        ],
        annotate=mode == "annotate",
        compiler_directives={
            "language_level": 3,
            "boundscheck": checked,
            "wraparound": False,
            "initializedcheck": checked,
            "cdivision": True,
            "embedsignature": True,
        },
    )
)
