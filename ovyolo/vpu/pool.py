"""Workers that share work: whichever is free computes the next slot, and what one of them loses is computed again.

A member of the pool is a device; its process may be replaced. One lock guards everything. Who waits for a result also
looks, between slices of waiting, whether a worker hangs.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ovyolo.errors import DeviceError, ModelError, OvyoloWarning
from ovyolo.vpu.members import Job, Limits, Member
from ovyolo.vpu.memory import Bank
from ovyolo.vpu.process import WORKER_FILE, WorkerLostError, WorkerProcess, WorkerRefusalError
from ovyolo.vpu.worker import PROTOCOL

__all__ = ["Pool"]

SLICE = 0.1  # seconds between looks for workers that hang


class Pool:
    """Workers on ``devices``, all with the same model.

    Args:
        python: the interpreter of their environment.
        devices: as their runtime names them, one a worker.
        model: what they are told to open: fields of the message ``open`` but the device.
        plausible: whether the outputs of a slot can be right; where not, the slot is computed once more.
        limits: how patient to be.
        worker_file: another worker, for tests.

    Raises:
        DeviceError: no worker could open the model; ``explain`` made the message of its runtime's words.
    """

    def __init__(
        self,
        python: Path,
        devices: Sequence[str],
        model: dict[str, Any],
        plausible: Callable[[Sequence[Any]], bool],
        explain: Callable[[str], str],
        limits: Limits | None = None,
        worker_file: Path = WORKER_FILE,
    ) -> None:
        self._python, self._model, self._plausible, self._explain = python, model, plausible, explain
        self._limits, self._worker_file = limits or Limits(), worker_file
        self._changed = threading.Condition()
        # taken before _changed where both are needed; reentrant, because a forgotten session is detached from anywhere
        self._attaching = threading.RLock()
        self._closing = threading.Event()
        self._banks: dict[int, Bank] = {}
        self._jobs: dict[tuple[int, int], Job] = {}
        self._waiting: deque[Job] = deque()
        self._news: deque[str] = deque()
        self._bank_numbers, self._seqs = itertools.count(1), itertools.count(1)
        self.restarts = 0
        """How often a worker was replaced."""
        self.members = [Member(device) for device in devices]
        atexit.register(self.close)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for member in self.members:
            self._start_thread(member)
        with self._changed:
            while any(member.state == "starting" for member in self.members):
                self._changed.wait(SLICE)
            lost = [member for member in self.members if member.state == "lost"]
        if len(lost) == len(self.members):
            raise DeviceError(lost[0].reason)
        self._news.extend(f"{member.reason}; going on without it" for member in lost)
        self.tell()

    def tell(self) -> None:
        """Warn of what happened since the last time, in the caller's thread."""
        while self._news:
            warnings.warn(self._news.popleft(), OvyoloWarning, stacklevel=4)

    def attach(self, slots: int, input_shape: tuple[int, ...], outputs: dict[str, tuple[int, ...]]) -> Bank:
        """Memory for a new session, known to all workers, those that come later included."""
        with self._attaching:
            bank = Bank(next(self._bank_numbers), slots, input_shape, outputs)
            self._banks[bank.number] = bank
            for member in self.members:
                process = member.process
                if member.state == "ready" and process is not None:
                    try:
                        process.request("attach", self._limits.timeout, **bank.layout)
                    except (WorkerLostError, WorkerRefusalError) as error:
                        self._lose(member, process, f"could not be given memory: {error}")
        return bank

    def detach(self, bank: Bank) -> None:
        """Forget a session's memory; the last one ends the workers."""
        with self._attaching:
            if self._banks.pop(bank.number, None) is None:
                return
            with self._changed:
                for slot in range(bank.slots):
                    job = self._jobs.pop((bank.number, slot), None)
                    if job is not None and job in self._waiting:
                        self._waiting.remove(job)
            last = not self._banks
            for member in self.members:
                if not last and member.state == "ready" and member.process is not None:
                    member.process.send(op="detach", bank=bank.number)
        if last:
            self.close()
        bank.close()

    def submit(self, bank: Bank, slot: int) -> None:
        """Have the slot computed by whoever is free."""
        with self._changed:
            before = self._jobs.get((bank.number, slot))
            if before is not None and before.state in ("waiting", "running"):
                raise ModelError(f"slot {slot} is still under way: wait for it first")
            job = Job(bank, slot, next(self._seqs))
            self._jobs[bank.number, slot] = job
            if self._alive():
                self._waiting.append(job)
                self._dispatch()
            else:
                job.state, job.error = "failed", self.members[0].reason or "this device was closed"

    def wait(self, bank: Bank, slot: int, timeout: float | None) -> None:
        """Until the slot's outputs are there.

        Raises:
            ModelError: the workers failed too often, or nothing came within ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if (job := self._jobs.get((bank.number, slot))) is None:
                raise ModelError(f"slot {slot} was not submitted, so there is nothing to wait for")
        while True:
            with self._changed:
                if job.state not in ("done", "failed"):
                    left = SLICE if deadline is None else min(SLICE, max(0.0, deadline - time.monotonic()))
                    self._changed.wait(left)
                if job.state in ("done", "failed"):
                    break
                late = deadline is not None and time.monotonic() >= deadline
                hung = self._hung()
            for member, process in hung:
                self._lose(member, process, f"gave no result for {self._limits.timeout:g} s")
            if late:
                raise ModelError(f"the device {self.name} gave no result within {timeout:g} s")
        self.tell()
        if job.state == "failed":
            raise ModelError(job.error) from RuntimeError(job.error)

    @property
    def name(self) -> str:
        """The devices that compute."""
        return ", ".join(member.device for member in self.members if member.state != "lost")

    def close(self) -> None:
        """End the workers. What is under way fails."""
        with self._changed:
            if self._closing.is_set():
                return
            self._closing.set()
            self._fail_all("this device was closed")
            processes = [member.process for member in self.members if member.process is not None]
        atexit.unregister(self.close)
        for process in processes:
            process.stop()
        for bank in self._banks.values():
            bank.close()

    def _alive(self) -> bool:
        return not self._closing.is_set() and any(member.state != "lost" for member in self.members)

    def _fail_all(self, error: str) -> None:
        for job in self._jobs.values():
            if job.state in ("waiting", "running"):
                job.state, job.error = "failed", error
        self._waiting.clear()
        self._changed.notify_all()

    def _dispatch(self) -> None:
        """Hand out what waits, to the least busy first. The lock must be held."""
        while self._waiting:
            free = [m for m in self.members if m.state == "ready" and len(m.jobs) < m.depth]
            if not free:
                return
            member = min(free, key=lambda m: len(m.jobs))
            job = self._waiting.popleft()
            if not member.jobs:
                member.since = time.monotonic()
            member.jobs[job.seq] = job
            job.state = "running"
            job.bank.arm(job.slot)
            assert member.process is not None
            member.process.send(op="run", bank=job.bank.number, slot=job.slot, seq=job.seq)

    def _hung(self) -> list[tuple[Member, WorkerProcess]]:
        latest = time.monotonic() - self._limits.timeout
        return [
            (m, m.process) for m in self.members if m.state == "ready" and m.jobs and m.process and m.since < latest
        ]

    def _on_run(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        """The answer to a run, in the process's thread."""
        fault = None
        with self._changed:
            member = next((m for m in self.members if m.process is process), None)
            if member is None or member.state != "ready":
                return
            seq = message.get("seq")
            job = member.jobs.get(seq) if isinstance(seq, int) else None
            if message["op"] == "error":
                fault = f"failed while computing: {message.get('text')}"
            elif job is None or (message.get("bank"), message.get("slot")) != (job.bank.number, job.slot):
                fault = "answered for a picture that it was not given"
            elif not job.bank.is_whole(job.slot, job.seq):
                fault = "said that a picture was done, but its outputs are not all there"
            else:
                self._finish(member, job)
        if fault is not None:
            self._lose(member, process, fault)

    def _finish(self, member: Member, job: Job) -> None:
        del member.jobs[job.seq]
        member.since, member.failures, member.proven = time.monotonic(), 0, True
        if job.doubted or self._plausible(job.bank.outputs[job.slot]):
            job.state = "done"
        else:  # a device's slip, or the model's own: a second time will tell
            job.doubted, job.state = True, "waiting"
            self._waiting.appendleft(job)
        self._dispatch()
        self._changed.notify_all()

    def _lose(self, member: Member, process: WorkerProcess, reason: str) -> None:
        """Replace a process that cannot be relied on; what it had goes back to the head of the queue."""
        process.kill()  # before its slots are given to another: it must not write into them
        with self._changed:
            if self._closing.is_set() or member.process is not process or member.state != "ready":
                return
            member.process = None
            member.state = "starting"
            lost, member.jobs = sorted(member.jobs.values(), key=lambda job: job.seq, reverse=True), {}
            reason = f"the worker for {member.device} {reason}"
            for job in lost:
                job.attempts, job.state = job.attempts + 1, "waiting"
                self._waiting.appendleft(job)
            again = self._count_failure(member, reason)  # where nobody is left, all that waits fails with it
            for job in lost:
                if job.state == "waiting" and job.attempts > self._limits.retries:
                    job.state, job.error = "failed", f"{reason}; this picture was tried {job.attempts} times"
                    self._waiting.remove(job)
            self.restarts += again
            if again:
                self._news.append(f"{member.reason}; starting it again and computing {len(lost)} picture(s) again")
            self._dispatch()
            self._changed.notify_all()
        if again:
            self._start_thread(member)

    def _count_failure(self, member: Member, reason: str, fatal: bool = False) -> bool:
        """Note a failure; False when it was one too many. The lock must be held."""
        member.failures += 1
        member.reason = reason
        if not fatal and member.failures <= self._limits.retries:
            return True
        member.state, member.process = "lost", None
        if member.failures > 1:
            member.reason += f"; that was failure {member.failures} in a row, so it was given up"
        if not self._alive():
            self._fail_all(member.reason)
        elif member.proven:
            self._news.append(f"{member.reason}; going on without it")
        self._changed.notify_all()
        return False

    def _start_thread(self, member: Member) -> None:
        threading.Thread(target=self._start, args=(member,), name=f"ovyolo-vpu-{member.device}", daemon=True).start()

    def _start(self, member: Member) -> None:
        """Start a process, until it is ready or was tried too often."""
        while not self._closing.is_set():
            if member.failures > 1:
                self._closing.wait(self._limits.pause * 2 ** (member.failures - 2))
            problem, fatal = self._try_to_start(member)
            if problem is None:
                return
            with self._changed:
                if self._closing.is_set() or not self._count_failure(member, problem, fatal):
                    return

    def _try_to_start(self, member: Member) -> tuple[str | None, bool]:
        """What went wrong, None when nothing did, and whether another try is of no use."""
        process = None
        try:
            process = WorkerProcess(self._python, self._on_run, self._on_end, worker_file=self._worker_file)
            with self._changed:
                if self._closing.is_set():
                    process.kill()
                    return None, True
                member.process = process
            ready = process.request("open", self._limits.start, protocol=PROTOCOL, device=member.device, **self._model)
            with self._attaching:
                for bank in list(self._banks.values()):
                    process.request("attach", self._limits.timeout, **bank.layout)
                with self._changed:
                    if process.ended is None:
                        member.runtime, member.depth = str(ready["runtime"]), max(1, int(ready["depth"]))
                        member.state = "ready"
                        self._dispatch()
                        self._changed.notify_all()
                        return None, False
            problem, fatal = f"the worker for {member.device} {process.ended}", False
        except WorkerRefusalError as error:
            problem, fatal = self._explain(str(error)), not member.proven  # what never worked will not work next time
        except WorkerLostError as error:
            problem, fatal = f"the worker for {member.device} {error}", False
        except DeviceError as error:  # no such interpreter, or a worker of another version
            problem, fatal = str(error), True
        except Exception as error:  # who waits for this thread would wait for ever
            problem, fatal = f"the worker for {member.device} could not be started: {error!r}", False
        if process is not None:
            process.kill()
        return problem, fatal

    def _on_end(self, process: WorkerProcess, reason: str) -> None:
        member = next((m for m in self.members if m.process is process), None)
        if member is not None:
            self._lose(member, process, reason)
