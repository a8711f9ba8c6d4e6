"""A worker that is killed, stopped or talks nonsense: every frame has one result, in order, as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from reference.workers import QUICK, Workshop, pictures, workshop

from ovyolo import Detector
from ovyolo.errors import DeviceError, ModelError, OvyoloWarning
from ovyolo.vpu.members import Limits

__all__ = ["workshop"]

FRAMES = 300
POSIX = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of POSIX")


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return pictures(FRAMES)


@pytest.fixture(scope="module")
def undisturbed(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The boxes of a run without faults, which are those of this process's OpenVINO, too."""
    with pytest.MonkeyPatch.context() as patch:
        shop = Workshop(tmp_path_factory.mktemp("undisturbed"), patch)
        with shop.detector() as detector, warnings.catch_warnings():
            warnings.simplefilter("error")
            seen = run(detector, frames)
        with Detector(shop.model) as here:
            for frame, (index, xyxy, _) in zip(frames, seen, strict=True):
                assert sorted(map(tuple, here(frame).xyxy)) == sorted(map(tuple, xyxy)), index
    assert all(len(xyxy) for _, xyxy, _ in seen)
    return seen


def run(detector: Detector, frames: list[np.ndarray], at: Callable[[int], None] = lambda index: None) -> list[Any]:
    seen = []
    for frame, found in detector.stream(iter(frames)):
        seen.append((frame.index, found.xyxy.copy(), found.confidence.copy()))
        at(frame.index)
    return seen


def same(seen: list[Any], expected: list[Any]) -> None:
    assert [index for index, _, _ in seen] == list(range(FRAMES))
    for (index, xyxy, confidence), (_, other, sure) in zip(seen, expected, strict=True):
        assert np.array_equal(xyxy, other) and np.array_equal(confidence, sure), index


@POSIX
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP", "SIGSEGV"])
def test_signals_in_mid_stream(name: str, workshop: Workshop, frames: list[np.ndarray], undisturbed: list[Any]) -> None:
    with workshop.detector() as detector:
        first = detector._session.pids

        def strike(index: int) -> None:
            if index == 100:
                os.kill(first[0], getattr(signal, name))

        with pytest.warns(OvyoloWarning, match="no result for 2 s" if name == "SIGSTOP" else name):
            same(run(detector, frames, strike), undisturbed)
        assert detector._session.restarts == 1 and workshop.starts == 2
        assert detector._session.pids != first and not alive(first[0])


KINDS = ["garbage", "half", "list", "endless", "another", "exit", "hang", "raise", "nan", "stale"]


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_in_mid_stream(
    kind: str, workshop: Workshop, frames: list[np.ndarray], undisturbed: list[Any]
) -> None:
    with workshop.detector((kind, 100)) as detector:
        if kind == "nan":  # computed once more, and right then: nothing to warn of
            same(run(detector, frames), undisturbed)
            assert workshop.starts == 1
            return
        with pytest.warns(OvyoloWarning, match="the worker for CPU .* starting it again"):
            same(run(detector, frames), undisturbed)
        assert detector._session.restarts == 1 and workshop.starts == 2


@POSIX
def test_several_workers_share_and_cover(workshop: Workshop, frames: list[np.ndarray], undisturbed: list[Any]) -> None:
    with workshop.detector(workers=3) as detector:
        pids = detector._session.pids
        assert len(set(pids)) == 3 and detector.effective["WORKERS"] == "3"

        def strike(index: int) -> None:
            if index in (50, 51):
                os.kill(pids[index - 50], signal.SIGKILL if index == 50 else signal.SIGSTOP)

        with pytest.warns(OvyoloWarning):
            same(run(detector, frames, strike), undisturbed)
        assert detector._session.restarts == 2 and alive(pids[2])


def test_work_goes_to_whoever_is_free(workshop: Workshop) -> None:
    """With one worker that hangs for a while, the other does all the rest."""
    session = workshop.session(("hang", 1), workers=2, slots=4, limits=Limits(timeout=60.0, pause=0.05))
    start = time.monotonic()
    for slot in range(2):
        session.submit(slot)
    free = 0 if done_within(session, 0) else 1
    for _ in range(20):
        session.submit(free)
        session.wait(free, 10)
    assert time.monotonic() - start < 20
    session.close()


def done_within(session: Any, slot: int) -> bool:
    try:
        session.wait(slot, 1.0)
    except ModelError:
        return False
    return True


def test_failing_for_good_is_said(workshop: Workshop) -> None:
    session = workshop.session(*[("exit", 1)] * 5)
    session.submit(0)
    with (
        pytest.warns(OvyoloWarning),
        pytest.raises(ModelError, match=r"status 3 \(the last word\).*failure 3 in a row"),
    ):
        session.wait(0)
    assert workshop.starts == 1 + QUICK.retries
    session.submit(1)  # there is nobody left, and that is said again, at once
    with pytest.raises(ModelError, match="given up"):
        session.wait(1)
    session.close()


