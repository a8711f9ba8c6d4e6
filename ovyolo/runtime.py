"""The seam between ovyolo and whatever computes the network: bytes in, raw heads out."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card, read_card
from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, DimensionError, ModelError, reason_of

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVINOSession", "Session", "available_devices", "open_session", "read_model"]

FORBIDDEN_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")
PRECISIONS = ("f32", "bf16", "f16")
HINTS = ("latency", "throughput")
CORE_TYPES = {"any": "ANY_CORE", "performance": "PCORE_ONLY", "efficient": "ECORE_ONLY"}
# what a user may ask for, and what OpenVINO may have made of it
EFFECTIVE = (
    "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING",
    "SCHEDULING_CORE_TYPE", "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
)  # fmt: skip
SLICE_MS = 200  # a wait is cut into these, so that Ctrl-C is heard in between


class Session(Protocol):
    """A compiled network on one device, with a fixed number of slots that compute independently.

    A slot's life: write the picture into ``input(slot)``, ``submit(slot)``, then ``wait(slot)`` for its raw outputs.
    """

    input_shape: tuple[int, int, int, int]
    """``(N, H, W, 3)`` of the u8 BGR input."""
    slots: int
    """How many pictures can be under way at once."""

    @property
    def device(self) -> str:
        """The device that computes, as OpenVINO names it."""

    def input(self, slot: int) -> NDArray[np.uint8]:
        """The slot's input tensor: a writable view, no copy between it and the device."""

    def submit(self, slot: int) -> None:
        """Begin computing what lies in the slot's input."""

    def wait(self, slot: int, timeout: float | None = None) -> list[NDArray[np.float32]]:
        """The slot's outputs in the card's order; they stay valid until the slot is submitted again.

        Raises:
            ModelError: when nothing came within ``timeout`` seconds, or the device failed.
        """

    def close(self) -> None:
        """Give the device back."""


class OpenVINOSession:
    """A :class:`Session` on the OpenVINO runtime of this process; ``slots`` None is the device's optimum."""

    def __init__(self, compiled: openvino.CompiledModel, outputs: Sequence[str], slots: int | None = 1) -> None:
        import openvino as ov

        self.optimal_slots = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        """How many pictures under way keep the device busy, as it says itself."""
        slots = self.optimal_slots if slots is None else slots

        self.device = ", ".join(str(d) for d in compiled.get_property("EXECUTION_DEVICES"))
        shape = tuple(compiled.input(0).get_shape())
        self.input_shape = (int(shape[0]), int(shape[1]), int(shape[2]), int(shape[3]))
        self.slots = slots
        self._compiled = compiled
        self._names = tuple(outputs)
        self._inputs: list[NDArray[np.uint8]] = []
        self._requests: list[Any] = []
        for _ in range(slots):
            request = compiled.create_infer_request()
            image = np.zeros(self.input_shape, np.uint8)
            request.set_input_tensor(ov.Tensor(image, shared_memory=True))
            self._inputs.append(image)
            self._requests.append(request)
        self._outputs = [[np.asarray(request.get_tensor(name).data) for name in outputs] for request in self._requests]

    def input(self, slot: int) -> NDArray[np.uint8]:
        """See :class:`Session`."""
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        """See :class:`Session`."""
        self._requests[slot].start_async()

    def wait(self, slot: int, timeout: float | None = None) -> list[NDArray[np.float32]]:
        """See :class:`Session`."""
        request = self._requests[slot]
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not request.wait_for(SLICE_MS if timeout is None else min(SLICE_MS, max(1, int(timeout * 1000)))):
                if deadline is not None and time.monotonic() >= deadline:
                    raise ModelError(f"the device {self.device} gave no result within {timeout:g} s")
        except RuntimeError as error:
            raise ModelError(f"the device {self.device} failed while computing: {reason_of(error)}") from error
        return self._outputs[slot]

    def another(self, slots: int) -> OpenVINOSession:
        """A session with slots of its own on the same compiled network; either may be closed first."""
        return OpenVINOSession(self._compiled, self._names, slots)

    @property
    def compiled(self) -> openvino.CompiledModel:
        """OpenVINO's own object, for whoever measures what it does."""
        return self._compiled

    @property
    def effective(self) -> dict[str, str]:
        """What OpenVINO made of the settings, by its own names (those that the device knows)."""
        known = set(self._compiled.get_property("SUPPORTED_PROPERTIES"))
        return {name: _text(self._compiled.get_property(name)) for name in EFFECTIVE if name in known}

    def close(self) -> None:
        """See :class:`Session`."""
        self._outputs.clear()
        self._requests.clear()
        self._inputs.clear()
        del self._compiled


