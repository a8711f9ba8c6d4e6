"""Decode + NMS where it happens: each way right after its own network has written what it reads, all in turn.

    python benchmarks/after_network.py --model MODEL --source PICTURE [PICTURE …] [--rounds N] [--smoke] [--json]

A network leaves nothing of anybody's code and data in the processor's caches, and its threads may still spin on the
other half of the core. So this is what a picture pays; ``decode_nms.py`` says what the kernels alone can do. ovyolo
decodes the raw heads; NumPy and NumPy + OpenCV get the tensor of the same network with its head decoded in the graph
(``graph.py``). ``read+sort`` is the floor of ``decode_nms.py``: one read of the bytes that must be read, and a sort.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
from decode_nms import MAX_DET, MAX_NMS, SETTINGS, agreement, machine, read_and_sort, with_numpy, with_opencv
from graph import request_for, usual_model

from ovyolo._nms import HeadDecoder
from ovyolo.detector import model_file
from ovyolo.io.images import read_image
from ovyolo.letterbox import letterbox
from ovyolo.runtime import read_model


def rows_of(path: Path, pictures: list[Path], rounds: int, threads: int | None) -> list[dict[str, Any]]:
    model, card = read_model(path, ov.Core())
    raw, usual = request_for(model, threads), request_for(usual_model(path)[0], threads)
    anchors, strides = np.array(card.head.anchors), np.array(card.head.strides)
    rows = []
    for picture in pictures:
        boxed, _ = letterbox(read_image(picture), card.imgsz)
        planes = cv2.dnn.blobFromImage(boxed)
        raw.set_input_tensor(ov.Tensor(boxed[None]))
        usual.set_input_tensor(ov.Tensor(planes))
        raw.infer()
        usual.infer()
        heads = [raw.get_tensor(name).data for name in card.head.outputs]
        tensor = usual.get_output_tensor(0).data
        for setting, options in SETTINGS.items():
            decode = HeadDecoder(anchors, strides, card.num_classes, **options, max_det=MAX_DET, max_nms=MAX_NMS)
            ways: dict[str, tuple[ov.InferRequest, Callable[[], Any]]] = {
                "ovyolo": (raw, partial(decode, heads)),
                "numpy": (usual, partial(with_numpy, tensor, **options)),
                "numpy+opencv": (usual, partial(with_opencv, tensor, **options)),
                "read+sort": (raw, read_and_sort([head.copy() for head in heads], **options)),
            }
            found = {name: ways[name][1]() for name in ("ovyolo", "numpy", "numpy+opencv")}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, (request, call) in ways.items():
                    request.infer()
                    begin = time.perf_counter()
                    call()
                    times[name].append(1e3 * (time.perf_counter() - begin))
            rows.append(
                {
                    "setting": setting,
                    "picture": picture.stem,
                    "boxes": len(found["ovyolo"][0]),
                    "ms": {name: statistics.median(values) for name, values in times.items()},
                    "agreement": min(agreement(found["ovyolo"], found[way]) for way in ("numpy", "numpy+opencv")),
                }
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--source", required=True, nargs="+", type=Path, help="pictures")
    parser.add_argument("--rounds", type=int, default=100, help="rounds a setting and picture (default 100)")
    parser.add_argument("--threads", type=int, help="threads of the network; the rest has one")
    parser.add_argument("--smoke", action="store_true", help="two rounds, to see that it runs; numbers mean little")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    cv2.setNumThreads(1)
    path = model_file(options.model, None, None)
    rows = rows_of(path, options.source, 2 if options.smoke else options.rounds, options.threads)
    facts = machine() | {"openvino": ov.get_version(), "model": path.stem}
    if options.json:
        print(json.dumps({"machine": facts, "rows": rows}, indent=1))
        return 0
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print("\n| setting | picture | boxes | ovyolo ms | numpy | numpy+opencv | agree | read+sort ms | ovyolo takes |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        ours, plain, cv, least = (row["ms"][way] for way in ("ovyolo", "numpy", "numpy+opencv", "read+sort"))
        print(
            f"| {row['setting']} | {row['picture']} | {row['boxes']} | {ours:.4f} | {plain / ours:.1f}x "
            f"| {cv / ours:.1f}x | {row['agreement']:.1%} | {least:.4f} | {ours / least:.2f}x |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
