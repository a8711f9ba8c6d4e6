"""``Detector``: one picture in, boxes out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Any, overload

from numpy.typing import NDArray

from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.errors import DimensionError, ModelError, OvyoloWarning
from ovyolo.letterbox import Letterbox
from ovyolo.runtime import Session, open_session

__all__ = ["Detector"]

Picture = NDArray[Any] | str | Path


class Detector:
    """Finds objects in pictures with a YOLO model on an Intel device.

    Args:
        path: an ``.xml`` that ``ovyolo export`` made, or a ``.pt`` or ``.onnx``, which is exported to a cache first.
        device: where to compute, as OpenVINO names it: ``CPU``, ``GPU``, ``NPU``.
        conf: boxes need more confidence than this, 0 to 1.
        iou: of two boxes of a class that overlap by more than this (IoU), the better one stays, 0 to 1.
        classes: indices of the classes wanted; None is all.
        agnostic: suppress overlapping boxes of different classes, too.
        max_det: at most so many boxes a picture, the best.
        imgsz: input size for a model that is exported first: one number or ``(height, width)``. An ``.xml`` has its
            own; naming another is an error.
        cache_dir: where compiled models (and exported checkpoints) are kept; by default compiled models are not kept,
            and checkpoints go to the user's cache folder.
        threads: CPU threads; by default OpenVINO decides.
        precision: what layers that are not INT8 compute in, ``"f32"``, ``"bf16"`` or ``"f16"``; by default ``"f32"`` on
            a CPU (the same scores on every machine), and what the device prefers elsewhere.

    Raises:
        OvyoloError: the model cannot be read, the device is not there, or an argument is out of range.

    One ``Detector`` may be used from several threads.

    Example:
        >>> from ovyolo import Detector
        >>> detector = Detector("best.xml")  # doctest: +SKIP
        >>> for xyxy, confidence, class_id in detector("board.png"):  # doctest: +SKIP
        ...     print(detector.names[class_id], confidence, xyxy)
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "CPU",
        conf: float = 0.25,
        iou: float = 0.45,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        *,
        precision: str | None = None,
    ) -> None:
        for name, value in (("conf", conf), ("iou", iou)):
            if not 0 <= value <= 1:
                raise DimensionError(f"{name} is {value}; it takes a number from 0 to 1")
        if max_det < 1:
            raise DimensionError(f"max_det is {max_det}; it takes a whole number from 1")
        cache = None if cache_dir is None else Path(cache_dir)
        self.path = model_file(Path(path), imgsz, cache)
        session, self.card = open_session(self.path, device, threads=threads, cache_dir=cache, precision=precision)
        self._session: Session = session
        self._decode = Decoder(self.card)
        self.conf, self.iou, self.agnostic, self.max_det = conf, iou, agnostic, max_det
        self._class_mask = self._decode.class_mask(classes)
        self._free: LifoQueue[int] = LifoQueue()
        for slot in range(session.slots):
            self._free.put(slot)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by index."""
        return self.card.names

    @property
    def imgsz(self) -> tuple[int, int]:
        """``(height, width)`` of the network's input in pixels."""
        return self.card.imgsz

    @property
    def device(self) -> str:
        """The device that computes."""
        return self._session.device

    @overload
    def __call__(self, image: Picture) -> Detections: ...

    @overload
    def __call__(self, image: list[Any]) -> list[Detections]: ...

    def __call__(self, image: Picture | list[Any]) -> Detections | list[Detections]:
        """Detect in one picture, or in each of a list.

        Args:
            image: a u8 BGR array ``(h, w, 3)`` (grey, BGRA and 16-bit arrays are converted), the path of a picture,
                or a list of either.

        Returns:
            Detections in pixels of the picture given; for a list, a list of them.

        Raises:
            ImageError: a picture cannot be read or is none.
            ModelError: the device failed.
        """
        if isinstance(image, list):
            return [self(one) for one in image]
        from ovyolo.io.images import as_bgr, read_image

        pixels = read_image(image) if isinstance(image, (str, Path)) else as_bgr(image)
        fit = Letterbox((pixels.shape[0], pixels.shape[1]), self.imgsz)
        slot = self._free.get()
        try:
            fit.into(pixels, self._session.input(slot)[0])
            self._session.submit(slot)
            outputs = self._session.wait(slot)
            found = self._decode(
                outputs, fit, conf=self.conf, iou=self.iou, class_mask=self._class_mask,
                agnostic=self.agnostic, max_det=self.max_det, device=self.device,
            )  # fmt: skip
        finally:
            self._free.put(slot)
        if found.nonfinite:
            warnings.warn(
                f"{self.path} gave NaN in {found.nonfinite} cells for this picture: boxes may be missing, "
                "the model or its conversion is broken",
                OvyoloWarning,
                stacklevel=2,
            )
        return found

    def close(self) -> None:
        """Give the device back; the detector cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def model_file(path: Path, imgsz: int | Sequence[int] | None, cache_dir: Path | None) -> Path:
    """``path`` if it is an IR, else the IR that it was exported to."""
    if path.suffix.lower() in (".pt", ".pth", ".onnx"):
        from ovyolo.export.cached import exported

        return exported(path, imgsz, cache_dir)
    if path.suffix.lower() != ".xml":
        raise ModelError(f"{path} is not a model: give an .xml made by `ovyolo export`, a .pt or an .onnx file")
    if imgsz is not None:
        raise DimensionError(
            f"the input size of {path} is fixed, so imgsz cannot be given: export its checkpoint with --imgsz"
        )
    return path
