"""``ovyolo compress`` from end to end, on squares: what comes out is what the report says."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: compression is not tested")
pytest.importorskip("nncf", reason="nncf is not installed: compression is not tested")

from reference.squares import write_squares  # noqa: E402
from reference.tiny_network import tiny_network  # noqa: E402

import ovyolo.compress.forms  # noqa: E402
import ovyolo.compress.pipeline  # noqa: E402
import ovyolo.compress.tuning  # noqa: E402
from ovyolo import Detector  # noqa: E402
from ovyolo.cli import main  # noqa: E402
from ovyolo.compress.qat.sparsify import is_sparse  # noqa: E402
from ovyolo.compress.qat.state import load_trained  # noqa: E402
from ovyolo.core import shared_core  # noqa: E402
from ovyolo.runtime import read_model  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402
from ovyolo.train.network import save_network  # noqa: E402

pytestmark = pytest.mark.slow  # whole compressions

OPTIONS = [
    "--imgsz", "64", "--batch", "8", "--precision", "f32", "--device", "cpu", "--macs", "0.2", "--prune-steps", "2",
    "--recover-epochs", "2", "--qat-epochs", "1", "--sparsity", "0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("compress")
    data = write_squares(folder / "squares", train=16, val=6)
    return save_network(dense(), folder / "best.pt"), data


def dense():
    """A network of fewer layers than any that is used, but of every kind: each conversion takes a third of the time."""
    return tiny_network(2, width=64, names=("bright", "dark"))


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    checkpoint, data = inputs
    output = tmp_path_factory.mktemp("out") / "small.xml"
    recipe = output.with_name("recipe.yaml")
    recipe.write_text("prune_epochs: 1\nsize: 0.13\n")
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), "--recipe", str(recipe), *OPTIONS]
    assert main(words) == 0
    return output, words, json.loads(output.with_suffix(".compress.json").read_text())


def test_every_step_is_measured(done):
    _, _, report = done
    names = [step["name"] for step in report["steps"]]
    assert names == ["original", "trained on", "activation", "pruned", "sparse", "INT8", "wider steps", "INT8 trained"]
    first, last = report["steps"][0], report["steps"][-1]
    assert report["steps"][2]["params"] == first["params"]
    assert last["macs"] <= 0.82 * first["macs"] and last["params"] < first["params"]
    assert 0 < last["bytes"] < 0.5 * first["bytes"] and last["zipped"] <= 0.13 * first["zipped"]
    assert last["precisions"].keys() <= {"u8", "i8"} and set(first["precisions"]) == {"f32"}
    check = report["check"]
    assert check["executed_error"] < max(0.02, 2.5 * check["rounding_noise"])
    assert check["lost_zeros"] == [] and check["overflowing"] == []
    assert check["layers"] == 18 and check["in_8_bits"] == 18 and check["zeros"] >= 0.25


def test_channels_and_zeros_are_really_gone(done):
    import openvino as ov

    output, _, report = done
    model, card = read_model(output, shared_core())
    assert card.precision == "INT8" and card.made["compressed"]["drop"] == report["drop"]
    weights = [
        node.get_data() for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.i8
    ]  # fmt: skip
    assert len(weights) == 18
    whole = sum(p.numel() for p in dense().parameters() if p.ndim == 4)
    assert sum(w.size for w in weights) < 0.65 * whole
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    assert zeros >= report["steps"][-1]["zeros"] - 0.005 >= 0.25


def test_the_result_detects_and_its_checkpoint_goes_on(done):
    output, _, _ = done
    assert Detector(output)(np.zeros((40, 50, 3), np.uint8)).xyxy.shape[1] == 4
    network, _ = load_trained(output.with_suffix(".pt"))
    assert network.names == ("bright", "dark")
    page = output.with_suffix(".compress.html").read_text()
    assert (
        "INT8 trained" in page
        and "Objects lost and gained" in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )


def test_steps_that_are_done_are_not_done_again(done, capsys, monkeypatch):
    output, words, before = done

    def fail(*_args, **_kwargs):
        raise AssertionError("a finished step was done again")

    for name in ("_sparsify", "_quantize", "_train_quantized", "_baseline"):
        monkeypatch.setattr(ovyolo.compress.pipeline.Compression, name, fail)
    for name in ("with_cheaper_activations", "prune_channels", "with_wider_steps"):
        monkeypatch.setattr(ovyolo.compress.pipeline, name, fail)
    converted = []
    really = ovyolo.compress.forms.trained_ir
    monkeypatch.setattr(ovyolo.compress.forms, "trained_ir", lambda *args: converted.append(1) or really(*args))
    output.unlink()
    output.with_name("small-steps").joinpath("steps", "INT8.bin").unlink()
    assert main(words) == 0
    # what is gone; the last, for the objects that it finds; and what is written
    assert len(converted) == 3
    assert capsys.readouterr().err.count("done before") == 7
    after = json.loads(output.with_suffix(".compress.json").read_text())
    assert [step["ap"] for step in after["steps"]] == [step["ap"] for step in before["steps"]]


def test_a_budget_that_is_not_met_writes_nothing(inputs, tmp_path, capsys):
    checkpoint, data = inputs
    output = tmp_path / "none.xml"
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS[:12], "--no-quantize"]
    words += ["--recover-epochs", "0", "--no-baseline", "--max-drop", "0", "--sparsity", "0", "--activation", "keep"]

    whole = sum(one.numel() for one in dense().parameters())

    def worse(self, network, found):
        ap = 40.0 if sum(one.numel() for one in network.parameters()) < whole else 50.0
        return {**dict.fromkeys(("ap50", "ap75", "ap_small"), 1.0), "ap": ap, "classes": {}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ovyolo.compress.forms.StepValidation, "figures", worse)
        assert main(words) == 2
    assert "10.00 points" in capsys.readouterr().err and not output.exists()


def test_what_training_only_harms_stays_as_it_was(inputs, tmp_path, capsys, monkeypatch):
    checkpoint, data = inputs
    output = tmp_path / "small.xml"
    falling = iter(range(90, 0, -1))
    really = ovyolo.compress.forms.StepValidation.figures

    def ever_worse(self, network, found):
        ap = float(next(falling))
        return {**really(self, network, found), "ap": ap, "ap50": ap}

    monkeypatch.setattr(ovyolo.compress.forms.StepValidation, "figures", ever_worse)
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS[:10], "--no-baseline"]
    words += ["--recover-epochs", "1", "--qat-epochs", "1", "--activation", "keep", "--levels", "keep"]
    assert main([*words, "--prune-steps", "1"]) == 0
    assert capsys.readouterr().err.count("stays as it was") == 2
    steps = output.with_name("small-steps")
    for untrained, trained in (("pruned", "recovered"), ("INT8", "INT8-trained")):
        before, after = (load_trained(steps / f"{name}.pt")[0].state_dict() for name in (untrained, trained))
        assert before.keys() == after.keys() and all(torch.equal(value, after[key]) for key, value in before.items())


def test_what_loses_too_much_is_tried_again_more_mildly(inputs, tmp_path, capsys, monkeypatch):
    checkpoint, data = inputs
    output = tmp_path / "mild.xml"
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS, "--no-quantize"]
    words += ["--no-baseline", "--prune-steps", "1"]
    whole = sum(one.numel() for one in dense().parameters())

    def scores(self, network, found):
        params = sum(one.numel() for one in network.parameters())
        ap = 40.0 if is_sparse(network) else 48.0 if params < whole else 50.0
        return {**dict.fromkeys(("ap50", "ap75", "ap_small", "ap_medium", "ap_large"), 1.0), "ap": ap, "classes": {}}

    def fail(*_args, **_kwargs):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(ovyolo.compress.forms.StepValidation, "figures", scores)
    assert main([*words, "--max-drop", "1"]) == 2
    said = capsys.readouterr().err
    assert "10.00 points (as asked), 2.00 points (no zeros), 2.00 points (recovering 4 epochs)" in said
    assert "tried" in said and not output.exists()
    work = output.with_name("mild-steps")
    assert (work / "try-3" / "recovered.pt").is_file() and (work / "try-2" / "recovered.pt").is_file()
    assert not (work / "try-3" / "pruned.pt").exists() and not (work / "try-2" / "pruned.pt").exists()
    monkeypatch.setattr(ovyolo.compress.tuning.Tuning, "run", fail)
    assert main([*words, "--max-drop", "5"]) == 0
    report = json.loads(output.with_suffix(".compress.json").read_text())
    assert [one["name"] for one in report["tries"]] == ["as asked", "no zeros"] and report["drop"] == 2.0
    assert report["recipe"]["sparsity"] == 0 and report["steps"][-1]["name"] == "recovered"
    assert "no zeros" in capsys.readouterr().out and "no zeros" in output.with_suffix(".compress.html").read_text()
    same = (
        torch.load(output.with_suffix(".pt"), weights_only=True),
        torch.load(work / "try-2" / "recovered.pt", weights_only=True),
    )
    assert str(same[0]) == str(same[1])


def test_a_speed_that_cannot_be_had(inputs, tmp_path, capsys):
    checkpoint, data = inputs
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(tmp_path / "x.xml"), *OPTIONS[:8]]
    assert (
        main([*words, "--speedup", "50", "--no-quantize", "--no-baseline", "--criterion", "l1", "--sparsity", "0"]) == 2
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be reached" in said and "times" in said and not (tmp_path / "x.xml").exists()


def test_a_size_that_cannot_be_had(inputs, tmp_path, capsys):
    checkpoint, data = inputs
    output = tmp_path / "x.xml"
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS[:6], "--no-baseline"]
    words += ["--channels", "0.1", "--recover-epochs", "0", "--ptq-only", "--activation", "keep", "--size", "0.02"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "with the widest steps" in error and "Traceback" not in error and not output.exists()


def test_several_processes_are_refused(inputs, tmp_path, capsys, monkeypatch):
    checkpoint, data = inputs
    monkeypatch.setenv("WORLD_SIZE", "2")
    output = tmp_path / "small.xml"
    assert main(["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert "without torchrun" in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_data_of_other_classes_is_refused(inputs, tmp_path, capsys):
    _, data = inputs
    other = save_network(new_network("n", ["bolt"]), tmp_path / "bolts.pt")
    assert main(["compress", str(other), "--data", str(data), "-o", str(tmp_path / "x.xml"), *OPTIONS]) == 2
    said = capsys.readouterr().err
    assert "bolt" in said and "bright" in said and "Traceback" not in said


def test_steps_of_another_recipe_are_not_mixed_in(done, capsys):
    output, words, _ = done
    assert main([*words, "--lr", "0.001"]) == 2
    assert "another compression" in capsys.readouterr().err and output.with_name("small-steps").is_dir()


def test_idle_levels_go_and_their_maps_where_channels_would_have_to(inputs, tmp_path, monkeypatch, capsys):
    _, data = inputs
    checkpoint = save_network(new_network("n", ["bright", "dark"], seed=2), tmp_path / "three.pt")
    output = tmp_path / "two.xml"
    words = ["compress", str(checkpoint), "--data", str(data), "-o", str(output), *OPTIONS[:8], "--params", "0.5"]
    words += ["--recover-epochs", "1", "--qat-epochs", "0", "--no-baseline"]
    monkeypatch.setattr(ovyolo.compress.pipeline, "idle_levels", lambda *_: 1)
    assert main(words) == 0
    report = json.loads(output.with_suffix(".compress.json").read_text())
    steps = {step["name"]: step for step in report["steps"]}
    assert list(steps) == ["original", "levels", "activation", "coarse maps", "pruned", "recovered", "INT8"]
    assert steps["levels"]["params"] < 0.8 * steps["original"]["params"]
    assert steps["coarse maps"]["params"] == steps["pruned"]["params"] < 0.3 * steps["original"]["params"]
    assert "no channels need to go" in capsys.readouterr().err
    model, card = read_model(output, shared_core())
    assert len(model.outputs) == 2 and card.head.strides == (8, 16)
    assert "gone is the level of stride 32, without which at most 0.5%" in report["notes"][0]
    assert "Hardswish in 51 of 51 places" in report["notes"][1]
    gone = {name.split(".")[1] for name, _, channels, _, _ in report["layers"] if channels == 0}
    assert gone == {"7", "8", "9", "10", "21", "23", "24"}  # of the head, the convolution of one level
    assert Detector(output)(np.zeros((40, 50, 3), np.uint8)).xyxy.shape[1] == 4
    network, _ = load_trained(output.with_suffix(".pt"))
    assert network.strides == (8, 16)
