"""Losses that draw a student's heads, and maps inside it, towards those of its teacher (arXiv:1503.02531).

The teacher needs no labels, and says of every cell what the student should say: after pruning or quantizing, when the
student is nearly there, that is as good as labels. Pure functions of tensors; nothing here knows NNCF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ovyolo.errors import DimensionError

__all__ = ["feature_loss", "head_loss", "tapped"]


def head_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    anchors: int = 3,
    levels: Sequence[float] | None = None,
    objectness: float = 0.0,
) -> Tensor:
    """The mean squared difference of raw heads, a scalar.

    Args:
        student, teacher: raw heads ``[N, anchors*(5+nc), H, W]``, one a level; no gradient goes to the teacher.
        anchors: anchors a level.
        levels: weights of the levels; by default all count alike.
        objectness: from 0, all cells count alike, to 1, a cell counts by how sure the teacher is of an object there.
            Most cells are background, and what they say of boxes and classes matters to nobody.

    Raises:
        DimensionError: shapes or arguments do not fit.

    Example:
        >>> import torch
        >>> from ovyolo.train.distill import head_loss
        >>> one, other = [torch.zeros(1, 21, 4, 4)], [torch.ones(1, 21, 4, 4)]
        >>> float(head_loss(one, other)), float(head_loss(one, other, objectness=0.5))
        (1.0, 1.0)
    """
    weights = [1.0] * len(student) if levels is None else list(levels)
    if not len(student) == len(teacher) == len(weights) > 0 or not sum(weights) > 0 or min(weights) < 0:
        raise DimensionError(
            f"{len(student)} student's heads, {len(teacher)} teacher's and {len(weights)} weights of levels do not fit"
        )
    if not 0 <= objectness <= 1:
        raise DimensionError(f"objectness is {objectness}; it takes a number from 0 to 1")
    total = student[0].new_zeros(())
    for ours, theirs, weight in zip(student, teacher, weights, strict=True):
        if ours.shape != theirs.shape or ours.ndim != 4 or ours.shape[1] % anchors:
            raise DimensionError(f"heads are {tuple(ours.shape)} and {tuple(theirs.shape)}: they must be the same")
        total = total + weight * _level_loss(ours.float(), theirs.detach().float(), anchors, objectness)
    return total / sum(weights)


def _level_loss(ours: Tensor, theirs: Tensor, anchors: int, objectness: float) -> Tensor:
    squares = (ours - theirs).square()
    if not objectness:
        return squares.mean()
    n, channels, height, width = squares.shape
    per_cell = squares.view(n, anchors, channels // anchors, height, width)
    sure = theirs.view(n, anchors, channels // anchors, height, width)[:, :, 4:5].sigmoid()
    alike = per_cell.mean()
    # objectness itself always counts everywhere, or false alarms would cost nothing
    told = per_cell[:, :, 4].mean()
    near = (per_cell * sure).sum() / (sure.sum() * per_cell.shape[2]).clamp(min=1e-6)
    return (1 - objectness) * alike + objectness * 0.5 * (near + told)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """How far maps inside the networks are apart, relative to the teacher's size: a scalar, the mean over the maps.

    Maps of different widths, after channels were pruned, are compared by where they are active (the attention maps of
    arXiv:1612.03928).

    Args:
        student, teacher: maps ``[N, C, H, W]``; N, H and W must be the same. No gradient goes to the teacher.

    Raises:
        DimensionError: shapes do not fit.

    Example:
        >>> import torch
        >>> from ovyolo.train.distill import feature_loss
        >>> float(feature_loss([torch.zeros(1, 4, 2, 2)], [torch.ones(1, 4, 2, 2)]))
        1.0
    """
    if not len(student) == len(teacher) > 0:
        raise DimensionError(f"{len(student)} maps of the student and {len(teacher)} of the teacher do not fit")
    total = student[0].new_zeros(())
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.shape[0] != theirs.shape[0] or ours.shape[2:] != theirs.shape[2:]:
            raise DimensionError(f"maps are {tuple(ours.shape)} and {tuple(theirs.shape)}: only channels may differ")
        a, b = ours.float(), theirs.detach().float()
        if a.shape[1] != b.shape[1]:
            a, b = (nn.functional.normalize(x.square().mean(1).flatten(1), dim=1) for x in (a, b))
        total = total + (a - b).square().mean() / b.square().mean().clamp(min=1e-12)
    return total / len(student)


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass of ``module`` fills the list with the outputs of the named parts, in the
    order of ``names``.

    Args:
        module: a network; parts are named as its ``state_dict`` names them: ``"model.17"``.
        names: parts that give one tensor.

    Raises:
        DimensionError: there is no such part.
    """
    parts = dict(module.named_modules())
    missing = [name for name in names if name not in parts]
    if missing:
        raise DimensionError(f"there is no part {missing[0]!r}; parts are called as in 'model.17' or 'model.17.cv3'")
    outputs: list[Tensor] = [torch.empty(0)] * len(names)
    handles = []

    def keep(index: int) -> None:
        def hook(_part: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[index] = output

        handles.append(parts[names[index]].register_forward_hook(hook))

    for index in range(len(names)):
        keep(index)
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
