"""What this machine is, and whether it is quiet enough to measure on."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import numpy as np

from ovyolo.core import shared_core
from ovyolo.version import __version__

__all__ = ["describe", "load_warning", "spin_warning"]

SPIN_SPREAD = 1.15


def describe() -> dict[str, Any]:
    """CPU, its instruction sets and cores, and the versions that matter."""
    import openvino as ov

    from ovyolo._nms import cpu_features, simd_level

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": str(shared_core().get_property("CPU", "FULL_DEVICE_NAME")).strip() or platform.processor(),
        "instructions": list(cpu_features()),
        "kernels": simd_level(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "openvino": ov.__version__,
        "ovyolo": __version__,
    }


def load_warning() -> str | None:
    """A sentence when other programs are busy; None when not, or where the system has no load average (Windows)."""
    if not hasattr(os, "getloadavg"):
        return None
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= max(0.5, 0.3 * cores):
        return None
    return f"the load average was {load:.1f} on {cores} cores before the measurement: other programs are running"


def spin_warning(loops: int = 40) -> str | None:
    """A sentence when a fixed loop, which needs nothing but the CPU, takes now this long and now that."""
    times = []
    for _ in range(loops):
        begin = time.perf_counter()
        total = 0
        for i in range(30_000):
            total += i
        times.append(time.perf_counter() - begin)
    p90, median = np.percentile(times, (90, 50))
    if p90 <= SPIN_SPREAD * median:
        return None
    return (
        f"this machine is noisy: of a fixed loop every tenth run took {p90 / median:.2f} times its median or more; "
        "close other programs, and believe ratios more than milliseconds"
    )
