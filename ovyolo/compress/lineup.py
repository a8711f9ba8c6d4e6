"""The steps of a compression side by side: what each costs in time, bytes and multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import numpy as np

from ovyolo.compress.channels import costs_of
from ovyolo.compress.executed import executed_precisions, summarize_executed
from ovyolo.compress.latency import measure_latency
from ovyolo.compress.qat.sparsify import is_sparse, zeros
from ovyolo.export.portable import file_sizes
from ovyolo.runtime import open_session
from ovyolo.train.network import Network

__all__ = ["COMPILATIONS", "line_up"]

COMPILATIONS = 3  # of one network they differ in speed by up to 7 %
ROUNDS, SECONDS = 15, 7.0  # of each


def line_up(
    networks: Mapping[str, Network], paths: Mapping[str, Path], imgsz: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """Measure the networks' IRs in turn, the first being what others are compared with; each is compiled
    :data:`COMPILATIONS` times, for means.

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
    picture = np.random.default_rng(0).integers(0, 256, (*imgsz, 3), np.uint8)
    told: list[dict[str, Any]] = []
    for _ in range(COMPILATIONS):
        with ExitStack() as stack:
            sessions = {}
            for name in networks:
                session, _ = open_session(paths[name], "CPU", slots=1)
                sessions[name] = stack.enter_context(closing(session))
                if not told:  # they are the same each time
                    found[name]["precisions"] = summarize_executed(executed_precisions(session.compiled))
            told.append(measure_latency(sessions, picture, rounds=ROUNDS, seconds=SECONDS))
    for name, one in found.items():
        one["ms"] = round(fmean(each["ms"][name] for each in told), 2)
        one["speedup"] = round(geometric_mean(each["speedup"].get(name, 1.0) for each in told), 3)
    return found
