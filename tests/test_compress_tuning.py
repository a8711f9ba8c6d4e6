"""Training within a compression: what it is drawn towards, and that nothing listens on afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: compression is not tested")
pytest.importorskip("nncf", reason="nncf is not installed: compression is not tested")

from reference.squares import write_squares  # noqa: E402
from reference.tiny_network import tiny_network  # noqa: E402

from ovyolo.compress.tuning import Tuning, fresh, maps_of  # noqa: E402
from ovyolo.dataset import load_dataset  # noqa: E402
from ovyolo.train.augment import Augment  # noqa: E402
from ovyolo.train.data import TrainingPictures  # noqa: E402
from ovyolo.train.distill import feature_loss, head_loss, tapped  # noqa: E402
from ovyolo.train.settings import TrainSettings  # noqa: E402
from ovyolo.train.team import Team  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

FIGURES = {"ap": 1.0, "ap50": 1.0}


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    training = load_dataset(write_squares(tmp_path_factory.mktemp("squares")), "train")
    settings = TrainSettings(
        batch=4, imgsz=(64, 64), patience=0, anchors="keep", close_mosaic=0, precision="f32", workers=1
    )
    pictures = TrainingPictures(training, (64, 64), Augment(), 0)
    teacher = tiny_network(1).eval().requires_grad_(False)
    return Tuning(pictures, settings, teacher, 1.0, 0.0, Team(torch.device("cpu")), True)


def listeners(network: Any) -> int:
    return sum(len(part._forward_hooks) for part in network.modules())


def test_the_loss_is_labels_heads_and_maps(tuning: Tuning) -> None:
    student, x, targets = fresh(tiny_network(2)).train(), torch.rand(2, 3, 64, 64), torch.zeros(0, 6)
    teacher = tuning.teacher
    assert teacher is not None
    names = maps_of(student, teacher)
    with tapped(student, names) as seen, tapped(teacher, names) as told, torch.no_grad():
        heads, taught = student(x), teacher(x)
        maps, taught_maps = list(seen), list(told)

        def total(distill: float, features: float, weight: float = 1.0) -> float:
            loss = replace(tuning, distill=distill, features=features, labels=weight).loss(student, seen, told)
            return float(loss(heads, targets, x).total)

        labels = total(0.0, 0.0)
        drawn = 2 * float(head_loss(heads, taught, anchors=2, objectness=0.5))
        alike = 2 * float(feature_loss(maps, taught_maps))
        assert drawn > 0 and alike > 0
        assert total(1.0, 0.0) == pytest.approx(labels + drawn, rel=1e-5)
        assert total(0.5, 3.0) == pytest.approx(labels + 0.5 * drawn + 3 * alike, rel=1e-5)
        assert total(1.0, 1.0, weight=0.0) == pytest.approx(drawn + alike, rel=1e-5)


def test_maps_that_lost_channels_are_not_compared(tuning: Tuning) -> None:
    student, x, targets = fresh(tiny_network(2, width=16)).train(), torch.rand(2, 3, 64, 64), torch.zeros(0, 6)
    teacher = tuning.teacher
    assert teacher is not None
    names = maps_of(student, teacher)
    with tapped(student, names) as seen, tapped(teacher, names) as told, torch.no_grad():
        heads = student(x)
        totals = [
            float(replace(tuning, features=weight).loss(student, seen, told)(heads, targets, x).total)
            for weight in (0.0, 5.0)
        ]
    assert names and totals[0] == totals[1]


def test_maps_are_those_of_blocks_that_both_have() -> None:
    network = tiny_network()
    kinds = {name: type(network.get_submodule(name)).__name__ for name in maps_of(network, network)}
    assert set(kinds.values()) == {"C3", "Sppf"} and f"model.{len(network.model) - 1}" not in kinds
    gone = tiny_network()
    first = next(iter(kinds))
    gone.model[int(first.split(".")[1])] = torch.nn.Identity()
    assert maps_of(gone, network) == [name for name in kinds if name != first]


def test_maps_come_nearer_and_nothing_listens_on(tuning: Tuning, tmp_path: Path) -> None:
    teacher = tuning.teacher
    assert teacher is not None
    start = fresh(teacher)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def apart(network: Any) -> float:
        names = maps_of(network, teacher)
        with tapped(network, names) as seen, tapped(teacher, names) as told, torch.no_grad():
            network.eval()(x)
            teacher(x)
            return float(feature_loss(seen, told))

    drawn = replace(tuning, distill=0.0, features=20.0)
    student = fresh(start)
    trained, _ = drawn.run(student, tmp_path, title="t", epochs=20, lr=0.002, judge=lambda module: FIGURES)
    assert apart(trained) < 0.8 * apart(start)
    assert listeners(trained) == listeners(student) == listeners(teacher) == 0
