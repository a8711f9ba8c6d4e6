"""YOLOv5's loss from its definition, object by object in plain NumPy float64: slow, and easy to check by eye."""

from __future__ import annotations

import math

import numpy as np

BALANCE = {3: [4.0, 1.0, 0.4], 4: [4.0, 1.0, 0.25, 0.06], 5: [4.0, 1.0, 0.25, 0.06, 0.02]}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logit, target):
    p = sigmoid(logit)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def ciou(a, b, alpha=None):
    """CIoU of two (cx, cy, w, h); ``alpha`` fixed from outside for numerical gradients. Returns (ciou, alpha)."""
    ax0, ay0, ax1, ay1 = a[0] - a[2] / 2, a[1] - a[3] / 2, a[0] + a[2] / 2, a[1] + a[3] / 2
    bx0, by0, bx1, by1 = b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2
    inside = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    iou = inside / (a[2] * a[3] + b[2] * b[3] - inside)
    diagonal = (max(ax1, bx1) - min(ax0, bx0)) ** 2 + (max(ay1, by1) - min(ay0, by0)) ** 2
    distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    v = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
    if alpha is None:
        alpha = v / (1 - iou + v) if v > 0 else 0.0
    return iou - distance / diagonal - alpha * v, alpha


def matches(targets, anchors, rows, columns, stride, anchor_t=4.0):
    """(picture, anchor, row, column, box in cells from the cell's corner, class) for each object and place."""
    found = []
    for picture, cls, cx, cy, w, h in targets:
        for a, (aw, ah) in enumerate(anchors):
            if max(w / aw, aw / w, h / ah, ah / h) >= anchor_t:
                continue
            gx, gy = cx / stride, cy / stride
            cells = [(math.floor(gx), math.floor(gy))]
            for dx, dy in ((-1, 0), (0, -1), (1, 0), (0, 1)):
                column, row = math.floor(gx) + dx, math.floor(gy) + dy
                inside = 0 <= column < columns and 0 <= row < rows
                near = {(-1, 0): gx % 1, (0, -1): gy % 1, (1, 0): 1 - gx % 1, (0, 1): 1 - gy % 1}[(dx, dy)] < 0.5
                if inside and near:
                    cells.append((column, row))
            for column, row in cells:
                box = (gx - column, gy - row, w / stride, h / stride)
                found.append((int(picture), a, row, column, box, int(cls)))
    return found


def loss(heads, targets, anchors, strides, nc, imgsz, *, box=0.05, cls=0.5, obj=1.0, smoothing=0.0, fixed=None):
    """Total loss of raw heads. ``fixed`` holds what counts as constant for gradients: the targets of objectness and the
    alphas of a base point; returns (total, constants)."""
    levels = len(heads)
    batch = len(heads[0])
    share = 3 / levels
    total_box = total_obj = total_cls = 0.0
    constants = []
    for level, head in enumerate(heads):
        na, rows, columns = len(anchors[level]), *head.shape[2:]
        p = head.reshape(batch, na, 5 + nc, rows, columns).astype(np.float64)
        found = matches(targets, anchors[level], rows, columns, strides[level])
        known = fixed[level] if fixed else None
        wanted = np.zeros((batch, na, rows, columns))
        alphas, box_terms, class_terms = [], [], []
        for k, (picture, a, row, column, target, class_id) in enumerate(found):
            raw = p[picture, a, :, row, column]
            s = sigmoid(raw[:4])
            aw, ah = anchors[level][a][0] / strides[level], anchors[level][a][1] / strides[level]
            mine = (s[0] * 2 - 0.5, s[1] * 2 - 0.5, (s[2] * 2) ** 2 * aw, (s[3] * 2) ** 2 * ah)
            value, alpha = ciou(mine, target, None if known is None else known[1][k])
            alphas.append(alpha)
            box_terms.append(1 - value)
            wanted[picture, a, row, column] = max(wanted[picture, a, row, column], value)
            for c in range(nc):
                goal = 1 - smoothing / 2 if c == class_id else smoothing / 2
                class_terms.append(cross_entropy(raw[5 + c], goal))
        if known is not None:
            wanted = known[0]
        constants.append((wanted, alphas))
        if box_terms:
            total_box += np.mean(box_terms)
            if nc > 1:
                total_cls += np.mean(class_terms)
        total_obj += np.mean(cross_entropy(p[:, :, 4], wanted)) * BALANCE.get(levels, [1.0] * levels)[level]
    total_box *= box * share
    total_cls *= cls * share * nc / 80
    total_obj *= obj * share * imgsz[0] * imgsz[1] / 640**2
    return (total_box + total_obj + total_cls) * batch, constants
