"""``Detector``: one picture in, boxes out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import NDArray

from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.devices import open_device
from ovyolo.errors import DimensionError, ModelError, OvyoloWarning
from ovyolo.letterbox import Letterbox, fitting
from ovyolo.runtime import Session
from ovyolo.tiling import TiledFrames, Tiler, TileSettings

if TYPE_CHECKING:
    from ovyolo.stream import Stream

__all__ = ["Detector"]

Picture = NDArray[Any] | str | Path


class Detector:
    """Finds objects in pictures with a YOLO model on an Intel device.

    Args:
        path: an ``.xml`` that ``ovyolo export`` made, or a ``.pt`` or ``.onnx``, which is exported to a cache first.
        device: where to compute, as OpenVINO names it: ``CPU``, ``GPU``, ``NPU``; ``MYRIAD`` is every stick that is
            there, ``MYRIAD.<id>`` one of them, ``LEGACY.CPU`` the CPU by an old OpenVINO (see ``ovyolo vpu setup``).
        conf: boxes need more confidence than this, 0 to 1.
        iou: of two boxes of a class that overlap by more than this (IoU), the better one stays, 0 to 1.
        classes: indices of the classes wanted; None is all.
        agnostic: suppress overlapping boxes of different classes, too.
        max_det: at most so many boxes a picture, the best.
        imgsz: input size for a model that is exported first: one number or ``(height, width)``. An ``.xml`` has its
            own; naming another is an error.
        cache_dir: where compiled models (and exported checkpoints) are kept; by default checkpoints go to the user's
            cache folder, and so do compiled models for a GPU or NPU; those for a CPU are not kept.
        threads: CPU threads; by default OpenVINO decides.
        precision: what layers that are not INT8 compute in, ``"f32"``, ``"bf16"`` or ``"f16"``; by default ``"f32"`` on
            a CPU (the same scores on every machine), and what the device prefers elsewhere.
        hint: ``"latency"``: each picture as soon as possible; ``"throughput"``: as many pictures a second as possible,
            for :meth:`stream` and for calls from several threads.
        streams: how many pictures the device computes side by side; by default what the ``hint`` makes it.
        slots: how many calls can be under way at once; by default 1, and the device's optimum with
            ``hint="throughput"``. More wait for their turn.
        pin: whether threads stay on their cores; by default OpenVINO decides. CPU only.
        core_type: ``"performance"``, ``"efficient"`` or ``"any"``, for CPUs that have both. CPU only.
        fallback: ``"CPU"``: when the device is missing or cannot run the model, compute there, with a warning.

    Raises:
        OvyoloError: the model cannot be read, the device is not there, or an argument is out of range.

    One ``Detector`` may be used from several threads, also while streams of it run. It does not survive ``os.fork``:
    a child process that uses it gets a ModelError.

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
        hint: str = "latency",
        streams: int | None = None,
        slots: int | None = None,
        pin: bool | None = None,
        core_type: str | None = None,
        fallback: str | None = None,
    ) -> None:
        for name, value in (("conf", conf), ("iou", iou)):
            if not 0 <= value <= 1:
                raise DimensionError(f"{name} is {value}; it takes a number from 0 to 1")
        if max_det < 1:
            raise DimensionError(f"max_det is {max_det}; it takes a whole number from 1")
        cache = None if cache_dir is None else Path(cache_dir)
        self.path = model_file(Path(path), imgsz, cache)
        if slots is None and hint != "throughput":
            slots = 1
        self._open = partial(
            open_device, self.path, device, fallback=fallback, threads=threads, cache_dir=cache, precision=precision,
            hint=hint, streams=streams, pin=pin, core_type=core_type,
        )  # fmt: skip
        session, self.card = self._open(slots=slots)
        self._session = session
        self._hint = hint
        self._process = os.getpid()
        self._closed = False
        self._decode = Decoder(self.card)
        self.conf, self.iou, self.agnostic, self.max_det = conf, iou, agnostic, max_det
        self._class_mask = self._decode.class_mask(classes)
        self._tile_lock = Lock()
        self._tile_ring: Session | None = None
        self._last_tiler: tuple[TileSettings, Tiler] | None = None
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

    @property
    def effective(self) -> dict[str, str]:
        """What OpenVINO made of ``hint``, ``threads``, ``streams``, ``precision`` and the rest, by its own names."""
        self._check_usable()
        return self._session.effective

    @overload
    def __call__(self, image: Picture, **tiles: Any) -> Detections: ...

    @overload
    def __call__(self, image: list[Any], **tiles: Any) -> list[Detections]: ...

    def __call__(self, image: Picture | list[Any], **tiles: Any) -> Detections | list[Detections]:
        """Detect in one picture, or in each of a list.

        Args:
            image: a u8 BGR array ``(h, w, 3)`` (grey, BGRA and 16-bit arrays are converted), the path of a picture,
                or a list of either.
            tiles: ``tile``, and with it ``overlap``, ``full``, ``roi``, ``merge``, ``skip_flat``: cut the picture into
                tiles, so that small objects are found; see :class:`~ovyolo.tiling.TileSettings`. Calls with tiles from
                several threads take turns.

        Returns:
            Detections in pixels of the picture given; for a list, a list of them.

        Raises:
            ImageError: a picture cannot be read or is none.
            ModelError: the device failed.
            DimensionError: an argument is out of range, or ``roi`` lies outside the picture.

        Example:
            >>> found = detector("wafer.png", tile=640, overlap=0.2, full=True)  # doctest: +SKIP
        """
        if isinstance(image, list):
            return [self(one, **tiles) for one in image]
        self._check_usable()
        from ovyolo.io.images import as_bgr, read_image

        pixels = read_image(image) if isinstance(image, (str, Path)) else as_bgr(image)
        found = self._tiled(pixels, tiles) if tiles else self._plain(pixels)
        if found.nonfinite:
            warnings.warn(
                f"{self.path} gave NaN in {found.nonfinite} cells for this picture: boxes may be missing, "
                "the model or its conversion is broken",
                OvyoloWarning,
                stacklevel=2,
            )
        return found

    def _plain(self, pixels: NDArray[Any]) -> Detections:
        fit = fitting((pixels.shape[0], pixels.shape[1]), self.imgsz)
        slot = self._free.get()
        try:
            fit.into(pixels, self._session.input(slot)[0])
            self._session.submit(slot)
            outputs = self._session.wait(slot)
            return self._decode_here(outputs if len(outputs[0]) == 1 else [output[:1] for output in outputs], fit)
        finally:
            self._free.put(slot)

    def _decode_here(self, outputs: Sequence[Any], fit: Letterbox, device: str | None = None) -> Detections:
        return self._decode(
            outputs, fit, conf=self.conf, iou=self.iou, class_mask=self._class_mask, agnostic=self.agnostic,
            max_det=self.max_det, device=device or self.device,
        )  # fmt: skip

    def _tiled(self, pixels: NDArray[Any], tiles: dict[str, Any]) -> Detections:
        tiler = self._tiler(tiles)
        with self._tile_lock:
            if self._tile_ring is None:
                self._tile_ring = self._session.another(self._tile_slots)
            return tiler(pixels, self._tile_ring)

    @property
    def _tile_slots(self) -> int:
        """One slot more than compute at once is being filled meanwhile."""
        return 1 + (self._session.optimal_slots if self._hint == "throughput" else 1)

    def _tiler(self, tiles: dict[str, Any]) -> Tiler:
        """Cuts pictures as ``tiles`` says; kept, so that what there is to say of it is said once."""
        unknown = sorted(set(tiles) - {"tile", "overlap", "full", "roi", "merge", "skip_flat"})
        if unknown:
            raise TypeError(
                f"{unknown[0]!r} is not an argument here; with tiles it takes tile, overlap, full, roi, merge"
            )
        if tiles.get("tile") is None:
            raise DimensionError(f"{next(iter(tiles))} is for tiles: give tile as well, in pixels or as 'auto'")
        settings = TileSettings(**tiles)
        if self._last_tiler is None or self._last_tiler[0] != settings:
            made = Tiler(
                self.card, settings, self._decode_here, iou=self.iou, agnostic=self.agnostic, max_det=self.max_det
            )
            self._last_tiler = settings, made
        return self._last_tiler[1]

    def stream(
        self,
        source: Any,
        *,
        policy: str | None = None,
        on_error: str = "raise",
        timeout: float = 60.0,
        slots: int | None = None,
        **tiles: Any,
    ) -> Stream:
        """Detect in frame after frame: reading, letterboxing, inference and decoding go on side by side.

        Args:
            source: what :func:`~ovyolo.io.sources.open_source` takes; a :class:`~ovyolo.io.sources.Source`; or any
                iterable of pictures or :class:`~ovyolo.io.frame.Frame`, each in memory of its own. A list of sources
                or iterables (not of paths or arrays: those are one source, read one after the other) runs them side
                by side, taking turns, and so does a list of cameras and URLs. All are closed at the end.
            policy: what happens when frames come faster than results are taken: ``"block"``: the source waits;
                ``"drop-oldest"``: of the few frames that wait, the oldest goes; ``"latest"``: only the newest waits.
                ``dropped`` of the stream counts them for each source. By default live sources (cameras, URLs) run
                under ``"latest"``, others under ``"block"``.
            on_error: ``"raise"``, or ``"skip"``: what cannot be read is kept in ``errors`` of the stream, and other
                sources go on. A live source that is lost is connected anew under either, as
                :class:`~ovyolo.io.live.LiveSource` says, and so is one of several that is not there at first.
            timeout: seconds that one inference may take. When it takes longer or fails, the model is compiled anew and
                what was under way is computed again, with a warning; failing again at the same frame is an error.
            slots: how many frames are under way at once; by default 2, and the device's optimum and two more with
                ``hint="throughput"``.
            tiles: cut each frame into tiles; as for a single picture. ``slots`` is then how many frames wait.

        Returns:
            An iterable, once, of ``(frame, detections)`` in the order in which frames were read. It may be left at any
            time: leaving the loop ends the threads behind it.

        Raises:
            OvyoloError: the source cannot be opened, or an argument is out of range; while iterating, also when a
                frame cannot be read (``on_error="raise"``) or the device failed twice.

        Example:
            >>> for frame, found in detector.stream("belt.mp4"):  # doctest: +SKIP
            ...     print(frame.index, found.counts())
        """
        from ovyolo.stream import Stream, StreamSettings

        self._check_usable()
        if slots is None:
            slots = self._session.optimal_slots + 2 if self._hint == "throughput" else 2
        if not tiles:
            ring: list[Session] = []

            def open_ring(anew: bool) -> Session:
                ring[:] = [self._open(slots=slots)[0] if anew else self._session.another(slots)]
                return ring[0]

            def decode(outputs: Sequence[Any], fit: Letterbox) -> Detections:
                return self._decode_here(outputs, fit, ring[0].device)

            return Stream(source, open_ring, decode, StreamSettings(policy, on_error, timeout, slots))
        tiler = self._tiler(tiles)

        def open_frames(anew: bool) -> Session:
            inner = self._tile_slots
            session = self._open(slots=inner)[0] if anew else self._session.another(inner)
            return TiledFrames(tiler, session, slots, timeout)

        return Stream(source, open_frames, lambda found, _: found[0], StreamSettings(policy, on_error, timeout, slots))

    def close(self) -> None:
        """Give the device back; the detector cannot be used afterwards. Streams that run go on to their end."""
        if not self._closed:
            self._closed = True
            if self._tile_ring is not None:
                self._tile_ring.close()
            self._session.close()

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise ModelError(
                "this Detector was made before a fork, which the device does not survive: make one in each process"
            )
        if self._closed:
            raise ModelError("this Detector is closed: make a new one")

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
