"""What a process costs: from the shell to the first boxes, its memory at the peak and after many frames.

    python benchmarks/process.py --model MODEL --picture FILE [--runs N] [--small MODEL] [--frames N] [--smoke] [--json]

- Cold start: ``ovyolo detect`` as a user types it, from the start of the process to the first line of its JSON Lines
  and to its end, in turn with the least that OpenVINO needs for one inference (``bare``: import, read, compile, infer,
  no picture decoded, no boxes). Files are in the system's cache; no compiled model is kept.
- Imports: packages loaded by that command that are not needed for it.
- Peak: the most resident memory of either process.
- Frames: resident memory of a process that streams ``--frames`` frames of 1280x720 through ``--small`` (the default is
  MODEL; a small network makes 20,000 frames a matter of minutes and hides no leak of ours), after 500 frames and at
  the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ovyolo
from ovyolo.bench.machine import describe, load_warning, spin_warning
from ovyolo.detector import model_file

PEAK = """
import sys
from ovyolo.bench.coldstart import peak_memory
print(peak_memory(), file=sys.stderr)
"""
BARE = """
import sys
import cv2, numpy as np, openvino as ov
core = ov.Core()
compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
request = compiled.create_infer_request()
request.infer([np.zeros(list(request.model_inputs[0].shape), np.uint8)])
print("done", flush=True)
"""
DETECT = """
import sys
from ovyolo.cli import main
sys.exit(main(["detect", "--model", sys.argv[1], "--source", sys.argv[2], "--no-save", "--quiet", "--jsonl", "-"]))
"""
# a package that ovyolo keeps from loading stands in sys.modules as None
LOADED = """
import sys
print(" ".join(sorted({name.partition(".")[0] for name, module in sys.modules.items() if module})), file=sys.stderr)
"""
UNNEEDED = (
    "torch", "nncf", "onnx", "onnxruntime", "matplotlib", "jinja2", "pandas", "scipy", "PIL", "openvino_telemetry",
    "pycocotools", "faster_coco_eval", "yaml", "sklearn",
)  # fmt: skip
STREAM = """
import sys
import numpy as np, psutil
from ovyolo import Detector
frames, process = int(sys.argv[2]), psutil.Process()
picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
early = 0
with Detector(sys.argv[1], hint="throughput") as detector:
    for frame, _ in detector.stream(picture.copy() for _ in range(frames)):
        if frame.index == min(500, frames // 2):
            early = process.memory_info().rss
        last = process.memory_info().rss if frame.index == frames - 1 else 0
print(early, last)
"""


def timed(code: str, *arguments: str) -> dict[str, float]:
    """Milliseconds until a fresh process prints its first line, and until it ends."""
    begin = time.perf_counter()
    words = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tempfile.gettempdir()) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        first = time.perf_counter()
        process.stdout.read()
        told = process.stderr.read().decode()
    end = time.perf_counter()
    if process.returncode or not line:
        sys.exit(f"a process failed: {told.strip()}")
    return {"first": 1e3 * (first - begin), "end": 1e3 * (end - begin)}


def told(code: str, *arguments: str) -> str:
    """The last line that a fresh process says on standard error."""
    ended = "import atexit\natexit.register(lambda: exec(TELL))\n"
    whole = code.replace("import sys\n", "import sys\n" + ended, 1)
    done = subprocess.run(
        [sys.executable, "-c", whole, *arguments], capture_output=True, text=True, check=True, cwd=tempfile.gettempdir()
    )
    return done.stderr.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", required=True, type=Path, help="an .xml that ovyolo made, or a .pt")
    parser.add_argument("--picture", required=True, type=Path)
    parser.add_argument("--runs", type=int, default=15, help="processes a way (default 15)")
    parser.add_argument("--small", type=Path, help="model for the many frames (default: MODEL)")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--smoke", action="store_true", help="one process a way, 20 frames; its numbers mean little")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs, frames = (1, 20) if options.smoke else (options.runs, options.frames)
    # the processes run what this one runs: installed, or the checkout through PYTHONPATH
    here = str(Path(ovyolo.__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    warnings = [w for w in (load_warning(), spin_warning()) if w]
    model, picture = str(model_file(options.model, None, None).resolve()), str(options.picture.resolve())
    small = str(model_file(options.small, None, None).resolve()) if options.small else model
    ways = {"ovyolo detect": (DETECT, model, picture), "bare": (BARE, model)}
    for way in ways.values():  # once unmeasured: files into the system's cache
        timed(*way)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            samples[name].append(timed(*way))
    cold = {
        name: {part: statistics.median(one[part] for one in taken) for part in ("first", "end")}
        for name, taken in samples.items()
    }
    loaded = set(told(f"TELL = {LOADED!r}\n{DETECT.lstrip()}", model, picture).split())
    peaks = {name: int(told(f"TELL = {PEAK!r}\n{code.lstrip()}", *more)) for name, (code, *more) in ways.items()}
    done = subprocess.run(
        [sys.executable, "-c", STREAM, small, str(frames)], capture_output=True, text=True, check=True,
        cwd=tempfile.gettempdir(),
    )  # fmt: skip
    early, last = map(int, done.stdout.split())
    report: dict[str, Any] = {
        "machine": describe(), "warnings": warnings, "runs": runs, "cold_start_ms": cold,
        "unneeded_imports": sorted(loaded & set(UNNEEDED)), "peak_bytes": peaks,
        "stream": {"frames": frames, "early_bytes": early, "last_bytes": last, "growth": last / early - 1},
    }  # fmt: skip
    if options.json:
        print(json.dumps(report, indent=1))
        return 0
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for sentence in warnings:
        print(f"warning: {sentence}")
    for name, parts in cold.items():
        print(f"{name}: first boxes after {parts['first']:.0f} ms, ended after {parts['end']:.0f} ms ({runs} in turn)")
    print(f"unneeded packages loaded: {', '.join(report['unneeded_imports']) or 'none'} (of {', '.join(UNNEEDED)})")
    print("peak: " + ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items()))
    print(f"{frames} frames: {early / 1e6:.1f} MB early, {last / 1e6:.1f} MB at the end, {last / early - 1:+.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
