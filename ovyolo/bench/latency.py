"""One frame at a time, from reading to boxes, each part timed."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from ovyolo.bench.frames import Frames
from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.letterbox import fitting
from ovyolo.runtime import open_session

__all__ = ["PARTS", "Latency", "by_part", "read_back"]

PARTS = ("read", "letterbox", "infer", "decode+nms")


class Latency:
    """A model in latency mode; calling it takes the next frame through all parts and returns their milliseconds."""

    def __init__(
        self, path: Path, frames: Frames, *, device: str, threads: int | None, precision: str | None, conf: float
    ) -> None:
        self._session, self.card = open_session(path, device, threads=threads, precision=precision)
        self._decode = Decoder(self.card)
        self._frames = frames
        self._conf = conf
        self.boxes = 0
        self.found: list[Detections] = []
        """Of each call; for comparison with other runtimes."""
        self.executed = read_back(self._session.compiled, self._session.device)

    def __call__(self) -> dict[str, float]:
        begin = time.perf_counter()
        image = self._frames.next()
        read = time.perf_counter()
        fit = fitting((image.shape[0], image.shape[1]), self.card.imgsz)
        fit.into(image, self._session.input(0)[0])
        boxed = time.perf_counter()
        self._session.submit(0)
        outputs = self._session.wait(0)
        inferred = time.perf_counter()
        found = self._decode(outputs, fit, conf=self._conf, device=self._session.device)
        end = time.perf_counter()
        self.boxes = len(found)
        self.found.append(found)
        return by_part(begin, read, boxed, inferred, end)

    def close(self) -> None:
        """Give device and source back."""
        self._session.close()
        self._frames.close()


def by_part(*stamps: float) -> dict[str, float]:
    """Milliseconds of each part and in all, from the seconds at which the first began and each ended.

    Example:
        >>> by_part(0.0, 0.001, 0.002, 0.012, 0.0125)["total"]
        12.5
    """
    taken = {part: 1e3 * (end - begin) for part, (begin, end) in zip(PARTS, pairwise(stamps), strict=True)}
    return {**taken, "total": 1e3 * (stamps[-1] - stamps[0])}


def read_back(compiled: Any, device: str) -> dict[str, Any]:
    """What the device really made of the request: layers by the precision that they execute in, threads, streams.

    A value that the device does not tell is None.
    """

    def told(name: str) -> str | None:
        try:
            return str(compiled.get_property(name))
        except RuntimeError:  # a GPU has no threads, an NPU no streams
            return None

    layers: Counter[str] = Counter()
    try:
        operations = compiled.get_runtime_model().get_ops()
    except RuntimeError:  # not every device shows its graph
        operations = []
    for operation in operations:
        info = operation.get_rt_info()
        kind = str(info["layerType"].value) if "layerType" in info else ""
        if kind not in ("Input", "Output", "Const", "Constant", "Parameter", "Result"):
            layers[str(info["runtimePrecision"].value) if "runtimePrecision" in info else "unknown"] += 1
    return {
        "device": device,
        "layers_by_precision": dict(layers.most_common()) or None,
        "threads": told("INFERENCE_NUM_THREADS"),
        "streams": told("NUM_STREAMS"),
    }
