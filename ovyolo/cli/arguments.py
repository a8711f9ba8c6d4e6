"""Argument types that several subcommands share."""

from __future__ import annotations

import argparse
import math

__all__ = ["fraction", "image_size", "positive", "seconds"]


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


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def seconds(text: str) -> float:
    """Seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and 0 < value < 1e6):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
