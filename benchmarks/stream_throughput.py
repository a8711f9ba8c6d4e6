"""What everything around the network costs: ``Detector.stream`` beside a bare OpenVINO loop, in turn, in one run.

    python benchmarks/stream_throughput.py --model MODEL [--video FILE] [--seconds S] [--rounds N] [--smoke] [--json]

- Throughput: the bare loop submits random input to as many requests as the device asks for, and does nothing else,
  as OpenVINO's ``benchmark_app`` does. ``stream`` gets the frames of the video, decoded beforehand (``array``) and from
  the file (``file``, where decoding the video shares the CPU).
- Latency: one call after the other on the same frames, enlarged to 1280x720: what of ``detector(frame)`` is not the
  network, and the parts of it that are letterbox and decode + NMS.

Ratios are medians over rounds of neighbours in time. Without ``--video``, frames are random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ovyolo import Detector
from ovyolo.bench.machine import describe, load_warning, spin_warning
from ovyolo.io import open_source


def frames_of(video: Path | None, count: int) -> list[Any]:
    if video is None:
        return list(np.random.default_rng(0).integers(0, 255, (8, 720, 1280, 3), np.uint8))
    with open_source(video) as source:
        return [frame.image for frame in islice(source, count)]


def as_720p(frames: list[Any]) -> list[Any]:
    import cv2

    return [cv2.resize(frame, (1280, 720)) for frame in frames[:60]]


def bare(path: Path, threads: int | None) -> Callable[[float], float]:
    """Pictures a second of the network alone: whichever request is idle computes the same random input again."""
    import openvino as ov

    config: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(path, "CPU", config | ({"INFERENCE_NUM_THREADS": threads} if threads else {}))
    queue = ov.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    shape = tuple(compiled.input(0).get_shape())
    for number, request in enumerate(queue):
        noise = np.random.default_rng(number).integers(0, 255, shape, np.uint8)
        request.set_input_tensor(ov.Tensor(noise))

    def run(seconds: float) -> float:
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            queue.start_async()
            done += 1
        queue.wait_all()
        return done / (time.perf_counter() - start)

    return run


def streamed(detector: Detector, source: Callable[[], Any]) -> Callable[[float], float]:
    """Pictures a second of ``stream``, from the first result on."""

    def run(seconds: float) -> float:
        with detector.stream(source()) as stream:
            results = iter(stream)
            next(results)
            start, done = time.perf_counter(), 0
            for _ in results:
                done += 1
                if time.perf_counter() - start > seconds:
                    break
            return done / (time.perf_counter() - start)

    return run


def endless(frames: list[Any]) -> Iterator[Any]:
    while True:
        yield from frames


class Timed:
    """A session that notes how long the device computes."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.network = self._begun = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def submit(self, slot: int) -> None:
        self._begun = time.perf_counter()
        self._session.submit(slot)

    def wait(self, slot: int, timeout: float | None = None) -> Any:
        outputs = self._session.wait(slot, timeout)
        self.network = time.perf_counter() - self._begun
        return outputs


def latency(path: Path, frames: list[Any], rounds: int, threads: int | None) -> dict[str, float]:
    """One call after the other: how much of each is not the network."""
    detector = Detector(path, threads=threads)
    timed = Timed(detector._session)
    detector._session = timed  # type: ignore[assignment]
    pairs = []
    for number in range(rounds + 2):
        frame = frames[number % len(frames)]
        start = time.perf_counter()
        detector(frame)
        pairs.append((time.perf_counter() - start, timed.network))
    return {
        "network_ms": 1000 * statistics.median(network for _, network in pairs[2:]),
        "rest_ms": 1000 * statistics.median(whole - network for whole, network in pairs[2:]),
        "overhead": statistics.median(whole / network for whole, network in pairs[2:]) - 1,
        **parts(path, frames, rounds, threads),
    }


def parts(path: Path, frames: list[Any], rounds: int, threads: int | None) -> dict[str, float]:
    """What ``ovyolo bench`` measures of them."""
    from ovyolo.bench.frames import Frames
    from ovyolo.bench.latency import Latency

    source = Frames(frames)
    way = Latency(path, source, device="CPU", threads=threads, precision=None, conf=0.25)
    taken = [way() for _ in range(rounds)]
    return {f"{part}_ms": statistics.median(one[part] for one in taken) for part in ("letterbox", "decode+nms")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an .xml that ovyolo made, or a .pt")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--smoke", action="store_true", help="show that it runs; the numbers mean little")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.seconds, options.rounds = 0.3, 1
    warnings = [sentence for sentence in (load_warning(), spin_warning()) if sentence]
    detector = Detector(options.model, hint="throughput", threads=options.threads)
    frames = frames_of(options.video, 50 if options.smoke else 1189)
    ways = {"bare": bare(detector.path, options.threads), "array": streamed(detector, lambda: endless(frames))}
    if options.video is not None:
        ways["file"] = streamed(detector, lambda: options.video)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            rates[name].append(ways[name](options.seconds))
    result: dict[str, Any] = {
        "machine": describe(),
        "warnings": warnings,
        "effective": detector.effective,
        "per_second": {name: statistics.median(values) for name, values in rates.items()},
        "of_bare": {
            name: statistics.median(v / b for v, b in zip(values, rates["bare"], strict=True))
            for name, values in rates.items()
            if name != "bare"
        },
        "latency": latency(detector.path, as_720p(frames), 4 if options.smoke else 200, options.threads),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for sentence in warnings:
        print(f"warning: {sentence}")
    print(*(f"{name}={value}" for name, value in result["effective"].items()))
    for name, value in result["per_second"].items():
        ratio = f"  {100 * result['of_bare'][name]:.1f} % of bare" if name in result["of_bare"] else ""
        print(f"{name:6} {value:8.2f} pictures/s{ratio}")
    one = result["latency"]
    print(f"latency {one['network_ms']:.2f} ms, {one['rest_ms']:.2f} ms the rest, {100 * one['overhead']:.1f} %")
    print(f"of it letterbox {one['letterbox_ms']:.2f} ms, decode + NMS {one['decode+nms_ms']:.3f} ms")


if __name__ == "__main__":
    main()
