"""Every hostile file is refused with one of our errors: nothing runs, nothing grows, nothing hangs."""

from __future__ import annotations

import codecs
import pickle
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hostile_calls import live_payloads
from hostile_corpus import corpus
from reference.torch_save import checkpoint, legacy_file, zip_file

from ovyolo.errors import OvyoloError, UnsafeCheckpointError
from ovyolo.export.checkpoint import read_checkpoint

NAMES = sorted(corpus(Path("/nowhere/canary")))
SECONDS = 20
MEMORY_FLOOR = 10 << 20

# names that may be called, refused for their arguments
_HARMLESS_NAMES = {
    "call builtins bytearray",
    "call builtins list",
    "call builtins complex",
    "call _codecs encode",
    "call pathlib PosixPath",
}
_EVENTS: list[str] = []
_WATCHING = False
_SUSPECT = (
    "os.",
    "subprocess.",
    "exec",
    "compile",
    "import",
    "ctypes.",
    "socket.",
    "pickle.",
    "marshal.",
    "code.",
    "shutil.",
    "pty.",
    "webbrowser.",
    "urllib.",
    "tempfile.",
)


def _audit(event: str, arguments: tuple) -> None:
    if not _WATCHING:
        return
    opened_for_writing = event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rb")
    if event.startswith(_SUSPECT) or opened_for_writing:
        _EVENTS.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_audit)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    codecs.lookup("raw-unicode-escape")
    for honest in (zip_file(checkpoint()), legacy_file(checkpoint())):  # loads what reading needs, once
        (folder / "honest.pt").write_bytes(honest)
        read_checkpoint(folder / "honest.pt")
    return corpus(canary), canary


def test_corpus_is_large() -> None:
    assert len(NAMES) >= 300


@pytest.mark.parametrize("name", NAMES)
def test_refused(name: str, files: tuple[dict[str, bytes], Path], tmp_path: Path) -> None:
    global _WATCHING  # noqa: PLW0603
    data, canary = files[0][name], files[1]
    path = tmp_path / "evil.pt"
    path.write_bytes(data)
    _EVENTS.clear()
    refusal: OvyoloError | None = None
    tracemalloc.start()
    began = time.perf_counter()
    _WATCHING = True
    try:
        read_checkpoint(path)
    except OvyoloError as error:
        refusal = error
    finally:
        _WATCHING = False
        took = time.perf_counter() - began
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert refusal is not None, "it was read as if it were honest"
    message = str(refusal)
    assert message.startswith(str(path)) and "\n" not in message and message.isprintable()
    assert len(message) < 500 + len(str(path))
    assert not _EVENTS
    assert not canary.exists()
    assert peak < 2 * len(data) + MEMORY_FLOOR
    assert took < SECONDS
    if isinstance(refusal, UnsafeCheckpointError):
        assert "Nothing was executed" in message
    if name.startswith("call ") and name not in _HARMLESS_NAMES:
        named = ascii(name.removeprefix("call ").replace(" ", ".", 1))[1:-1]
        assert isinstance(refusal, UnsafeCheckpointError)
        assert any(part in message for part in (named, "subprocess.Popen", "os.system", "builtins.print"))


@pytest.mark.parametrize("name", sorted(live_payloads(Path("canary"))))
def test_payloads_are_live(name: str, tmp_path: Path) -> None:
    """The canary is worth watching: Python's own unpickler does run these."""
    canary = tmp_path / "canary"
    pickle.loads(live_payloads(canary)[name])
    assert canary.exists()


def test_honest_files_are_read(tmp_path: Path) -> None:
    """The corpus is refused for its tricks, not because everything is."""
    for data in (zip_file(checkpoint()), legacy_file(checkpoint())):
        (tmp_path / "honest.pt").write_bytes(data)
        assert read_checkpoint(tmp_path / "honest.pt").names == {0: "thing 0", 1: "thing 1"}
