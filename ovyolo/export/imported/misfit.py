"""The exporter's way to tell itself that a graph is not what it was taken for."""

from __future__ import annotations

__all__ = ["Misfit"]


class Misfit(Exception):  # noqa: N818 - not an error: the caller tries something else, or says it in an OvyoloError
    """What a graph does is not what a YOLOv5 head does; the text completes a sentence that ends in "because"."""
