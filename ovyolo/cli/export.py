"""``ovyolo export``."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from ovyolo.cli.arguments import image_size
from ovyolo.errors import ExportError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source", help="the trained model: a YOLOv5 .pt of any generation, or an .onnx, .tflite or .xml made of one"
    )
    parser.add_argument("-o", "--output", help="the .xml to write (default: SOURCE with the suffix .xml)")
    parser.add_argument(
        "--imgsz", "--img", type=image_size, metavar="N|H,W",
        help="input size in pixels, a multiple of the largest stride (default: 640, or what the others have)",
    )  # fmt: skip
    parser.add_argument("--fp32", action="store_true", help="store 32-bit weights (default: FP16, half the size)")
    parser.add_argument("--data", metavar="data.yaml", help="take the class names from this file")
    parser.add_argument(
        "--anchors", metavar="LIST",
        help="for files with raw heads, or with a quantized decoding: anchors in pixels, finest level first, "
        "as [[10,13, 16,30, 33,23], [30,61, 62,45, 59,119], [116,90, 156,198, 373,326]]",
    )  # fmt: skip
    parser.add_argument(
        "--device",
        metavar="D",
        help="refuse now what cannot run there: CPU, GPU, NPU, MYRIAD (the file is the same for all)",
    )
    parser.epilog = """examples:
  ovyolo export best.pt
  ovyolo export best.pt -o line3.xml --imgsz 480,640
  ovyolo export yolov5s.onnx --data data.yaml"""


def parse_anchors(text: str) -> list[list[list[float]]]:
    """Anchors as a nested list, flat pairs in each level allowed."""
    try:
        levels: Any = ast.literal_eval(text)
        flat = [
            [float(v) for pair in level for v in (pair if isinstance(pair, (list, tuple)) else [pair])]
            for level in levels
        ]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ExportError(f"--anchors {text!r} is not a list of lists of numbers, one list a level") from error
    if not flat or any(len(level) % 2 or not level for level in flat):
        raise ExportError(f"--anchors {text!r} needs pairs of width and height in every level")
    return [[level[i : i + 2] for i in range(0, len(level), 2)] for level in flat]


def run(options: argparse.Namespace) -> int:
    """Export and say what was made."""
    from ovyolo.cli.info import summary
    from ovyolo.export import export

    anchors = None if options.anchors is None else parse_anchors(options.anchors)
    path = export(
        options.source, options.output, options.imgsz, options.fp32, data=options.data, anchors=anchors,
        device=options.device,
    )  # fmt: skip
    for line in summary(path):
        print(line)
    return 0
