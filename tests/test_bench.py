"""What a benchmark must keep to, whatever the machine's speed: structure, pairing, sums, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference.tiny_model import make_tiny_ir

from ovyolo.bench import BenchResult, Turns, bench, take_turns
from ovyolo.bench import machine as machine_module
from ovyolo.bench.coldstart import ColdStart, peak_memory
from ovyolo.bench.frames import Frames, synthetic_picture
from ovyolo.cli import main
from ovyolo.errors import DimensionError, ImageError

PARTS = ["read", "letterbox", "infer", "decode+nms", "total"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ir(tmp_path_factory.mktemp("bench") / "tiny.xml")


@pytest.fixture(scope="module")
def result(model: Path) -> BenchResult:
    return bench([model, model], runs=40, seconds=0.2, cold_starts=1)


def test_turns_are_taken_in_turn() -> None:
    order: list[str] = []

    def competitor(name: str):
        def measure() -> dict[str, float]:
            order.append(name)
            return {"ms": float(len(order))}

        return measure

    turns = take_turns({"a": competitor("a"), "b": competitor("b")}, range(3), warm_up=1)
    assert "".join(order) == "abababab"
    assert turns.samples("a", "ms").tolist() == [3, 5, 7] and turns.samples("b", "ms").tolist() == [4, 6, 8]


def test_ratio_survives_weather_that_both_share() -> None:
    """The machine halves its speed half-way; B still takes 1.5 times what A does."""
    rng = np.random.default_rng(0)
    weather = iter(np.repeat([1.0, 2.0], 200))
    state = {"now": 1.0}

    def first() -> dict[str, float]:
        state["now"] = next(weather)
        return {"ms": state["now"] * rng.normal(10, 0.1)}

    turns = take_turns({"a": first, "b": lambda: {"ms": state["now"] * rng.normal(15, 0.1)}}, range(400))
    ratio = turns.ratio("b", "a", "ms")
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.low > 1.2 and ratio.high < 1.9 and ratio.rounds == 400
    same = turns.ratio("a", "a", "ms")
    assert (same.value, same.low, same.high) == (1, 1, 1)


def test_few_rounds_give_the_extremes() -> None:
    values = iter([1.0, 2.0, 1.0, 4.0])
    turns = take_turns({"a": lambda: {"ms": next(values)}, "b": lambda: {"ms": next(values)}}, range(2))
    ratio = turns.ratio("b", "a", "ms")
    assert (ratio.low, ratio.value, ratio.high) == (2, 3, 4)


def test_no_ratio_without_turns(model: Path, result: BenchResult) -> None:
    with pytest.raises(DimensionError, match="take_turns"):
        Turns({"a": {"ms": np.ones(3)}})
    with pytest.raises(DimensionError, match="not measured in turn with tiny, tiny-2"):
        result.ratio("another", "tiny")
    with pytest.raises(DimensionError, match="nothing was measured"):
        take_turns({"a": lambda: {"ms": 1.0}}, range(0))
    alone = bench(model, hints=["latency"], runs=2, cold_starts=0)
    assert alone.ratios() == {"latency": []} and ": tiny has" not in alone.table()
    with pytest.raises(DimensionError, match="throughput was not measured"):
        alone.ratio("tiny", "tiny", "throughput")


def test_a_model_against_itself(result: BenchResult) -> None:
    ratio = result.ratio("tiny-2", "tiny")
    assert 0.2 < ratio.value < 5 and ratio.rounds == 40


def test_parts_make_the_whole(result: BenchResult) -> None:
    assert result.latency is not None and list(result.latency.parts) == PARTS
    for name in ("tiny", "tiny-2"):
        parts = sum(result.latency.samples(name, part) for part in PARTS[:-1])
        np.testing.assert_allclose(parts, result.latency.samples(name, "total"), rtol=1e-6)
        row = result.summary(name, "latency")["total"]
        assert 0 < row["min"] <= row["median"] <= row["p90"] <= row["p99"] <= row["max"]
    assert result.cold_start is not None
    cold = result.summary("tiny", "cold_start")
    assert sum(cold[part]["median"] for part in cold if part != "total") == pytest.approx(cold["total"]["median"])
    assert all(list(row) == ["min", "median", "max"] and row["min"] > 0 for row in cold.values())


def test_what_was_executed_is_read_back(model: Path, result: BenchResult) -> None:
    executed = result.models[0].latency_executed
    assert executed is not None and executed["device"] == "CPU" and executed["streams"] == "1"
    assert executed["layers_by_precision"]["f32"] >= 1
    full = result.models[0].throughput_executed
    assert full is not None and full["requests"] >= 1
    one = bench(model, hints=["latency"], runs=1, cold_starts=0, threads=1).models[0].latency_executed
    assert one is not None and one["threads"] == "1"


def test_throughput_is_counted(result: BenchResult) -> None:
    assert result.throughput is not None and result.throughput.rounds == 5
    assert result.summary("tiny", "throughput")["pictures/s"]["min"] > 10


def test_everything_is_stated(result: BenchResult) -> None:
    data = json.loads(result.to_json())
    assert {"cpu", "instructions", "usable_cores", "openvino", "ovyolo", "python"} <= set(data["machine"])
    assert "synthetic" in data["settings"]["source"]
    assert [m["name"] for m in data["models"]] == ["tiny", "tiny-2"]
    assert [list(data["ratios"]), data["ratios"]["latency"][0]["second"]] == [
        ["latency", "throughput", "cold_start"], "tiny",
    ]  # fmt: skip
    table = result.table()
    for word in (*PARTS, "pictures/s", "import", data["machine"]["cpu"], "in f32", "peak memory", "95 % interval"):
        assert word in table


def test_memory_is_the_process_own() -> None:
    peak = peak_memory()
    if peak is None:
        pytest.skip("this system does not tell a process's peak memory")
    block = np.ones(200 << 20, np.uint8)
    after = peak_memory()
    assert after is not None and after >= peak and after > block.nbytes


def test_a_fresh_process_does_not_inherit_our_peak(result: BenchResult) -> None:
    block = np.ones(600 << 20, np.uint8)
    fresh = bench(result.models[0].path, hints=[], cold_starts=1).models[0].peak_bytes
    if fresh is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert 20e6 < fresh < block.nbytes


def test_noise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0, "calls": 0}

    def perf_counter() -> float:
        clock["calls"] += 1
        # every loop takes 1, every fifth 2
        if clock["calls"] % 2 == 0:
            clock["now"] += 2.0 if clock["calls"] % 10 == 0 else 1.0
        return clock["now"]

    monkeypatch.setattr(machine_module.time, "perf_counter", perf_counter)
    assert "noisy" in (machine_module.spin_warning() or "")
    monkeypatch.setattr(machine_module, "SPIN_SPREAD", 2.5)
    assert machine_module.spin_warning() is None
    monkeypatch.setattr(machine_module.os, "getloadavg", lambda: (50.0, 0, 0), raising=False)
    assert "50.0" in (machine_module.load_warning() or "")
    monkeypatch.setattr(machine_module.os, "getloadavg", lambda: (0.0, 0, 0), raising=False)
    assert machine_module.load_warning() is None


def test_frames_begin_again(tmp_path: Path) -> None:
    for level in (10, 20):
        cv2.imwrite(str(tmp_path / f"{level}.png"), np.full((8, 8, 3), level, np.uint8))
    frames = Frames(tmp_path)
    assert [int(frames.next()[0, 0, 0]) for _ in range(5)] == [10, 20, 10, 20, 10]
    frames.close()
    assert synthetic_picture().shape == (720, 1280, 3)
    assert np.array_equal(synthetic_picture(), synthetic_picture())


def test_source_is_read_and_found_in(model: Path, tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:24, 16:24] = 255
    cv2.imwrite(str(tmp_path / "spot.png"), image)
    measured = bench(model, source=tmp_path / "spot.png", hints=["latency"], runs=3, cold_starts=0)
    assert measured.models[0].boxes == 1
    assert measured.summary("tiny", "latency")["read"]["min"] > 0


def test_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", str(model), str(model), "--hint", "latency", "--runs", "5", "--cold-starts", "0"]
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        picture = tmp_path / "new" / f"split.{kind}"
        assert main([*words, "--json", str(tmp_path / "r.json"), "--picture", str(picture)]) == 0
        assert picture.read_bytes().startswith(begins)
    assert "tiny-2 has" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["models"][0]["throughput"] is None
    assert main([*words, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["runs"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.xml"], "missing.xml"),
        (["{model}", "--device", "TPU"], "TPU"),
        (["{model}", "--source", "nowhere.png"], "nowhere.png"),
        (["{model}", "--runs", "0"], "whole number"),
        (["{model}", "--seconds", "nan"], "seconds"),
        (["{model}", "--cold-starts", "-1"], "whole number"),
        (["{model}", "--picture", "x.gif"], ".svg or .png"),
        (["{model}", "--picture", "x.svg", "--hint", "throughput"], "latency"),
        (["{model}", "--json", "."], "folder"),
        ([], "MODEL"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if ".gif" not in said and "--picture" in words:
        pytest.importorskip("matplotlib")
    try:
        status = main(["bench", *[word.format(model=model) for word in words]])
    except SystemExit as left:
        status = int(left.code or 0)
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and said in err, err


@pytest.mark.parametrize(
    "arguments",
    [{"runs": 0}, {"seconds": 0}, {"seconds": float("inf")}, {"cold_starts": -1}, {"hints": ["speed"]}, {"conf": 2},
     {"threads": 0}, {"hints": [], "cold_starts": 0}],
)  # fmt: skip
def test_bad_arguments(model: Path, arguments: dict) -> None:
    with pytest.raises(DimensionError):
        bench(model, **arguments)
    with pytest.raises(DimensionError, match="no model"):
        bench([])


def test_an_empty_source_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty:
        def __iter__(self):
            return iter(())

        def close(self) -> None:
            pass

    monkeypatch.setattr("ovyolo.io.sources.open_source", lambda source: Empty())
    with pytest.raises(ImageError, match="no frames"):
        Frames(tmp_path).next()


def test_matplotlib_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", str(model), "--picture", "x.svg"]) == 2
    assert "ovyolo[val]" in capsys.readouterr().err


def test_a_cold_start_runs_what_runs_here_wherever_it_is_started(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ovyolo").mkdir()
    (tmp_path / "ovyolo" / "__init__.py").write_text("raise ImportError('a checkout that was not built')")
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((32, 48, 3), 90, np.uint8))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.xml").write_bytes(model.read_bytes())
    (tmp_path / "tiny.bin").write_bytes(model.with_suffix(".bin").read_bytes())
    start = ColdStart(Path("tiny.xml"), "grey.png", device="CPU", threads=None, precision=None, conf=0.25)
    assert start()["total"] > 0
