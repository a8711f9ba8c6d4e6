"""The last convolutions, fitted anew to what rounding has made of the maps that they read.

What 8 bits and wide steps do to those maps is in part the same everywhere: channels that are a little smaller, a little
larger, shifted. The last convolutions are linear, so that the weights which make the most of the maps as they are now
follow from a regression on what the network said in floating point; near objects, because that is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ovyolo.compress.qat.quantizers import PairGuard, Width
from ovyolo.compress.qat.sparsify import effective_weights

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["refit_heads"]

SHOWN = 0.02  # objectness of cells that count
OTHERS = 0.01  # the share of all others that is looked at
BACKGROUND = 0.02  # how much a cell counts that is sure of nothing
RIDGE = 1e-3  # of the mean square of an input, so that what hardly varies stays as it was
LEAST_CELLS = 2  # for each weight of an output
SEED = 7


def refit_heads(
    network: Network,
    floating: Network,
    pictures: Sequence[Tensor],
    widths: Mapping[str, Width] | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Fit the last convolutions of ``network``, in place, to what ``floating`` says of pictures.

    It is a ridge regression of what is left between them, each cell counted by how sure ``floating`` is of an object. A
    convolution is left as it was where what one half of the pictures teaches does not hold for the other.

    Args:
        network: with quantizers.
        floating: what it was before; both in evaluation mode.
        pictures: for training, not those by which the network is judged; f32 RGB ``[1, 3, H, W]`` from 0 to 1.
        widths: of the steps of its weights, as for :class:`~ovyolo.compress.qat.quantizers.PairGuard`.
        tell: called with the number of pictures looked at.

    Returns:
        The names of the convolutions that were changed.

    Example:
        >>> refit_heads(quantized, network, picture_tensors(pictures))  # doctest: +SKIP
        ['model.24.m.0', 'model.24.m.1']
    """
    masked = effective_weights(network)
    heads = []
    for level, convolution in enumerate(network.head.m):
        name = f"model.{len(network.model) - 1}.m.{level}"
        if convolution.kernel_size == (1, 1) and convolution.groups == 1 and convolution.bias is not None:
            heads.append(_Head(name, level, convolution, network.head.na, masked.get(f"{name}.weight")))
    generator = torch.Generator().manual_seed(SEED)
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            for done, picture in enumerate(pictures, 1):
                told = floating(picture.to(device))
                network(picture.to(device))
                for head in heads:
                    head.learn(told[head.level], done % 2, generator)
                tell(done)
    finally:
        for head in heads:
            head.handle.remove()
    changed = [head.name for head in heads if head.change()]
    PairGuard(network, widths)()
    return changed


class _Sums:
    """What a regression needs to know of cells: for each anchor its own, because each cell counts otherwise for it."""

    def __init__(self, anchors: int, outputs: int, inputs: int) -> None:
        self.squares = torch.zeros(anchors, inputs, inputs, dtype=torch.float64)
        self.products = torch.zeros(anchors, outputs, inputs, dtype=torch.float64)
        self.cells = 0

    def __add__(self, other: _Sums) -> _Sums:
        both = _Sums(*self.products.shape)
        both.squares, both.products = self.squares + other.squares, self.products + other.products
        both.cells = self.cells + other.cells
        return both

    def add(self, x: Tensor, left: Tensor, counts: Tensor) -> None:
        """Cells: inputs ``[cells, inputs]``, what is left to explain ``[cells, anchors, outputs]``, and how much they
        count ``[cells, anchors]``."""
        for anchor in range(counts.shape[1]):
            weighted = (x * counts[:, anchor, None]).T
            self.squares[anchor] += weighted @ x
            self.products[anchor] += (weighted @ left[:, anchor]).T
        self.cells += len(x)

    def solved(self, free: Tensor) -> Tensor:
        """What to add to the weights ``[anchors, outputs, inputs]``; nothing where they are not ``free``."""
        found = torch.zeros_like(self.products)
        for anchor, squares in enumerate(self.squares):
            ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
            for output, own in enumerate(free[anchor]):
                inner = (squares + ridge)[own][:, own]
                found[anchor, output, own] = torch.linalg.solve(inner, self.products[anchor, output, own])
        return found

    def gain(self, added: Tensor) -> float:
        """By how much ``added`` makes the squares of what is left smaller."""
        return float(2 * (added * self.products).sum() - torch.einsum("aoi,aij,aoj->", added, self.squares, added))


class _Head:
    """One of the last convolutions, and what it is shown."""

    def __init__(self, name: str, level: int, convolution: nn.Conv2d, anchors: int, masked: Tensor | None) -> None:
        self.name, self.level, self.convolution, self.anchors = name, level, convolution, anchors
        weight = convolution.weight if masked is None else masked
        self.weight = weight.detach().flatten(1).double().cpu()
        self.masked = masked is not None
        self.seen = weight.new_zeros(0)
        self.handle = convolution.register_forward_pre_hook(self._see)
        outputs, inputs = self.weight.shape
        self.halves = [_Sums(anchors, outputs // anchors, inputs + 1) for _ in range(2)]

    def _see(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.seen = given[0]

    def learn(self, told: Tensor, half: int, generator: torch.Generator) -> None:
        """Take in what should have been said of what was seen."""
        wanted = told[0].flatten(1).T.double().cpu().unflatten(1, (self.anchors, -1))
        sure = wanted[:, :, 4].sigmoid()
        kept = (sure.amax(1) > SHOWN) | (torch.rand(len(sure), generator=generator) < OTHERS)
        x = self.seen[0].flatten(1).T.double().cpu()[kept]
        assert self.convolution.bias is not None
        said = x @ self.weight.T + self.convolution.bias.detach().double().cpu()
        left = wanted[kept] - said.unflatten(1, (self.anchors, -1))
        self.halves[half].add(torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1), left, sure[kept] + BACKGROUND)

    def change(self) -> bool:
        """Put the regression's result into the convolution, if it holds."""
        one, other = self.halves
        free = torch.ones(one.products.shape, dtype=torch.bool)
        if self.masked:
            free[..., :-1] = (self.weight != 0).unflatten(0, free.shape[:2])
        if min(one.cells, other.cells) < LEAST_CELLS * free.shape[2]:
            return False
        if not other.gain(one.solved(free)) + one.gain(other.solved(free)) > 0:  # nor where it is no number
            return False
        added = (one + other).solved(free).flatten(0, 1)
        with torch.no_grad():
            weight, bias = self.convolution.weight, self.convolution.bias
            assert bias is not None
            weight += added[:, :-1].reshape(weight.shape).to(weight)
            bias += added[:, -1].to(bias)
        return True
