"""YOLOv5's loss on raw heads: CIoU for boxes, binary cross-entropy for objectness and classes.

An object belongs to every anchor whose sides differ from its own by less than a factor, in the cell that holds its
centre and in the two neighbours nearest to it. CIoU is of arXiv:1911.08287, the focal factor of arXiv:1708.02002.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ovyolo.errors import DimensionError

__all__ = ["DetectionLoss", "LossParts", "LossSettings", "Matched", "complete_iou", "match"]

# how much the objectness of each level counts, finest first: small objects are many, large ones few
BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}
NEIGHBOUR = 0.5  # a centre nearer than this to a cell's edge, in cells, makes the cell beyond it responsible, too


@dataclass(frozen=True)
class LossSettings:
    """What the parts of the loss weigh. ``box``, ``cls`` and ``obj`` are meant for 80 classes, 3 levels and 640 pixels,
    and are scaled to the network at hand.

    Args:
        box: weight of 1 - CIoU.
        cls: weight of the class cross-entropy.
        obj: weight of the objectness cross-entropy.
        anchor_t: an anchor is responsible for objects whose sides are less than this factor larger or smaller.
        focal: exponent of the focal factor, 0 for none.
        label_smoothing: share of the class target that is spread, 0 for none.
    """

    box: float = 0.05
    cls: float = 0.5
    obj: float = 1.0
    anchor_t: float = 4.0
    focal: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("box", "cls", "obj", "focal"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DimensionError(f"{name} is {getattr(self, name)}; it takes a number from 0")
        if not self.anchor_t > 1:
            raise DimensionError(f"anchor_t is {self.anchor_t}; it takes a factor above 1")
        if not 0 <= self.label_smoothing < 1:
            raise DimensionError(f"label_smoothing is {self.label_smoothing}; it takes a number from 0 to 1")


class Matched(NamedTuple):
    """Which predictions of a level answer for which objects; all of one length ``k``."""

    picture: Tensor  # int64 (k,)
    anchor: Tensor  # int64 (k,)
    row: Tensor  # int64 (k,)
    column: Tensor  # int64 (k,)
    box: Tensor  # f32 (k, 4): centre from the cell's corner, width and height, in cells
    class_id: Tensor  # int64 (k,)


class LossParts(NamedTuple):
    """The sum to minimise, and its parts (detached, weighted, per picture) for the log."""

    total: Tensor
    box: Tensor
    obj: Tensor
    cls: Tensor


def match(targets: Tensor, anchors: Tensor, size: tuple[int, int], stride: int, anchor_t: float) -> Matched:
    """Assign objects to the cells and anchors of one level.

    Args:
        targets: f32 ``(m, 6)``: picture, class, centre x, centre y, width, height in input pixels.
        anchors: f32 ``(na, 2)`` width and height in input pixels.
        size: ``(rows, columns)`` of the level.
        stride: input pixels a cell.
        anchor_t: see :class:`LossSettings`.
    """
    rows, columns = size
    ratio = targets[None, :, 4:6] / anchors[:, None]
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t
    anchor, which = fits.nonzero(as_tuple=True)
    chosen = targets[which]
    centre = chosen[:, 2:4] / stride
    extent = torch.tensor([columns, rows], device=targets.device, dtype=centre.dtype)
    # the cell itself, and beyond each edge that is near, unless that is outside the picture
    before = (centre % 1 < NEIGHBOUR) & (centre > 1)
    after = ((extent - centre) % 1 < NEIGHBOUR) & (extent - centre > 1)
    here = torch.ones_like(before[:, 0])
    which = torch.stack([here, before[:, 0], before[:, 1], after[:, 0], after[:, 1]])
    shift = torch.tensor(
        [[0.0, 0.0], [NEIGHBOUR, 0.0], [0.0, NEIGHBOUR], [-NEIGHBOUR, 0.0], [0.0, -NEIGHBOUR]], device=targets.device
    )
    direction, index = which.nonzero(as_tuple=True)
    chosen, centre, anchor = chosen[index], centre[index], anchor[index]
    cell = (centre - shift[direction]).floor().long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    offset = centre - torch.stack([column, row], 1)
    box = torch.cat([offset, chosen[:, 4:6] / stride], 1)
    return Matched(chosen[:, 0].long(), anchor, row, column, box, chosen[:, 1].long())


def complete_iou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """CIoU of boxes ``(k, 4)`` given as centre x, centre y, width, height: overlap, distance of the centres, and how
    alike the shapes are. Its last factor is a constant for the gradient, as the paper has it."""
    a_low, a_high = a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2
    b_low, b_high = b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2
    inside = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(0).prod(1)
    iou = inside / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - inside + eps)
    diagonal = (torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)).square().sum(1) + eps
    distance = (a[:, :2] - b[:, :2]).square().sum(1)
    angles = torch.atan(b[:, 2] / (b[:, 3] + eps)) - torch.atan(a[:, 2] / (a[:, 3] + eps))
    unlike = 4 / math.pi**2 * angles.square()
    with torch.no_grad():
        weight = unlike / (1 - iou + unlike + eps)
    return iou - distance / diagonal - weight * unlike


class DetectionLoss:
    """The loss of a batch.

    Args:
        anchors: f32 ``(levels, na, 2)`` in input pixels.
        strides: input pixels a cell, one a level, finest first.
        num_classes: how many classes the head tells apart.
        imgsz: ``(height, width)`` of the input.
        settings: weights of the parts.

    Example:
        >>> import torch
        >>> from ovyolo.train.loss import DetectionLoss
        >>> loss = DetectionLoss(torch.full((1, 1, 2), 16.0), (8,), 2, (64, 64))
        >>> heads = [torch.zeros(1, 7, 8, 8)]
        >>> parts = loss(heads, torch.tensor([[0, 1, 20.0, 20.0, 16.0, 16.0]]))
        >>> bool(parts.total > 0), len(parts)
        (True, 4)
    """

    def __init__(
        self,
        anchors: Tensor,
        strides: Sequence[int],
        num_classes: int,
        imgsz: tuple[int, int],
        settings: LossSettings | None = None,
    ) -> None:
        self.settings = settings or LossSettings()
        self.anchors = anchors.detach().float()
        self.strides = tuple(strides)
        self.num_classes = num_classes
        levels = len(self.strides)
        self._balance = BALANCE.get(levels, (1.0,) * levels)
        share = 3 / levels
        self._box = self.settings.box * share
        self._cls = self.settings.cls * share * num_classes / 80
        self._obj = self.settings.obj * share * (imgsz[0] * imgsz[1]) / 640**2

    def __call__(self, heads: Sequence[Tensor], targets: Tensor) -> LossParts:
        """The loss of raw ``heads`` ``[N, na*(5+nc), H, W]`` for ``targets`` as :func:`match` takes them.

        ``total`` is summed over the batch, its parts are per picture.
        """
        device = heads[0].device
        targets = targets.to(device)
        anchors = self.anchors.to(device)
        batch = len(heads[0])
        box, obj, cls = (torch.zeros((), device=device) for _ in range(3))
        for level, (head, stride) in enumerate(zip(heads, self.strides, strict=True)):
            rows, columns = head.shape[2:]
            # [N, na, 5 + nc, H, W]; half precision is not enough for a cross-entropy
            predicted = head.float().view(batch, len(anchors[level]), 5 + self.num_classes, rows, columns)
            matched = match(targets, anchors[level], (rows, columns), stride, self.settings.anchor_t)
            wanted = torch.zeros(predicted[:, :, 4].shape, device=device)
            if len(matched.picture):
                place = (matched.picture, matched.anchor, matched.row, matched.column)
                mine = predicted.permute(0, 1, 3, 4, 2)[place]
                ciou = complete_iou(self._boxes(mine, anchors[level][matched.anchor] / stride), matched.box)
                box = box + (1 - ciou).mean()
                # where objects share a cell, the better box says how sure the cell should be: the order does not matter
                flat = ((matched.picture * len(anchors[level]) + matched.anchor) * rows + matched.row) * columns
                flat = flat + matched.column
                wanted.view(-1).scatter_reduce_(0, flat, ciou.detach().clamp(0), "amax")
                if self.num_classes > 1:
                    smooth = self.settings.label_smoothing
                    target = torch.full_like(mine[:, 5:], smooth / 2)
                    target[torch.arange(len(target), device=device), matched.class_id] = 1 - smooth / 2
                    cls = cls + self._cross_entropy(mine[:, 5:], target)
            obj = obj + self._cross_entropy(predicted[:, :, 4], wanted) * self._balance[level]
        box, obj, cls = box * self._box, obj * self._obj, cls * self._cls
        return LossParts((box + obj + cls) * batch, box.detach(), obj.detach(), cls.detach())

    @staticmethod
    def _boxes(raw: Tensor, anchors: Tensor) -> Tensor:
        """Centre from the cell's corner, width and height, in cells."""
        squashed = raw[:, :4].sigmoid()
        return torch.cat([squashed[:, :2] * 2 - 0.5, (squashed[:, 2:] * 2).square() * anchors], 1)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        if not self.settings.focal:
            return binary_cross_entropy_with_logits(logits, target)
        each = binary_cross_entropy_with_logits(logits, target, reduction="none")
        probability = logits.sigmoid()
        right = target * probability + (1 - target) * (1 - probability)
        weight = target * 0.25 + (1 - target) * 0.75
        return (each * weight * (1 - right) ** self.settings.focal).mean()
