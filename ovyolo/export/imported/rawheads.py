"""Files that end at their raw heads: 4-D ``[N, na*(5+nc), H, W]`` or ``[N, H, W, na*(5+nc)]``, or 5-D
``[N, na, H, W, 5+nc]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError, ExportError
from ovyolo.export.imported.heads import Anchors, decode_heads
from ovyolo.export.imported.levels import Levels
from ovyolo.export.imported.misfit import Misfit

__all__ = ["check_raw", "given_anchors", "raw_rows"]

Array = NDArray[Any]


def given_anchors(anchors: Sequence[Sequence[Sequence[float]]] | None, shapes: Sequence[Sequence[int]]) -> Anchors:
    """The ``anchors`` given by the user, checked against the raw outputs' ``shapes``.

    Raises:
        ExportError: none were given.
        DimensionError: they are not ``[level][anchor] = (width, height)``, positive, as many as the outputs need.
    """
    if anchors is None:
        raise ExportError(
            "it ends at its raw heads, which hold no anchors: give them with --anchors, or export the .pt itself"
        )
    try:
        array = np.array(anchors, np.float64)
    except (TypeError, ValueError) as error:
        raise DimensionError(
            "anchors must be numbers, [level][anchor] = (width, height), as many on each level"
        ) from error
    if array.ndim != 3 or array.shape[2] != 2 or not array.size or not np.isfinite(array).all() or (array <= 0).any():
        raise DimensionError(
            "anchors must be positive numbers, [level][anchor] = (width, height), as many on each level"
        )
    if array.shape[0] != len(shapes):
        raise DimensionError(f"anchors for {array.shape[0]} levels were given, but it has {len(shapes)} raw heads")
    counts = {shape[1] for shape in shapes if len(shape) == 5}
    if counts - {array.shape[1]}:
        raise DimensionError(f"{array.shape[1]} anchors a level were given, but its raw heads have {sorted(counts)}")
    channels = {shape[1] for shape in shapes if len(shape) == 4}
    if any(c % array.shape[1] or c // array.shape[1] < 6 for c in channels):
        raise DimensionError(
            f"its raw heads of {sorted(channels)} channels cannot hold {array.shape[1]} anchors a cell"
        )
    return tuple(tuple((float(w), float(h)) for w, h in level) for level in array)


def check_raw(decoder: Callable[[list[Array]], list[Array]], heads: Sequence[Sequence[int]]) -> None:
    """Whether outputs are the head convolutions' own numbers, at most turned.

    Args:
        decoder: raw heads of the shapes ``heads`` in, the file's outputs out.
        heads: shapes ``[N, C, H, W]``, finest level first.

    Raises:
        Misfit: something else is done to them.
    """
    rng = np.random.default_rng(0)
    raws = [rng.normal(0, 3, shape).astype(np.float32) for shape in heads]
    for raw, output in zip(raws, as_heads(decoder(raws), heads[0][1]), strict=True):
        if raw.shape != output.shape or not np.allclose(raw, output, rtol=1e-5, atol=1e-5):
            raise Misfit("its outputs are not the raw numbers of its head convolutions")


def as_heads(outputs: Sequence[Array], channels: int) -> list[Array]:
    """4-D (also with ``channels`` last) or 5-D raw outputs as ``[N, na*(5+nc), H, W]``, finest level first."""
    heads = []
    for output in outputs:
        if output.ndim == 5:
            batch, anchors, height, width, numbers = output.shape
            turned = output.transpose(0, 1, 4, 2, 3)
            heads.append(turned.reshape(batch, anchors * numbers, height, width))
        elif output.shape[1] != channels and output.shape[3] == channels:
            heads.append(output.transpose(0, 3, 1, 2))
        else:
            heads.append(output)
    return sorted(heads, key=lambda head: -head.shape[2] * head.shape[3])


def raw_rows(outputs: Sequence[Array], levels: Levels, anchors: Anchors) -> Array:
    """A file's raw ``outputs`` decoded to rows ``[R, 5+nc]``."""
    return decode_heads(as_heads(outputs, levels.anchors * levels.width), levels, anchors).astype(np.float32)
