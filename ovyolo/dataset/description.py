"""``data.yaml``: class names, and where the pictures of each split are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ovyolo.errors import DataError

__all__ = ["SPLITS", "Description", "read_data_yaml"]

SPLITS = ("train", "val", "test")
EMPTY = ("", "~", "null", "Null", "NULL", "None")
MOST_CLASSES = 100_000
MOST_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Description:
    """What a ``data.yaml`` says.

    Args:
        path: the file.
        names: class names by index; class ``i`` is called ``class<i>`` when only ``nc`` was given.
        root: its ``path`` entry as written; empty when there is none.
        splits: the entries of ``train``, ``val`` and ``test`` as written; a split that is not given is not in it.
    """

    path: Path
    names: tuple[str, ...]
    root: str
    splits: dict[str, tuple[str, ...]]

    def places(self, entry: str) -> list[Path]:
        """Where ``entry`` may lie, likeliest first: in ``path`` beside the file, in ``path`` from the working
        directory, beside the file, in the working directory, and beside the file without leading ``../`` (as one
        popular exporter writes it)."""
        beside, here = self.path.absolute().parent, Path.cwd()
        root = Path(self.root).expanduser() if self.root else None
        roots = [beside / root, here / root, beside, here] if root else [beside, here]
        places = [root / entry for root in roots]
        bare = entry
        while bare.startswith(("../", "..\\")):
            bare = bare[3:]
        if bare != entry:
            places.append(beside / bare)
        return list(dict.fromkeys(places))

    def find(self, entry: str) -> Path:
        """The first of :meth:`places` that exists.

        Raises:
            DataError: none does; says where was looked.
        """
        places = self.places(entry)
        for place in places:
            if place.exists():
                return place
        raise DataError(
            f"{self.path}: {entry!r} was not found; looked for {', '.join(map(str, places))}: "
            "correct `path` or the split's entry"
        )


def read_data_yaml(path: str | Path) -> Description:
    """Read a YOLO ``data.yaml``.

    Every value is taken as text, so that a class called ``no`` or ``1e3`` keeps its name.

    Args:
        path: the file, or a folder with a ``data.yaml``.

    Raises:
        DataError: it is missing, no YAML, or names no classes; or ``names`` and ``nc`` disagree.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.yaml"
        >>> _ = path.write_text("val: images/val\\nnames: {0: open, 1: no}")
        >>> read_data_yaml(path).names
        ('open', 'no')
    """
    path = Path(path)
    if path.is_dir() and (path / "data.yaml").is_file():
        path = path / "data.yaml"
    data = _load(path)
    names = _names(data, path)
    root = data.get("path", "")
    if not isinstance(root, str):
        raise DataError(f"{path}: `path` must be one folder, not {_kind(root)}")
    splits = {}
    for split in SPLITS:
        entry = data.get(split, "")
        entries = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(one, str) for one in entries):
            raise DataError(f"{path}: `{split}` must be a folder, a list file, or a list of those")
        if given := tuple(one for one in entries if one not in EMPTY):
            splits[split] = given
    return Description(path, names, "" if root in EMPTY else root, splits)


def _load(path: Path) -> dict[str, Any]:
    """The mapping in ``path``, every scalar as text."""
    if not path.is_file():
        raise DataError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give the path of a data.yaml")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is {path.stat().st_size / 2**20:.0f} MiB: that is no data.yaml")
        text = path.read_text(encoding="utf-8-sig")
        data = yaml.load(text, Loader=yaml.BaseLoader)  # BaseLoader builds text, lists and mappings, nothing else
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}): is it a data.yaml?") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "it is no YAML"
        raise DataError(f"{path} is not valid YAML{where} ({why}): correct it") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {_kind(data)}, not the entries of a data.yaml (names, train, val)")
    return data


def _names(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Class names from ``names``, or numbered ones from ``nc``."""
    count = _count(data.get("nc", ""), path)
    names = data.get("names", "")
    if names in EMPTY:
        if count is None:
            raise DataError(f"{path} has no `names`: list the class names, in the order of their numbers")
        return tuple(f"class{i}" for i in range(count))
    if isinstance(names, dict):
        try:
            numbered = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            raise DataError(f"{path}: the keys of `names` must be class numbers from 0") from None
        if sorted(numbered) != list(range(len(names))):
            raise DataError(f"{path}: the keys of `names` must be 0 to {len(names) - 1}, each once")
        names = [numbered[i] for i in range(len(numbered))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: `names` must be a list of names, or a mapping from class number to name")
    if not names or len(names) > MOST_CLASSES:
        raise DataError(f"{path}: `names` has {len(names)} classes; 1 to {MOST_CLASSES} are taken")
    if not all(name.strip() for name in names):
        raise DataError(f"{path}: a class in `names` has no name: give it one")
    if count is not None and count != len(names):
        raise DataError(f"{path}: nc is {count}, but `names` has {len(names)}: correct one of them")
    return tuple(names)


def _count(value: Any, path: Path) -> int | None:
    """``nc`` as a number; None when it is not given."""
    if value in EMPTY:
        return None
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= MOST_CLASSES:
        raise DataError(f"{path}: nc is {str(value)[:50]!r}; it takes a whole number from 1")
    return count


def _kind(value: Any) -> str:
    """What a YAML value is, for messages."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"the text {str(value)[:50]!r}"
