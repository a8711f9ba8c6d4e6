"""The quantizers in a network: which they are, what the optimizer may do with them, and what they must not do.

On CPUs without VNNI two neighbouring 8-bit products are added in 16 bits, which saturate. NNCF keeps clear of that by
giving up one of the 8 bits. :class:`PairGuard` keeps clear of it by the least scale at which no two neighbours can
overflow, which costs a seventh of a bit (:mod:`ovyolo.compress.rounding`), and holds it while training moves weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ovyolo.compress.qat.bridge import graph_of, hooks_of, layer_operations, mask_name

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = [
    "PairGuard",
    "WeightQuantizer",
    "Width",
    "call_one_scale_one",
    "freeze_batch_norms",
    "is_quantized",
    "keep_bytes_exact",
    "parameter_groups",
    "quantizers_of",
]

Width: TypeAlias = float | Sequence[float] | Tensor
Quantizer = Any  # nncf.torch.quantization.layers.BaseQuantizer
# parameters that NNCF adds, by the names they have in its modules
SPECIAL = {
    "_scale_param_storage": "quantizers",
    "_input_range_param_storage": "quantizers",
    "input_low": "quantizers",
    "mask": "masks",
}


def quantizers_of(module: nn.Module) -> dict[str, Quantizer]:
    """NNCF's quantizers in ``module`` by the names of its hooks; empty where there are none."""
    return {name: hook for name, hook in hooks_of(module).items() if hasattr(hook, "is_enabled_quantization")}


def is_quantized(module: nn.Module) -> bool:
    """Whether ``module`` has quantizers."""
    return bool(quantizers_of(module))


