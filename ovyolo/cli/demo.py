"""``ovyolo demo``: the shipped model on fresh synthetic boards; ``ovyolo demo boards``: boards as a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovyolo.cli.arguments import image_size, positive, seconds


def count(text: str) -> int:
    """A whole number from 0."""
    return 0 if text.strip() == "0" else positive(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ovyolo.demo.appearance import STYLES

    parser.add_argument("--boards", type=positive, default=60, metavar="N", help="how many to draw (default: 60)")
    parser.add_argument("--seed", type=count, default=1, metavar="S", help="another seed, other boards (default: 1)")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write (default: runs/demo/N)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OpenVINO decides)")
    parser.add_argument("--seconds", type=seconds, default=4.0, metavar="S", help="to time each for (default: 4)")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    parser.epilog = """examples:
  ovyolo demo
  ovyolo demo --boards 200 --seed 7 -o result
  ovyolo demo boards FOLDER          boards and labels as a YOLO data set

Draws boards, finds their defects with the model that comes with ovyolo, as it was trained and compressed, and says
what compressing cost and gained on this machine. The folder gets pictures/, report.html, and the boards."""
    parser.set_defaults(work=show)
    parts = parser.add_subparsers(dest="part", metavar="boards", title="instead")
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


def show(options: argparse.Namespace) -> int:
    """Hold the two forms of the shipped model side by side; print the table, write pictures and the page."""
    from ovyolo.cli.detect import next_folder
    from ovyolo.demo.contest import hold_contest
    from ovyolo.demo.page import write_page, write_pictures
    from ovyolo.errors import DataError

    folder = Path(options.output) if options.output else next_folder(Path("runs") / "demo")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already and not empty: name a new folder with -o")
    contest = hold_contest(
        folder / "boards", boards=options.boards, seed=options.seed, threads=options.threads, seconds=options.seconds,
        quiet=options.quiet,
        say=lambda text: None if options.quiet else print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    pictures = write_pictures(contest, folder / "pictures")
    page = write_page(contest, pictures, folder / "report.html")
    print(contest.table())
    if not options.quiet:
        print(f"written: {folder / 'pictures'}", file=sys.stderr)
        print(f"written: {page}", file=sys.stderr)
    return 0


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
