"""``bench``: measure models, all in turn."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo.bench.against import Rival, agreement, parse_against
from ovyolo.bench.coldstart import ColdStart
from ovyolo.bench.frames import SYNTHETIC, Frames
from ovyolo.bench.latency import Latency
from ovyolo.bench.machine import describe, load_warning, spin_warning
from ovyolo.bench.result import BenchResult, ModelCost
from ovyolo.bench.throughput import Throughput
from ovyolo.bench.turns import Turns, take_turns
from ovyolo.core import shared_core
from ovyolo.detector import model_file
from ovyolo.errors import DimensionError
from ovyolo.runtime import read_model

__all__ = ["HINTS", "bench"]

HINTS = ("latency", "throughput")
INFER_SPREAD = 1.3
SAME_SHARE = 0.9  # of boxes that another runtime must share with ours
SLICES = 5


def bench(
    models: str | Path | Sequence[str | Path],
    *,
    device: str = "CPU",
    source: str | Path | None = None,
    hints: Sequence[str] = HINTS,
    runs: int | None = None,
    seconds: float = 10.0,
    cold_starts: int = 3,
    conf: float = 0.25,
    threads: int | None = None,
    precision: str | None = None,
    against: Sequence[str] = (),
) -> BenchResult:
    """Measure latency by part, throughput, cold start and peak memory of one model or several.

    All models take turns in everything, frame by frame (latency), slice by slice of time (throughput) and process by
    process (cold start), so that the ratios between them hold although the machine's speed wanders.

    Args:
        models: ``.xml`` files that ovyolo made; a ``.pt`` or ``.onnx`` is exported to the cache first.
        device: where to compute, as OpenVINO names it.
        source: a picture, folder, glob or video to measure on; None is a synthetic 720p picture that lies in memory, so
            that nothing is read and hardly anything is found.
        hints: which to measure, of ``"latency"`` and ``"throughput"``.
        runs: frames a model in latency mode; None is as many as fit into ``seconds``, but at least 10.
        seconds: how long to measure latency (when ``runs`` is None), and how long throughput, a model.
        cold_starts: fresh processes a model; 0 leaves cold start and memory out.
        conf: confidence above which boxes count, 0 to 1.
        threads: CPU threads; None leaves it to OpenVINO.
        precision: what layers that are not INT8 compute in: ``"f32"``, ``"bf16"``, ``"f16"``; None is f32 on a CPU.
        against: other runtimes that take part in latency, each ``"onnxruntime=best.onnx"``,
            ``"torch=best.torchscript"`` or ``"litert=best.tflite"``: the first model's network in that runtime's
            format. They get the same letterboxed pixels, and boxes are compared.

    Raises:
        DimensionError: an argument is out of range.
        OvyoloError: a model or the source cannot be read, or the device cannot run it.

    Example:
        >>> from ovyolo.bench import bench
        >>> result = bench(["fp32.xml", "int8.xml"], seconds=5)  # doctest: +SKIP
        >>> print(result.ratio("int8", "fp32"))  # doctest: +SKIP
    """

    listed = [models] if isinstance(models, (str, Path)) else list(models)
    hints = [hints] if isinstance(hints, str) else list(hints)
    check_arguments(listed, hints, runs, seconds, cold_starts, conf, threads)
    rivals = parse_against(against, listed)
    if rivals and "latency" not in hints:
        raise DimensionError("against compares latency: leave out the hint, or give latency")
    paths = [model_file(Path(model), None, None) for model in listed]
    everything = distinct([path.stem for path in paths] + [f"{name}:{path.stem}" for name, path in rivals])
    names, rival_names = everything[: len(paths)], everything[len(paths) :]
    common: dict[str, Any] = {"device": device, "threads": threads, "precision": precision}
    warnings = [load_warning(), spin_warning()]
    costs: dict[str, ModelCost] = {}
    latency = throughput = cold = None

    core = shared_core()
    for name, path in zip(names, paths, strict=True):
        _, card = read_model(path, core)
        costs[name] = ModelCost(name, str(path), card.precision, card.imgsz)
    if "latency" in hints:
        with ExitStack() as stack:
            ways = {
                name: stack.enter_context(closing(Latency(path, Frames(source), conf=conf, **common)))
                for name, path in zip(names, paths, strict=True)
            }
            others = {
                name: stack.enter_context(
                    closing(Rival(*rival, ways[names[0]].card, Frames(source), threads=threads, conf=conf))
                )
                for name, rival in zip(rival_names, rivals, strict=True)
            }
            everybody: dict[str, Latency | Rival] = {**ways, **others}
            latency = take_turns(everybody, within(runs, seconds * len(everybody)), warm_up=3)
            for name, way in ways.items():
                costs[name] = replace(costs[name], boxes=way.boxes, latency_executed=way.executed)
            for (_, path), (name, other) in zip(rivals, others.items(), strict=True):
                same = agreement(ways[names[0]].found, other.found)
                costs[name] = ModelCost(
                    name, str(path), "", ways[names[0]].card.imgsz, other.boxes, runtime=other.version, same_boxes=same
                )
                warnings.append(unlike(name, names[0], same))
            warnings += unsteady(latency)
    if "throughput" in hints:
        with ExitStack() as stack:
            full = {
                name: stack.enter_context(closing(Throughput(path, seconds / SLICES, **common)))
                for name, path in zip(names, paths, strict=True)
            }
            throughput = take_turns(full, range(SLICES))
            for name, one in full.items():
                executed = {**one.executed, "requests": one.requests}
                costs[name] = replace(costs[name], throughput_executed=executed)
    if cold_starts:
        fresh = {
            name: ColdStart(path, source, conf=conf, **common) for name, path in zip(names, paths, strict=True)
        }  # fmt: skip
        cold = take_turns(fresh, range(cold_starts))
        for name, process in fresh.items():
            costs[name] = replace(costs[name], peak_bytes=process.peak_bytes)
    settings = {
        "source": SYNTHETIC if source is None else str(source), "hints": hints, "runs": runs, "seconds": seconds,
        "cold_starts": cold_starts, "conf": conf, "against": list(against), **common,
    }  # fmt: skip
    kept = tuple(sentence for sentence in warnings if sentence)
    return BenchResult(tuple(costs.values()), describe(), settings, latency, throughput, cold, kept)


def check_arguments(
    models: list[Any], hints: list[str], runs: int | None, seconds: float, cold_starts: int, conf: float,
    threads: int | None,
) -> None:  # fmt: skip
    """Raise DimensionError for what is out of range."""
    if not models:
        raise DimensionError("there is no model to measure: give at least one")
    if unknown := [hint for hint in hints if hint not in HINTS]:
        raise DimensionError(f"hints has {unknown[0]!r}; it takes {' and '.join(HINTS)}")
    if not hints and not cold_starts:
        raise DimensionError("there is nothing to measure: give a hint or cold_starts")
    if not (math.isfinite(seconds) and seconds > 0):
        raise DimensionError(f"seconds is {seconds}; it takes a number above 0")
    for name, value, least in (("runs", runs, 1), ("cold_starts", cold_starts, 0), ("threads", threads, 1)):
        if value is not None and value < least:
            raise DimensionError(f"{name} is {value}; it takes a whole number from {least}")
    if not 0 <= conf <= 1:
        raise DimensionError(f"conf is {conf}; it takes a number from 0 to 1")


def distinct(names: list[str]) -> list[str]:
    """The names, numbered where one comes again.

    Example:
        >>> distinct(["a", "b", "a"])
        ['a', 'b', 'a-2']
    """
    made: list[str] = []
    for name in names:
        numbered = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
        made.append(next(candidate for candidate in numbered if candidate not in made))
    return made


def within(runs: int | None, seconds: float) -> Iterator[int]:
    """``runs`` rounds, or as many as begin within ``seconds``, at least 10."""
    until = time.perf_counter() + seconds
    for round_ in itertools.count():
        if round_ >= runs if runs is not None else round_ >= 10 and time.perf_counter() >= until:
            return
        yield round_


def unlike(name: str, first: str, same: tuple[int, int]) -> str | None:
    """A sentence when two did not find the same, so that the ratio of their times says little."""
    shared, whole = same
    if whole == 0:
        return f"{name} and {first} found no boxes at all, so whether they compute the same is not shown: give a source"
    if shared >= SAME_SHARE * whole:
        return None
    return f"{name} and {first} share {shared} of {whole} boxes only: their times are not those of the same work"


def unsteady(turns: Turns) -> list[str]:
    """A sentence for each model whose inference took now this long and now that."""
    said = []
    for name in turns.names:
        p90, median = np.percentile(turns.samples(name, "infer"), (90, 50))
        if p90 > INFER_SPREAD * median:
            said.append(
                f"the inference of {name} was unsteady (p90 is {p90 / median:.2f} times the median): "
                "something else ran, or the CPU changed its clock"
            )
    return said
