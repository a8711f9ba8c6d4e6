"""Zeros among the weights, kept zero by masks while the network trains on: for smaller files, not for speed.

OpenVINO's CPU kernels compute a convolution's zeros like any other weight; a file of which a half is zeros compresses
to less. Sparsify first and quantize then: ranges are then measured on the weights that remain, and the masks act
before the quantizers, so zeros stay zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ovyolo.compress.qat.bridge import (
    hooks_of,
    load_nncf_torch,
    mask_name,
    nncf_at_work,
    operations_of_layers,
    without_hooks,
)
from ovyolo.compress.qat.quantizers import is_quantized
from ovyolo.errors import DimensionError, UnsupportedModelError

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = [
    "HOW",
    "MagnitudeSchedule",
    "RegularizedSparsity",
    "baked",
    "effective_weights",
    "is_sparse",
    "sparsify",
    "zeros",
]

# ways to choose weights, and NNCF's names for them
HOW = {
    "global": "UNSTRUCTURED_MAGNITUDE_GLOBAL",
    "local": "UNSTRUCTURED_MAGNITUDE_LOCAL",
    "regularized": "UNSTRUCTURED_REGULARIZATION_BASED",
}


def sparsify(network: Network, ratio: float = 0.0, *, how: str = "global", ignored: Sequence[str] = ()) -> Network:
    """A copy of ``network`` with masks on its weights.

    Args:
        network: FP32; it is left as it is.
        ratio: the share of masked weights to begin with, 0 to below 1; see :class:`MagnitudeSchedule` for more in time.
        how: ``"global"``: the smallest weights of all layers, each layer's divided by its norm; keeps most accuracy.
            ``"local"``: the same share of every layer. ``"regularized"``: masks are trained, by
            :class:`RegularizedSparsity`; doubles the parameters and needs a long training.
        ignored: layers that stay dense, by our names: ``"model.24"``.

    Raises:
        DimensionError: an argument is out of range, or there is no such layer.
        UnsupportedModelError: the network is quantized or has masks already.
    """
    check_ratio(ratio)
    if how not in HOW:
        raise DimensionError(f"how is {how!r}; it takes one of {', '.join(HOW)}")
    if is_quantized(network):
        raise UnsupportedModelError("the network has quantizers already: sparsify it before it is quantized")
    if is_sparse(network):
        raise UnsupportedModelError("the network has masks already: change their share with a MagnitudeSchedule")
    sparse = copy.deepcopy(network)
    side = network.probe_side
    example = torch.zeros(1, 3, side, side, device=next(network.parameters()).device)
    names = operations_of_layers(network, tuple(ignored))
    with nncf_at_work(f"put masks into the network ({how})") as nncf:
        scope = nncf.IgnoredScope(names=names) if names else None
        mode = getattr(nncf.PruneMode, HOW[how])
        sparse.eval()
        share = None if how == "regularized" else ratio
        made: Network = nncf.prune(sparse, mode=mode, ratio=share, ignored_scope=scope, examples_inputs=example)
    return made.train(network.training)


def is_sparse(module: nn.Module) -> bool:
    """Whether weights of ``module`` have masks."""
    return any(_is_mask(hook) for hook in hooks_of(module).values())


def effective_weights(network: nn.Module) -> dict[str, Tensor]:
    """The parameters that have masks, by name, as the network computes with them: masked, detached."""
    hooks = hooks_of(network)
    found = {}
    for name, parameter in network.named_parameters():
        mask = hooks.get(mask_name(name))
        if mask is not None:
            training, value = mask.training, parameter.detach()
            # in training, regularized masks are noisy
            found[name] = mask.eval()(value).detach()
            mask.train(training)
    return found


def baked(network: Network) -> Network:
    """A copy without masks, whose masked weights are plain zeros."""
    masked, plain = effective_weights(network), without_hooks(network)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name in masked:
                parameter.copy_(masked[name])
    return plain.train(network.training)


def zeros(network: nn.Module) -> dict[str, float]:
    """The share of zeros by weight, and over all weights with masks as ``""``; empty where there are no masks.

    Example:
        >>> zeros(sparsify(network, 0.6))[""]  # doctest: +SKIP
        0.6
    """
    weights = effective_weights(network)
    counts = {name: (int((weight == 0).sum()), weight.numel()) for name, weight in weights.items()}
    shares = {name: none / total for name, (none, total) in counts.items()}
    if shares:
        shares[""] = sum(none for none, _ in counts.values()) / sum(total for _, total in counts.values())
    return shares


class MagnitudeSchedule:
    """Raises the share of masked weights from epoch to epoch, fast at first: ``1 - (1 - initial) * ((1 - target) /
    (1 - initial)) ** (epoch / epochs)``.

    It keeps no state: a training that goes on at an epoch gives that epoch. Weights that were masked may come back.

    Args:
        network: with masks of ``how``; of a network that is copied (quantized, averaged), make it anew.
        target: the share in the end, 0 to below 1.
        epochs: after which it is reached.
        initial: the share at epoch 0.
        how: ``"global"`` or ``"local"``.

    Raises:
        DimensionError: an argument is out of range.
        UnsupportedModelError: the network has no masks.
    """

    def __init__(
        self, network: Network, target: float, epochs: int, *, initial: float = 0.0, how: str = "global"
    ) -> None:
        check_ratio(target)
        check_ratio(initial)
        if how not in ("global", "local") or epochs < 1:
            raise DimensionError(f"how is {how!r} and epochs {epochs}: they take 'global' or 'local', and 1 or more")
        if not is_sparse(network):
            raise UnsupportedModelError("the network has no masks: sparsify it first")
        self.network, self.target, self.epochs, self.initial, self.how = network, target, epochs, initial, how

    def ratio(self, epoch: int) -> float:
        """The share at ``epoch``."""
        if epoch >= self.epochs:
            return self.target
        left = (1 - self.target) / (1 - self.initial)
        return 1 - (1 - self.initial) * left ** (max(0, epoch) / self.epochs)

    def step(self, epoch: int) -> float:
        """Choose the weights to be masked in ``epoch``, by their values now; returns the share."""
        ratio = self.ratio(epoch)
        with nncf_at_work("choose the weights to be masked") as nncf:
            from nncf.torch.function_hook.pruning.magnitude.algo import update_pruning_ratio

            update_pruning_ratio(self.network, getattr(nncf.PruneMode, HOW[self.how]), ratio)
        return ratio


class RegularizedSparsity:
    """Trained masks: a term of the loss draws their share of zeros towards a target (arXiv:1712.01312).

    Args:
        network: with masks of ``how="regularized"``; the parameter group ``masks`` wants a large rate of its own.
        target: the share in the end, 0 to below 1.
    """

    def __init__(self, network: Network, target: float) -> None:
        check_ratio(target)
        if not any(hasattr(hook, "mask") for hook in hooks_of(network).values()):
            raise UnsupportedModelError("the network has no masks that are trained: sparsify(how='regularized')")
        load_nncf_torch()
        from nncf.torch.function_hook.pruning.rb.losses import RBLoss

        self._loss: Any = RBLoss(network, target)

    def __call__(self) -> Tensor:
        """The term to be added to the loss."""
        term: Tensor = self._loss()
        return term


def check_ratio(ratio: float) -> None:
    """Raise DimensionError where ``ratio`` is no share."""
    if not 0 <= ratio < 1:
        raise DimensionError(f"the share of zeros is {ratio}; it takes a number from 0 to below 1")


def _is_mask(hook: nn.Module) -> bool:
    return hasattr(hook, "binary_mask") or hasattr(hook, "mask")
