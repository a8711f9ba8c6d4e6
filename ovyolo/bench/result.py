"""What was measured, as an object, as JSON and as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ovyolo.bench.coldstart import COLD_PARTS
from ovyolo.bench.latency import PARTS
from ovyolo.bench.turns import FEW_ROUNDS, Ratio, Turns
from ovyolo.errors import DimensionError

__all__ = ["BenchResult", "ModelCost"]

WHOLE = {"latency": "total", "throughput": "pictures/s", "cold_start": "total"}


@dataclass(frozen=True)
class ModelCost:
    """What one model costs.

    Args:
        name: the file's name without suffix, numbered where several are called the same.
        path: the IR.
        precision: what its weights are stored in.
        imgsz: ``(height, width)`` of its input.
        boxes: how many it found in the last frame: decoding and NMS cost more where there are many.
        latency_executed: device, layers by executed precision, threads and streams in latency mode; None when not run.
        throughput_executed: the same with the hint THROUGHPUT, and ``requests``.
        peak_bytes: most memory of a fresh process that detects in one picture; None when unknown or not run.
        runtime: the other runtime that computed it, with its version; None is ours.
        same_boxes: of another runtime, how many boxes it shares with the first model, and of how many in all.
    """

    name: str
    path: str
    precision: str
    imgsz: tuple[int, int]
    boxes: int | None = None
    latency_executed: dict[str, Any] | None = None
    throughput_executed: dict[str, Any] | None = None
    peak_bytes: int | None = None
    runtime: str | None = None
    same_boxes: tuple[int, int] | None = None


@dataclass(frozen=True)
class BenchResult:
    """What :func:`~ovyolo.bench.bench` measured.

    Args:
        models: what is known of each model beside the samples.
        machine: CPU, instruction sets, cores, versions.
        settings: what was asked for.
        latency: milliseconds by frame: ``read``, ``letterbox``, ``infer``, ``decode+nms``, ``total``.
        throughput: ``pictures/s`` by slice of time.
        cold_start: milliseconds by process: ``start``, ``import``, ``picture``, ``model``, ``first``, ``total``.
        warnings: sentences that say why the numbers may mislead.
    """

    models: tuple[ModelCost, ...]
    machine: dict[str, Any]
    settings: dict[str, Any]
    latency: Turns | None = None
    throughput: Turns | None = None
    cold_start: Turns | None = None
    warnings: tuple[str, ...] = ()

    def ratio(self, first: str, second: str, measure: str = "latency") -> Ratio:
        """How many times ``first`` takes (or, for ``throughput``, gives) what ``second`` does.

        Raises:
            DimensionError: they were not measured in turn in this run.
        """
        if measure not in WHOLE:
            raise DimensionError(f"measure is {measure!r}; it takes one of {', '.join(WHOLE)}")
        turns: Turns | None = getattr(self, measure)
        if turns is None:
            raise DimensionError(f"{measure} was not measured in this run, so there is no ratio")
        return turns.ratio(first, second, WHOLE[measure])

    def ratios(self) -> dict[str, list[Ratio]]:
        """Each later model against the first, by measure."""
        names = [model.name for model in self.models]
        found = {}
        for measure in WHOLE:
            turns: Turns | None = getattr(self, measure)
            if turns is not None:
                found[measure] = [self.ratio(name, names[0], measure) for name in names[1:] if name in turns.names]
        return found

    def summary(self, name: str, measure: str) -> dict[str, dict[str, float]]:
        """min, median, p90, p99 and max by part, without p90 and p99 of fewer than 10 samples; empty when not run."""
        turns: Turns | None = getattr(self, measure)
        if turns is None or name not in turns.names:
            return {}
        tails = {} if turns.rounds < FEW_ROUNDS else {"p90": 90, "p99": 99}
        shown = {"min": 0, "median": 50, **tails, "max": 100}
        return {
            part: {key: float(np.percentile(turns.samples(name, part), at)) for key, at in shown.items()}
            for part in turns.parts
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single samples, as JSON takes it."""
        models = [
            {**asdict(model), "imgsz": list(model.imgsz), **{m: self.summary(model.name, m) or None for m in WHOLE}}
            for model in self.models
        ]
        ratios = {measure: [asdict(ratio) for ratio in found] for measure, found in self.ratios().items()}
        return {
            "machine": self.machine, "settings": self.settings, "models": models, "ratios": ratios,
            "warnings": list(self.warnings),
        }  # fmt: skip

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=True) + "\n"

    def table(self) -> str:
        """Everything for people to read."""
        lines = self._machine_lines()
        for model in self.models:
            lines += ["", *self._model_lines(model)]
        for measure, ratios in self.ratios().items():
            for ratio in ratios:
                interval = "95 % interval" if ratio.rounds >= FEW_ROUNDS else "least and greatest"
                lines += [
                    "",
                    f"{measure.replace('_', ' ')}: {ratio.first} has {ratio.value:.3f} times the "
                    f"{ratio.part} of {ratio.second}",
                    f"  {interval} {ratio.low:.3f} to {ratio.high:.3f}, from {ratio.rounds} rounds in turn",
                ]
        lines += [f"\nwarning: {sentence}" for sentence in self.warnings]
        return "\n".join(lines)

    def _machine_lines(self) -> list[str]:
        m, s = self.machine, self.settings
        return [
            f"{m['cpu']}, {m['usable_cores']} of {m['logical_cores']} logical cores, "
            f"{' '.join(m['instructions']) or 'baseline instructions'}; our kernels: {m['kernels']}",
            f"ovyolo {m['ovyolo']}, OpenVINO {m['openvino']}, Python {m['python']}, {m['system']}",
            f"measured on {s['source']}, conf {s['conf']:g}",
        ]

    def _model_lines(self, model: ModelCost) -> list[str]:
        height, width = model.imgsz
        made = f"{model.precision} weights" if model.runtime is None else model.runtime
        lines = [f"{model.name}: {model.path}, {made}, {height}x{width}"]
        for measure, executed, parts in (
            ("latency", model.latency_executed, (*PARTS, "total")),
            ("throughput", model.throughput_executed, ("pictures/s",)),
            ("cold_start", None, (*COLD_PARTS, "total")),
        ):
            rows = self.summary(model.name, measure)
            if not rows:
                continue
            unit = "" if measure == "throughput" else " ms"
            keys = tuple(rows["total" if "total" in rows else parts[0]])
            lines.append(f"  {measure.replace('_', ' ') + unit:<16}" + "".join(f"{key:>10}" for key in keys))
            lines += [f"    {part:<14}" + "".join(f"{rows[part][key]:>10.2f}" for key in keys) for part in parts]
            if executed:
                lines.append(f"    {executed_line(executed)}")
        if model.boxes is not None:
            lines.append(f"  boxes in the last frame: {model.boxes}")
        if model.same_boxes is not None:
            same, whole = model.same_boxes
            lines.append(f"  boxes shared with {self.models[0].name}: {same} of {whole} in all frames measured")
        if self.cold_start is not None and model.runtime is None:
            peak = "unknown on this system" if model.peak_bytes is None else f"{model.peak_bytes / 1e6:.0f} MB"
            lines.append(f"  peak memory of a fresh process: {peak}")
        return lines


def executed_line(executed: dict[str, Any]) -> str:
    """What the device says of itself, in a line."""
    layers = executed["layers_by_precision"]
    by = ", ".join(f"{count} in {kind}" for kind, count in layers.items()) if layers else "not told"
    requests = f", {executed['requests']} requests" if "requests" in executed else ""
    threads, streams = executed["threads"] or "not told", executed["streams"] or "not told"
    return f"executed on {executed['device']}: layers {by}; threads {threads}, streams {streams}{requests}"
