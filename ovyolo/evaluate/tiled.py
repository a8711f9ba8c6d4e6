"""Boxes for every picture of a data set, found tile by tile."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.dataset import DataSet
from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.errors import ImageError
from ovyolo.evaluate.inference import read_ahead, warn_of_nan
from ovyolo.evaluate.predictions import Predictions
from ovyolo.progress import progress
from ovyolo.runtime import Session
from ovyolo.tiling import Tiler, TileSettings

__all__ = ["Frames", "pieces_note", "predict_tiled", "val_tiler"]

ROUNDING = 0.5  # pixels by which a label may stick out of a tile that holds the object
AHEAD = 2  # pictures that are read while one computes; they are large


class Frames:
    """The pictures of a data set at their own size: u8 ``(h, w, 3)`` BGR by index."""

    def __init__(self, dataset: DataSet) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        from ovyolo.io.images import read_image

        return read_image(self.dataset.items[index].path)


def val_tiler(card: Card, settings: TileSettings, *, conf: float, iou: float, max_det: int, device: str) -> Tiler:
    """Cuts pictures and decodes at the setting of ``val``: every class above ``conf`` makes a box."""
    decode = partial(Decoder(card), conf=conf, iou=iou, max_det=max_det, multi_label=True, device=device)
    return Tiler(card, settings, decode, iou=iou, agnostic=False, max_det=max_det)


def predict_tiled(
    session: Session,
    card: Card,
    dataset: DataSet,
    settings: TileSettings,
    *,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    skip_bad: bool = False,
    quiet: bool = True,
) -> Predictions:
    """Run the network over the tiles of all pictures.

    Args:
        session: the compiled network, any static batch size; two slots or more keep the device busy.
        card: what the network is.
        dataset: whose pictures.
        settings: how they are cut.
        conf, iou, max_det, skip_bad, quiet: as for :func:`~ovyolo.evaluate.predict`.

    Raises:
        ImageError: a picture cannot be read.
        ModelError: the device failed.
        DimensionError: the region of interest lies outside a picture.
    """
    tiler = val_tiler(card, settings, conf=conf, iou=iou, max_det=max_det, device=session.device)
    found = [Detections.empty(card.names)] * len(dataset)
    failed: dict[int, str] = {}
    views = 0
    ready = read_ahead(Frames(dataset), AHEAD)
    for index, image in progress(ready, total=len(dataset), unit="picture", quiet=quiet):
        if isinstance(image, ImageError):
            if not skip_bad:
                raise image
            failed[index] = str(image)
            continue
        found[index] = tiler(image, session)
        views += tiler.plan((image.shape[0], image.shape[1])).views
    warn_of_nan(found)
    made: dict[str, Any] = {
        "device": session.device, "imgsz": "x".join(map(str, card.imgsz)), "conf": conf, "iou": iou,
        "max_det": max_det, **described(tiler.settings), "views": f"{views / max(1, len(dataset)):.1f} a picture",
    }  # fmt: skip
    return replace(Predictions.from_detections(found, **made), failed=failed)


def described(settings: TileSettings) -> dict[str, Any]:
    """The settings as words for whoever reads the figures."""
    tile = settings.tile if isinstance(settings.tile, str) else "x".join(map(str, settings.tile))
    words: dict[str, Any] = {"tile": tile, "overlap": settings.overlap, "merge": settings.merge}
    if settings.full:
        words["full"] = "yes"
    if settings.roi is not None:
        words["roi"] = " ".join(f"{x:g},{y:g}" for x, y in settings.roi)
    if settings.skip_flat:
        words["skip_flat"] = settings.skip_flat
    return words


def pieces_note(tiler: Tiler, dataset: DataSet) -> str | None:
    """What to say where tiles see labelled objects in pieces and nothing looks at the whole picture; else None."""
    if tiler.settings.full:
        return None
    cut = 0
    for item in dataset.items:
        inside = (item.boxes + ROUNDING * np.array([1, 1, -1, -1])).astype(np.float32)
        cut += int((~tiler.plan(item.size).holds(inside)).sum())
    if not cut:
        return None
    return (
        f"{cut} of {dataset.objects} objects lie whole in no tile and are seen in pieces: "
        "try full, a larger tile or more overlap"
    )
