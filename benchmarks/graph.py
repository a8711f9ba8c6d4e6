"""Raw heads decoded natively, beside the usual way: float input, head decoded in the graph, NMS in NumPy + OpenCV.

    python benchmarks/graph.py --model MODEL [MODEL …] [--source SOURCE] [--runs N] [--threads N] [--smoke] [--json]

Each model is an ``.xml`` that ovyolo made (FP32, FP16 or INT8; a ``.pt`` is exported first). Its usual twin is built
here from the same network: the input becomes float planes, made by OpenCV's ``blobFromImage``, and YOLOv5's decoding
(sigmoid, grid, anchors, transpose, concat) is added to the graph. Both get the same frames, letterboxed alike, both end
with boxes in pixels of the frame, and all take turns, frame by frame. Nothing is multi-labelled; conf 0.25, IoU 0.45.

Printed are medians and, from one run in turn, how much longer the usual way takes: end to end, and its network alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
from decode_nms import with_opencv
from openvino import opset7 as ops

from ovyolo.bench import take_turns
from ovyolo.bench.frames import Frames
from ovyolo.bench.latency import Latency
from ovyolo.bench.machine import describe, load_warning, spin_warning
from ovyolo.card import Card
from ovyolo.detector import model_file
from ovyolo.letterbox import Letterbox
from ovyolo.runtime import read_model

CONF, IOU = 0.25, 0.45


def usual_model(path: Path) -> tuple[ov.Model, Card]:
    """The same network with float planes as input and one decoded output ``[1, N, 5+nc]``."""
    model, card = read_model(path, ov.Core())
    height, width = card.imgsz
    planes = ops.parameter([1, 3, height, width], np.float32, name="planes")
    given = model.get_parameters()[0]
    transposes = [node for node in model.get_ops() if node.get_type_name() == "Transpose"]
    first, between = next((node, way) for node in transposes if (way := way_from(given, node)) is not None)
    entry = planes.output(0)
    for quantizer in between:  # an INT8 model quantizes its input before it turns it
        ranges = [
            ops.constant(limit.get_node().get_data().reshape(1, 1, 1, 1)) for limit in quantizer.input_values()[1:]
        ]
        entry = ops.fake_quantize(entry, *ranges, quantizer.get_attributes()["levels"]).output(0)
    first.output(0).replace(entry)
    levels = []
    nc = card.num_classes
    for name, stride, anchors in zip(card.head.outputs, card.head.strides, card.head.anchors, strict=True):
        head = model.output(name).get_node().input_value(0)
        _, channels, rows, columns = head.get_shape()
        na = channels // (5 + nc)
        x = ops.reshape(head, np.array([1, na, 5 + nc, rows, columns]), False)
        x = ops.sigmoid(ops.transpose(x, np.array([0, 1, 3, 4, 2])))
        xy, wh, rest = ops.variadic_split(x, np.int64(4), np.array([2, 2, 1 + nc])).outputs()
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).astype(np.float32)[None, None]
        xy = ops.multiply(ops.add(ops.multiply(xy, np.float32(2)), grid - np.float32(0.5)), np.float32(stride))
        wh = ops.multiply(wh, np.float32(2))
        sizes = np.array(anchors, np.float32).reshape(1, na, 1, 1, 2)
        wh = ops.multiply(ops.multiply(wh, wh), sizes)
        levels.append(ops.reshape(ops.concat([xy, wh, rest], 4), np.array([1, -1, 5 + nc]), False))
    return ov.Model([ops.result(ops.concat(levels, 1))], [planes], "usual"), card


def way_from(given: Any, node: Any) -> list[Any] | None:
    """The quantizers between the parameter and ``node``; None when more than those and a type conversion is there."""
    between = []
    source = node.input_value(0).get_node()
    while source.get_type_name() in ("Convert", "FakeQuantize"):
        between += [source] if source.get_type_name() == "FakeQuantize" else []
        source = source.input_value(0).get_node()
    return between[::-1] if source.get_friendly_name() == given.get_friendly_name() else None


def request_for(model: ov.Model, threads: int | None = None, precision: str = "f32") -> ov.InferRequest:
    """The network on the CPU, one picture at a time."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    config |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    return ov.Core().compile_model(model, "CPU", config).create_infer_request()


