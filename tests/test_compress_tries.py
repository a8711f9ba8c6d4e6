"""What is tried when more was lost than is allowed: in which order, how often, and what is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="torch is not installed: compression is not tested")
pytest.importorskip("nncf", reason="nncf is not installed: compression is not tested")

from ovyolo.compress.recipe import Recipe
from ovyolo.compress.tries import MOST_TRIES, search, table_of, tries_of
from ovyolo.errors import TargetError


class Run:
    """As much of a compression as the search sees; what a recipe loses is looked up."""

    planned_speedup = 3.31

    def __init__(self, recipe, lost, recovers=True, log=None, levels=False):
        self.recipe, self.lost, self.recovers, self.levels = recipe, lost, recovers, levels
        self.log = [] if log is None else log

    def again(self, name, recipe, shared):
        self.log.append((name, shared))
        return Run(recipe, self.lost, self.recovers, self.log, self.levels)

    def say(self, text):
        self.log.append(text)

    def run(self):
        drop = self.lost[self.recipe.sparsity, self.recipe.recover_epochs]
        names = [
            "original",
            "trained on",
            *(["coarse maps"] if self.levels else []),
            *(["recovered"] if self.recovers else []),
            "INT8 trained",
        ]
        measured = {name: {"ap": 60.0} for name in names} | {"INT8 trained": {"ap": 60.0 - drop}}
        return SimpleNamespace(networks=dict.fromkeys(names), measured=measured)


def run_of(*drops, **more):
    recipe = Recipe(speedup=3.3, sparsity=0.6, recover_epochs=9, max_drop=1.0)
    lost = dict(zip(((0.6, 9), (0.0, 9), (0.0, 18)), drops, strict=False))
    return Run(recipe, lost, **more)


def test_what_fits_at_once_is_taken():
    found = search(run_of(0.8))
    assert [one["name"] for one in found.tried] == ["as asked"] and not found.run.log


def test_the_first_that_fits_is_taken():
    first = run_of(2.0, 0.9)
    found = search(first)
    assert found.run.recipe.sparsity == 0 and found.run.recipe.recover_epochs == 9
    assert [one["drop"] for one in found.tried] == [2.0, 0.9]
    assert first.log[0] == ("try-2", ("original", "trained on", "levels", "activation", "coarse maps", "pruned"))


def test_all_keep_to_what_was_asked_for_but_zeros_and_epochs():
    tries = tries_of(Recipe(speedup=2.7, sparsity=0.6, recover_epochs=9, qat_epochs=5))
    assert len(tries) == MOST_TRIES
    assert {recipe.prune_target() for _, recipe, _ in tries} == {("speedup", 2.7)}
    assert {recipe.qat_epochs for _, recipe, _ in tries} == {5}
    assert "recovered" not in tries[-1][2]
    plain = Recipe(sparsity=0, recover_epochs=4)
    assert [name for name, _, _ in tries_of(plain, cut=False)] == ["as asked", "recovering 8 epochs"]
    assert [name for name, _, _ in tries_of(plain)] == ["as asked", "coarse maps stay", "recovering 8 epochs"]
    assert [recipe.levels for _, recipe, _ in tries_of(plain)] == ["auto", "heads", "heads"]
    assert len(tries_of(Recipe(sparsity=0, recover_epochs=0), cut=False)) == 1


def test_coarse_maps_that_were_cut_come_back():
    first = run_of(2.0, 0.9, levels=True)
    found = search(first)
    assert found.run.recipe.levels == "heads" and found.run.recipe.sparsity == 0
    assert first.log[0] == ("try-2", ("original", "trained on", "levels", "activation"))


def test_when_none_fits_it_says_how_near_it_came():
    first = run_of(2.0, 1.75, 1.25)
    with pytest.raises(TargetError) as raised:
        search(first)
    said = str(raised.value)
    assert "max_drop 1 was found at 3.3 times the speed" in said and "allow 1.25" in said
    for part in ("2.00 points (as asked)", "1.75 points (no zeros)", "1.25 points (recovering 18 epochs)"):
        assert part in said
    assert [line for line in first.log if isinstance(line, str) and "3.31x" in line]


def test_what_had_nothing_to_recover_is_not_recovered_longer():
    with pytest.raises(TargetError) as raised:
        search(run_of(2.0, 1.75, recovers=False))
    assert "recovering" not in str(raised.value)


def test_without_max_drop_nothing_is_searched():
    run = run_of(30.0)
    run.recipe = Recipe(sparsity=0.6, recover_epochs=9)
    assert len(search(run).tried) == 1


def test_tries_as_a_table():
    lines = table_of([{"name": "as asked", "ap": 61.5, "drop": 2.0, "speedup": None}])
    assert lines[1].split() == ["as", "asked", "61.50", "2.00", "–"]
