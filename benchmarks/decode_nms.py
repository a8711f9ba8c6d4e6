"""Decode + NMS: ovyolo's kernel on raw heads beside NumPy and NumPy + OpenCV on the decoded tensor.

    python benchmarks/decode_nms.py [--rounds N] [--smoke] [--synthetic] [--json]

All ways run in turn, A B C A B C, in one process, so that a busy machine slows all alike, and each finds its data
pushed out of the caches by the others; a second table has each alone. The others are spared the
decoding: they start from the ``[1, 25200, 85]`` tensor of boxes and probabilities that a graph with a decoded head
returns; ovyolo starts from the raw heads. See ``benchmarks/README.md`` for how to read and cite the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovyolo import _nms

Array = NDArray[Any]
ANCHORS = np.array(
    [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ],
    float,
)
STRIDES = np.array([8, 16, 32], float)
SETTINGS: dict[str, dict[str, Any]] = {
    "detect": {"conf": 0.25, "iou": 0.45, "multi_label": False},
    "val": {"conf": 0.001, "iou": 0.6, "multi_label": True},
}
MAX_DET, MAX_NMS, CLASSES = 300, 30000, 80
WAYS = ("ovyolo", "numpy", "numpy+opencv")


def stored_heads(folder: Path) -> dict[str, list[Array]]:
    heads = {}
    for picture in ("bus", "zidane"):
        with np.load(folder / "golden" / f"yolov5n-raw-{picture}.npz") as stored:
            heads[picture] = [stored[f"head{i}"] for i in range(3)]
    return heads


def synthetic_heads() -> dict[str, list[Array]]:
    """Logits with the statistics of a picture: a quiet background, a haze of weak cells, some objects."""
    heads = {}
    for name, seed in (("synthetic-1", 1), ("synthetic-2", 2)):
        rng = np.random.default_rng(seed)
        levels = []
        for stride in (8, 16, 32):
            side = 640 // stride
            head = rng.normal(0, 1, (3, 5 + CLASSES, side, side)).astype(np.float32)
            head[:, 5:] -= 7
            head[:, 4] = rng.normal(-10, 1, head[:, 4].shape)
            row, column = np.mgrid[:side, :side] / side
            for _ in range(8):
                y, x, reach, label = rng.random(), rng.random(), rng.uniform(0.02, 0.08), rng.integers(CLASSES)
                near = np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * reach**2))
                head[:, 4] += 10 * near
                head[:, 5 + label] += 9 * near
            levels.append(head.reshape(1, -1, side, side))
        heads[name] = levels
    return heads


def read_and_sort(heads: list[Array], conf: float, iou: float, multi_label: bool) -> Callable[[], Any]:
    """The floor: one read of the bytes that must be read, laid side by side, and one sort of the candidates' scores.

    Those are all objectness logits, and for each cell that passes the cache lines of its class logits.
    """
    del iou
    needed, scores = [], []
    line = 16  # floats
    for head in heads:
        planes = head.reshape(3, 5 + CLASSES, -1)
        for plane in planes:
            needed.append(plane[4])
            objectness = 1 / (1 + np.exp(-plane[4]))
            cells = np.flatnonzero(objectness > conf)
            for first in np.unique(cells // line) * line:
                needed.append(plane[5:, first : first + line].ravel())
            each = objectness[cells] / (1 + np.exp(-plane[5:, cells]))
            scores.append((each if multi_label else each.max(0)).ravel())
    data, candidates = np.concatenate(needed), np.concatenate(scores)
    candidates = np.ascontiguousarray(candidates[candidates > conf], np.float32)
    return lambda: (data.max(), np.sort(candidates))


def decoded(heads: list[Array]) -> Array:
    """The ``[1, N, 5+nc]`` tensor of a graph with a decoded head; not timed."""
    parts = []
    for head, anchors, stride in zip(heads, ANCHORS, STRIDES, strict=True):
        height, width = head.shape[-2:]
        s = 1 / (1 + np.exp(-head.reshape(3, -1, height, width).transpose(0, 2, 3, 1)))
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
        s[..., :2] = (2 * s[..., :2] - 0.5 + grid) * stride
        s[..., 2:4] = (2 * s[..., 2:4]) ** 2 * anchors[:, None, None]
        parts.append(s.reshape(-1, s.shape[-1]))
    return np.concatenate(parts)[None].astype(np.float32)


def numpy_candidates(tensor: Array, conf: float, multi_label: bool) -> tuple[Array, Array, Array]:
    """cx cy w h, scores and classes, best first, after filtering by objectness."""
    rows = tensor[0]
    rows = rows[rows[:, 4] > conf]
    scores = rows[:, 5:] * rows[:, 4:5]
    if multi_label:
        which, labels = np.nonzero(scores > conf)
        boxes, scores = rows[which, :4], scores[which, labels]
    else:
        labels = scores.argmax(1)
        scores = scores[np.arange(len(labels)), labels]
        above = scores > conf
        boxes, scores, labels = rows[above, :4], scores[above], labels[above]
    order = np.argsort(-scores)[:MAX_NMS]
    return boxes[order], scores[order], labels[order]


def corners(boxes: Array) -> Array:
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def greedy(xyxy: Array, labels: Array, iou: float, max_det: int) -> list[int]:
    """Vectorised over the boxes that are left; classes are kept apart by shifting them off each other's canvas."""
    x1, y1, x2, y2 = (xyxy + (labels * np.float32(8192))[:, None].astype(np.float32)).T
    areas = (x2 - x1) * (y2 - y1)
    kept: list[int] = []
    left = np.arange(len(xyxy))
    while len(left) and len(kept) < max_det:
        first, left = left[0], left[1:]
        kept.append(int(first))
        width = np.minimum(x2[first], x2[left]) - np.maximum(x1[first], x1[left])
        height = np.minimum(y2[first], y2[left]) - np.maximum(y1[first], y1[left])
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        left = left[inter <= iou * (areas[first] + areas[left] - inter)]
    return kept


