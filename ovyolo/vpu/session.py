"""A :class:`~ovyolo.runtime.Session` whose network runs in worker processes, on sticks or an old runtime's CPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.core import shared_core
from ovyolo.errors import DeviceError, DimensionError
from ovyolo.export.targets import objection
from ovyolo.runtime import read_model
from ovyolo.vpu.blob import fitting_blob
from ovyolo.vpu.diagnosis import explain, no_stick
from ovyolo.vpu.environment import Environment, find_environment, is_worker_device, limits_from_environment
from ovyolo.vpu.members import Limits
from ovyolo.vpu.pool import Pool
from ovyolo.vpu.process import WORKER_FILE

__all__ = ["WorkerSession", "is_worker_device", "open_worker_session"]


class WorkerSession:
    """A session on a pool of workers. Faults of the workers are dealt with below it: see :mod:`ovyolo.vpu.pool`."""

    def __init__(
        self, pool: Pool, input_shape: tuple[int, int, int, int], outputs: dict[str, tuple[int, ...]], slots: int | None
    ) -> None:
        self._pool, self._outputs = pool, outputs
        self.optimal_slots = sum(member.depth for member in pool.members if member.state != "lost")
        """How many pictures under way keep all workers busy."""
        self.slots = self.optimal_slots if slots is None else slots
        self.input_shape = input_shape
        self._bank = pool.attach(self.slots, input_shape, outputs)
        # the pool's threads keep the pool alive, but not this: forgotten sessions end their workers, too
        self._detach = weakref.finalize(self, pool.detach, self._bank)

    @property
    def device(self) -> str:
        """The devices that compute now: ``MYRIAD.<id>`` for each stick, or ``LEGACY.CPU``."""
        names = dict.fromkeys(member.device for member in self._pool.members if member.state != "lost")
        return ", ".join("LEGACY.CPU" if name == "CPU" else name for name in names)

    @property
    def restarts(self) -> int:
        """How often a worker was replaced because it died, hung or made no sense."""
        return self._pool.restarts

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that are there now."""
        return [member.process.pid for member in self._pool.members if member.process is not None]

    @property
    def effective(self) -> dict[str, str]:
        """What computes: the runtime's release, how many workers, and how many pictures each takes at once."""
        there = [member for member in self._pool.members if member.state != "lost"]
        return {
            "RUNTIME": ", ".join(sorted({member.runtime for member in there})),
            "WORKERS": str(len(there)),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS": str(self.optimal_slots),
        }

    def input(self, slot: int) -> NDArray[np.uint8]:
        """See :class:`~ovyolo.runtime.Session`."""
        return self._bank.inputs[slot]

    def submit(self, slot: int) -> None:
        """See :class:`~ovyolo.runtime.Session`."""
        self._pool.submit(self._bank, slot)

    def wait(self, slot: int, timeout: float | None = None) -> list[NDArray[np.float32]]:
        """See :class:`~ovyolo.runtime.Session`. A worker that dies or hangs meanwhile is replaced, with a warning."""
        self._pool.wait(self._bank, slot, timeout)
        return self._bank.outputs[slot]

    def another(self, slots: int) -> WorkerSession:
        """A session with slots of its own on the same workers; either may be closed first."""
        return WorkerSession(self._pool, self.input_shape, self._outputs, slots)

    def close(self) -> None:
        """See :class:`~ovyolo.runtime.Session`."""
        self._detach()