def test_failures_to_start_count_with_failures_to_compute(workshop: Workshop) -> None:
    """The picture was tried less often than the worker failed: it must fail with it, and not wait for ever."""
    session = workshop.session(("exit", 1), ("open-exit", 0), ("exit", 1), ("exit", 1))
    session.submit(0)
    with pytest.warns(OvyoloWarning), pytest.raises(ModelError, match="failure 3 in a row"):
        session.wait(0, 30)
    assert workshop.starts == 3
    session.close()


def test_a_stream_ends_with_an_error_when_all_fail(workshop: Workshop, frames: list[np.ndarray]) -> None:
    with workshop.detector(("exit", 20), *[("exit", 1)] * 20) as detector:
        seen = []
        with pytest.warns(OvyoloWarning), pytest.raises(ModelError, match="worker for CPU ended with status 3"):
            for frame, _ in detector.stream(iter(frames)):
                seen.append(frame.index)
        assert seen == list(range(len(seen))) and len(seen) < 30


def test_a_stream_goes_on_elsewhere_when_asked(
    workshop: Workshop, frames: list[np.ndarray], undisturbed: list[Any]
) -> None:
    devices = []
    with workshop.detector(("exit", 20), *[("open", 0)] * 20, fallback="CPU") as detector:
        seen = []
        with pytest.warns(OvyoloWarning, match="computing on CPU instead, as asked"):
            for frame, found in detector.stream(iter(frames)):
                seen.append((frame.index, found.xyxy, found.confidence))
                devices.append(found.device)
    assert [index for index, _, _ in seen] == list(range(FRAMES))
    for (_, xyxy, _), (_, other, _) in zip(seen, undisturbed, strict=True):
        assert sorted(map(tuple, xyxy)) == sorted(map(tuple, other))
    assert devices[0] == "LEGACY.CPU" and devices[-1] == "CPU"


def test_failures_far_apart_do_not_add_up(workshop: Workshop) -> None:
    session = workshop.session(*[("exit", 4)] * 6)
    with pytest.warns(OvyoloWarning):
        for _ in range(20):
            session.submit(0)
            session.wait(0)
    assert session.restarts == 6
    session.close()


def test_nan_that_is_the_models_own_is_passed_on(workshop: Workshop) -> None:
    session = workshop.session(("always nan", 1))
    session.submit(0)
    assert np.isnan(session.wait(0)[0]).all() and workshop.starts == 1
    session.close()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("protocol", "speaks protocol 2, this ovyolo speaks 1"),
        ("open", "cannot run .*tiny.xml: Failed to allocate graph"),
        ("open-exit", "ended with status 9; that was failure 3 in a row"),
    ],
)
def test_workers_that_cannot_begin(kind: str, message: str, workshop: Workshop) -> None:
    with pytest.raises(DeviceError, match=message):
        workshop.session(*[(kind, 0)] * 9)
    assert workshop.starts == (3 if kind == "open-exit" else 1)


def test_a_worker_that_began_badly_is_tried_again(workshop: Workshop) -> None:
    session = workshop.session(("open-exit", 0))
    session.submit(0)
    session.wait(0)
    session.close()


def test_nothing_is_left_behind(workshop: Workshop) -> None:
    session = workshop.session()
    (pid,), path = session.pids, session._bank.path
    other = session.another(2)
    session.close()
    session.close()
    assert alive(pid) and not path.exists()
    other.submit(1)
    assert other.wait(1)[0].shape == (1, 6, 8, 8)
    kept, path = other.wait(1)[0], other._bank.path
    other.close()
    assert not alive(pid) and not path.exists()
    assert kept.mean() < 0  # what somebody holds stays valid


def test_stream_after_stream(workshop: Workshop) -> None:
    with workshop.detector() as detector:
        for _ in range(3):
            assert len(run(detector, pictures(10))) == 10
        assert detector(pictures(1)[0]).device == "LEGACY.CPU"
        assert detector._session.restarts == 0 and workshop.starts == 1


def test_forgotten_sessions_end_their_workers(workshop: Workshop) -> None:
    session = workshop.session()
    (pid,) = session.pids
    del session
    assert gone(pid)


@POSIX
def test_a_worker_outlives_no_client(workshop: Workshop) -> None:
    """When this program is killed, its workers end, and remove what both shared."""
    code = f"""
import os, sys, time
from pathlib import Path
from reference.workers import FAULTY
from ovyolo.vpu import Environment, open_worker_session
session, _ = open_worker_session(Path({str(workshop.model)!r}), "LEGACY.CPU", worker_file=FAULTY,
                                 environment=Environment(Path(sys.executable), "x"))
print(session.pids[0], session._bank.path, flush=True)
time.sleep(60)
"""
    workshop.opener()
    import sys

    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=here) as client:
        assert client.stdout is not None
        pid, path = client.stdout.readline().split()
        assert alive(int(pid)) and os.path.exists(path)
        client.kill()
    assert gone(int(pid)) and not os.path.exists(path)


def alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pid: int) -> bool:
    return any(not alive(pid) for _ in waiting())


def waiting(seconds: float = 10.0) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.05)