def _text(value: Any) -> str:
    """A property as a short text: ``f32`` for ``<Type: 'float32'>``, ``LATENCY`` for ``PerformanceMode.LATENCY``."""
    return value.to_string() if hasattr(value, "to_string") else str(value).rsplit(".", 1)[-1]


def available_devices() -> dict[str, str]:
    """Every device that OpenVINO sees, with its full name.

    Example:
        >>> from ovyolo.runtime import available_devices
        >>> "CPU" in available_devices()
        True
    """

    core = shared_core()
    return {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in core.available_devices}


def default_cache(device: str) -> Path | None:
    """Where compiled models for ``device`` are kept when nobody says; None: nowhere.

    Example:
        >>> default_cache("CPU") is None, default_cache("GPU.1").name
        (True, 'compiled')
    """
    if device.split(".", 1)[0] not in ("GPU", "NPU"):
        return None
    from ovyolo.export.cached import cache_folder

    return cache_folder() / "compiled"


def check_device(core: openvino.Core, device: str) -> str:
    """``device`` in OpenVINO's spelling.

    Raises:
        DeviceError: when it is not there (says which are), or is a string that falls back without a word.
    """
    name = device.strip().upper().removeprefix("INTEL:")
    found = list(core.available_devices)
    if name.split(":")[0] in FORBIDDEN_DEVICES:
        raise DeviceError(
            f"device {device!r} would choose or fall back without a word; name one device: {', '.join(found)}"
        )
    if name not in found and not any(other.startswith(f"{name}.") for other in found):
        raise DeviceError(f"device {device!r} is not there; OpenVINO sees: {', '.join(found) or 'none'}")
    return name


def read_model(path: Path, core: openvino.Core) -> tuple[openvino.Model, Card]:
    """Read an IR and its card.

    Raises:
        ModelError: the file is missing, damaged, or does not explain itself.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give the path of an .xml file"
        )
    if path.suffix.lower() != ".xml":
        raise ModelError(f"{path} is not an OpenVINO IR: give an .xml file that ovyolo made")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{weights} is missing: an IR is a pair, copy both files or run `ovyolo export` again")
    try:
        model = core.read_model(path, weights)
    except RuntimeError as error:
        raise ModelError(
            f"{path} cannot be read as an OpenVINO IR ({reason_of(error)}): run `ovyolo export` again"
        ) from error
    card = read_card(model, str(path))
    expected = card.made.get("weights_crc32")
    if expected is not None and expected != f"{zlib.crc32(weights.read_bytes()):08x}":
        raise ModelError(f"{weights} is damaged or belongs to another model: run `ovyolo export` again")
    check_contract(model, card, path)
    return model, card


def check_contract(model: openvino.Model, card: Card, path: Path) -> None:
    """Raise ModelError where the network's inputs and outputs are not what its card says."""
    shapes = {name: list(port.get_partial_shape()) for port in model.outputs for name in port.get_names()}
    if len(model.inputs) != 1 or any(name not in shapes for name in card.head.outputs):
        raise ModelError(f"{path}: its outputs {sorted(shapes)} are not those of its card: run `ovyolo export` again")
    if model.is_dynamic():
        raise ModelError(f"{path} has dynamic shapes: export its checkpoint again, at a fixed input size (imgsz)")
    if list(model.input(0).get_shape())[1:] != [*card.imgsz, 3]:
        raise ModelError(
            f"{path}: its input {model.input(0).get_partial_shape()} is not [N, {card.imgsz[0]}, {card.imgsz[1]}, 3], "
            "as its card says: run `ovyolo export` again"
        )


