"""Distillation losses against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.tiny_network import tiny_network  # noqa: E402

from ovyolo.errors import DimensionError  # noqa: E402
from ovyolo.train.distill import feature_loss, head_loss, tapped  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def heads(seed: int, sizes: tuple[int, ...] = (4, 2)) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 21, size, size, generator=generator, dtype=torch.float64) for size in sizes]


def plain(student: list, teacher: list, levels: list[float], share: float) -> float:
    """The same from its definition, cell by cell."""
    total = 0.0
    for ours, theirs, weight in zip(student, teacher, levels, strict=True):
        a = ours.numpy().reshape(2, 3, 7, *ours.shape[2:])
        b = theirs.numpy().reshape(2, 3, 7, *ours.shape[2:])
        near = sure = told = 0.0
        for place in np.ndindex(2, 3, *ours.shape[2:]):
            n, anchor, y, x = place
            squares = (a[n, anchor, :, y, x] - b[n, anchor, :, y, x]) ** 2
            s = 1 / (1 + np.exp(-b[n, anchor, 4, y, x]))
            near, sure, told = near + s * squares.mean(), sure + s, told + squares[4]
        cells = 6 * ours.shape[2] * ours.shape[3]
        alike = ((a - b) ** 2).mean()
        total += weight * ((1 - share) * alike + share * 0.5 * (near / sure + told / cells))
    return total / sum(levels)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("levels", [None, [4.0, 1.0]])
def test_head_loss_is_what_it_says(share: float, levels: list[float] | None) -> None:
    student, teacher = heads(0), heads(1)
    found = float(head_loss(student, teacher, levels=levels, objectness=share))
    assert found == pytest.approx(plain(student, teacher, levels or [1, 1], share), rel=1e-5)


def test_only_the_student_learns() -> None:
    student, teacher = ([one.requires_grad_() for one in heads(seed)] for seed in (0, 1))
    head_loss(student, teacher, objectness=0.5).backward()
    assert all(one.grad is not None for one in student) and all(one.grad is None for one in teacher)
    assert float(head_loss(student, student).detach()) == 0


def test_half_precision_heads_are_compared_in_single() -> None:
    student, teacher = ([one.half() * 200 for one in heads(seed)] for seed in (0, 1))
    assert np.isfinite(float(head_loss(student, teacher)))


@pytest.mark.parametrize(
    "arguments", [{"anchors": 4}, {"levels": [1.0]}, {"levels": [0.0, 0.0]}, {"levels": [1.0, -1.0]}, {"objectness": 2}]
)
def test_head_loss_refuses_what_does_not_fit(arguments: dict) -> None:
    with pytest.raises(DimensionError):
        head_loss(heads(0), heads(1), **arguments)
    with pytest.raises(DimensionError):
        head_loss(heads(0), heads(1)[::-1])


def test_features_of_other_widths_are_compared_by_place() -> None:
    maps = torch.rand(1, 8, 5, 5)
    assert float(feature_loss([maps], [maps])) == 0
    assert float(feature_loss([maps[:, :4].repeat(1, 4, 1, 1)], [maps[:, :4]])) == pytest.approx(0, abs=1e-10)
    assert float(feature_loss([maps[:, :3].flip(3)], [maps])) > 0.001
    with pytest.raises(DimensionError):
        feature_loss([maps[..., :4]], [maps])
    with pytest.raises(DimensionError):
        feature_loss([], [])


def test_taps_are_filled_by_each_pass_and_gone_after() -> None:
    network = tiny_network()
    with tapped(network, ["model.8", "model.2.cv1"]) as maps:
        network(torch.rand(1, 3, 64, 64))
        assert [tuple(one.shape) for one in maps] == [(1, 16, 8, 8), (1, 8, 16, 16)]
        first = maps[0]
        network(torch.rand(2, 3, 64, 64))
        assert maps[0].shape[0] == 2
    network(torch.rand(3, 3, 64, 64))
    assert maps[0].shape[0] == 2 and first.requires_grad
    with pytest.raises(DimensionError, match=r"model\.99"), tapped(network, ["model.99"]):
        pass
