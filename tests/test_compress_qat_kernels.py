"""The quantizers' arithmetic against its definition in NumPy, number by number, and against NNCF's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: quantizers in PyTorch are not tested")
pytest.importorskip("nncf", reason="nncf is not installed: quantizers in PyTorch are not tested")

from hypothesis import assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ovyolo.compress.qat.bridge import load_nncf_torch  # noqa: E402
from ovyolo.compress.qat.kernels import quantize_backward, quantize_forward  # noqa: E402

KINDS = st.sampled_from([(0, 255), (-128, 127), (-127, 127)])


def defined(grad: Any, x: Any, low: float, extent: float, levels: int, alpha: float) -> tuple[Any, Any, float, float]:
    """Rounded ``x``, and the gradients by ``x``, ``low`` and ``extent``, in double precision."""
    step = extent / (levels - 1)
    zero = np.round(-low / step)
    place = np.round(x / step) + zero
    over, under = place > levels - 1, place < 0
    made = (np.clip(place, 0, levels - 1) - zero) * step
    inside = ~(over | under)
    by_extent = np.where(over, 1.0, np.where(under, alpha, (made - x) / extent))
    return made, grad * inside, float((grad * ~inside).sum()), float((grad * by_extent).sum())


def aligned(low: float, high: float, levels: int) -> tuple[float, float]:
    """A range of which one step is exactly 0, as the quantizers keep it."""
    step = (high - low) / (levels - 1)
    return -round(-low / step) * step, high - low


@settings(deadline=None, max_examples=150)
@given(KINDS, st.floats(-3, 0), st.floats(0.05, 5), st.integers(0, 2**32 - 1), st.floats(0.1, 3))
def test_one_range_for_all(kind, low, high, seed, spread):
    level_low, level_high = kind
    levels = level_high - level_low + 1
    if level_low < 0:
        low, extent = high * level_low / level_high, high * (1 - level_low / level_high)
    else:
        low, extent = aligned(low, high, levels)
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(2, 3, 5, 4)) * spread).astype(np.float32)
    step = extent / (levels - 1)
    # halves are rounded either way, as the last bit of a division has it
    assume((np.abs(x / step % 1 - 0.5) > 1e-3).all())
    grad = rng.normal(size=x.shape).astype(np.float32)
    bounds = torch.tensor([low], dtype=torch.float32), torch.tensor([extent], dtype=torch.float32)
    given_x = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    found = quantize_forward(given_x, *bounds, levels)
    backward = quantize_backward(torch.from_numpy(grad), given_x, *bounds, levels, level_low, level_high, True)
    made, to_x, to_low, to_extent = defined(
        grad.astype(np.float64), x.astype(np.float64), low, extent, levels, level_low / level_high
    )
    np.testing.assert_allclose(found.numpy(), made, atol=2e-6 * extent)
    np.testing.assert_array_equal(backward[0].numpy() != 0, to_x != 0)
    np.testing.assert_allclose(backward[0].numpy(), to_x, rtol=1e-6)
    size = float(np.abs(grad).sum())
    assert backward[1].item() == pytest.approx(to_low, abs=1e-5 * size)
    assert backward[2].item() == pytest.approx(to_extent, abs=1e-5 * size)
    assert backward[1].shape == backward[2].shape == (1,)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", [(0, 255), (-128, 127)])
def test_a_range_for_each_channel(axis, kind):
    rng = np.random.default_rng(5)
    level_low, level_high = kind
    x, grad = (rng.normal(size=(6, 4, 3, 3)).astype(np.float32) for _ in range(2))
    count = x.shape[axis]
    shape = [count if one == axis else 1 for one in range(4)]
    high = rng.uniform(0.5, 3, count)
    if level_low < 0:
        low, extent = high * level_low / level_high, high * (1 - level_low / level_high)
    else:
        low, extent = np.array([aligned(-one / 3, one, 256) for one in high]).T
    bounds = [torch.from_numpy(one.astype(np.float32)).reshape(shape) for one in (low, extent)]
    found = quantize_forward(torch.from_numpy(x), *bounds, 256)
    to_x, to_low, to_extent = quantize_backward(
        torch.from_numpy(grad), torch.from_numpy(x), *bounds, 256, level_low, level_high, level_low == 0
    )
    assert list(to_low.shape) == list(to_extent.shape) == shape
    for i in range(count):
        take = (i,) if axis == 0 else (slice(None), i)
        wanted = defined(
            grad[take].astype(np.float64), x[take].astype(np.float64), low[i], extent[i], 256, level_low / level_high
        )
        np.testing.assert_allclose(found.numpy()[take], wanted[0], atol=1e-6 * extent[i])
        np.testing.assert_allclose(to_x.numpy()[take], wanted[1], rtol=1e-6)
        assert to_low.flatten()[i].item() == pytest.approx(wanted[2], abs=1e-4)
        assert to_extent.flatten()[i].item() == pytest.approx(wanted[3], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_kinds_of_numbers_come_back_as_they_came(dtype):
    x = torch.linspace(-2, 2, 41, dtype=dtype)
    low, extent = torch.tensor([-1.0], dtype=dtype), torch.tensor([3.0], dtype=dtype)
    assert quantize_forward(x, low, extent, 4).dtype == dtype
    assert {one.dtype for one in quantize_backward(x, x, low, extent, 4, 0, 3, True)} == {dtype}


def test_nncf_itself_computes_the_same():
    """NNCF's plain PyTorch functions; it draws the line between what is cut and what is rounded half a step earlier."""
    load_nncf_torch()
    from nncf.torch.quantization.reference import ReferenceBackendType, ReferenceQuantize

    theirs = ReferenceQuantize(ReferenceBackendType.TORCH)
    generator = torch.Generator().manual_seed(3)
    x, grad = (torch.randn(4, 8, 9, 9, generator=generator) for _ in range(2))
    low, extent = (torch.tensor([one], dtype=torch.float32) for one in aligned(-0.4, 1.9, 256))
    step = extent / 255
    edge = ((x - low).abs() < step) | ((x - low - extent).abs() < step)
    x = torch.where(edge, torch.zeros(()), x)
    made, wanted = quantize_forward(x, low, extent, 256), theirs.forward(x, low, extent, 256)
    assert ((made - wanted).abs() > 1e-5).sum() <= 2  # halves
    ours, other = (
        quantize_backward(grad, x, low, extent, 256, 0, 255, True), theirs.backward(grad, x, low, extent, 256, 0, 255),
    )  # fmt: skip
    assert torch.equal(ours[0], other[0])
    assert torch.allclose(ours[1], other[1].sum(), atol=1e-2) and torch.allclose(ours[2], other[2].sum(), atol=1e-2)
