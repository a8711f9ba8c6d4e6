"""Random logits, and what equal boxes are, for the tests of ``ovyolo._nms``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal boxes, classes and order; coordinates within 1e-3 px (or float32's grain), scores within 1e-6."""
    assert ours[0].dtype == np.float32 and ours[1].dtype == np.float32 and ours[2].dtype == np.int32
    assert ours[0].shape == (len(ours[2]), 4) and ours[1].shape == ours[2].shape
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-3)
    assert ours[3:] == theirs[3:]
    assert type(ours[3]) is bool and type(ours[4]) is int


def assert_identical(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def random_values(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> NDArray[np.float32]:
    """Logits that are smooth, quantised (many ties), hot, or constant."""
    values = rng.normal(-1, 3, shape)
    if kind == "ties":
        values = np.round(values / 2) * 2
    elif kind == "hot":
        values = np.abs(values) + 4
    elif kind == "constant":
        values = np.full(shape, rng.choice([0.0, 2.0, -2.0]))
    return values.astype(np.float32)
