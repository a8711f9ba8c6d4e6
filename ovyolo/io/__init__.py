"""Pictures and videos in, results out: sources of frames, annotation, and sinks for what was found.

:func:`~ovyolo.io.images.read_image` and :func:`~ovyolo.io.sources.open_source` bring pictures in,
:func:`~ovyolo.io.draw.annotate` draws boxes on them, and :mod:`ovyolo.io.sinks` writes results down.
OpenCV is loaded when the first call needs it.
"""

from __future__ import annotations

from ovyolo.io.draw import annotate
from ovyolo.io.frame import Frame
from ovyolo.io.images import as_bgr, read_image
from ovyolo.io.live import LiveSource
from ovyolo.io.sources import Source, open_source

__all__ = ["Frame", "LiveSource", "Source", "annotate", "as_bgr", "open_source", "read_image"]
