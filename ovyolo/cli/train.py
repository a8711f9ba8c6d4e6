"""``ovyolo train``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovyolo.cli.arguments import image_size, positive
from ovyolo.cli.augmentation import add_augmentation, augmentation_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a .pt to go on from, or n, s, m, l or x for random weights"
    )
    parser.add_argument("--data", metavar="FILE", help="a data.yaml with train and val")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write (default: runs/train/N)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the training in this folder")
    parser.add_argument("--epochs", type=positive, default=100, metavar="N", help="passes (default: 100)")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="pictures a step (default: 16)")
    parser.add_argument(
        "--accumulate", type=positive, default=1, metavar="N", help="steps before weights change (default: 1)"
    )
    parser.add_argument("--imgsz", "--img", type=image_size, default=(640,), metavar="N|H,W", help="input size")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate (default: 0.01)")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="(default: sgd)")
    parser.add_argument(
        "--patience", type=int, default=50, metavar="N", help="stop after N epochs without gain; 0: never (default: 50)"
    )
    parser.add_argument(
        "--close-mosaic", type=int, default=0, metavar="N", help="no mosaics in the last N epochs (default: 0)"
    )
    parser.add_argument(
        "--anchors", choices=("auto", "keep", "fit"), default="auto",
        help="auto: fit them to the objects where they reach less than 98%% (default)",
    )  # fmt: skip
    parser.add_argument(
        "--activation", choices=("keep", "hardswish", "relu"), default="keep",
        help="put one in that is cheaper in 8 bits than SiLU (default: keep)",
    )  # fmt: skip
    parser.add_argument(
        "--levels", choices=("keep", "p2-p5", "p2-p4"), default="keep",
        help="find small objects on cells of 4 pixels, too; p2-p4: and none on those of 32 (default: keep)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument(
        "--precision", choices=("auto", "f32", "bf16", "f16"), default="auto",
        help="of convolutions (default: bf16 where the processor has it)",
    )  # fmt: skip
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="threads for pictures (default: 2)")
    parser.add_argument(
        "--cache", choices=("ram", "disk", "none"), default="ram", help="letterboxed pictures (default: ram)"
    )
    add_augmentation(parser)
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.epilog = """examples:
  ovyolo train yolov5n.pt --data data.yaml --epochs 30
  ovyolo train n --data data.yaml --imgsz 320
  ovyolo train yolov5n.pt --data data.yaml --levels p2-p4
  ovyolo train --resume runs/train/1
  torchrun --nproc-per-node 2 -m ovyolo train yolov5n.pt --data data.yaml -o runs/two

The folder gets best.pt and last.pt (averaged weights), state.pt (to resume from), log.jsonl, curves.png, and events for
TensorBoard where it is installed. Ctrl-C or a crash loses at most five minutes: --resume goes on to the same result."""


def run(options: argparse.Namespace) -> int:
    """Train and print the score."""
    from ovyolo.cli.detect import next_folder
    from ovyolo.errors import DimensionError
    from ovyolo.export.api import as_imgsz
    from ovyolo.train import resume, train

    if options.resume:
        if options.model or options.data:
            raise DimensionError("--resume takes everything from its folder: leave MODEL and --data away")
        folder = Path(options.resume)
    else:
        if not options.model or not options.data:
            raise DimensionError("train needs MODEL and --data, or --resume")
        folder = Path(options.output) if options.output else next_folder(Path("runs") / "train")
    try:
        if options.resume:
            result = resume(folder, device=options.device, quiet=options.quiet)
        else:
            from ovyolo.train.settings import TrainSettings

            settings = TrainSettings(
                epochs=options.epochs, batch=options.batch, accumulate=options.accumulate,
                imgsz=as_imgsz(options.imgsz), lr=options.lr, optimizer=options.optimizer, patience=options.patience,
                close_mosaic=options.close_mosaic, anchors=options.anchors, activation=options.activation,
                levels=options.levels, seed=options.seed, precision=options.precision, workers=options.workers,
                augment=augmentation_of(options),
            )  # fmt: skip
            result = train(
                options.model, options.data, folder, settings, device=options.device, cache=options.cache,
                skip_bad=options.skip_bad, quiet=options.quiet,
            )  # fmt: skip
    except KeyboardInterrupt:
        if (folder / "state.pt").exists():
            print(f"interrupted; `ovyolo train --resume {folder}` goes on", file=sys.stderr)
            return 130
        raise
    shown = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "ap_small"}
    known = [
        f"{label} {result.figures[key]:.2f}" for label, key in shown.items() if result.figures.get(key) is not None
    ]
    print(f"best epoch {result.outcome.best_epoch} of {len(result.outcome.history)}: {', '.join(known)}")
    if result.outcome.stopped:
        print(f"stopped early: {result.outcome.stopped}", file=sys.stderr)
    print(f"written: {result.best}", file=sys.stderr)
    return 0