class Usual:
    """A frame from reading to boxes, the usual way."""

    def __init__(self, path: Path, frames: Frames, threads: int | None) -> None:
        model, self.card = usual_model(path)
        self._request = request_for(model, threads)
        self._frames = frames
        self._picture = np.empty((*self.card.imgsz, 3), np.uint8)
        self.found: list[tuple[Any, ...]] = []

    def __call__(self) -> dict[str, float]:
        begin = time.perf_counter()
        image = self._frames.next()
        fit = Letterbox((image.shape[0], image.shape[1]), self.card.imgsz)
        fit.into(image, self._picture)
        # scale and channel order lie in the first convolution, as in ours: the conversion alone is paid for here
        blob = cv2.dnn.blobFromImage(self._picture)
        before = time.perf_counter()
        self._request.infer([blob], share_inputs=True)
        tensor = self._request.get_output_tensor(0).data
        after = time.perf_counter()
        xyxy, scores, labels = with_opencv(tensor, CONF, IOU, False)
        gain_x, gain_y, pad_x, pad_y, width, height = fit.transform
        xyxy = (xyxy - [pad_x, pad_y, pad_x, pad_y]) / [gain_x, gain_y, gain_x, gain_y]
        xyxy = np.clip(xyxy, 0, [width, height, width, height])
        end = time.perf_counter()
        self.found.append((xyxy, scores, labels))
        return {"infer": 1e3 * (after - before), "total": 1e3 * (end - begin)}


class Ours:
    """The same, our way."""

    def __init__(self, path: Path, frames: Frames, threads: int | None) -> None:
        self._latency = Latency(path, frames, device="CPU", threads=threads, precision=None, conf=CONF)

    def __call__(self) -> dict[str, float]:
        parts = self._latency()
        return {"infer": parts["infer"], "total": parts["total"]}

    @property
    def found(self) -> list[tuple[Any, ...]]:
        return [(one.xyxy, one.confidence, one.class_id) for one in self._latency.found]


def agreement(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> tuple[int, int]:
    same = sum(
        int(((np.abs(a[0][:, None] - b[0][None]).max(-1) < 0.5) & (a[2][:, None] == b[2][None])).any(1).sum())
        for a, b in zip(ours, theirs, strict=True)
    )
    return same, sum(max(len(a[1]), len(b[1])) for a, b in zip(ours, theirs, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", required=True, nargs="+", type=Path)
    parser.add_argument("--source", help="pictures or a video; by default a synthetic one, in which little is found")
    parser.add_argument("--runs", type=int, default=150, help="frames a way (default 150)")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--smoke", action="store_true", help="three frames: shows that it runs; its numbers mean little"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings = [load_warning(), spin_warning()]
    rows = []
    for model in options.model:
        path = model_file(model, None, None)
        # frames lie in memory: reading them is not the question
        frames = Frames(options.source)
        kept = [frames.next().copy() for _ in range(32 if options.source else 1)]
        frames.close()
        ways: dict[str, Any] = {
            "ovyolo": Ours(path, Kept(kept), options.threads),
            "usual": Usual(path, Kept(kept), options.threads),
        }
        turns = take_turns(ways, range(3 if options.smoke else options.runs), warm_up=3)
        total, infer = (turns.ratio("usual", "ovyolo", part) for part in ("total", "infer"))
        same, whole = agreement(ways["ovyolo"].found, ways["usual"].found)
        median = {name: float(np.median(turns.samples(name, "total"))) for name in ways}
        rows.append(
            {
                "model": path.stem, "ovyolo_ms": median["ovyolo"], "usual_ms": median["usual"],
                "usual_takes_longer": total.value - 1, "interval": [total.low - 1, total.high - 1],
                "network_alone_longer": infer.value - 1, "boxes_shared": [same, whole],
            }
        )  # fmt: skip
    report = {"machine": describe(), "runs": options.runs, "rows": rows, "warnings": [w for w in warnings if w]}
    if options.json:
        print(json.dumps(report, indent=1))
        return 0
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for sentence in report["warnings"]:
        print(f"warning: {sentence}")
    print("\n| model | ovyolo ms | usual ms | usual takes longer | its network alone | boxes shared |")
    print("|---|--:|--:|--:|--:|--:|")
    for row in rows:
        low, high = row["interval"]
        print(
            f"| {row['model']} | {row['ovyolo_ms']:.2f} | {row['usual_ms']:.2f} "
            f"| {row['usual_takes_longer']:.1%} ({low:.1%} to {high:.1%}) | {row['network_alone_longer']:.1%} "
            f"| {row['boxes_shared'][0]} of {row['boxes_shared'][1]} |"
        )
    return 0


class Kept(Frames):
    """Frames in memory, over and over."""

    def __init__(self, frames: list[Any]) -> None:
        super().__init__()
        self._kept, self._at = frames, 0

    def next(self) -> Any:
        self._at += 1
        return self._kept[(self._at - 1) % len(self._kept)]


if __name__ == "__main__":
    sys.exit(main())
