"""Tiles: a large picture looked at piece by piece, so that small objects stay large enough to be found.

:class:`TileSettings` says how, :func:`plan_tiles` where the tiles lie, :class:`Tiler` computes them, and
:func:`merge_views` makes one box of what several tiles saw of one object. Users meet all this as
``detector(picture, tile=640)`` and ``--tile 640``.
"""

from __future__ import annotations

from ovyolo.tiling.frames import TiledFrames
from ovyolo.tiling.merging import View, merge_views
from ovyolo.tiling.plan import Plan, plan_tiles
from ovyolo.tiling.runner import Tiler
from ovyolo.tiling.settings import TileSettings

__all__ = ["Plan", "TileSettings", "TiledFrames", "Tiler", "View", "merge_views", "plan_tiles"]
