"""Weights in 8 bits: rounding that cannot overflow, and that loses little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nncf")

from ovyolo.compress.layers import Layer
from ovyolo.compress.moments import Moments
from ovyolo.compress.rounding import round_compensated, round_nearest
from ovyolo.errors import ExportError


def layer(weights: Any, kind: str = "Convolution") -> Layer:
    return Layer("layer", kind, np.asarray(weights, np.float32), None, 1)


def saturating_sums(steps: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Products added as vpmaddubsw does: neighbours in 16 bits with saturation, those sums in 32 bits."""
    odd = steps.shape[1] % 2
    steps, inputs = np.pad(steps.astype(np.int64), ((0, 0), (0, odd))), np.pad(inputs.astype(np.int64), (0, odd))
    products = steps * inputs
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -32768, 32767)
    return pairs.sum(axis=1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from(["normal", "same", "heavy"])
)
def test_no_pair_can_overflow(seed: int, channels: int, side: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (5, channels, side, side)
    weights = {
        "normal": rng.normal(0, 1, shape),
        "same": np.full(shape, rng.choice([-3.0, 0.5])),
        "heavy": rng.standard_t(1.5, shape),
    }[kind]
    inputs = channels * side * side
    spread = rng.normal(0, 1, (inputs, inputs))
    moments = Moments(rng.uniform(0, 1, inputs), spread @ spread.T)
    for steps, _, *_ in (round_nearest(layer(weights), True), round_compensated(layer(weights), moments, True)):
        for place in range(side * side):
            column = steps.reshape(5, channels, -1)[:, :, place]
            for extreme in (
                np.full(channels, 255),
                np.where(np.arange(channels) % 2, 255, 0),
                rng.integers(0, 256, channels),
            ):
                exact = (column.astype(np.int64) * extreme).sum(axis=1)
                assert (saturating_sums(column, extreme) == exact).all()


def test_without_pairs_a_pair_does_overflow() -> None:
    steps, _ = round_nearest(layer(np.ones((1, 2, 1, 1))), False)
    assert saturating_sums(steps.reshape(1, 2), np.array([255, 255])) != steps.astype(int).sum() * 255


@pytest.mark.parametrize("kind", ["Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"])
def test_steps_times_scale_are_the_weights(kind: str) -> None:
    shape = {"GroupConvolution": (2, 4, 6, 3, 3), "MatMul": (8, 10)}.get(kind, (8, 6, 3, 3))
    weights = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    steps, scale = round_nearest(layer(weights, kind), True)
    assert steps.dtype == np.int8 and steps.shape == shape
    assert np.abs(steps * scale - weights).max() <= scale.max() / 2 + 1e-6


def test_compensated_rounding_errs_less_where_inputs_are_alike() -> None:
    rng = np.random.default_rng(2)
    mixing = rng.normal(0, 1, (12, 72))
    data = np.maximum(rng.normal(0.3, 1, (4000, 12)) @ mixing + rng.normal(0, 0.1, (4000, 72)), -0.2)
    one = layer(rng.normal(0, 0.2, (16, 8, 3, 3)))
    moments = Moments(data.mean(axis=0), np.cov(data.T, bias=True))
    weights = one.weights.reshape(16, -1).astype(np.float64)

    def error(steps: Any, scale: Any, shift: Any = 0.0) -> float:
        rounded = (steps * scale.astype(np.float64)).reshape(16, -1)
        return float((((rounded - weights) @ data.T - np.reshape(shift, (-1, 1))) ** 2).mean())

    nearest = error(*round_nearest(one, True))
    steps, scale, left = round_compensated(one, moments, True)
    assert error(steps, scale, left) < nearest / 4


def test_inputs_that_never_vary_do_not_break_rounding() -> None:
    one = layer(np.random.default_rng(3).normal(0, 1, (4, 3, 3, 3)))
    for covariance in (np.zeros((27, 27)), np.diag([1.0] + [0.0] * 26)):
        steps, scale, left = round_compensated(one, Moments(np.full(27, 2.0), covariance), True)
        assert np.isfinite(scale).all() and np.isfinite(left).all() and np.abs(steps).max() > 60


def test_statistics_that_lost_their_digits_do_not_break_rounding() -> None:
    """Where means are large beside variances, what is left of a covariance may have negative eigenvalues."""
    rng = np.random.default_rng(4)
    one = layer(rng.normal(0, 1, (4, 3, 3, 3)))
    basis = rng.normal(0, 1, (3, 27))
    for lost in (0.02, 0.1, 0.5):
        covariance = basis.T @ basis - lost * np.trace(basis.T @ basis) / 27 * np.eye(27)
        steps, scale, left = round_compensated(one, Moments(np.zeros(27), covariance), True)
        assert np.isfinite(scale).all() and np.isfinite(left).all() and np.abs(steps).max() > 60


def test_statistics_that_are_no_numbers_are_refused() -> None:
    one = layer(np.ones((4, 3, 3, 3)))
    with pytest.raises(ExportError, match="no number"):
        round_compensated(one, Moments(np.zeros(27), np.full((27, 27), np.nan)), True)
