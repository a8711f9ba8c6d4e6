"""A worker's process: started, talked to, and got rid of whatever state it is in."""

from __future__ import annotations

import io
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ovyolo.errors import DeviceError, OvyoloError
from ovyolo.vpu.worker import PROTOCOL

__all__ = ["WORKER_FILE", "WorkerLostError", "WorkerProcess", "WorkerRefusalError"]

WORKER_FILE = Path(__file__).with_name("worker.py")
LONGEST_LINE = 1 << 16
PATIENCE = 3.0  # seconds for a process to end when told to


class WorkerLostError(OvyoloError):
    """The process died, hangs, or does not speak the protocol; the message says which."""


class WorkerRefusalError(OvyoloError):
    """The worker lives and answered with an error: its runtime's words are the message."""


class WorkerProcess:
    """One process that runs the worker file.

    Args:
        python: the interpreter of an environment with an OpenVINO of its own.
        on_run: called, in a thread of this object, with each answer to a run.
        on_end: called once, in that thread, with what ended the conversation, unless :meth:`stop` or :meth:`kill` did.
        worker_file: another worker, for tests.
        patience: seconds until the process says hello.

    Raises:
        DeviceError: the interpreter cannot be started, or the worker is of another version.
        WorkerLostError: it ended or hung before it said hello.
    """

    def __init__(
        self,
        python: Path,
        on_run: Callable[[WorkerProcess, dict[str, Any]], None] = lambda process, message: None,
        on_end: Callable[[WorkerProcess, str], None] = lambda process, reason: None,
        *,
        worker_file: Path = WORKER_FILE,
        patience: float = 30.0,
    ) -> None:
        self._on_run, self._on_end = on_run, on_end
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._retired = False
        self._ended: str | None = None
        self._words: deque[str] = deque(maxlen=12)
        # no window, and a session of its own: Ctrl-C is for us, who then end the worker properly
        windows = sys.platform == "win32"
        apart: dict[str, Any] = {"creationflags": 0x0800_0000 | 0x200} if windows else {"start_new_session": True}
        try:
            self._process = subprocess.Popen(
                [str(python), "-I", str(worker_file)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **apart,
            )  # fmt: skip
        except OSError as error:
            raise DeviceError(f"{python} cannot be started ({error.strerror}): run `ovyolo vpu setup` again") from error
        self._listener = threading.Thread(target=self._listen_to_words, name="ovyolo-vpu-words", daemon=True)
        self._listener.start()
        threading.Thread(target=self._read, name="ovyolo-vpu-read", daemon=True).start()
        try:
            self.hello = self._answer("hello", patience)
            found = self.hello.get("protocol")
            if found != PROTOCOL:
                raise DeviceError(
                    f"the worker {worker_file} speaks protocol {found}, this ovyolo speaks {PROTOCOL}: "
                    "use the worker that came with this ovyolo, or update both"
                )
            if self.hello.get("numpy") is None:
                raise DeviceError(f"{python} has no NumPy: run `ovyolo vpu setup` again")
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The operating system's number of it."""
        return int(self._process.pid)

    @property
    def ended(self) -> str | None:
        """What ended the conversation; None while it goes on."""
        return self._ended

    @property
    def last_words(self) -> str:
        """The last lines that it or its libraries wrote to standard error."""
        return " | ".join(self._words)

    def send(self, **message: Any) -> None:
        """Write a message. That the process is gone is told by ``on_end`` and :meth:`request`, not here."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")

    def request(self, op: str, patience: float, **fields: Any) -> dict[str, Any]:
        """Send a request that is not a run, and wait for its answer.

        Raises:
            WorkerRefusalError: the answer is an error.
            WorkerLostError: there was none within ``patience`` seconds, or it was not an answer to this; the process is
                killed.
        """
        expected = {"probe": "probed", "compile": "compiled", "open": "ready"}.get(op, f"{op}ed")
        with self._asking:
            self.send(op=op, **fields)
            return self._answer(expected, patience)

    def _answer(self, expected: str, patience: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        answer: dict[str, Any] | None = None
        try:
            while answer is None and self._ended is None:
                with suppress(queue.Empty):
                    # in slices, so that Ctrl-C is heard in between
                    answer = self._answers.get(timeout=max(0.01, min(0.2, deadline - time.monotonic())))
                if answer is None and self._ended is None and time.monotonic() > deadline:
                    raise WorkerLostError(f"gave no answer within {patience:g} s")
        except WorkerLostError:
            self.kill()
            raise
        if answer is None:
            raise WorkerLostError(self._ended)
        if answer.get("op") == "error":
            raise WorkerRefusalError(str(answer.get("text")))
        if answer.get("op") != expected:
            self.kill()
            raise WorkerLostError(f"answered {str(answer)[:80]!r}, which is not {expected!r}")
        return answer

    def stop(self) -> None:
        """End it as it should be; kill it where it does not."""
        self._retired = True
        self.send(op="stop")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it at once, also when it is stopped or hangs. When this returns it writes no more, but where the kernel
        itself hangs."""
        self._retired = True
        if self._ended is None:
            self._ended = "was killed"
        with suppress(OSError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _read(self) -> None:
        """The thread that reads: answers to runs go to ``on_run``, others to who asked."""
        assert self._process.stdout is not None
        reason = None
        with io.BufferedReader(cast(io.RawIOBase, self._process.stdout)) as pipe:
            while reason is None:
                line = pipe.readline(LONGEST_LINE)
                if not line.endswith(b"\n"):
                    reason = f"sent half a message: {line[:40]!r}" if line else self._how_it_ended()
                    break
                try:
                    message = json.loads(line.decode("ascii"))
                except (ValueError, RecursionError):
                    message = None
                if not isinstance(message, dict):
                    reason = f"sent what is no message: {line[:40]!r}"
                elif message.get("op") == "done" or (message.get("op") == "error" and message.get("of") == "run"):
                    self._on_run(self, message)
                else:
                    self._answers.put(message)
        retired = self._retired
        if self._ended is None:
            self._ended = reason
        self._answers.put(None)
        if not retired:
            self._on_end(self, str(reason))

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        self._listener.join(PATIENCE)
        if status < 0:
            try:
                return f"was ended by signal {-status} ({signal.Signals(-status).name})"
            except ValueError:
                return f"was ended by signal {-status}"
        return f"ended with status {status}" + (f" ({self._words[-1]})" if self._words else "")

    def _listen_to_words(self) -> None:
        assert self._process.stderr is not None
        with io.BufferedReader(cast(io.RawIOBase, self._process.stderr)) as pipe:
            while line := pipe.readline(LONGEST_LINE):
                if text := line.decode("utf-8", "replace").strip():
                    self._words.append(text[:300])
