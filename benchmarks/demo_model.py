"""Makes the models that ``ovyolo demo`` shows: boards are drawn, a network is trained on them from random weights, and
compressed.

    python benchmarks/demo_model.py --work runs/demo-model     # about half an hour on 2 cores with BF16
    python benchmarks/demo_model.py --smoke                    # shows that it runs; the model finds nothing

Started again with the same ``--work`` it goes on where it was. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ovyolo.bench.machine import describe
from ovyolo.compress.api import compress
from ovyolo.compress.compress_report import text_table
from ovyolo.compress.recipe import Recipe
from ovyolo.demo import make_dataset
from ovyolo.demo.shipped import DEFECTS, FOLDER, IMGSZ, TRAINING_SEED, Shipped
from ovyolo.export import export
from ovyolo.io.output import copy_file, make_folder, replacing
from ovyolo.train import resume, train
from ovyolo.train.augment import Augment
from ovyolo.train.settings import TrainSettings
from ovyolo.version import __version__

BOARDS = {"train": 2000, "val": 240}
SIZE = (IMGSZ, IMGSZ)
# defects are a dozen pixels small, and a mirrored board is a board: no mosaics, hardly any scaling, all mirrorings.
# From random weights AdamW came to AP50 50 in 6 epochs, SGD to 0. The usual anchors reach all defects, most at the
# finest level only; fitted ones would give each to all three levels
AUGMENT = Augment(
    mosaic=0.0, scale=0.1, translate=0.1, sharp=0.0, hsv_h=0.015, hsv_s=0.5, hsv_v=0.3, fliplr=0.5, flipud=0.5
)
SETTINGS = TrainSettings(
    epochs=14, batch=8, imgsz=SIZE, lr=0.002, final_lr=0.02, warmup=1.0, optimizer="adamw", weight_decay=0.01,
    patience=0, validate_every=2, anchors="keep", ema_tau=300.0, seed=TRAINING_SEED, augment=AUGMENT,
)  # fmt: skip
# all that decides is said here, so that other defaults make the same model
RECIPE = Recipe(
    speedup=None, activation="hardswish", recover_epochs=6, sparsity=0.0, quantize=True, qat_epochs=1, distill=1.0,
    features=1.0, lr=0.005, qat_lr=0.0005, batch=16, calibration=128, baseline=False, max_drop=None, seed=TRAINING_SEED,
    keep_float=(),
)  # fmt: skip
SMOKE = {
    "boards": {"train": 12, "val": 6},
    "settings": {"epochs": 1, "batch": 4, "imgsz": (128, 128), "close_mosaic": 0, "validate_every": 1},
    "recipe": {"recover_epochs": 1, "batch": 4, "calibration": 4},
}

NOTE = """# The models of `ovyolo demo`

A small detector of six defects on synthetic circuit boards (`ovyolo demo boards`), in two forms:

- `boards.xml`, `boards.bin`: YOLOv5's layout `n` at {size}x{size}, weights stored as FP16, computed in FP32.
- `boards-int8.xml`, `boards-int8.bin`: the same network after `compress`, with Hardswish instead of SiLU, in INT8.
  `boards-int8.compress.json` is its report.

Trained from random weights on boards drawn by this package alone; no picture, weight or label of anybody else went in.
Licence: Apache-2.0, as the package.

Made by `python benchmarks/demo_model.py`: {train} boards to train on, {val} to validate with, {defects} defects each,
{size}x{size} pixels, seed {seed}; {epochs} epochs; AP {ap:.1f}, AP50 {ap50:.1f} on the validation boards before
compressing, AP {ap_after:.1f}, AP50 {ap50_after:.1f} after. All settings stand in that script.
{versions}; {system}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, help="folder for boards, trainings and steps (default: runs/demo-model)")
    parser.add_argument("--out", type=Path, help="folder for the models (default: where the package looks for them)")
    parser.add_argument("--epochs", type=int, help="of the training, for a shorter trial")
    parser.add_argument("--train-only", action="store_true", help="stop after the training")
    parser.add_argument("--smoke", action="store_true", help="tiny, into a temporary folder unless --out is given")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.smoke:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            options.work, options.out = options.work or temporary / "work", options.out or temporary / "model"
        make(options)


def make(options: argparse.Namespace) -> None:
    """Everything, or what is left of it."""
    out = (options.out or FOLDER).absolute()
    work = make_folder((options.work or Path("runs") / "demo-model").absolute())
    smoke: dict[str, Any] = SMOKE if options.smoke else {"boards": BOARDS, "settings": {}, "recipe": {}}
    settings, recipe = replace(SETTINGS, **smoke["settings"]), replace(RECIPE, **smoke["recipe"])
    if options.epochs:
        settings = replace(
            settings, epochs=options.epochs, close_mosaic=min(settings.close_mosaic, options.epochs // 4)
        )
    print(describe(), flush=True)
    began = time.perf_counter()
    usual = Path.cwd()
    os.chdir(work)  # so that reports and cards name files by what they are here, not by a path of this machine
    try:
        data = make_dataset(
            "boards", **smoke["boards"], seed=TRAINING_SEED, imgsz=settings.imgsz, defects=DEFECTS, quiet=options.quiet
        )
        best, figures = train_once(data, Path("train"), settings, options.quiet)
        told = {name: value for name, value in figures.items() if isinstance(value, float)}
        print(f"trained in {time.perf_counter() - began:.0f} s: {told}", flush=True)
        if options.train_only:
            return
        made = Shipped.of(make_folder("model"))
        export(best, made.dense, settings.imgsz)
        result = compress(
            best, data, made.compressed, recipe, work="steps", imgsz=settings.imgsz, augment=settings.augment,
            quiet=options.quiet,
        )  # fmt: skip
        print(text_table(result.report), flush=True)
        note = told_of(figures, result.report, settings, smoke["boards"])
        for path in made.files():
            copy_file(path, make_folder(out) / path.name)
        with replacing(out / "README.md") as part:
            part.write_text(note, encoding="utf-8")
    finally:
        os.chdir(usual)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"written: {out} ({size / 1e6:.1f} MB) in {time.perf_counter() - began:.0f} s")


def train_once(data: Path, folder: Path, settings: TrainSettings, quiet: bool) -> tuple[Path, dict[str, Any]]:
    """The trained checkpoint and its figures; what is trained is not trained again."""
    note = folder / "done.json"
    if note.is_file():
        return folder / "best.pt", json.loads(note.read_text(encoding="utf-8"))
    begun = (folder / "state.pt").exists()
    result = resume(folder, quiet=quiet) if begun else train("n", data, folder, settings, quiet=quiet)
    with replacing(note) as part:
        part.write_text(json.dumps(result.figures), encoding="utf-8")
    return result.best, dict(result.figures)


def told_of(figures: Any, report: dict[str, Any], settings: TrainSettings, boards: dict[str, int]) -> str:
    """The note that lies beside the models."""
    last = report["steps"][-1]
    versions = f"ovyolo {__version__}, " + ", ".join(
        f"{name} {version(name)}" for name in ("torch", "nncf", "openvino", "numpy")
    )
    return NOTE.format(
        size=settings.imgsz[0], **boards, defects=DEFECTS,
        seed=TRAINING_SEED, epochs=settings.epochs, ap=figures["ap"] or 0, ap50=figures["ap50"] or 0,
        ap_after=last["ap"] or 0, ap50_after=last["ap50"] or 0, versions=versions,
        system=f"Python {platform.python_version()}, {report['machine']['processor']}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
