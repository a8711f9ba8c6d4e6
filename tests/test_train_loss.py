"""YOLOv5's loss against a plain computation from its definition: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from reference import loss_numpy  # noqa: E402

from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.train.loss import DetectionLoss, LossSettings, complete_iou, match  # noqa: E402

STRIDES = (8, 16, 32)
IMGSZ = (64, 96)
ANCHORS = np.array([[[6, 8], [14, 10]], [[20, 16], [24, 40]], [[50, 40], [60, 90]]], np.float32)


def scene(seed, count=7, nc=3, batch=2):
    """Random heads and objects, some of them sharing cells."""
    rng = np.random.default_rng(seed)
    heads = [rng.normal(0, 1, (batch, 2 * (5 + nc), IMGSZ[0] // s, IMGSZ[1] // s)).astype(np.float32) for s in STRIDES]
    size = rng.uniform(4, 60, (count, 2))
    centre = rng.uniform([0, 0], [IMGSZ[1] - 1e-3, IMGSZ[0] - 1e-3], (count, 2))
    rows = [rng.integers(0, batch, count), rng.integers(0, nc, count), *centre.T, *size.T]
    targets = np.stack(rows, 1).astype(np.float32)
    if count > 1:
        targets[1, :4] = targets[0, :4]
    return heads, targets


def torch_loss(heads, targets, nc=3, **settings):
    tensors = [torch.tensor(head, requires_grad=True) for head in heads]
    made = DetectionLoss(torch.from_numpy(ANCHORS), STRIDES, nc, IMGSZ, LossSettings(**settings))
    parts = made(tensors, torch.from_numpy(targets))
    parts.total.backward()
    return parts, [tensor.grad.numpy() for tensor in tensors]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("nc", [1, 3])
def test_value_agrees_with_the_definition(seed, nc):
    heads, targets = scene(seed, nc=nc)
    parts, _ = torch_loss(heads, targets, nc)
    expected, _ = loss_numpy.loss(heads, targets, ANCHORS, STRIDES, nc, IMGSZ)
    assert float(parts.total) == pytest.approx(expected, rel=1e-5)
    assert float((parts.box + parts.obj + parts.cls) * 2) == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_agrees_with_the_definition():
    heads, targets = scene(3)
    parts, _ = torch_loss(heads, targets, label_smoothing=0.1)
    expected, _ = loss_numpy.loss(heads, targets, ANCHORS, STRIDES, 3, IMGSZ, smoothing=0.1)
    assert float(parts.total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", [1, 5])
def test_gradients_agree_with_finite_differences_of_the_definition(seed):
    heads, targets = scene(seed)
    _, gradients = torch_loss(heads, targets)
    _, fixed = loss_numpy.loss(heads, targets, ANCHORS, STRIDES, 3, IMGSZ)
    rng = np.random.default_rng(seed)
    checked = 0
    for level, gradient in enumerate(gradients):
        wide = [head.astype(np.float64) for head in heads]
        # the places where it matters most, and some at random
        largest = np.argsort(-np.abs(gradient.ravel()))[:12]
        for flat in [*largest, *rng.integers(0, gradient.size, 6)]:
            index = np.unravel_index(flat, gradient.shape)
            values = []
            for step in (1e-5, -1e-5):
                moved = [head.copy() for head in wide]
                moved[level][index] += step
                values.append(loss_numpy.loss(moved, targets, ANCHORS, STRIDES, 3, IMGSZ, fixed=fixed)[0])
            numeric = (values[0] - values[1]) / 2e-5
            assert gradient[index] == pytest.approx(numeric, rel=2e-3, abs=1e-7)
            checked += abs(numeric) > 1e-6
    assert checked > 30


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_matching_agrees_with_the_definition(seed, count):
    _, targets = scene(seed, count)
    for level, stride in enumerate(STRIDES):
        rows, columns = IMGSZ[0] // stride, IMGSZ[1] // stride
        mine = match(torch.from_numpy(targets), torch.from_numpy(ANCHORS[level]), (rows, columns), stride, 4.0)
        listed = {
            (int(p), int(a), int(r), int(c), int(k), tuple(np.round(b.numpy(), 3)))
            for p, a, r, c, b, k in zip(
                mine.picture, mine.anchor, mine.row, mine.column, mine.box, mine.class_id, strict=True
            )
        }
        expected = {
            (p, a, r, c, k, tuple(np.round(np.float32(b), 3)))
            for p, a, r, c, b, k in loss_numpy.matches(targets, ANCHORS[level], rows, columns, stride)
        }
        assert {one[:5] for one in listed} == {one[:5] for one in expected}
        assert len(mine.picture) == len(loss_numpy.matches(targets, ANCHORS[level], rows, columns, stride))


def test_no_objects_leaves_only_objectness():
    heads, _ = scene(0)
    parts, gradients = torch_loss(heads, np.zeros((0, 6), np.float32))
    assert float(parts.box) == float(parts.cls) == 0 < float(parts.obj)
    grid = gradients[0].reshape(2, 2, 8, *gradients[0].shape[2:])
    assert (grid[:, :, 4] > 0).all() and (np.delete(grid, 4, 2) == 0).all()


def test_a_box_on_its_object_is_perfect():
    box = torch.tensor([[3.0, 4.0, 2.0, 5.0]])
    assert complete_iou(box, box).item() == pytest.approx(1, abs=1e-5)
    far = torch.tensor([[30.0, 4.0, 2.0, 5.0]])
    assert complete_iou(box, far).item() < 0


def test_order_of_objects_does_not_matter():
    heads, targets = scene(2)
    forth, first = torch_loss(heads, targets)
    back, second = torch_loss(heads, targets[::-1].copy())
    assert float(forth.total) == pytest.approx(float(back.total), rel=1e-6)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_focal_counts_easy_cells_less():
    heads, targets = scene(4)
    plain, _ = torch_loss(heads, targets)
    focal, _ = torch_loss(heads, targets, focal=1.5)
    assert 0 < float(focal.obj) < float(plain.obj) / 2


@pytest.mark.parametrize("wrong", [{"box": -1}, {"anchor_t": 1.0}, {"label_smoothing": 1.0}, {"focal": float("nan")}])
def test_settings_out_of_range(wrong):
    with pytest.raises(DimensionError, match=next(iter(wrong))):
        LossSettings(**wrong)
