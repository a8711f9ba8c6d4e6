"""Weights of a network with quantizers, rounded so that results change least: what training then starts from.

Each layer's weights are rounded with compensation (:mod:`ovyolo.compress.rounding`). At wide steps this keeps most of
what rounding each weight by itself loses, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ovyolo.compress.moments import Moments, Sums, Window, few_of, in_chunks
from ovyolo.compress.qat.insert import picture_tensors
from ovyolo.compress.qat.quantizers import PairGuard, WeightQuantizer, Width
from ovyolo.compress.qat.sparsify import baked
from ovyolo.compress.rounding import compensated_steps, neighbours_of

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["Rounded", "bias_of", "in_floating_point", "round_weights", "rounded_layers", "steps_of"]

SEED = 5


@dataclass(frozen=True, eq=False)
class Rounded:
    """The weights of one layer, each a whole number of steps.

    Args:
        weights: like the layer's own.
        scale: of the quantizer: 127 steps.
        left: the mean error of each output that is to be taken off the bias, ``[outputs]``; None where it is not known.
    """

    weights: Tensor
    scale: Tensor
    left: Tensor | None

    @torch.no_grad()
    def put(self, weight: Tensor, bias: Tensor | None) -> None:
        """Write these weights over ``weight``, and take the error off the bias beside it, if there is one."""
        weight.copy_(self.weights)
        if bias is not None and self.left is not None:
            bias.sub_(self.left.to(bias))


def in_floating_point(network: Network) -> Network:
    """A copy that rounds nothing, in evaluation mode; masks are in its weights."""
    return baked(network).eval().to(memory_format=torch.channels_last)


def steps_of(layer: WeightQuantizer, width: Width) -> tuple[Tensor, Tensor]:
    """A layer's weights as whole steps, each rounded by itself, and the scale: 127 steps ``width`` times as wide."""
    scale = torch.maximum(layer.quantizer.scale.detach(), layer.least(width))
    return torch.round(layer.weight() / (scale / 127)).clamp(-128, 127), scale


def bias_of(weight: str) -> str:
    """The name of the bias beside the parameter ``weight``."""
    return f"{weight.removesuffix('weight')}bias"


def rounded_layers(
    network: Network,
    width_of: Callable[[str], Width],
    pictures: Sequence[NDArray[np.uint8]],
    tell: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[WeightQuantizer, Rounded]]:
    """Each layer of ``network`` that has a quantizer, and its weights rounded; the network is left as it is.

    Convolutions without groups and without masks are rounded with compensation, others to the nearest.

    Args:
        network: with quantizers.
        width_of: how many times as wide as need be a layer's steps are, by the name of its weights: a number, or one
            for each output.
        pictures: letterboxed, u8 BGR ``(H, W, 3)``; what the layers see in some of them is what rounding minds.
        tell: called with the number of layers that are done.
    """
    plain = in_floating_point(network)
    convolutions = {
        f"{name}.weight": module
        for name, module in plain.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and not isinstance(module.padding, str)
    }
    layers = {layer.name: layer for layer in PairGuard(network).layers}
    able = {name: convolutions[name] for name, layer in layers.items() if name in convolutions and layer.mask is None}
    done = 0
    for name in [name for name in layers if name not in able]:
        steps, scale = steps_of(layers[name], width_of(name))
        done += 1
        yield layers[name], Rounded(steps * (scale / 127), scale, None)
        tell(done)
    for chunk in in_chunks({name: module.weight[0].numel() for name, module in able.items()}):
        for name, moments in _moments_of(plain, {name: able[name] for name in chunk}, pictures).items():
            done += 1
            yield layers[name], _compensated(layers[name], width_of(name), moments)
            tell(done)


@torch.no_grad()
def round_weights(network: Network, widths: Mapping[str, Width], pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Round the weights of ``network`` in place.

    Args:
        network: with quantizers.
        widths: how many times as wide each layer's steps are, by the weights' names; 1 for those left out.
        pictures: as for :func:`rounded_layers`.

    Example:
        >>> round_weights(quantized, {"model.1.conv.weight": 4.0}, pictures)  # doctest: +SKIP
    """
    parameters = dict(network.named_parameters())
    for layer, rounded in rounded_layers(network, lambda name: widths.get(name, 1.0), pictures):
        layer.quantizer.scale.copy_(rounded.scale)
        rounded.put(layer.parameter, parameters.get(bias_of(layer.name)))


def _moments_of(
    plain: Network, convolutions: Mapping[str, nn.Conv2d], pictures: Sequence[NDArray[np.uint8]]
) -> dict[str, Moments]:
    """Moments of what the convolutions see, by name."""
    rng = np.random.default_rng(SEED)
    sums = {name: Sums(module.weight[0].numel()) for name, module in convolutions.items()}

    def listen(name: str, window: Window) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hear(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            for one in given[0].detach().cpu().float().numpy():
                sums[name].add(window.patches(one, rng))

        return hear

    hooks = [
        module.register_forward_pre_hook(listen(name, _window_of(module))) for name, module in convolutions.items()
    ]
    try:
        with torch.no_grad():
            for x in picture_tensors(few_of(pictures)):
                plain(x.to(next(plain.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: one.moments() for name, one in sums.items()}


def _window_of(module: nn.Conv2d) -> Window:
    assert not isinstance(module.padding, str)
    kernel, strides, padding, dilations = (
        (int(sizes[0]), int(sizes[1])) for sizes in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    return Window(kernel, strides, padding, padding, dilations)


def _compensated(layer: WeightQuantizer, width: Width, moments: Moments) -> Rounded:
    weight = layer.weight()
    outputs, channels, *kernel = weight.shape
    _, scale = steps_of(layer, width)
    orders = [np.arange(channels)]
    if layer.order == "colours":
        orders.append(orders[0].reshape(-1, 3)[:, ::-1].reshape(-1))
    neighbours = [neighbours_of(order, int(np.prod(kernel))) for order in orders]
    limit = (127 // torch.as_tensor(width, dtype=torch.float64)).numpy()  # so that the guard finds what it would give
    step = (scale.double() / 127).reshape(-1).expand(outputs).numpy()
    rows = weight.double().reshape(outputs, -1).numpy()
    steps, left = compensated_steps(rows, step, moments, (limit, limit), neighbours)
    rounded = torch.from_numpy(steps).reshape(weight.shape) * torch.from_numpy(step).reshape(
        -1, *[1] * (weight.ndim - 1)
    )
    return Rounded(rounded.to(weight.dtype), scale, torch.from_numpy(left))
