"""Anchors: planted ones are found again, fitting helps where it should, and can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo.dataset import DataSet, Item, load_dataset
from ovyolo.errors import DataError, DimensionError
from ovyolo.train.anchors import RATIO, check_anchors, fit_anchors, object_shapes

COCO = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def data_of(shapes: np.ndarray, size: tuple[int, int] = (640, 640), crowd: bool = False) -> DataSet:
    """A data set with objects of these widths and heights, ten a picture."""
    items = []
    for begin in range(0, len(shapes), 10):
        part = np.asarray(shapes[begin : begin + 10], np.float64)
        boxes = np.concatenate([np.zeros_like(part), part], axis=1)
        n = len(part)
        items.append(
            Item(Path(f"{begin}.png"), begin, size, boxes, np.zeros(n, np.int32), np.full(n, crowd), part.prod(axis=1))
        )
    return DataSet(("a",), tuple(items), Path("data.yaml"), "train", (0,))


def around(rng: np.random.Generator, centres: Any, count: int, spread: float = 0.05) -> np.ndarray:
    """Shapes scattered around others, by ratios."""
    chosen = np.asarray(centres, float).reshape(-1, 2)[rng.integers(0, len(centres), count)]
    shapes: np.ndarray = chosen * np.exp(rng.normal(0, spread, chosen.shape))
    return shapes


def by_definition(shapes: np.ndarray, anchors: Any) -> tuple[float, float, float]:
    """Recall, anchors an object and mean best ratio, one object and one anchor at a time."""
    reached, matches, best = 0, 0, 0.0
    for w, h in shapes:
        worst = [max(w / aw, aw / w, h / ah, ah / h) for level in anchors for aw, ah in level]
        matches += sum(ratio < RATIO for ratio in worst)
        reached += min(worst) < RATIO
        best += 1 / min(worst)
    return reached / len(shapes), matches / len(shapes), best / len(shapes)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_report_is_the_matching_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = np.exp(rng.uniform(0, 6.4, (int(rng.integers(1, 40)), 2)))
    report = check_anchors(data_of(shapes), COCO, 640)
    recall, per_object, ratio = by_definition(shapes, COCO)
    assert report.objects == len(shapes) and report.tiny == (shapes.min(axis=1) < 2).sum()
    assert (report.recall, report.per_object, report.mean_ratio) == pytest.approx((recall, per_object, ratio))
    assert 0 <= report.fitness <= report.mean_ratio <= 1


def test_shapes_are_those_of_the_letterboxed_picture() -> None:
    data = data_of(np.array([[100.0, 40.0]]), size=(720, 1280))
    np.testing.assert_allclose(object_shapes(data, 640), [[50, 20]])
    np.testing.assert_allclose(object_shapes(data, (180, 640)), [[25, 10]])
    assert len(object_shapes(data_of(np.ones((5, 2)), crowd=True), 640)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_planted_anchors_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    planted = np.array([[6, 9], [14, 8], [12, 24], [40, 20], [36, 70], [80, 64], [70, 180], [200, 120], [320, 400.0]])
    fitted = fit_anchors(data_of(around(rng, planted, 900)), 640, seed=seed)
    assert [len(level) for level in fitted] == [3, 3, 3]
    np.testing.assert_allclose(np.array(fitted).reshape(-1, 2), planted[np.argsort(planted.prod(1))], rtol=0.06)


def test_fitting_helps_where_shapes_are_unusual() -> None:
    rng = np.random.default_rng(1)
    flat = around(rng, [[200, 6], [300, 10], [90, 4], [400, 16]], 400, 0.3)
    data = data_of(flat)
    before, after = check_anchors(data, COCO, 640), check_anchors(data, fit_anchors(data, 640), 640)
    assert before.recall < 0.5 and after.recall > 0.98 and after.mean_ratio > before.mean_ratio + 0.3
    assert after.fitness > before.fitness


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_never_less_fit_than_what_was_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = data_of(around(rng, np.array(COCO).reshape(-1, 2), int(rng.integers(1, 60)), rng.uniform(0, 0.6)))
    fitted = fit_anchors(data, 640, start=COCO, seed=seed % 100, generations=20)
    assert check_anchors(data, fitted, 640).fitness >= check_anchors(data, COCO, 640).fitness - 1e-12


def test_what_fits_already_stays_as_it_is() -> None:
    best = np.array(COCO, float) + 0.037
    data = data_of(best.reshape(-1, 2).repeat(5, axis=0))
    np.testing.assert_array_equal(fit_anchors(data, 640, start=best, generations=20), best)


def test_refinement_helps_and_all_is_repeatable() -> None:
    data = data_of(np.exp(np.random.default_rng(2).normal(3.5, 0.8, (500, 2))))
    rough, fine = fit_anchors(data, 640, generations=0), fit_anchors(data, 640, generations=500)
    assert check_anchors(data, fine, 640).fitness > check_anchors(data, rough, 640).fitness
    assert fine == fit_anchors(data, 640, generations=500)
    assert fine != fit_anchors(data, 640, generations=500, seed=1)


@pytest.mark.parametrize("shapes", [[[30.0, 30.0]], [[30.0, 30.0]] * 50, [[1.0, 1.0]] * 3, [[600, 2], [2, 600.0]]])
def test_hardly_anything_to_fit_to(shapes: list[list[float]]) -> None:
    data = data_of(np.array(shapes))
    fitted = fit_anchors(data, 640, levels=4, per_level=2, generations=50)
    assert np.array(fitted).shape == (4, 2, 2) and np.isfinite(fitted).all() and np.min(fitted) > 0
    areas = np.array(fitted).prod(axis=2).ravel()
    assert (np.diff(areas) >= 0).all()
    assert check_anchors(data, fitted, 640).recall == 1


def test_bad_input() -> None:
    data = data_of(np.full((5, 2), 30.0))
    with pytest.raises(DataError, match=r"data\.yaml \(train\) has no objects"):
        check_anchors(data_of(np.empty((0, 2))), COCO, 640)
    with pytest.raises(DataError, match="has no objects"):
        fit_anchors(data_of(np.ones((5, 2)), crowd=True), 640)
    for anchors in ([[(1, 2), (3,)]], [[(0, 5)]], [[(1, float("nan"))]], "anchors", [[(1, 2, 3)]], [], 7):
        with pytest.raises(DimensionError, match="anchors"):
            check_anchors(data, anchors, 640)  # type: ignore[arg-type]
    for wrong in ({"levels": 0}, {"per_level": 0}, {"generations": -1}, {"start": COCO[:2]}):
        with pytest.raises(DimensionError, match="anchors"):
            fit_anchors(data, 640, **wrong)


def test_real_boards(shared: Path) -> None:
    data = load_dataset(shared / "deeppcb" / "data.yaml", "val").checked()
    before = check_anchors(data, COCO, 640)
    after = check_anchors(data, fit_anchors(data, 640, start=COCO, generations=200), 640)
    assert after.recall >= before.recall and after.mean_ratio > before.mean_ratio
