"""``ovyolo bench``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovyolo.cli.arguments import fraction, positive, seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="an .xml that ovyolo made, or a .pt or .onnx, which is exported to a cache first; several take turns",
    )  # fmt: skip
    parser.add_argument(
        "--source", metavar="SOURCE", help="picture, folder or video to measure on (default: a synthetic 720p picture)"
    )
    parser.add_argument("--device", default="CPU", help="where to compute: CPU, GPU, NPU (default: CPU)")
    parser.add_argument(
        "--hint", choices=("latency", "throughput", "both"), default="both", help="what to measure (default: both)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OpenVINO decides)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), help="what to compute in (default: f32 on a CPU)"
    )
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="boxes need more confidence than this (default: 0.25)"
    )
    parser.add_argument(
        "--runs", type=positive, metavar="N", help="frames a model for latency (default: what fits into --seconds)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=10.0, metavar="S", help="how long for each hint, a model (default: 10)"
    )
    parser.add_argument(
        "--cold-starts", type=count, default=3, metavar="N",
        help="fresh processes a model, for cold start and peak memory (default: 3; 0: leave out)",
    )  # fmt: skip
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="RUNTIME=FILE",
        help="compare latency with another runtime that is installed: onnxruntime=best.onnx, torch=best.torchscript, "
        "litert=best.tflite (the first MODEL's network in that format; same pixels in, boxes compared)",
    )  # fmt: skip
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="everything as JSON; - is standard output, instead of the table")
    out.add_argument("--picture", metavar="FILE", help="where a frame's time goes, as .svg or .png")
    parser.epilog = """examples:
  ovyolo bench best.xml
  ovyolo bench fp32.xml int8.xml --source belt.mp4 --picture bench.svg
  ovyolo bench best.xml --against onnxruntime=best.onnx --source photos/
  ovyolo bench best.xml --hint latency --runs 200 --threads 2 --json bench.json

Ratios are given only between models of one run, which take turns. exit status: 0 measured, 2 could not be"""


def count(text: str) -> int:
    """A whole number from 0."""
    return 0 if text.strip() == "0" else positive(text)


def run(options: argparse.Namespace) -> int:
    """Measure, then print the table or JSON, and draw."""
    from ovyolo.cli.val import check_target
    from ovyolo.errors import OvyoloError

    check_target(options.json, "--json")
    check_target(options.picture, "--picture")
    if options.picture:
        from ovyolo.bench.picture import check_picture

        check_picture(options.picture)
        if options.hint == "throughput":
            raise OvyoloError("--picture shows latency: leave --hint throughput out")
    from ovyolo.bench import bench

    result = bench(
        options.models, device=options.device, source=options.source,
        hints=("latency", "throughput") if options.hint == "both" else (options.hint,), runs=options.runs,
        seconds=options.seconds, cold_starts=options.cold_starts, conf=options.conf, threads=options.threads,
        precision=options.precision, against=options.against,
    )  # fmt: skip
    if options.json == "-":
        print(result.to_json(), end="")
    else:
        print(result.table())
    written = []
    if options.json not in (None, "-"):
        from ovyolo.io.output import make_folder, replacing

        target = Path(options.json)
        make_folder(target.absolute().parent)
        with replacing(target) as part:
            part.write_text(result.to_json(), encoding="utf-8")
        written.append(target)
    if options.picture:
        from ovyolo.bench.picture import write_picture
        from ovyolo.io.output import make_folder

        make_folder(Path(options.picture).absolute().parent)
        written.append(write_picture(result, options.picture))
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    return 0
