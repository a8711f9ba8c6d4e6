"""The steps of a compression side by side: what each costs in time, bytes and multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovyolo.compress.channels import costs_of
from ovyolo.compress.executed import executed_precisions, summarize_executed
from ovyolo.compress.latency import measure_latency
from ovyolo.compress.qat.quantizers import is_quantized
from ovyolo.compress.qat.sparsify import is_sparse, zeros
from ovyolo.compress.qat.to_ir import trained_ir
from ovyolo.export.portable import file_sizes, save_ir
from ovyolo.runtime import open_session
from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card

__all__ = ["form_of", "line_up"]


def form_of(network: Network, imgsz: tuple[int, int]) -> tuple[openvino.Model, Card]:
    """The network as it runs."""
    if is_quantized(network) or is_sparse(network):
        return trained_ir(network, imgsz)
    from ovyolo.export.graph import build_model

    return build_model(network.checkpoint(Path("network.pt")), imgsz)


def line_up(
    networks: Mapping[str, Network], imgsz: tuple[int, int], folder: Path, made: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write every network's IR to ``folder`` and measure them in turn, the first being what others are compared with.

    Returns:
        By name: ``ms``, ``speedup``, ``macs``, ``params``, ``bytes`` of ``.xml`` and ``.bin``, ``zipped``, ``zeros``,
        ``precisions`` (how many operations compute in which).
    """
    found: dict[str, dict[str, Any]] = {}
    paths: dict[str, Path] = {}
    for name, network in networks.items():
        model, card = form_of(network, imgsz)
        path = folder / f"{name.replace(' ', '-')}.xml"
        save_ir(model, replace(card, made={**made, "step": name}), path)
        paths[name] = path
        plain = costs_of(network, imgsz)
        size, zipped = file_sizes(path)
        found[name] = {
            "macs": plain.macs, "params": plain.params, "bytes": size, "zipped": zipped,
            "zeros": round(zeros(network).get("", 0.0), 4) if is_sparse(network) else 0.0, "file": path.name,
        }  # fmt: skip
    with ExitStack() as stack:
        sessions = {}
        for name, path in paths.items():
            session, _ = open_session(path, "CPU", slots=1)
            sessions[name] = stack.enter_context(closing(session))
            found[name]["precisions"] = summarize_executed(executed_precisions(session.compiled))
        picture = np.random.default_rng(0).integers(0, 256, (*imgsz, 3), np.uint8)
        told = measure_latency(sessions, picture)
    for name, one in found.items():
        one["ms"] = told["ms"][name]
        one["speedup"] = told["speedup"].get(name, 1.0)
    return found
