"""The one OpenVINO core of the process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

__all__ = ["shared_core"]


@cache
def shared_core() -> openvino.Core:
    """The core that everything here uses; it lives as long as the process.

    A core's CPU plugin gives the thread that loads it an alternate stack for signals, and takes the memory away when
    the last user of the core lets go. If that happens in another thread, the first one's stack for signals is gone, and
    the next Ctrl-C there is a segmentation fault (OpenVINO 2025.0 to 2026.4). A core that stays never gets there.

    Example:
        >>> from ovyolo.core import shared_core
        >>> shared_core() is shared_core()
        True
    """
    import openvino

    return openvino.Core()
