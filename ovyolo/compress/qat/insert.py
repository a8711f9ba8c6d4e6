"""Quantizers into the PyTorch network, calibrated, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovyolo.compress.nncf_bridge import nncf_options
from ovyolo.compress.qat.balance import balance_heads, scales_of
from ovyolo.compress.qat.bridge import nncf_at_work, operations_of_layers
from ovyolo.compress.qat.quantizers import PairGuard, is_quantized, keep_bytes_exact
from ovyolo.compress.scheme import Scheme
from ovyolo.errors import DimensionError, UnsupportedModelError

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["TRAINED", "insert_quantizers", "picture_tensors"]

# what training starts from: rounding is trained, and no CPU saturates
TRAINED = Scheme(rounding="nearest", overflow="pairs")


def picture_tensors(pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
    """Letterboxed pictures, u8 BGR ``(H, W, 3)``, as what the network takes: f32 RGB ``[1, 3, H, W]`` from 0 to 1."""
    return [
        torch.from_numpy(np.ascontiguousarray(p[..., ::-1].transpose(2, 0, 1)))[None].float() / 255 for p in pictures
    ]


def insert_quantizers(
    network: Network,
    batches: Iterable[Tensor],
    *,
    scheme: Scheme = TRAINED,
    ignored: Sequence[str] = (),
    tell: Callable[[int], None] = lambda done: None,
) -> Network:
    """A copy of ``network`` with 8-bit quantizers on weights and activations, in evaluation mode, the maps before its
    heads balanced (:mod:`ovyolo.compress.qat.balance`).

    Best given a network without batch norms (:func:`~ovyolo.train.fusing.fuse_batch_norms`); with them, freeze them
    while training (:func:`~ovyolo.compress.qat.quantizers.freeze_batch_norms`). Make optimizer and average of what is
    returned, and clip gradients.

    Args:
        network: FP32, sparse or not; it is left as it is.
        batches: calibration pictures as the network takes them, f32 RGB ``[N, 3, H, W]`` from 0 to 1, all of one size.
        scheme: how; ``rounding`` must be ``"nearest"``. With ``overflow="pairs"`` call a
            :class:`~ovyolo.compress.qat.quantizers.PairGuard` after each step of training.
        ignored: layers that stay in floating point, by our names: ``"model.24"``, ``"model.24.m.0"``; ``"heads"`` are
            the last convolutions.
        tell: called with the number of pictures taken in the pass under way.

    Raises:
        DimensionError: there are no pictures, no such layer, or the scheme does not fit.
        UnsupportedModelError: the network has quantizers already.
        OvyoloError: NNCF is missing or cannot.
    """
    if is_quantized(network):
        raise UnsupportedModelError("the network has quantizers already: give the one that they were put into")
    if scheme.rounding != "nearest" or scheme.weights_only:
        raise DimensionError("quantizers that are trained need Scheme(rounding='nearest')")
    pictures = [picture[None] for batch in batches for picture in batch]
    if not pictures:
        raise DimensionError("there are no pictures to calibrate with")
    device = next(network.parameters()).device
    last = f"model.{len(network.model) - 1}"
    ignored = tuple(dict.fromkeys(last if name == "heads" else name for name in ignored))
    balanced = balance_heads(network, pictures, ignored, tell)
    names = operations_of_layers(balanced, ignored, tuple(scales_of(balanced)))

    def taken() -> Iterable[Tensor]:
        for done, picture in enumerate(pictures, 1):
            tell(done)
            yield picture.to(device)

    with nncf_at_work(f"quantize the network ({scheme.describe()})") as nncf:
        options: dict[str, Any] = nncf_options(nncf, scheme)
        if names:
            options["ignored_scope"] = nncf.IgnoredScope(names=names)
        quantized: Network = nncf.quantize(
            balanced, nncf.Dataset(_Repeatable(taken)), subset_size=len(pictures), **options
        )
    keep_bytes_exact(quantized)
    if scheme.overflow == "pairs":
        PairGuard(quantized)()
    return quantized.eval()


class _Repeatable:
    """An iterable that begins anew each time."""

    def __init__(self, make: Callable[[], Iterable[Tensor]]) -> None:
        self._make = make

    def __iter__(self) -> Any:
        return iter(self._make())
