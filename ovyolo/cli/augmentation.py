"""How training pictures are varied, as options of the commands that train."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovyolo.train.augment import Augment

__all__ = ["add_augmentation", "augmentation_of"]


def add_augmentation(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    augment = parser.add_argument_group("augmentation (0 turns one off)")
    for name, text in (
        ("mosaic", "share of samples made of four pictures"),
        ("scale", "zoom, as a share"),
        ("translate", "shift, as a share of the picture"),
        ("sharp", "share of samples that keep their pixels: not scaled, not turned, moved by whole ones"),
        ("degrees", "rotation"),
        ("hsv-h", "hue, as a share"),
        ("hsv-s", "saturation, as a share"),
        ("hsv-v", "brightness, as a share"),
        ("fliplr", "share mirrored left to right"),
        ("flipud", "share mirrored top to bottom"),
        ("mixup", "share blended with another"),
        ("copy-paste", "share of objects pasted elsewhere"),
    ):
        augment.add_argument(f"--{name}", type=float, metavar="X", help=text)


def augmentation_of(options: argparse.Namespace) -> Augment:
    """What they say; what is not given is as :class:`~ovyolo.train.augment.Augment` has it."""
    from ovyolo.train.augment import Augment

    names = Augment.__dataclass_fields__
    return Augment(**{name: value for name, value in vars(options).items() if name in names and value is not None})
