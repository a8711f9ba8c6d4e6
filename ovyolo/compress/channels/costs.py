"""What each layer costs in multiplications and parameters, now and with fewer channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ovyolo.compress.channels.groups import layer_of
from ovyolo.errors import DimensionError
from ovyolo.train.attention import Attention
from ovyolo.train.network import Network

__all__ = ["Costs", "LayerCost", "costs_of"]


@dataclass(frozen=True)
class LayerCost:
    """A layer with weights.

    Args:
        name: as the emitted graph names it.
        module: the convolution's or linear map's name in the network.
        macs: multiplications for one picture.
        params: trained numbers, those of its batch norm among them.
        inputs, outputs: channels; 0 for what is no convolution.
        read, written: numbers of its input and output for one picture.
    """

    name: str
    module: str
    macs: int
    params: int
    inputs: int
    outputs: int
    read: int
    written: int


@dataclass(frozen=True)
class Costs:
    """A whole network's layers for one picture of ``imgsz`` (height, width) pixels.

    ``macs`` and ``params`` are sums; ``channels`` counts what convolutions give, the head's left out.
    """

    imgsz: tuple[int, int]
    layers: tuple[LayerCost, ...]
    params: int
    channels: int

    @property
    def macs(self) -> int:
        """Multiplications for one picture."""
        return sum(layer.macs for layer in self.layers)


def costs_of(network: Network, imgsz: tuple[int, int]) -> Costs:
    """Count by a forward pass of an empty picture.

    Raises:
        DimensionError: ``imgsz`` is no multiple of the largest stride.
    """
    if any(side < 1 or side % max(network.strides) for side in imgsz):
        raise DimensionError(f"imgsz {imgsz[0]},{imgsz[1]} is not a multiple of the model's largest stride "
                             f"{max(network.strides)}")  # fmt: skip
    norms = _norm_params(network)
    rows: list[LayerCost] = []

    def count(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            own = sum(parameter.numel() for parameter in module.parameters())
            layer = layer_of(name)
            inputs = outputs = 0
            macs: int
            if isinstance(module, nn.Conv2d):
                macs = module.weight.numel() * result[0, 0].numel()
            elif isinstance(module, nn.ConvTranspose2d):
                macs = module.weight.numel() * given[0][0, 0].numel()
            elif isinstance(module, nn.Linear):
                macs = module.weight.numel() * result[0, ..., 0].numel()
            else:  # attention: three maps into its own space, every place with every other, twice
                length, channels = result.shape[1:]
                macs = 3 * length * channels**2 + 2 * length**2 * channels
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                inputs, outputs = module.in_channels, module.out_channels
            params = own + norms.get(layer, 0)
            sides = given[0][0].numel(), result[0].numel()
            rows.append(LayerCost(layer, name, macs, params, inputs, outputs, *sides))

        return hook

    counted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, Attention)
    handles = [m.register_forward_hook(count(n, m)) for n, m in network.named_modules() if isinstance(m, counted)]
    training = network.training
    first = next(network.parameters())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *imgsz, device=first.device, dtype=first.dtype))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    heads = {f"model.{len(network.model) - 1}.m.{i}" for i in range(len(network.strides))}
    params = sum(parameter.numel() for parameter in network.parameters())
    channels = sum(row.outputs for row in rows if row.module not in heads)
    return Costs(imgsz, tuple(rows), params, channels)


def _norm_params(network: Network) -> dict[str, int]:
    return {
        layer_of(name): sum(parameter.numel() for parameter in module.parameters())
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
