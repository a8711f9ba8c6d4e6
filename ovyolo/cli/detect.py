"""``ovyolo detect``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ovyolo.cli.arguments import fraction, image_size, positive
from ovyolo.errors import OvyoloError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", "--weights", required=True, metavar="MODEL",
        help="an .xml that ovyolo made, or a .pt or .onnx, which is exported to a cache first",
    )  # fmt: skip
    parser.add_argument(
        "--source", required=True, nargs="+", help="pictures, folders, globs, videos, or a .txt that lists them"
    )
    parser.add_argument("--device", default="CPU", help="where to compute: CPU, GPU, NPU (default: CPU)")
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="boxes need more confidence than this (default: 0.25)"
    )
    parser.add_argument(
        "--iou", type=fraction, default=0.45, help="overlap above which the better box stays (default: 0.45)"
    )
    parser.add_argument("--classes", type=int, nargs="+", metavar="N", help="only these classes, by number")
    parser.add_argument("--agnostic", action="store_true", help="suppress overlapping boxes of different classes, too")
    parser.add_argument(
        "--max-det", type=positive, default=300, metavar="N", help="at most so many boxes a picture (default: 300)"
    )
    parser.add_argument(
        "--imgsz", "--img", type=image_size, metavar="N|H,W", help="input size, for a .pt or .onnx model"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OpenVINO decides)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), help="what to compute in (default: f32 on a CPU)"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="keep compiled and exported models here")
    out = parser.add_argument_group("results")
    out.add_argument(
        "-o", "--output", metavar="DIR", help="folder for annotated pictures and videos (default: runs/detect/N)"
    )
    out.add_argument("--no-save", action="store_true", help="draw nothing")
    out.add_argument("--json", metavar="FILE", help="all boxes as one JSON document; - is standard output")
    out.add_argument("--csv", metavar="FILE", help="all boxes as a table; - is standard output")
    out.add_argument("--txt", metavar="DIR", help="one YOLO .txt a picture: class, centre, size (relative), confidence")
    out.add_argument("--show", action="store_true", help="show each result on the screen (q ends)")
    out.add_argument("--skip-bad", action="store_true", help="go on after a picture that cannot be read; exit status 1")
    out.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.epilog = """examples:
  ovyolo detect --model best.xml --source photos/
  ovyolo detect --model best.pt --source 'line3/*.png' --conf 0.4 --json boxes.json --no-save
  ovyolo detect --model best.xml --source belt.mp4 -o result

exit status: 0 all done, 1 some pictures were skipped, 2 nothing could be done"""


def next_folder(parent: Path) -> Path:
    """The first of parent/1, parent/2, … that is not there yet."""
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)


def open_sinks(options: argparse.Namespace, stack: ExitStack) -> list[Any]:
    """The sinks that the options ask for, closed by ``stack``."""
    from ovyolo.io import sinks

    made: list[Any] = []
    if not options.no_save:
        folder = Path(options.output) if options.output else next_folder(Path("runs") / "detect")
        made.append(sinks.PictureSink(folder))
    if options.json:
        made.append(sinks.JsonSink(options.json))
    if options.csv:
        made.append(sinks.CsvSink(options.csv))
    if options.txt:
        made.append(sinks.TxtSink(Path(options.txt)))
    if options.show:
        made.append(sinks.ShowSink())
    for sink in made:
        stack.enter_context(sink)
    return made


def run(options: argparse.Namespace) -> int:
    """Detect in every frame of the source and hand the boxes to the sinks."""
    if [options.json, options.csv].count("-") > 1:
        raise OvyoloError("--json - and --csv - cannot both write to standard output: name a file for one")
    from ovyolo.detector import Detector
    from ovyolo.io.sources import open_source
    from ovyolo.progress import progress

    with ExitStack() as stack:
        source = stack.enter_context(open_source(options.source, on_error="skip" if options.skip_bad else "raise"))
        detector = stack.enter_context(
            Detector(
                options.model, options.device, options.conf, options.iou, options.classes, options.agnostic,
                options.max_det, options.imgsz, options.cache_dir, options.threads,
                precision=options.precision,
            )
        )  # fmt: skip
        sinks = open_sinks(options, stack)
        frames, found, cut = 0, Counter[str](), 0
        started = time.perf_counter()
        for frame in progress(source, total=source.total, unit="picture", quiet=options.quiet):
            detections = detector(frame.image)
            for sink in sinks:
                sink.write(frame, detections)
            frames += 1
            found.update(detections.counts())
            cut += detections.truncated
            if any(getattr(sink, "stopped", False) for sink in sinks):
                break
        seconds = time.perf_counter() - started
        errors = list(source.errors)
    for _, message in errors:
        print(f"warning: {message}", file=sys.stderr)
    if not frames and errors:
        raise OvyoloError(f"none of the {len(errors)} pictures could be read")
    if not options.quiet:
        report(frames, found, cut, seconds, sinks, options)
    return 1 if errors else 0


def report(
    frames: int, found: Counter[str], cut: int, seconds: float, sinks: list[Any], options: argparse.Namespace
) -> None:
    """Say, on standard error, what was found and where it lies."""
    boxes = ", ".join(f"{count} {name}" for name, count in found.most_common(8)) or "nothing"
    more = f", {len(found) - 8} more classes" if len(found) > 8 else ""
    each = f", {1000 * seconds / frames:.1f} ms each with reading and writing" if frames else ""
    print(f"{frames} picture(s){each}: {boxes}{more}", file=sys.stderr)
    if cut:
        print(f"in {cut} picture(s) there were more boxes than --max-det {options.max_det}", file=sys.stderr)
    for sink in sinks:
        if where := getattr(sink, "path", None):
            print(f"written: {where}", file=sys.stderr)
