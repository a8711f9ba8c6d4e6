"""What a pool is made of: how patient it is, its members, and what they are given to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from ovyolo.vpu.memory import Bank
from ovyolo.vpu.process import WorkerProcess

__all__ = ["Job", "Limits", "Member"]


@dataclass(frozen=True)
class Limits:
    """How patient a pool is.

    Args:
        timeout: seconds that a worker may compute without a result before it counts as hung.
        start: seconds until a new worker has compiled the model.
        retries: failures in a row, of a worker or of a picture, that are answered by another try; one more is an error.
        pause: seconds before the second try in a row, doubled for each later one: a stick needs time to come back.
    """

    timeout: float = 10.0
    start: float = 120.0
    retries: int = 3
    pause: float = 0.5


@dataclass(eq=False)
class Job:
    """What is to be computed in a slot; ``state`` goes from waiting over running to done or failed."""

    bank: Bank
    slot: int
    seq: int
    state: str = "waiting"
    attempts: int = 0
    doubted: bool = False
    error: str = ""


@dataclass(eq=False)
class Member:
    """A device and its process; ``state`` is starting, ready or lost (for good)."""

    device: str
    process: WorkerProcess | None = None
    state: str = "starting"
    runtime: str = ""
    depth: int = 1
    jobs: dict[int, Job] = field(default_factory=dict)
    since: float = 0.0
    failures: int = 0
    proven: bool = False
    reason: str = ""