def with_numpy(tensor: Array, conf: float, iou: float, multi_label: bool) -> tuple[Array, Array, Array]:
    boxes, scores, labels = numpy_candidates(tensor, conf, multi_label)
    xyxy = corners(boxes)
    kept = greedy(xyxy, labels, iou, MAX_DET)
    return xyxy[kept], scores[kept], labels[kept]


def with_opencv(tensor: Array, conf: float, iou: float, multi_label: bool) -> tuple[Array, Array, Array]:
    boxes, scores, labels = numpy_candidates(tensor, conf, multi_label)
    xyxy = corners(boxes)
    xywh = np.concatenate([xyxy[:, :2], boxes[:, 2:]], axis=1)
    suppress: Any = cv2.dnn.NMSBoxesBatched
    kept = np.asarray(suppress(xywh, scores, labels.astype(np.int32), conf, iou), np.int64).reshape(-1)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_DET]
    return xyxy[kept], scores[kept], labels[kept]


def ovyolo_decoder(conf: float, iou: float, multi_label: bool) -> Callable[[list[Array]], tuple[Any, ...]]:
    """The kernel as a Detector keeps it."""
    return _nms.HeadDecoder(
        ANCHORS, STRIDES, CLASSES, conf=conf, iou=iou, multi_label=multi_label, max_det=MAX_DET, max_nms=MAX_NMS
    )


def agreement(ours: tuple[Array, ...], theirs: tuple[Array, ...]) -> float:
    """Share of boxes of the longer list that the other has too (same class, within 0.5 px and 0.001 of score)."""
    if not len(ours[0]) or not len(theirs[0]):
        return float(len(ours[0]) == len(theirs[0]))
    near = np.abs(ours[0][:, None] - theirs[0][None]).max(-1) < 0.5
    near &= (np.abs(ours[1][:, None] - theirs[1][None]) < 1e-3) & (ours[2][:, None] == theirs[2][None])
    return float(min(near.any(1).mean(), near.any(0).mean()))


