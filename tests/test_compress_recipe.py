"""Recipes: what may be asked for, and how it is told."""

from __future__ import annotations

import json

import pytest

from ovyolo.compress.recipe import FAST, Recipe, changed, read_recipe
from ovyolo.errors import DataError, DimensionError


def test_the_defaults_hold_together():
    assert Recipe().prune_target() == ("speedup", 3.0)
    assert FAST.epochs < Recipe().epochs and FAST.prune_target() == ("speedup", 2.7)
    assert Recipe(quantize=False, prune_steps=1, recover_epochs=5, sparsity=0).epochs == 5
    assert Recipe(speedup=None, recover_epochs=1, qat_epochs=0).prune_target() is None


@pytest.mark.parametrize(("kind", "value"), [("macs", 0.5), ("params", 0.3), ("channels", 0.25)])
def test_another_target_takes_the_place_of_the_default(kind, value):
    assert changed(Recipe(), {kind: value}, "here").prune_target() == (kind, value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"speedup": 0.5}, "speedup"),
        ({"macs": 1.5}, "macs"),
        ({"macs": 0.5, "params": 0.5}, "one target"),
        ({"macs": 0.5, "speedup": 2.0}, "one target"),
        ({"criterion": "magic"}, "taylor"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"lr": 0.0}, "lr"),
        ({"qat_epochs": -1}, "qat_epochs"),
        ({"max_drop": 200}, "max_drop"),
        ({"size": 1.2}, "size"),
        ({"size": 0.2, "quantize": False}, "quantize"),
    ],
)
def test_what_is_out_of_range(wrong, said):
    with pytest.raises(DimensionError, match=said):
        changed(Recipe(), wrong, "here")


def test_recipes_from_files(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("macs: 0.4\nrecover_epochs: 7\nkeep_float: [model.24]\n")
    recipe = read_recipe(path)
    assert recipe.prune_target() == ("macs", 0.4) and recipe.recover_epochs == 7 and recipe.keep_float == ("model.24",)
    assert changed(Recipe(), json.loads(recipe.to_json()), "json") == recipe


def test_layers_that_stay_in_floating_point_are_named():
    assert Recipe().keep_float == ()
    for told, kept in (("none", ()), (None, ()), ("heads", ("heads",)), ("model.9,heads", ("model.9", "heads"))):
        assert changed(Recipe(), {"keep_float": told}, "here").keep_float == kept
    for wrong in (24, [24], {"model.24": True}):
        with pytest.raises(DataError, match="keep_float"):
            changed(Recipe(), {"keep_float": wrong}, "here")


@pytest.mark.parametrize("text", ["speedups: 3\n", "- a\n- b\n", "lr: {\n", "lr: fast\n"])
def test_files_that_are_no_recipe(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises((DataError, DimensionError), match=r"recipe\.yaml|lr"):
        read_recipe(path)
    with pytest.raises(DataError, match=r"missing\.yaml"):
        read_recipe(tmp_path / "missing.yaml")
