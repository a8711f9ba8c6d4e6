"""Argument types that several subcommands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

__all__ = ["fraction", "image_size", "number", "positive", "seconds"]


def image_size(text: str) -> tuple[int, ...]:
    """``640``, ``480,640`` or ``480x640`` (height, width)."""
    parts = text.lower().replace("x", ",").split(",")
    try:
        sizes = tuple(int(part) for part in parts)
    except ValueError:
        sizes = ()
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an image size: give one number (640) or height,width (480,640)"
        )
    return sizes


def number(takes: str, holds: Callable[[float], bool], kind: Callable[[str], float] = float) -> Callable[[str], Any]:
    """An argument type: a number for which ``holds``; what is told of others is that they are not ``takes``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {takes}")
        return value

    return parse


fraction = number("a number from 0 to 1", lambda value: 0 <= value <= 1)
positive = number("a whole number from 1", lambda value: value >= 1, int)
seconds = number("a number of seconds above 0", lambda value: 0 < value < 1e6)
