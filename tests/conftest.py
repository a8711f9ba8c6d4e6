"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data() -> Path | None:
    """The folder with third-party weights, pictures and golden results, or None where it is absent."""
    named = os.environ.get("OVYOLO_SHARED_DATA")
    candidate = Path(named) if named else ROOT.parent / "shared" / "data"
    return candidate if candidate.is_dir() else None


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Interpreters that tests start must import the installed package, not the source tree in the working folder."""
    os.chdir(tmp_path_factory.mktemp("working-folder"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """``shared/data`` beside the checkout (or ``OVYOLO_SHARED_DATA``); skips, visibly, where it is absent."""
    folder = shared_data()
    if folder is None:
        pytest.skip("shared/data is not beside this checkout (set OVYOLO_SHARED_DATA to its path)")
    return folder


@pytest.fixture(scope="session")
def one_thread() -> None:
    """PyTorch on one thread: tiny networks compute no faster on several, and much slower on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that finds spots, and the ``data.yaml`` of pictures with spots."""
    from reference.spot_model import write_spot_data, write_spot_model

    folder = tmp_path_factory.mktemp("spots")
    return write_spot_model(folder / "spots.xml"), write_spot_data(folder / "data")
