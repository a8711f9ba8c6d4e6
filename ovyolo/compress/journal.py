"""What a run has measured, on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovyolo.dataset import DataSet
from ovyolo.evaluate.predictions import write_text

__all__ = ["Journal", "dataset_hash"]

VERSION = 1


def dataset_hash(dataset: DataSet) -> str:
    """SHA-256 over the pictures' names, sizes and labels: another truth is another hash."""
    digest = hashlib.sha256(repr(dataset.names).encode())
    for item in dataset.items:
        digest.update(f"{item.path.name} {item.path.stat().st_size} {item.size}".encode())
        digest.update(item.boxes.tobytes() + item.class_id.tobytes() + item.crowd.tobytes())
    return digest.hexdigest()


class Journal:
    """Measurements by name, written to a JSON file after each.

    Args:
        path: the file. One that is of other inputs, or damaged, is begun anew.
        inputs: what the measurements depend on: hashes of model, data and calibration, versions, the machine.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.json"
        >>> Journal(path, {"model": "a"}).measure("ap", lambda: 33.9)
        33.9
        >>> Journal(path, {"model": "a"}).measure("ap", lambda: 0.0)  # known from before
        33.9
        >>> Journal(path, {"model": "b"}).measure("ap", lambda: 0.0)
        0.0
    """

    def __init__(self, path: Path, inputs: dict[str, Any]) -> None:
        self.path = path
        self.inputs = inputs
        self.measured: dict[str, Any] = {}
        self.reused = 0
        self._load()

    def _load(self) -> None:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(stored, dict) and stored.get("version") == VERSION and stored.get("inputs") == self.inputs:
            measured = stored.get("measured")
            self.measured = measured if isinstance(measured, dict) else {}

    def __contains__(self, name: str) -> bool:
        return name in self.measured

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """What was measured under ``name`` before, or what ``work`` returns now: numbers, texts, lists, mappings."""
        if name in self.measured:
            self.reused += 1
            return self.measured[name]
        return self.keep(name, work())

    def keep(self, name: str, value: Any) -> Any:
        """Remember ``value`` and write the file."""
        self.measured[name] = value
        self.write()
        return value

    def write(self, **more: Any) -> None:
        """Write the file with what else should stand in it.

        Raises:
            DataError: it cannot be written.
        """
        content = {"version": VERSION, **more, "inputs": self.inputs, "measured": self.measured}
        write_text(self.path, json.dumps(content, ensure_ascii=False, indent=1))
