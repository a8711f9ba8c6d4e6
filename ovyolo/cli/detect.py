"""``ovyolo detect``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ovyolo.cli.arguments import fraction, image_size, positive, seconds
from ovyolo.cli.tiles import add_tile_arguments, tile_words
from ovyolo.errors import OvyoloError

MANY = 16  # pictures from which throughput mode is faster in all, its slower start included


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", "--weights", required=True, metavar="MODEL",
        help="an .xml that ovyolo made, or a .pt or .onnx, which is exported to a cache first",
    )  # fmt: skip
    parser.add_argument(
        "--source", required=True, nargs="+",
        help="pictures, folders, globs, videos, cameras (0, rtsp://…, http://…), or a .txt that lists them",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="CPU",
        help="where to compute: CPU, GPU, NPU, MYRIAD (all sticks), MYRIAD.<id>, LEGACY.CPU (default: CPU)",
    )  # fmt: skip
    parser.add_argument(
        "--fallback",
        choices=("CPU",),
        help="compute there, with a warning, when the device is missing or cannot run",
    )
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
        "--hint", choices=("latency", "throughput"),
        help="each picture as soon as possible, or as many a second as possible (default: throughput for videos and "
        "many pictures)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", type=positive, metavar="N", help="pictures computed side by side (default: what --hint makes it)"
    )
    parser.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), help="what to compute in (default: f32 on a CPU)"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="keep compiled and exported models here")
    add_tile_arguments(parser)
    live = parser.add_argument_group("live sources")
    live.add_argument(
        "--policy", choices=("block", "drop-oldest", "latest"),
        help="what happens when frames come too fast (default: latest for live sources, else block)",
    )  # fmt: skip
    live.add_argument(
        "--open-timeout", type=seconds, default=10.0, metavar="S", help="limit to connect a camera (default: 10)"
    )
    live.add_argument(
        "--read-timeout", type=seconds, default=5.0, metavar="S",
        help="a camera without a picture for so long is connected anew (default: 5)",
    )  # fmt: skip
    live.add_argument(
        "--give-up", type=seconds, metavar="S", help="end a camera that was lost for so long (default: try for ever)"
    )
    out = parser.add_argument_group("results")
    out.add_argument(
        "-o", "--output", metavar="DIR", help="folder for annotated pictures and videos (default: runs/detect/N)"
    )
    out.add_argument("--no-save", action="store_true", help="draw nothing")
    out.add_argument("--json", metavar="FILE", help="all boxes as one JSON document; - is standard output")
    out.add_argument("--jsonl", metavar="FILE", help="a line of JSON a frame, written at once; - is standard output")
    out.add_argument("--coco", metavar="FILE", help="all boxes as COCO JSON; - is standard output")
    out.add_argument("--csv", metavar="FILE", help="all boxes as a table; - is standard output")
    out.add_argument("--txt", metavar="DIR", help="one YOLO .txt a picture: class, centre, size (relative), confidence")
    out.add_argument("--show", action="store_true", help="show each result on the screen (q ends)")
    out.add_argument("--skip-bad", action="store_true", help="go on after a picture that cannot be read; exit status 1")
    out.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.epilog = """examples:
  ovyolo detect --model best.xml --source photos/
  ovyolo detect --model best.pt --source 'line3/*.png' --conf 0.4 --json boxes.json --no-save
  ovyolo detect --model best.xml --source belt.mp4 -o result
  ovyolo detect --model best.xml --source wafer.png --tile 640 --full
  ovyolo detect --model best.xml --source rtsp://10.0.0.7/line1 rtsp://10.0.0.8/line2 --jsonl - --no-save

