"""Each layer's time on the target device, as OpenVINO counts it, by our names of the layers."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.channels.costs import costs_of
from ovyolo.compress.channels.profile import LayerTime, Profile, fit_rates
from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, DimensionError, reason_of
from ovyolo.runtime import check_device
from ovyolo.train.network import Network

if TYPE_CHECKING:
    import openvino

__all__ = ["layer_times", "profile_network"]

INPUT, OTHER = "input", "other"
RUNS, WARM_UP = 30, 3


def profile_network(
    network: Network,
    imgsz: tuple[int, int],
    device: str = "CPU",
    *,
    runs: int = RUNS,
    threads: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Profile:
    """Export ``network`` in memory and measure it on ``device`` in FP32.

    Args:
        network: any.
        imgsz: ``(height, width)`` of the picture in pixels.
        device: as OpenVINO names it.
        runs: how often; medians are kept.
        threads: CPU threads; by default OpenVINO decides.
        tell: called with the number of runs done.

    Raises:
        DimensionError: ``imgsz`` does not fit the network, or ``runs`` is below 1.
        DeviceError: the device is not there or does not count.

    Example:
        >>> from ovyolo.train.network import load_network
        >>> profile = profile_network(load_network("yolov5n.pt"), (640, 640))  # doctest: +SKIP
        >>> max(profile.layers, key=lambda layer: layer.ms).name  # doctest: +SKIP
        'model.1'
    """
    from ovyolo.export.graph import build_model

    costs = costs_of(network, imgsz)
    model, _ = build_model(network.checkpoint(Path("network")), imgsz)
    by_name = {row.name: row for row in costs.layers}
    sizes = {}
    for node in model.get_ordered_ops():
        shape = node.get_output_partial_shape(0) if node.get_output_size() else None
        if shape is not None and shape.is_static and len(shape) == 4:
            sizes[node.get_friendly_name()] = int(shape[1].get_length())
    measured, total, counted = layer_times(model, device, runs=runs, threads=threads, tell=tell)
    layers = []
    for name, (kind, ms) in measured.items():
        row = by_name.get(name)
        if row is None:
            layers.append(LayerTime(name, kind, ms, channels=sizes.get(name, 0)))
        else:
            layers.append(LayerTime(name, kind, ms, row.macs, row.params, row.read + row.written, row.outputs))
    return Profile(device, imgsz, total, counted, tuple(layers), fit_rates(layers))


def layer_times(
    model: openvino.Model,
    device: str = "CPU",
    *,
    runs: int = RUNS,
    threads: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, tuple[str, float]], float, float]:
    """Measure any IR of ours, INT8 ones among them.

    What the device fused counts for the layer it was fused into; a change of layout for the layer that asks for it.

    Returns:
        By layer, in order, what was executed and the median milliseconds; the whole inference's median, and the median
        of the sums over layers.

    Raises:
        DimensionError, DeviceError: as :func:`profile_network`.
    """
    import openvino as ov

    if runs < 1:
        raise DimensionError(f"runs is {runs}; it takes a whole number from 1")
    core = shared_core()
    device = check_device(core, device)
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        config["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
    known = {node.get_friendly_name() for node in model.get_ordered_ops()}
    picture: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, list(model.input(0).get_shape()), np.uint8)
    try:
        plain = core.compile_model(model, device, config).create_infer_request()
        compiled = core.compile_model(model, device, {**config, "PERF_COUNT": True})
        counting = compiled.create_infer_request()
        for request in (plain, counting):
            request.set_input_tensor(ov.Tensor(picture))
            for _ in range(WARM_UP):
                request.infer()
        whole: list[float] = []
        taken: list[dict[str, float]] = []
        for run in range(runs):
            start = time.perf_counter()
            plain.infer()
            whole.append(1000 * (time.perf_counter() - start))
            counting.infer()
            taken.append({})
            for node in counting.get_profiling_info():
                ms = 1000 * node.real_time.total_seconds()
                taken[-1][node.node_name] = taken[-1].get(node.node_name, 0.0) + ms
            tell(run + 1)
        kinds = {node.node_name: f"{node.node_type} {node.exec_type}" for node in counting.get_profiling_info()}
        originals = _originals(compiled)
    except RuntimeError as error:
        raise DeviceError(f"device {device} cannot run the network or count: {reason_of(error)}") from error
    layers: dict[str, tuple[str, float]] = {}
    for node_name, kind in kinds.items():
        ms = statistics.median(one.get(node_name, 0.0) for one in taken)
        if not ms:
            continue
        layer = _layer(node_name, originals.get(node_name, []), known)
        before = layers.get(layer)
        # the layer's own operation names it, not a change of layout on the way to it
        own = before is None or before[0].startswith("Reorder")
        layers[layer] = (kind if own or before is None else before[0], ms + (before[1] if before else 0.0))
    return layers, statistics.median(whole), statistics.median(sum(one.values()) for one in taken)


def _originals(compiled: openvino.CompiledModel) -> dict[str, list[str]]:
    """For each executed node, the operations of the IR that it does the work of."""
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "originalLayersNames" in info:
            text = info["originalLayersNames"].astype(str)
            found[node.get_friendly_name()] = [name for name in text.split(",") if name]
    return found


def _layer(node: str, originals: list[str], known: Collection[str]) -> str:
    """The layer of ours that an executed node belongs to."""
    ours = [name.split("/")[0] for name in originals if name.startswith("model.")]
    if ours:
        bare = {name.removesuffix(".act").removesuffix(".bn") for name in ours}
        return next((name for name in ours if name in bare), ours[0])
    # a change of layout is called after whom it is between: FROM_format_format_TO
    between = re.fullmatch(r"(.*)_[a-zA-Z0-9]+_[a-zA-Z0-9]+_(.*)", node)
    for name in (between[2], between[1]) if between else ():
        if name.startswith("model.") and name in known:
            return name.split("/")[0]
    return INPUT if node.startswith("images") else OTHER
