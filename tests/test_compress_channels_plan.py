"""Criteria, plans and targets: which channels go, and how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: channels are pruned with it")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_compress_channels import SIZE, _one_thread, generation  # noqa: E402, F401

from ovyolo.compress.channels import (  # noqa: E402
    CRITERIA,
    Plan,
    Target,
    amounts_of,
    apply_plan,
    channel_scores,
    costs_of,
    find_groups,
    plan_pruning,
    schedule,
)  # fmt: skip
from ovyolo.errors import DimensionError, TargetError  # noqa: E402
from ovyolo.train.network import Network, load_network  # noqa: E402

L1: dict[str, Any] = {"criterion": "l1", "protect": 0, "round_to": 2}


@pytest.fixture
def dense(tmp_path: Path) -> Network:
    return generation("v7-p5", tmp_path)


def batches(count: int = 3) -> list[Any]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(2, 3, *SIZE, generator=generator) for _ in range(count)]


def loss_of(network: Network, batch: Any) -> Any:
    """Some number that every channel has a part in."""
    return sum((head.square().mean() + head[:, ::2].mean()) for head in network(batch))


@pytest.mark.parametrize("ranking", ["global", "uniform"])
@pytest.mark.parametrize("kind", ["channels", "macs", "params"])
def test_targets_are_reached(kind: str, ranking: str, dense: Network) -> None:
    target = Target(**{kind: 0.4})
    plan = plan_pruning(dense, target, SIZE, ranking=ranking, **L1)
    small = apply_plan(dense, plan)
    before, after = (getattr(costs_of(network, SIZE), kind) for network in (dense, small))
    assert plan.reached == pytest.approx(1 - after / before, abs=1e-6)
    # one block of the largest layer is a few hundredths of these small networks
    assert 0.4 <= plan.reached < (0.48 if ranking == "global" else 0.6)
    assert plan.target == {kind: 0.4}
    assert amounts_of(small, SIZE).to_dict() == plan.after


def test_channels_are_rounded(dense: Network, shared: Path) -> None:
    nano = load_network(shared / "weights" / "yolov5n.pt")
    for round_to in (8, 16):
        plan = plan_pruning(nano, Target(macs=0.5), (64, 64), criterion="l1", round_to=round_to)
        assert plan.keep and all(after % round_to == 0 for _, after in plan.counts().values())
        assert 0.5 <= plan.reached < 0.53
        assert not {"model.0", "model.1", "model.2.cv3"} & plan.keep.keys()
        assert plan.kept["model.0"] == "model.0 is protected"


def test_depthwise_widths_are_rounded_together(shared: Path) -> None:
    network = load_network(shared / "weights" / "experimental-c3x-dwconv.pt")
    plan = plan_pruning(network, Target(macs=0.6), (64, 64), criterion="l1", round_to=8)
    small = apply_plan(network, plan)
    convolution = small.get_submodule("model.7.conv")
    assert convolution.groups * 2 == convolution.out_channels < 256
    assert convolution.out_channels % 8 == 0


def test_the_least_worth_go_first(dense: Network) -> None:
    groups = find_groups(dense, protect=0)
    scores = channel_scores(dense, groups, "l1")
    plan = plan_pruning(dense, Target(macs=0.3), SIZE, scores=scores, protect=0, round_to=2)
    for name, kept in plan.keep.items():
        gone = sorted(set(range(plan.sizes[name])) - set(kept))
        assert scores[name][gone].max() <= scores[name][kept].min()


def test_cost_decides_between_equals(dense: Network) -> None:
    groups = find_groups(dense, protect=0)
    scores = {name: torch.ones(group.size, dtype=torch.float64) for name, group in groups.groups.items()}
    options: dict[str, Any] = {"scores": scores, "protect": 0, "round_to": 2}
    by_macs = plan_pruning(dense, Target(channels=0.2), SIZE, weigh="macs", **options)
    by_params = plan_pruning(dense, Target(channels=0.2), SIZE, weigh="params", **options)
    assert by_macs.after["macs"] < by_params.after["macs"]
    assert by_params.after["params"] < by_macs.after["params"]


@pytest.mark.parametrize("generation_name", ["v7-p5", "v3-csp-hardswish"])
def test_criteria_differ(generation_name: str, tmp_path: Path) -> None:
    network = generation(generation_name, tmp_path)
    plans = {
        criterion: plan_pruning(
            network, Target(macs=0.3), SIZE, **{**L1, "criterion": criterion}, batches=batches(), loss_of=loss_of
        )
        for criterion in CRITERIA
    }
    assert {plan.criterion for plan in plans.values()} == set(CRITERIA)
    assert len({json.dumps(plan.keep) for plan in plans.values()}) == len(CRITERIA)


def test_norms_are_what_they_are_called(dense: Network) -> None:
    groups = find_groups(dense, protect=0)
    weight = dense.get_submodule("model.3.conv").weight.detach().double().flatten(1)
    for criterion, expected in (
        ("l1", weight.abs().sum(1)),
        ("l2", weight.square().sum(1).sqrt()),
        ("bn", dense.get_submodule("model.3.bn").weight.detach().double().abs()),
    ):
        score = channel_scores(dense, groups, criterion)["model.3"]
        torch.testing.assert_close(score, expected / expected.mean())


def test_taylor_is_the_slope_of_the_loss(dense: Network) -> None:
    """Fading a channel a little changes the loss by the score times how much it faded."""
    dense.double()
    groups = find_groups(dense, protect=0)
    batch = batches(1)[0].double()
    scores = channel_scores(dense, groups, "taylor", batches=[batch], loss_of=loss_of)
    fade = 1e-4
    for name in ("model.0", "model.2.cv1", "model.4.cv3", "model.7.cv1"):
        group = groups.groups[name]
        for unit in (0, group.size - 1):
            losses = []
            for sign in (1, -1):
                saved = {}
                with torch.no_grad():
                    for (where, kind), units in group.members.items():
                        if kind == "in":
                            weight = groups.convolutions[where].weight
                            saved[weight] = weight.clone()
                            weight[:, units[unit]] *= 1 + sign * fade
                    losses.append(float(loss_of(dense, batch)))
                    for weight, before in saved.items():
                        weight.copy_(before)
            slope = abs(losses[0] - losses[1]) / (2 * fade)
            assert float(scores[name][unit]) == pytest.approx(slope, rel=1e-3, abs=1e-9)


def test_taylor_leaves_no_trace(dense: Network) -> None:
    dense.train()
    for parameter in dense.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    seen: list[int] = []
    groups = find_groups(dense)
    channel_scores(dense, groups, "taylor", batches=iter(batches(2)), loss_of=loss_of, tell=seen.append)
    assert seen == [1, 2]
    assert dense.training
    assert all(p.grad is None and not p.requires_grad for p in dense.parameters())
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_limits_hold(dense: Network) -> None:
    limits = {"model.3": 0.0, "model.5": 0.25}
    plan = plan_pruning(dense, Target(macs=0.4), SIZE, limits=limits, **L1)
    assert "model.3" not in plan.keep
    assert plan.counts().get("model.5", (16, 16))[1] >= 12
    even = plan_pruning(dense, Target(macs=0.1), SIZE, limits=0.5, **L1)
    assert all(after >= before / 2 for before, after in even.counts().values())


@pytest.mark.parametrize("ranking", ["global", "uniform"])
def test_what_cannot_be_reached_says_how_near_it_came(ranking: str, dense: Network) -> None:
    options = {**L1, "round_to": 8, "limits": 0.5, "ranking": ranking}
    with pytest.raises(TargetError, match=r"95 % fewer macs cannot be reached: \d+\.\d % is the most that") as info:
        plan_pruning(dense, Target(macs=0.95), SIZE, **options)
    most = float(str(info.value).split("reached: ")[1].split(" %")[0]) / 100
    assert plan_pruning(dense, Target(macs=most - 0.01), SIZE, **options).reached == pytest.approx(most, abs=0.011)


def test_steps_lead_to_the_same_target(dense: Network) -> None:
    before, network = amounts_of(dense, SIZE), dense
    reached = []
    for target in schedule(Target(macs=0.6), 3):
        plan = plan_pruning(network, target, SIZE, before=before, **L1)
        network = apply_plan(network, plan)
        reached.append(plan.reached)
    assert reached == sorted(reached)
    assert 1 - costs_of(network, SIZE).macs / before.macs == pytest.approx(reached[-1], abs=1e-6)
    assert 0.6 <= reached[-1] < 0.67


@given(st.sampled_from(["channels", "macs", "params"]), st.floats(0.01, 0.99), st.integers(1, 9))
def test_schedules_rise_to_their_end(kind: str, value: float, steps: int) -> None:
    targets = list(schedule(Target(**{kind: value}), steps))
    values = [target.value for target in targets]
    assert len(values) == steps and values == sorted(values) and targets[-1] == Target(**{kind: value})


def test_plans_are_data(dense: Network) -> None:
    plan = plan_pruning(dense, Target(macs=0.3), SIZE, **L1)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    one, other = (apply_plan(dense, each).state_dict() for each in (plan, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads(plan.to_json())["keep"] == plan.keep


STORED = {"keep": {"a": [0, 2]}, "sizes": {"a": 4}, "kept": {}, "target": {"macs": 0.3}, "reached": 0.3,
          "criterion": "l1", "before": {"macs": 1}, "after": {"macs": 0.7}}  # fmt: skip


@settings(max_examples=200)
@given(st.sampled_from(["", *STORED]), st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
))  # fmt: skip
def test_damaged_plans_are_refused(key: str, value: Any) -> None:
    text = json.dumps({**STORED, key: value} if key else value)
    try:
        plan = Plan.from_json(text)
    except DimensionError as error:
        assert "make it again" in str(error)
    else:
        for name, units in plan.keep.items():
            assert units == sorted(set(units)) and units[0] >= 0 and units[-1] < plan.sizes[name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keep": {"a": [0]}}', "[" * 5000])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(DimensionError, match="no stored plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "one of channels, macs, params or speedup; none is given"),
        ({"macs": 0.5, "params": 0.5}, "macs, params is given"),
        ({"macs": 0.0}, "macs is 0; it takes a number above 0 and below 1"),
        ({"channels": 1.0}, "channels is 1"),
        ({"params": float("nan")}, "params is nan"),
        ({"speedup": 1.0}, "speedup is 1; it takes a number above 1"),
        ({"speedup": float("inf")}, "speedup is inf"),
    ],
)
def test_targets_are_checked(given_: dict[str, float], message: str) -> None:
    with pytest.raises(DimensionError, match=message):
        Target(**given_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "luck"}, "criterion is 'luck'; it takes one of l1, l2, bn, taylor"),
        ({"criterion": "taylor"}, "give loss_of and batches"),
        ({"criterion": "taylor", "loss_of": loss_of}, "batches is empty"),
        ({"criterion": "taylor", "loss_of": lambda n, b: torch.tensor(float("nan")), "batches": [0]}, r"gave \[nan\]"),
        ({"criterion": "taylor", "loss_of": lambda n, b: n(b)[0], "batches": batches(1)}, "one finite number"),
        ({"round_to": 0}, "round_to is 0"),
        ({"ranking": "best"}, "ranking is 'best'"),
        ({"weigh": "ms"}, "weigh is 'ms'"),
        ({"weigh": "size"}, "weigh is 'size'"),
        ({"limits": 1.5}, "limit of .* is 1.5"),
        ({"limits": {"model.77": 0.5}}, r"limits name the group 'model\.77'"),
        ({"imgsz": (60, 64)}, "imgsz 60,64 is not a multiple"),
        ({"target": Target(speedup=2)}, "speedup needs a profile"),
        ({"scores": {}}, "scores lack the group"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str, dense: Network) -> None:
    settings_: dict[str, Any] = {"target": Target(macs=0.3), "imgsz": SIZE, "criterion": "l1", **options}
    with pytest.raises(DimensionError, match=message):
        plan_pruning(dense, settings_.pop("target"), settings_.pop("imgsz"), **settings_)
