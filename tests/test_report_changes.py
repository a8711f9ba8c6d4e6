"""Objects lost and gained: what is counted is what is shown, and agrees with counting one model after the other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.judging import made_predictions, made_set, random_case

from ovyolo.evaluate.matching import match
from ovyolo.report.changes import compare_found


def on_disk(dataset, folder: Path):
    from dataclasses import replace

    path = folder / "picture.png"
    cv2.imwrite(str(path), np.full((400, 500, 3), 90, np.uint8))
    return replace(dataset, items=tuple(replace(item, path=path) for item in dataset.items))


def case(folder: Path):
    """Four objects and a crowd: kept, lost by its confidence, gained, missed."""
    places = [(0, 10, 10, 50, 50, 0), (1, 100, 10, 150, 50, 0), (1, 200, 10, 240, 50, 0), (2, 300, 10, 340, 50, 0)]
    dataset = made_set([[], [*places, (0, 10, 200, 90, 290, 1)]])
    kept, lost, gained = ((1, kind, *box) for kind, *box, _ in places[:3])
    false = (1, 2, 400, 300, 450, 350)
    before = made_predictions([(*kept, 0.9), (*lost, 0.5), (*false, 0.7)])
    after = made_predictions([(*kept, 0.8), (*lost, 0.2), (*gained, 0.25)])
    return on_disk(dataset, folder), before, after


def test_each_object_is_counted_once_and_shown(tmp_path):
    dataset, before, after = case(tmp_path)
    changes, pictures = compare_found(dataset, before, after)
    assert (changes.kept, changes.lost, changes.gained, changes.missed) == (1, 1, 1, 1)
    assert (changes.false_before, changes.false_after) == (1, 0)
    assert changes.classes == {"c0": (0, 0), "c1": (1, 1), "c2": (0, 0)}
    (picture,) = pictures  # the other one has nothing that changed
    assert [(mark.kind, mark.label, mark.x) for mark in picture.marks] == [
        ("kept", "c0 0.90 → 0.80", 10.0), ("gained", "c1 – → 0.25", 200.0), ("lost", "c1 0.50 → 0.20", 100.0),
    ]  # fmt: skip
    assert picture.labelled == 2 and picture.data.startswith("data:image/jpeg;base64,")


def test_confidence_and_overlap_are_those_asked_for(tmp_path):
    dataset, before, after = case(tmp_path)
    assert compare_found(dataset, before, after, conf=0.15)[0].lost == 0
    assert compare_found(dataset, before, after, conf=0.85)[0].lost == 1  # now the first one


def test_pictures_are_few_and_small(tmp_path):
    dataset, before, after = case(tmp_path)
    assert compare_found(dataset, before, after, most=0)[1] == []
    cv2.imwrite(str(tmp_path / "picture.png"), np.random.default_rng(0).integers(0, 256, (1600, 2000, 3), np.uint8))
    (picture,) = compare_found(dataset, before, after)[1]
    assert len(picture.data) < 600_000


@pytest.mark.parametrize("seed", range(8))
def test_sums_are_those_of_each_model_alone(tmp_path, seed):
    dataset, before = random_case(seed)
    keep = np.random.default_rng(seed).random(len(before)) < 0.6
    after = before.take(keep)
    changes, pictures = compare_found(on_disk(dataset, tmp_path), before, after, most=100)
    for predictions, found, false in (
        (before, changes.kept + changes.lost, changes.false_before),
        (after, changes.kept + changes.gained, changes.false_after),
    ):
        matches = match(dataset, predictions)
        sure = matches.score_of >= changes.conf
        assert found == int(sure.sum())
        assert false == int(((matches.found == -1) & (predictions.score >= changes.conf)).sum())
    assert changes.kept + changes.lost + changes.gained + changes.missed == int((~matches.object_crowd).sum())
    assert (
        sum(one.count("lost") for one in pictures) == changes.lost == sum(pair[0] for pair in changes.classes.values())
    )
    assert sum(one.count("gained") for one in pictures) == changes.gained


def test_the_same_twice_changes_nothing(tmp_path):
    dataset, predictions = random_case(3)
    changes, pictures = compare_found(on_disk(dataset, tmp_path), predictions, predictions)
    assert changes.lost == changes.gained == 0 and pictures == []