def interleaved(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, all called in turn ``rounds`` times after one unmeasured round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for measured in range(-1, rounds):
        for name, call in ways.items():
            begin = time.perf_counter()
            call()
            if measured >= 0:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def decode_rows(heads: dict[str, list[Array]], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for setting, options in SETTINGS.items():
        for picture, levels in heads.items():
            tensor = decoded(levels)
            ways: dict[str, Callable[[], Any]] = {
                "ovyolo": partial(ovyolo_decoder(**options), levels),
                "numpy": partial(with_numpy, tensor, **options),
                "numpy+opencv": partial(with_opencv, tensor, **options),
            }
            results = {name: call() for name, call in ways.items()}
            ways["read+sort"] = read_and_sort(levels, **options)
            times = rounds if setting == "detect" else max(rounds // 4, 1)
            rows.append(
                {
                    "setting": setting,
                    "picture": picture,
                    "boxes": len(results["ovyolo"][0]),
                    "ms": interleaved(ways, times),
                    "ms_alone": {name: interleaved({name: call}, times)[name] for name, call in ways.items()},
                    "agreement": {name: agreement(results["ovyolo"], results[name]) for name in WAYS[1:]},
                }
            )
    return rows


def nms_rows(rounds: int) -> list[dict[str, Any]]:
    """``nms()`` alone on boxes of 10 to 100 px; OpenCV beside it where it takes seconds at most."""
    rows = []
    for count in (20_000, 50_000):
        for kind, canvas in (("scattered", 10_000), ("crowded", 640)):
            rng = np.random.default_rng(3)
            size = rng.uniform(10, 100, (count, 2))
            low = rng.uniform(0, canvas, (count, 2)) - size / 2
            xyxy = np.concatenate([low, low + size], axis=1).astype(np.float32)
            xywh = np.concatenate([low, size], axis=1).astype(np.float32)
            scores = rng.random(count).astype(np.float32)
            ways: dict[str, Callable[[], Any]] = {"ovyolo": partial(_nms.nms, xyxy, scores, iou=0.45)}
            ms = interleaved(ways, rounds)
            if count == 20_000:
                suppress: Any = cv2.dnn.NMSBoxes
                ms |= interleaved({"opencv": partial(suppress, xywh, scores, 0.0, 0.45)}, 1)
            rows.append({"boxes": count, "kind": kind, "kept": len(ways["ovyolo"]()), "ms": ms})
    return rows


def machine() -> dict[str, str]:
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line]
        facts = {key.strip(): value.strip() for key, value in lines}
        model = facts.get("model name", model)
        flags = " ".join(f for f in facts.get("flags", "").split() if f.startswith(("sse4", "avx", "fma")))
    return {
        "cpu": model,
        "cpus": str(os.cpu_count()),
        "flags": flags or "unknown",
        "simd": _nms.simd_level(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def print_report(report: dict[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    print(f"heads: {report['heads']}; medians of {report['rounds']} rounds (val: a quarter as many)\n")
    for title, key in (("in turn, A B C A B C", "ms"), ("each alone, over and over: warm caches", "ms_alone")):
        print(f"{title}:\n")
        print(
            "| setting | picture | boxes | ovyolo ms | numpy ms | numpy+opencv ms | vs numpy | vs opencv | agree "
            "| read+sort ms | ovyolo takes |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )
        for row in report["decode"]:
            ours, plain, cv = (row[key][way] for way in WAYS)
            agree, least = min(row["agreement"].values()), row[key]["read+sort"]
            print(
                f"| {row['setting']} | {row['picture']} | {row['boxes']} | {ours:.4f} | {plain:.3f} | {cv:.3f} "
                f"| {plain / ours:.1f}x | {cv / ours:.1f}x | {agree:.1%} | {least:.4f} | {ours / least:.1f}x |"
            )
        print()
    print("| nms() | boxes | kept | ovyolo ms | cv2.dnn.NMSBoxes ms |\n|---|--:|--:|--:|--:|")
    for row in report["nms"]:
        cv = f"{row['ms']['opencv']:.1f}" if "opencv" in row["ms"] else "not run"
        print(f"| {row['kind']} | {row['boxes']} | {row['kept']} | {row['ms']['ovyolo']:.2f} | {cv} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="rounds at the detect setting (default 400)")
    parser.add_argument("--smoke", action="store_true", help="a few rounds, to see that it runs; numbers mean little")
    parser.add_argument("--synthetic", action="store_true", help="seeded random heads instead of shared/data/golden")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    rounds = 4 if options.smoke else options.rounds
    named = os.environ.get("OVYOLO_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    golden = (folder / "golden" / "yolov5n-raw-bus.npz").is_file() and not options.synthetic
    if not golden and not options.synthetic:
        print("shared/data/golden is not here (see OVYOLO_SHARED_DATA): using synthetic heads", file=sys.stderr)
    cv2.setNumThreads(1)
    report = {
        "machine": machine(),
        "heads": "yolov5n at 640, golden" if golden else "synthetic",
        "rounds": rounds,
        "decode": decode_rows(stored_heads(folder) if golden else synthetic_heads(), rounds),
        "nms": nms_rows(2 if options.smoke else 20),
    }
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
