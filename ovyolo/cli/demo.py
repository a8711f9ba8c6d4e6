"""``ovyolo demo``: a group of subcommands around synthetic circuit boards."""

from __future__ import annotations

import argparse
import sys

from ovyolo.cli.arguments import image_size, positive


def count(text: str) -> int:
    """A whole number from 0."""
    return 0 if text.strip() == "0" else positive(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ovyolo.demo.appearance import STYLES

    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    boards = parts.add_parser(
        "boards", help="make a data set of boards", description="Make a YOLO data set of synthetic circuit boards.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    boards.add_argument("folder", metavar="FOLDER", help="where to: a new folder, or one of an interrupted run")
    boards.add_argument("--train", type=count, default=1000, metavar="N", help="training boards (default: 1000)")
    boards.add_argument("--val", type=count, default=200, metavar="N", help="validation boards (default: 200)")
    boards.add_argument(
        "--imgsz", "--img", type=image_size, default=(640,), metavar="N|H,W", help="picture size (default: 640)"
    )
    boards.add_argument("--seed", type=count, default=0, metavar="S", help="another seed, other boards (default: 0)")
    boards.add_argument("--style", choices=STYLES, help="only this kind of picture (default: a mixture)")
    boards.add_argument("--png", action="store_true", help="PNG instead of JPEG: exact, five times as large")
    boards.add_argument("--quiet", action="store_true", help="no progress bar")
    boards.epilog = """examples:
  ovyolo demo boards boards/ --train 2000 --val 300
  ovyolo demo boards small/ --train 40 --val 10 --imgsz 320 --seed 5

An interrupted run goes on when it is started again; so does one that is asked for more boards."""
    boards.set_defaults(work=make_boards)


def run(options: argparse.Namespace) -> int:
    """Do the part that was asked for."""
    return int(options.work(options))


def make_boards(options: argparse.Namespace) -> int:
    """Write a data set and print where its description is."""
    from ovyolo.demo.dataset import make_dataset

    size = options.imgsz
    path = make_dataset(
        options.folder, train=options.train, val=options.val, seed=options.seed,
        imgsz=size[0] if len(size) == 1 else size, style=options.style, suffix=".png" if options.png else ".jpg",
        quiet=options.quiet,
    )  # fmt: skip
    print(path)
    print(f"written: {options.train} boards for training, {options.val} for validation", file=sys.stderr)
    return 0