def open_session(
    path: Path,
    device: str = "CPU",
    *,
    slots: int | None = 1,
    threads: int | None = None,
    cache_dir: Path | None = None,
    precision: str | None = None,
    hint: str = "latency",
    streams: int | None = None,
    pin: bool | None = None,
    core_type: str | None = None,
) -> tuple[OpenVINOSession, Card]:
    """Compile the IR ``path`` for ``device``.

    Args:
        path: the ``.xml``.
        device: as OpenVINO names it: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``.
        slots: how many pictures can be under way at once; None is the device's optimum for the ``hint``.
        threads: CPU threads; by default OpenVINO decides.
        cache_dir: where compiled models are kept between runs; by default nowhere for a CPU, which compiles as fast as
            it reads, and in the user's cache folder for a GPU or NPU, where compiling takes long.
        precision: what layers that are not INT8 compute in: ``"f32"``, ``"bf16"`` or ``"f16"``. By default ``"f32"`` on
            a CPU, because OpenVINO would otherwise use BF16 where the CPU has it, and scores would differ between
            machines; other devices choose for themselves.
        hint: ``"latency"``: each picture as soon as possible; ``"throughput"``: as many pictures a second as possible.
        streams: how many pictures the device computes side by side; by default what the ``hint`` makes it.
        pin: whether threads stay on their cores; by default OpenVINO decides. CPU only.
        core_type: ``"performance"``, ``"efficient"`` or ``"any"``, for CPUs that have both. CPU only.

    What became of these is in ``effective`` of the session.

    Raises:
        ModelError: see :func:`read_model`.
        DeviceError: the device is not there, or cannot run the model.
        DimensionError: an argument is out of range, or not for this device.
    """

    if threads is not None and threads < 1:
        raise DimensionError(f"threads is {threads}; it takes a whole number from 1")
    if precision not in (None, *PRECISIONS):
        raise DimensionError(f"precision is {precision!r}; it takes one of {', '.join(PRECISIONS)}")
    if hint not in HINTS:
        raise DimensionError(f"hint is {hint!r}; it takes {' or '.join(HINTS)}")
    for argument, value in (("slots", slots), ("streams", streams)):
        if value is not None and value < 1:
            raise DimensionError(f"{argument} is {value}; it takes a whole number from 1")
    if core_type not in (None, *CORE_TYPES):
        raise DimensionError(f"core_type is {core_type!r}; it takes one of {', '.join(CORE_TYPES)}")
    core = shared_core()
    name = check_device(core, device)
    model, card = read_model(path, core)
    config: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper()}
    if streams is not None:
        config["NUM_STREAMS"] = str(streams)
    if name != "CPU" and (pin is not None or core_type is not None):
        raise DimensionError(f"pin and core_type are for the CPU only: leave them out for {name}")
    if pin is not None:
        config["ENABLE_CPU_PINNING"] = pin
    if core_type is not None:
        config["SCHEDULING_CORE_TYPE"] = CORE_TYPES[core_type]
    if name == "CPU":
        config["INFERENCE_PRECISION_HINT"] = precision or "f32"
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
    elif precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    cache_dir = default_cache(name) if cache_dir is None else cache_dir
    if cache_dir is not None:
        config["CACHE_DIR"] = str(cache_dir)
    try:
        compiled = core.compile_model(model, name, config)
    except RuntimeError as error:
        raise DeviceError(f"device {name} cannot run {path}: {reason_of(error)}") from error
    return OpenVINOSession(compiled, card.head.outputs, slots), card
