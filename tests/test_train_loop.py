"""Training as a user meets it: it learns, it resumes to the same result, and it says what is wrong."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training rooms are not tested")

from reference.squares import write_squares  # noqa: E402

import ovyolo.train.loop  # noqa: E402
from ovyolo import Detector  # noqa: E402
from ovyolo.cli import main  # noqa: E402
from ovyolo.dataset import load_dataset  # noqa: E402
from ovyolo.errors import DataError, DimensionError, OvyoloError, TrainingError  # noqa: E402
from ovyolo.train import TrainSettings, resume, train  # noqa: E402
from ovyolo.train.activation import activations_of  # noqa: E402
from ovyolo.train.architecture import new_network  # noqa: E402
from ovyolo.train.augment import Augment  # noqa: E402
from ovyolo.train.data import TrainingPictures  # noqa: E402
from ovyolo.train.loss import LossSettings  # noqa: E402
from ovyolo.train.network import load_network, save_network  # noqa: E402
from ovyolo.train.settings import rates  # noqa: E402

torch.set_num_threads(1)  # a network this small only waits for its threads

SHORT = TrainSettings(
    epochs=3, batch=4, imgsz=(64, 64), lr=0.003, precision="f32", workers=1, patience=0, anchors="keep",
    augment=Augment(mosaic=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return train("n", data, tmp_path_factory.mktemp("runs") / "whole", SHORT, device="cpu")


def tensors_of(path):
    return torch.load(path, weights_only=True)["tensors"]


def assert_same_network(first, second):
    a, b = tensors_of(first), tensors_of(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a), [key for key in a if not torch.equal(a[key], b[key])]


def test_what_a_training_leaves(undisturbed):
    folder = undisturbed.folder
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite([line[k] for k in ("box", "obj", "cls", "lr")]).all() for line in lines)
    assert lines == undisturbed.outcome.history
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert load_network(undisturbed.best).names == ("bright", "dark")
    assert isinstance(Detector(undisturbed.last, imgsz=64)(np.zeros((50, 60, 3), np.uint8)).xyxy, np.ndarray)
    assert not list(folder.glob(".*")), "temporary files were left"


def test_training_is_reproducible(data, undisturbed, tmp_path):
    again = train("n", data, tmp_path / "again", SHORT, device="cpu")
    assert_same_network(undisturbed.last, again.last)
    other = train("n", data, tmp_path / "other", replace(SHORT, seed=1, epochs=1), device="cpu")
    assert not torch.equal(tensors_of(other.last)["model.0.conv.weight"], tensors_of(again.last)["model.0.conv.weight"])


@pytest.mark.parametrize("moment", ["in the first epoch", "in a later epoch", "after an epoch was saved"])
def test_a_stopped_training_ends_as_an_undisturbed_one(moment, data, undisturbed, tmp_path, monkeypatch):
    trainer = ovyolo.train.loop.Trainer
    step, write = trainer._train_step, trainer._write_networks

    def interrupted_step(self, x, targets):
        if self._epoch == (0 if moment == "in the first epoch" else 1) and self._step == 1:
            raise KeyboardInterrupt
        step(self, x, targets)

    def interrupted_write(self):
        if self._epoch == 2:
            raise KeyboardInterrupt
        write(self)

    if moment == "after an epoch was saved":
        monkeypatch.setattr(trainer, "_write_networks", interrupted_write)
    else:
        monkeypatch.setattr(trainer, "_train_step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        train("n", data, tmp_path / "run", SHORT, device="cpu")
    monkeypatch.undo()
    result = resume(tmp_path / "run", device="cpu")
    assert_same_network(undisturbed.last, result.last)
    assert_same_network(undisturbed.best, result.best)
    told = [{k: v for k, v in line.items() if k != "seconds"} for line in result.outcome.history]
    assert told == [{k: v for k, v in line.items() if k != "seconds"} for line in undisturbed.outcome.history]


def test_a_long_epoch_is_saved_in_between(data, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(ovyolo.train.loop, "SAVE_EVERY", 0.0)
    trainer = ovyolo.train.loop.Trainer
    step = trainer._train_step

    def interrupted_step(self, x, targets):
        if self._epoch == 1 and self._step == 1:
            raise KeyboardInterrupt
        step(self, x, targets)

    monkeypatch.setattr(trainer, "_train_step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        train("n", data, tmp_path / "run", SHORT, device="cpu")
    monkeypatch.undo()
    told = json.loads(torch.load(tmp_path / "run" / "state.pt", weights_only=True)["told"])
    assert (told["epoch"], told["step"]) == (1, 1)
    assert_same_network(undisturbed.last, resume(tmp_path / "run", device="cpu").last)


def test_resuming_a_finished_training_changes_nothing(undisturbed):
    before = undisturbed.last.read_bytes(), undisturbed.best.read_bytes()
    result = resume(undisturbed.folder, device="cpu")
    assert (result.last.read_bytes(), result.best.read_bytes()) == before


def test_a_checkpoint_of_ours_can_be_trained_on(data, undisturbed, tmp_path):
    result = train(undisturbed.last, data, tmp_path / "on", replace(SHORT, epochs=1, lr=1e-6), device="cpu")
    before, after = tensors_of(undisturbed.last), tensors_of(result.last)
    assert before.keys() == after.keys()
    weights = [key for key in before if key.endswith("conv.weight")]
    apart = [float((after[key] - before[key]).abs().max() / before[key].abs().max()) for key in weights]
    assert 0 < max(apart) < 1e-3, "it did not begin with the checkpoint's weights"


def test_another_activation_is_trained_and_resumed(data, tmp_path):
    settings = replace(SHORT, epochs=1, activation="hardswish")
    result = train("n", data, tmp_path / "run", settings, device="cpu")
    assert activations_of(load_network(result.best)) == {"Hardswish": 57}
    assert activations_of(load_network(resume(tmp_path / "run", device="cpu").last)) == {"Hardswish": 57}


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(data, tmp_path, monkeypatch):
    settings = replace(SHORT, lr=1e9, clip=1e12, warmup=0.0)
    with pytest.raises(TrainingError, match=r"(the loss is|is no number).* at step \d+ of epoch \d+.*lower lr"):
        train("n", data, tmp_path / "run", settings, device="cpu")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_running_out_of_memory_names_a_batch_to_try(data, tmp_path, monkeypatch):
    def fail(self, x, targets):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(ovyolo.train.loop.Trainer, "_train_step", fail)
    with pytest.raises(TrainingError, match="--batch 2"):
        train("n", data, tmp_path / "run", SHORT, device="cpu")


def test_early_stopping(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ovyolo.train.loop, "fitness", lambda figures: 1.0)
    result = train("n", data, tmp_path / "run", replace(SHORT, epochs=9, patience=2), device="cpu")
    assert len(result.outcome.history) == 3 and "2 epochs" in result.outcome.stopped


def test_rates_warm_up_and_fall():
    settings = TrainSettings(epochs=10, lr=0.1, final_lr=0.1, warmup=1.0)
    told = [rates(settings, step, 20) for step in range(200)]
    assert told[0][0] == 0 and told[0][1] == pytest.approx(1.0) and told[0][2] < told[20][2] == settings.momentum
    assert max(rate for rate, _, _ in told) == pytest.approx(0.1, rel=0.05)
    assert told[-1][0] == pytest.approx(0.01, rel=0.01)
    falling = [rate for rate, _, _ in told[20:]]
    assert falling == sorted(falling, reverse=True)


def test_biases_warm_up_as_they_are_told():
    def first_rates(warmup_bias):
        settings = TrainSettings(epochs=10, lr=0.1, warmup=1.0, warmup_bias=warmup_bias)
        return [rates(settings, step, 20)[1] for step in (0, 10, 20)]

    assert first_rates(None) == first_rates(10.0)
    assert first_rates(10.0)[0] > first_rates(10.0)[1] > first_rates(10.0)[2]
    assert (
        first_rates(0.0)[0] == 0
        and first_rates(0.0)[1] == rates(TrainSettings(epochs=10, lr=0.1, warmup=1.0), 10, 20)[0]
    )
    assert first_rates(0.0)[2] == first_rates(10.0)[2]


@pytest.mark.parametrize("begins", ["as it was", "other classes", "anew"])
def test_only_what_begins_at_random_is_kicked(begins, data, tmp_path, monkeypatch):
    told = []

    def no_training(self):
        told.append(self.settings.warmup_bias)
        return self.outcome

    monkeypatch.setattr(ovyolo.train.loop.Trainer, "run", no_training)
    names = ["bright", "bolt"] if begins == "other classes" else ["bright", "dark"]
    model = "n" if begins == "anew" else save_network(new_network("n", names, seed=0), tmp_path / "n.pt")
    train(model, data, tmp_path / "run", SHORT, device="cpu")
    assert told == [0.0 if begins == "as it was" else None]


def test_settings_travel_through_json():
    assert TrainSettings.from_json(SHORT.to_json()) == SHORT


@pytest.mark.parametrize(
    ("change", "said"),
    [({"epochs": 0}, "epochs"), ({"lr": 0.0}, "lr"), ({"optimizer": "magic"}, "sgd"), ({"imgsz": (60, 64)}, "stride")],
)
def test_settings_out_of_range(change, said, data, tmp_path):
    with pytest.raises(DimensionError, match=said):
        train("n", data, tmp_path / "run", **{**vars(SHORT), **change}, device="cpu")


def test_a_folder_with_a_training_is_not_overwritten(data, undisturbed):
    with pytest.raises(TrainingError, match="--resume"):
        train("n", data, undisturbed.folder, SHORT, device="cpu")


@pytest.mark.parametrize("damage", ["truncated", "other settings", "something else"])
def test_a_damaged_state_is_refused(damage, data, tmp_path):
    train("n", data, tmp_path / "run", replace(SHORT, epochs=1), device="cpu")
    path = tmp_path / "run" / "state.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "something else":
        torch.save({"format": "?"}, path)
    else:
        told = json.loads((tmp_path / "run" / "training.json").read_text())
        told["settings"]["lr"] = 0.5
        (tmp_path / "run" / "training.json").write_text(json.dumps(told))
    with pytest.raises(TrainingError, match=r"state\.pt"):
        resume(tmp_path / "run", device="cpu")


def test_data_that_cannot_be_trained_on(tmp_path, data):
    with pytest.raises(OvyoloError, match=r"nothing\.yaml"):
        train("n", tmp_path / "nothing.yaml", tmp_path / "run", SHORT)
    empty = write_squares(tmp_path / "empty", train=2, val=1)
    for label in (tmp_path / "empty" / "labels" / "val").iterdir():
        label.write_text("")
    with pytest.raises(DataError, match="no labelled objects"):
        train("n", empty, tmp_path / "run", SHORT)
    with pytest.raises(TrainingError, match="no training"):
        resume(tmp_path / "nowhere")


def test_the_command(data, tmp_path, capsys):
    words = ["train", "n", "--data", str(data), "-o", str(tmp_path / "run"), "--epochs", "1", "--batch", "4"]
    assert main([*words, "--imgsz", "64", "--precision", "f32", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("best epoch 1 of 1: AP") and "best.pt" in said.err
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "n"]) == 2
    assert main(["train", "n", "--data", str(data), "--resume", "x"]) == 2
    assert main(["train", "best.xml", "--data", str(data), "-o", str(tmp_path / "b"), "--imgsz", "64"]) == 2


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "ovyolo", "train"]
OPTIONS = ["--imgsz", "64", "--batch", "4", "--precision", "f32", "--device", "cpu", "--anchors", "keep"]


@pytest.mark.slow
def test_kill_at_any_moment_and_start_again(data, tmp_path):
    options = [*OPTIONS, "--epochs", "6"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    subprocess.run([*COMMAND, "n", "--data", str(data), "-o", str(whole), *options], check=True, env=ONE_THREAD)
    lasted = time.monotonic() - began
    rng = np.random.default_rng(int(lasted * 1000))
    process = subprocess.Popen([*COMMAND, "n", "--data", str(data), "-o", str(killed), *options], env=ONE_THREAD)
    kills = 0
    for _ in range(12):
        try:
            process.wait(lasted * rng.uniform(0.4, 0.8))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        words = ["--resume", str(killed)] if (killed / "training.json").exists() else None
        again = words or ["n", "--data", str(data), "-o", str(killed), *options]
        process = subprocess.Popen([*COMMAND, *again, *(["--device", "cpu"] if words else [])], env=ONE_THREAD)
    assert process.wait(lasted * 5) == 0 and kills
    assert_same_network(whole / "last.pt", killed / "last.pt")
    assert_same_network(whole / "best.pt", killed / "best.pt")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_says_how_to_go_on(data, tmp_path):
    folder = tmp_path / "run"
    words = [*COMMAND, "n", "--data", str(data), "-o", str(folder), *OPTIONS, "--epochs", "500"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    deadline = time.monotonic() + 120
    while not (folder / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and f"--resume {folder}" in said and "Traceback" not in said
    assert load_network(folder / "last.pt").names == ("bright", "dark")


@pytest.mark.slow
def test_eight_pictures_are_learned_by_heart(tmp_path):
    data = write_squares(tmp_path / "eight", train=8, val=0, size=64)
    folder = tmp_path / "eight"
    # each of them ten times an epoch: what is done after an epoch takes longer than a step
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        for index, copy in itertools.product(range(8), range(1, 10)):
            shutil.copy(
                folder / kind / "train" / f"{index}.{suffix}", folder / kind / "train" / f"{index}-{copy}.{suffix}"
            )
    (folder / "eight.txt").write_text("".join(f"./images/train/{index}.png\n" for index in range(8)))
    data.write_text(data.read_text().replace("images/val", "eight.txt"))
    settings = replace(
        SHORT,
        epochs=25,
        batch=8,
        imgsz=(64, 64),
        lr=0.02,
        ema_tau=50.0,
        augment=Augment.off(),
        validate_every=25,
        anchors="auto",
        loss=LossSettings(obj=20, cls=5),  # their weights are meant for pictures of 640
    )
    result = train("n", data, tmp_path / "run", settings, device="cpu")
    assert result.figures["ap50"] >= 99


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="torchrun's gloo needs POSIX here")
def test_two_processes_by_torchrun(data, tmp_path):
    words = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29817",
        "-m", "ovyolo", "train", "n", "--data", str(data), "-o", str(tmp_path / "two"), *OPTIONS[:2], "--batch", "2",
        *OPTIONS[4:], "--epochs", "2",
    ]  # fmt: skip
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.mark.parametrize(("epochs", "accumulate", "tau"), [(5, 1, 2.0), (5, 2, 1.0), (1, 1, 1.0), (10**5, 1, 2000.0)])
def test_the_average_is_as_long_as_the_training_allows(data, tmp_path, epochs, accumulate, tau):
    pictures = TrainingPictures(load_dataset(data, "train"), (64, 64), Augment(), 0)
    settings = replace(SHORT, epochs=epochs, accumulate=accumulate)
    network = new_network("n", ["bright", "dark"])
    made = {"judge": lambda module: {}, "save": lambda network, path, figures: None}
    trainer = ovyolo.train.loop.Trainer(network, pictures, lambda *_: None, settings, tmp_path, **made)
    assert trainer.average.tau == tau
