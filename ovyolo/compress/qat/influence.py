"""What each output channel of each layer does to the boxes and confidences that the heads say.

Weights may be rounded to wider steps in channels that the heads mind less. How much they mind is the mean square of a
gradient: that of what the heads say, in random proportions (Hutchinson, 1989), so that a few passes tell it of all
channels of all layers at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ovyolo.train.distill import tapped

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["channel_influence"]

SEED = 6
LEAST = 1e-9


def channel_influence(network: Network, layers: Collection[str], pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """By how much the heads change for what is added to a layer's outputs: squares, ``[outputs]``, relative to those of
    the layer's other channels.

    Boxes count as :func:`~ovyolo.compress.head_error.head_error` has it: by their confidence, relative to their size.

    Args:
        network: without quantizers, in evaluation mode; it is left as it is.
        layers: names of convolutions: ``"model.2.cv1.conv"``.
        pictures: f32 RGB ``[N, 3, H, W]`` from 0 to 1.

    Example:
        >>> import torch
        >>> from ovyolo.compress.qat.influence import channel_influence
        >>> from ovyolo.train.architecture import new_network
        >>> network = new_network("n", ["scratch"]).eval()
        >>> channel_influence(network, ["model.0.conv"], [torch.rand(1, 3, 64, 64)])["model.0.conv"].shape
        torch.Size([16])
    """
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, Tensor] = {}
    names = list(layers)
    device = next(network.parameters()).device
    with tapped(network, names) as outputs, torch.enable_grad():
        for picture in pictures:
            heads = network(picture.to(device, copy=True).requires_grad_())
            gradients = torch.autograd.grad(_in_random_proportions(network, heads, generator), outputs)
            for name, gradient in zip(names, gradients, strict=True):
                squares = gradient.square().sum((0, 2, 3))
                found[name] = found[name] + squares if name in found else squares
    return {name: squares / squares.mean().clamp(min=1e-30) for name, squares in found.items()}


def _in_random_proportions(network: Network, heads: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The sum of what all cells say, each number times a random one."""
    anchors = network.anchors_in_pixels()
    total = heads[0].new_zeros(())
    for head, sizes, stride in zip(heads, anchors, network.strides, strict=True):
        n, _, height, width = head.shape
        told = head.view(n, len(sizes), -1, height, width).sigmoid()
        scores = told[:, :, 4:5] * told[:, :, 5:]
        shown = scores.detach().amax(2, keepdim=True).sqrt()
        spans = (2 * told[:, :, 2:4].detach()).square() * sizes.view(1, -1, 2, 1, 1)
        centres = 2 * stride * told[:, :, :2] / spans.clamp(min=LEAST)
        logarithms = 2 * told[:, :, 2:4].clamp(min=LEAST).log()
        for numbers in (shown * centres, shown * logarithms, scores / 2):
            total = total + (numbers * torch.randn(numbers.shape, generator=generator).to(numbers.device)).sum()
    return total
