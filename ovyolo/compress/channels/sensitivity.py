"""How much the network suffers when one group loses a share of its units: limits for a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ovyolo.compress.channels.apply import masked
from ovyolo.compress.channels.criteria import Scores
from ovyolo.compress.channels.groups import Groups
from ovyolo.errors import DimensionError
from ovyolo.train.network import Network

__all__ = ["limits_from", "sensitivity"]

Error = Callable[[list[Tensor]], float]
SHARES = (0.25, 0.5, 0.75)


def sensitivity(
    network: Network,
    groups: Groups,
    scores: Scores,
    pictures: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    error_of: Error | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[float, float]]:
    """Mask the least worth units of each group by itself and see what becomes of the heads.

    One forward pass a group and share; nothing is built or trained, batch norms stand still.

    Args:
        network: in which ``groups`` were found.
        groups, scores: what may go, and what goes first.
        pictures: a few, f32 RGB ``[N, 3, H, W]`` from 0 to 1.
        shares: of the group, above 0 and up to 1.
        error_of: what raw heads are worth, the less the better. By default their squared difference to the whole
            network's in units of how much those vary over places and pictures, a mean over levels.
        tell: called with the number of groups done.

    Returns:
        By group and share, the error (above that of the whole network, where ``error_of`` is given).

    Raises:
        DimensionError: ``shares`` or ``pictures`` are out of range.

    Example:
        >>> limits_from({"model.3": {0.25: 0.01, 0.5: 0.2}}, 0.1)
        {'model.3': 0.25}
    """
    if not shares or any(not 0 < share <= 1 for share in shares):
        raise DimensionError(f"shares is {list(shares)}; it takes numbers above 0 and up to 1")
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not len(pictures):
        raise DimensionError(f"pictures have the shape {tuple(pictures.shape)}; it takes [N, 3, H, W]")
    training = network.training
    pictures = pictures.to(next(network.parameters()).device)
    found: dict[str, dict[float, float]] = {}
    try:
        network.eval()
        with torch.no_grad():
            whole = network(pictures)
            measure = error_of or _distance_to(whole)
            floor = measure(whole)
            for done, (name, group) in enumerate(groups.prunable().items(), 1):
                order = scores[name].argsort(stable=True).tolist()
                found[name] = {}
                for share in shares:
                    with masked(network, groups, {name: order[: round(share * group.size)]}):
                        found[name][share] = measure(network(pictures)) - floor
                tell(done)
    finally:
        network.train(training)
    return found


def limits_from(errors: Mapping[str, Mapping[float, float]], tolerance: float) -> dict[str, float]:
    """Per group, the largest share up to which every measured share's error is at most ``tolerance``; 0 where none is.

    What a plan takes as ``limits``.
    """
    limits = {}
    for name, by_share in errors.items():
        limits[name] = 0.0
        for share in sorted(by_share):
            if by_share[share] > tolerance:
                break
            limits[name] = share
    return limits


def _distance_to(whole: list[Tensor]) -> Error:
    spreads = [head.var((0, 2, 3)).mean().clamp_min(1e-12) for head in whole]

    def measure(heads: list[Tensor]) -> float:
        parts = [((a - b) ** 2).mean() / spread for a, b, spread in zip(heads, whole, spreads, strict=True)]
        return float(torch.stack(parts).mean())

    return measure