def open_worker_session(
    path: Path,
    device: str,
    *,
    slots: int | None = 1,
    threads: int | None = None,
    precision: str | None = None,
    hint: str = "latency",
    streams: int | None = None,
    pin: bool | None = None,
    core_type: str | None = None,
    environment: Environment | None = None,
    workers: int = 1,
    limits: Limits | None = None,
    worker_file: Path = WORKER_FILE,
) -> tuple[WorkerSession, Card]:
    """Have the IR ``path`` computed by a worker process on an OpenVINO that still knows Myriad sticks.

    Args:
        path: the ``.xml``.
        device: ``"MYRIAD"``: every stick that is there, sharing the work; ``"MYRIAD.<id>"``: one of them;
            ``"LEGACY.CPU"``: the CPU, by the old runtime.
        slots: how many pictures can be under way at once; None keeps all workers busy.
        threads: for ``LEGACY.CPU``: CPU threads a worker.
        precision: None, or what the device computes in anyway: ``"f16"`` on a stick, ``"f32"`` on ``LEGACY.CPU``.
        hint: for ``LEGACY.CPU``: ``"latency"`` or ``"throughput"``.
        streams: for ``LEGACY.CPU``: pictures computed side by side in a worker.
        pin, core_type: not for these devices.
        environment: the one to use; by default what ``ovyolo vpu setup`` made.
        workers: for ``LEGACY.CPU``: how many processes.
        limits: how patient to be with workers.
        worker_file: another worker, for tests.

    Raises:
        ModelError: see :func:`ovyolo.runtime.read_model`.
        DeviceError: the model cannot run on a stick (no stick is asked for that); no environment, no stick, or none
            that can be opened: says what to do.
        DimensionError: an argument is out of range, or not for this device.
    """

    name = device.strip().upper().removeprefix("INTEL:")
    stick = name.startswith("MYRIAD")
    _check_settings(name, stick, slots, threads, precision, hint, streams, pin, core_type)
    model, card = read_model(path, shared_core())
    if stick and (reason := objection(model, "MYRIAD")) is not None:
        raise DeviceError(f"{path} cannot run on {device}: {reason}")
    environment = environment or find_environment(stick)
    if stick:
        devices = _sticks(environment, name)
        config: dict[str, str] = {}
    else:
        devices = ["CPU"] * workers
        config = {"PERFORMANCE_HINT": hint.upper(), "INFERENCE_PRECISION_HINT": "f32", "ENFORCE_BF16": "NO"}
        if threads is not None:
            config |= {"INFERENCE_NUM_THREADS": str(threads), "CPU_THREADS_NUM": str(threads)}
        if streams is not None:
            config |= {"NUM_STREAMS": str(streams), "CPU_THROUGHPUT_STREAMS": str(streams)}
    blob = fitting_blob(path, environment.release) if stick else None
    opening = {"model": str(path), "blob": None if blob is None else str(blob), "config": config}
    pool = Pool(
        environment.python, devices, opening, _plausibility(card),
        lambda text: explain(text, device, path, environment), limits or limits_from_environment(), worker_file,
    )  # fmt: skip
    shape = [int(size) for size in model.input(0).get_shape()]
    ports = {n: tuple(int(size) for size in p.get_shape()) for p in model.outputs for n in p.get_names()}
    try:
        outputs = {output: ports[output] for output in card.head.outputs}
        return WorkerSession(pool, (shape[0], shape[1], shape[2], shape[3]), outputs, slots), card
    except BaseException:
        pool.close()
        raise


def _check_settings(
    name: str, stick: bool, slots: int | None, threads: int | None, precision: str | None, hint: str,
    streams: int | None, pin: bool | None, core_type: str | None,
) -> None:  # fmt: skip
    if not (stick or name == "LEGACY.CPU"):
        raise DeviceError(f"device {name!r} is not known: the old runtime computes on LEGACY.CPU or MYRIAD")
    for argument, value in (("slots", slots), ("threads", threads), ("streams", streams)):
        if value is not None and value < 1:
            raise DimensionError(f"{argument} is {value}; it takes a whole number from 1")
    if hint not in ("latency", "throughput"):
        raise DimensionError(f"hint is {hint!r}; it takes latency or throughput")
    if precision not in (None, "f16" if stick else "f32"):
        raise DimensionError(f"precision is {precision!r}, but {name} computes in {'f16' if stick else 'f32'} only")
    given = {"pin": pin, "core_type": core_type} | ({"threads": threads, "streams": streams} if stick else {})
    for argument, setting in given.items():
        if setting is not None:
            raise DimensionError(f"{argument} is not for {name}: leave it out")


def _sticks(environment: Environment, name: str) -> list[str]:
    """The sticks that ``name`` means, as the old runtime names them."""
    found = environment.probe()
    sticks: list[str] = found["myriad"]["sticks"]
    wanted = name.partition(".")[2]
    chosen = [stick for stick in sticks if not wanted or stick.upper() == wanted]
    if not chosen:
        raise DeviceError(no_stick(found, name, environment))
    return [f"MYRIAD.{stick}" for stick in chosen]


def _plausibility(card: Card) -> Callable[[Sequence[Any]], bool]:
    """Whether the values that decide about boxes are numbers: for raw heads, the objectness logits."""
    if card.head.kind != "anchors":
        return lambda outputs: bool(np.isfinite(outputs[0][..., 4]).all())
    fields = 5 + card.num_classes
    return lambda outputs: all(np.isfinite(output[:, 4::fields]).all() for output in outputs)
