"""The steps of a compression side by side: what each costs in time, bytes and multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.compress.channels import costs_of
from ovyolo.compress.executed import executed_precisions, summarize_executed
from ovyolo.compress.latency import measure_latency
from ovyolo.compress.qat.sparsify import is_sparse, zeros
from ovyolo.export.portable import file_sizes
from ovyolo.runtime import open_session
from ovyolo.train.network import Network

__all__ = ["line_up"]


def line_up(
    networks: Mapping[str, Network], paths: Mapping[str, Path], imgsz: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """Measure the networks' IRs in turn, the first being what others are compared with.

    Args:
        networks: by name.
        paths: each one's IR by the same names.
        imgsz: ``(height, width)`` of the input in pixels.

    Returns:
        By name: ``ms``, ``speedup``, ``macs``, ``params``, ``bytes`` of ``.xml`` and ``.bin``, ``zipped``, ``zeros``,
        ``precisions`` (how many operations compute in which).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        plain = costs_of(network, imgsz)
        size, zipped = file_sizes(paths[name])
        found[name] = {
            "macs": plain.macs, "params": plain.params, "bytes": size, "zipped": zipped,
            "zeros": round(zeros(network).get("", 0.0), 4) if is_sparse(network) else 0.0,
        }  # fmt: skip
    with ExitStack() as stack:
        sessions = {}
        for name in networks:
            session, _ = open_session(paths[name], "CPU", slots=1)
            sessions[name] = stack.enter_context(closing(session))
            found[name]["precisions"] = summarize_executed(executed_precisions(session.compiled))
        picture = np.random.default_rng(0).integers(0, 256, (*imgsz, 3), np.uint8)
        told = measure_latency(sessions, picture)
    for name, one in found.items():
        one["ms"] = told["ms"][name]
        one["speedup"] = told["speedup"].get(name, 1.0)
    return found