exit status: 0 all done, 1 some pictures were skipped, 2 nothing could be done, 130 interrupted"""


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

    def add(sink: Any) -> None:  # at once, so that one that cannot be opened leaves nothing of the others
        made.append(stack.enter_context(sink))

    if not options.no_save:
        folder = Path(options.output) if options.output else next_folder(Path("runs") / "detect")
        add(sinks.PictureSink(folder))
    if options.json:
        add(sinks.JsonSink(options.json))
    if options.jsonl:
        add(sinks.JsonLinesSink(options.jsonl))
    if options.coco:
        add(sinks.CocoSink(options.coco))
    if options.csv:
        add(sinks.CsvSink(options.csv))
    if options.txt:
        add(sinks.TxtSink(Path(options.txt)))
    if options.show:
        add(sinks.ShowSink())
    return made


def run(options: argparse.Namespace) -> int:
    """Detect in every frame of the source and hand the boxes to the sinks."""
    if [options.json, options.jsonl, options.coco, options.csv].count("-") > 1:
        raise OvyoloError("only one of --json, --jsonl, --coco and --csv can write to standard output: name a file")
    tiles = tile_words(options)
    from ovyolo.detector import Detector
    from ovyolo.io.sinks import MultiSink
    from ovyolo.io.sources import open_sources
    from ovyolo.progress import progress

    with ExitStack() as stack:
        on_error = "skip" if options.skip_bad else "raise"
        limits = {
            "open_timeout": options.open_timeout,
            "read_timeout": options.read_timeout,
            "give_up": options.give_up,
        }
        sources = [stack.enter_context(one) for one in open_sources(options.source, on_error=on_error, **limits)]
        total = total_of(sources)
        detector = stack.enter_context(
            Detector(
                options.model, options.device, options.conf, options.iou, options.classes, options.agnostic,
                options.max_det, options.imgsz, options.cache_dir, options.threads,
                precision=options.precision, hint=options.hint or hint_for(None if tiles else total, sources),
                streams=options.streams, fallback=options.fallback,
            )
        )  # fmt: skip
        sinks = open_sinks(options, stack)
        together = MultiSink(*sinks)
        frames, found, cut = 0, Counter[str](), 0
        started = time.perf_counter()
        stream = stack.enter_context(detector.stream(sources, policy=options.policy, on_error=on_error, **tiles))
        signals = stack.enter_context(ending_on_signals(stream))
        failure: OvyoloError | None = None
        try:
            for frame, detections in progress(stream, total=total, unit="picture", quiet=options.quiet):
                try:
                    together.write(frame, detections)
                except OvyoloError as error:  # told when the other sinks are finished: what they have is whole
                    failure = error
                    break
                frames += 1
                found.update(detections.counts())
                cut += detections.truncated
                if together.stopped:
                    break
        except OvyoloError as error:
            if not frames or total is not None:
                raise
            failure = error  # of a live source what came until its end is all there is
        taken, device = time.perf_counter() - started, detector.device
        errors, dropped = list(stream.errors), stream.dropped
    for _, message in errors:
        print(f"warning: {message}", file=sys.stderr)
    if failure is not None:
        raise failure
    if not frames and errors:
        raise OvyoloError(f"none of the {len(errors)} pictures could be read")
    if not options.quiet:
        if options.device.upper() != "CPU":
            print(f"computed on {device}", file=sys.stderr)
        report(frames, found, cut, taken, sinks, options)
        for name, count in dropped.items():
            print(
                f"{name}: {count} frame(s) dropped, because newer ones came before they were computed", file=sys.stderr
            )
    if signals:
        print("interrupted: what was found until then is written", file=sys.stderr)
        return 128 + signals[0]
    return 1 if errors else 0


def total_of(sources: list[Any]) -> int | None:
    """How many frames all sources have; None when one does not know."""
    totals = [source.total for source in sources]
    return None if None in totals else sum(totals)


def hint_for(total: int | None, sources: list[Any]) -> str:
    """A few pictures, and those of a single camera, come soonest in latency mode; many soonest in throughput mode."""
    if len(sources) == 1 and getattr(sources[0], "live", False):
        return "latency"
    return "latency" if total is not None and total < MANY else "throughput"


@contextmanager
def ending_on_signals(stream: Any) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end the reading: what is under way is written, files are closed. Yields what came.

    A second signal does what it always did.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield came
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            if handler is not None:  # None: set by something that is not Python, and so left alone
                signal.signal(number, handler)

    def end(number: int, _: Any) -> None:
        came.append(number)
        stream.stop()
        restore()

    for number, handler in usual.items():
        if handler not in (None, signal.SIG_IGN):
            signal.signal(number, end)
    try:
        yield came
    finally:
        restore()


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
