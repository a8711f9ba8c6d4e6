"""The options for tiles, which several subcommands share."""

from __future__ import annotations

import argparse
from typing import Any

from ovyolo.cli.arguments import image_size, number
from ovyolo.errors import OvyoloError

__all__ = ["add_tile_arguments", "tile_words"]

SKIP_FLAT = 8.0


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    tiles = parser.add_argument_group("tiles, for small objects in large pictures")
    tiles.add_argument(
        "--tile", type=tile_size, metavar="N|H,W|auto",
        help="cut pictures into tiles of so many pixels; auto: the model's input size, where pictures are larger",
    )  # fmt: skip
    tiles.add_argument(
        "--overlap", type=overlap, metavar="SHARE", help="how much of a tile its neighbour sees again (default: 0.2)"
    )
    tiles.add_argument(
        "--full", action="store_true", help="look at the whole picture, too, for objects that fit in no tile"
    )
    tiles.add_argument(
        "--roi", type=region, metavar="X1,Y1,X2,Y2",
        help="only this part of the picture, in its pixels; three or more corners X,Y,X,Y,X,Y,... are a polygon",
    )  # fmt: skip
    tiles.add_argument(
        "--merge", choices=("nms", "nmm", "wbf", "soft"),
        help="of boxes of several tiles stays: the best (nms, default), their hull, their weighted mean, or soft-NMS",
    )  # fmt: skip
    tiles.add_argument(
        "--skip-flat", type=levels, nargs="?", const=SKIP_FLAT, metavar="LEVELS",
        help=f"pass over tiles in which nothing stands out by so many grey levels (alone: {SKIP_FLAT:g})",
    )  # fmt: skip


def tile_words(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as :class:`~ovyolo.Detector` takes it; empty without tiles.

    Raises:
        OvyoloError: an option that is for tiles came without ``--tile``.
    """
    names = ("overlap", "full", "roi", "merge", "skip_flat")
    given = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, False)}
    if options.tile is None:
        if given:
            raise OvyoloError(f"--{next(iter(given)).replace('_', '-')} is for tiles: give --tile as well")
        return {}
    return {"tile": options.tile, **given}


def tile_size(text: str) -> tuple[int, ...] | str:
    """``640``, ``480,640`` (height, width) or ``auto``."""
    return "auto" if text.strip().lower() == "auto" else image_size(text)


overlap = number("a number from 0 to below 1, such as 0.2", lambda value: 0 <= value < 1)
levels = number("a number of grey levels, above 0 to 255", lambda value: 0 < value <= 255)


def region(text: str) -> list[Any]:
    """Four numbers are a rectangle, six and more, in pairs, a polygon."""
    try:
        numbers = [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        return numbers
    if len(numbers) < 6 or len(numbers) % 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no region: give x1,y1,x2,y2, or the corners x,y,x,y,x,y of a polygon, in pixels"
        )
    return [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