def parameter_groups(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters for an optimizer: ``weights``, ``biases``, ``norms``, and apart from them ``quantizers``,
    scales and ranges, and ``masks``, the logits of regularized sparsity; neither takes weight decay, and each may want
    a rate of its own.

    Example:
        >>> import torch
        >>> from ovyolo.compress.qat.quantizers import parameter_groups
        >>> {name: len(group) for name, group in parameter_groups(torch.nn.Conv2d(3, 4, 1)).items()}
        {'weights': 1, 'biases': 1, 'norms': 0, 'quantizers': 0, 'masks': 0}
    """
    names = ("weights", "biases", "norms", "quantizers", "masks")
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    for owner in module.modules():
        norm = isinstance(owner, nn.modules.batchnorm._BatchNorm)
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            kind = "norms" if norm else "biases" if name.endswith("bias") else SPECIAL.get(name, "weights")
            groups[kind].append(parameter)
    return groups


def freeze_batch_norms(module: nn.Module) -> int:
    """Let batch norms use their running statistics, whatever mode the network is in; to be called after each
    ``train()``. Returns how many there are."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval()
    return len(norms)


@torch.no_grad()
def keep_bytes_exact(module: nn.Module) -> int:
    """Let the quantizers of the network's input keep every byte of the camera as it is: 256 steps from 0 to 1, for
    good, whatever the calibration pictures held. Returns how many quantizers that are (0 where layer 0 is not
    quantized)."""
    found = 0
    for name, quantizer in quantizers_of(module).items():
        if name.split(".")[1].rpartition("__")[0] != "x" or not name.startswith("post_hooks"):
            continue
        if hasattr(quantizer, "input_low"):
            quantizer.input_low.zero_()
            quantizer.input_range.fill_(1.0)
        else:
            quantizer.signed = False
            quantizer.scale.fill_(1.0)
        quantizer.disable_gradients()
        found += 1
    return found


def call_one_scale_one(module: nn.Module) -> None:
    """Make quantizers of a single scale per tensor, for the converter.

    NNCF calls those of weights ``[inputs, 1, …]`` (a transposed convolution, channel by channel) per channel of axis 0,
    which has many.
    """
    for quantizer in quantizers_of(module).values():
        shape = tuple(quantizer.scale_shape)
        if len(shape) > 1 and max(shape) == 1:
            quantizer._scale_shape = (1,)
            for parameter in quantizer.parameters():
                if parameter.shape == shape:
                    parameter.data = parameter.data.reshape(1)


@dataclass(frozen=True)
class WeightQuantizer:
    """The quantizer of one layer's weights.

    Args:
        name: of the weights: ``"model.9.cv1.conv.weight"``.
        quantizer: NNCF's; its ``scale`` is the range of 127 steps.
        parameter: the weights.
        mask: what makes some of them zero, if anything does.
        order: what stands beside what when it is computed: ``"outputs"`` come first in transposed convolutions;
            ``"colours"`` of the first layer are exported the other way round; ``""``.
    """

    name: str
    quantizer: Quantizer
    parameter: nn.Parameter
    mask: nn.Module | None
    order: str

    @torch.no_grad()
    def weight(self) -> Tensor:
        """The weights that count."""
        weight: Tensor = self.parameter if self.mask is None else self.mask(self.parameter)
        return weight.detach()

    @torch.no_grad()
    def least(self, width: Width = 1.0) -> Tensor:
        """The least scale, like the quantizer's own, at which no two neighbours overflow; times ``width``, a number or
        one for each output."""
        weight, scale = self.weight(), self.quantizer.scale
        if self.order == "colours":
            reversed_colours = weight.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
            least = torch.maximum(least_scales(weight), least_scales(reversed_colours))
        else:
            least = least_scales(weight.transpose(0, 1) if self.order == "outputs" else weight)
        least = least.amax().expand_as(scale) if scale.numel() == 1 else least.reshape(scale.shape)
        if isinstance(width, int | float):
            return width * least
        return torch.as_tensor(width, dtype=least.dtype, device=least.device).reshape(least.shape) * least


class PairGuard:
    """Keeps the weight quantizers' scales large enough that no CPU saturates; to be called after each step.

    What it holds for each of several networks it holds for their average, as long as their masks are the same; where
    masks have changed, call a guard of the average before that is exported.

    Args:
        network: with quantizers. The guard belongs to this object, not to copies of it.
        widths: how many times as large as that the scales of some weights are to be, by the weights' names, a number
            or one for each output: fewer different numbers, which a zip makes smaller
            (:func:`~ovyolo.compress.qat.widen.choose_widths`).

    Example:
        >>> guard = PairGuard(quantized)  # doctest: +SKIP
        >>> optimizer.step(); guard()  # doctest: +SKIP
        0
    """

    def __init__(self, network: Network, widths: Mapping[str, Width] | None = None) -> None:
        self.network = network
        self.widths = widths or {}
        parameters = dict(network.named_parameters())
        hooks = hooks_of(network)
        users = layer_operations(graph_of(network))
        weight_at = {place: weight for weight, places in users.items() for place in places}
        self.layers: list[WeightQuantizer] = []
        for name, quantizer in quantizers_of(network).items():
            operation, _, port = name.split(".")[1].rpartition("__")
            weight = weight_at.get((operation, int(port)))
            if not name.startswith("pre_hooks") or weight is None or not hasattr(quantizer, "scale"):
                continue
            parameter = parameters[weight]
            if quantizer.scale.numel() not in (1, max(quantizer.scale.shape)) or parameter.ndim < 2:
                continue
            mask = hooks.get(mask_name(weight))
            # an exported first layer takes BGR, so that other channels are neighbours
            order = "colours" if weight.startswith("model.0.") and parameter.shape[1] % 3 == 0 else ""
            order = "outputs" if "conv_transpose" in operation else order
            self.layers.append(WeightQuantizer(weight, quantizer, parameter, mask, order))

    def __len__(self) -> int:
        return len(self.layers)

    @torch.no_grad()
    def __call__(self) -> int:
        """Raise scales that have become too small; returns how many layers had one."""
        raised = 0
        for layer in self.layers:
            scale, least = layer.quantizer.scale, layer.least(self.widths.get(layer.name, 1.0))
            if bool((scale < least).any()):
                scale.copy_(torch.maximum(scale, least))
                raised += 1
        return raised


def least_scales(weight: Tensor) -> Tensor:
    """The least range ``[outputs]``, in units of the weights, at which 8-bit steps of ``weight`` ``[outputs, inputs,
    …]`` neither clip nor overflow in pairs: the largest sum of two neighbours of one sign, or the largest weight.

    Example:
        >>> least_scales(torch.tensor([[[1.0], [1.0]], [[1.0], [-1.0]]])).tolist()
        [2.0, 1.0]
    """
    rows = weight.reshape(weight.shape[0], weight.shape[1], -1)
    if rows.shape[1] % 2:
        rows = nn.functional.pad(rows, (0, 0, 0, 1))
    positive, negative = rows.clamp(min=0), (-rows).clamp(min=0)
    sums = torch.maximum(positive[:, 0::2] + positive[:, 1::2], negative[:, 0::2] + negative[:, 1::2])
    return sums.amax(dim=(1, 2)).clamp(min=1e-12)
