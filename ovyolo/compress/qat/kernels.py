"""What quantizers compute while they are trained: rounding, and the gradients of what is rounded and of the ranges.

NNCF compiles C++ for this on a machine's first use, which takes a minute and a compiler, and goes through memory some
twenty times for each quantizer. PyTorch's own operations for learned step sizes (Esser et al., "Learned step size
quantization", arXiv:1902.08153) compute the same in a few passes, on whatever device, and need no compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["QuantizerFunctions", "quantize_backward", "quantize_forward"]


class QuantizerFunctions:
    """Stands where NNCF looks up the functions that it would compile."""

    @staticmethod
    def get(name: str) -> Callable[..., Any]:
        """``"Quantize_forward"`` or ``"Quantize_backward"``."""
        functions: dict[str, Callable[..., Any]] = {
            "Quantize_forward": quantize_forward, "Quantize_backward": quantize_backward,
        }  # fmt: skip
        return functions[name]


def quantize_forward(x: Tensor, low: Tensor, extent: Tensor, levels: int) -> Tensor:
    """``x`` rounded to the nearest of ``levels`` numbers from ``low`` to ``low + extent``, of which one is 0.

    Args:
        x: anything.
        low, extent: one number, or one for each index of one of ``x``'s axes (``[channels, 1, 1, 1]``).
        levels: how many numbers there are.

    Example:
        >>> import torch
        >>> from ovyolo.compress.qat.kernels import quantize_forward
        >>> quantize_forward(torch.tensor([-9.0, 0.4, 0.6, 9.0]), torch.tensor([-1.0]), torch.tensor([3.0]), 4).tolist()
        [-1.0, 0.0, 1.0, 2.0]
    """
    step, zero = _steps(low, extent, levels)
    if step.numel() == 1:
        made = torch.fake_quantize_per_tensor_affine(x.float(), step, zero.int(), 0, levels - 1)
    else:
        axis = max(range(x.ndim), key=lambda one: step.shape[one])
        made = torch.fake_quantize_per_channel_affine(
            x.float(), step.flatten(), zero.int().flatten(), axis, 0, levels - 1
        )
    return made.to(x.dtype)


def quantize_backward(
    grad: Tensor, x: Tensor, low: Tensor, extent: Tensor, levels: int, level_low: int, level_high: int, *_: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``x``, ``low`` and ``extent``, given that by what :func:`quantize_forward` made.

    What is rounded passes the gradient on (Bengio et al., arXiv:1308.3432), what is cut off does not. The extent gets,
    of each number, what its rounding does for a wider extent: its error in units of the extent; 1 above the highest
    number; ``level_low / level_high`` below the lowest, which moves with the highest where a range is symmetric.
    """
    step, zero = _steps(low, extent, levels)
    below = level_low / level_high
    given, numbers = grad.float(), x.float()
    if step.numel() == 1:
        to_x, by_step, by_zero = torch.ops.aten._fake_quantize_learnable_per_tensor_affine_backward(
            given, numbers, step, zero, 0, levels - 1
        )
        top = levels - 1 - zero
        cut = -by_zero / step
        over = cut
        if bool(cut.any()):  # as hardly ever: the sum of those above the highest number, of all that are cut off
            over = given.masked_fill(numbers <= (top + 0.5) * step, 0).sum()
        inside = step * (by_step - over * top + (cut - over) * zero)
        to_extent = inside / extent.float() + over + below * (cut - over)
        to_low = cut
    else:
        rounded = torch.round(numbers / step) + zero
        high, deep = rounded > levels - 1, rounded < 0
        to_x = given.masked_fill(high | deep, 0)
        error = quantize_forward(numbers, low, extent, levels) - numbers
        of_each = to_x * error / extent.float() + given * high + below * given * deep
        to_extent, to_low = of_each.sum_to_size(extent.shape), (given - to_x).sum_to_size(low.shape)
    return (
        to_x.to(grad.dtype),
        to_low.reshape(low.shape).to(low.dtype),
        to_extent.reshape(extent.shape).to(extent.dtype),
    )


def _steps(low: Tensor, extent: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The distance between two numbers, and which of them is 0."""
    step = extent.float() / (levels - 1)
    return step, torch.round(-low.float() / step).clamp(0, levels - 1)
