"""Sinks of text: what they write can be read back, several at once, and names that never collide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.sinks import FOUND, IMAGE, NOTHING, film, left_behind, rows, still

from ovyolo import Detections
from ovyolo.errors import DimensionError, OvyoloError
from ovyolo.io import Frame
from ovyolo.io.output import Names, stem_of
from ovyolo.io.sinks import (
    CallbackSink,
    CocoSink,
    CsvSink,
    JsonLinesSink,
    JsonSink,
    MultiSink,
    TxtSink,
)


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ä.json"
    with JsonSink(path) as sink:
        sink.write(still("dir/ü.png"), FOUND)
        sink.write(film("b.mp4", 3)[2], NOTHING)
        assert not path.exists()
    first, second = json.loads(path.read_text("utf-8"))
    assert first == {"source": "dir/ü.png", "index": 0, "timestamp": 0.0, "width": 60, "height": 40,
                     "truncated": False, "boxes": FOUND.to_dicts()}  # fmt: skip
    assert (second["index"], second["timestamp"], second["boxes"]) == (2, 0.16, [])
    assert left_behind(path.parent) == ["ä.json"] and sink.path == path


def test_json_of_nothing(tmp_path: Path) -> None:
    JsonSink(tmp_path / "a.json").close()
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_json_aborted_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for before in (None, "earlier"):
        if before:
            path.write_text(before)
        with pytest.raises(KeyError), JsonSink(path) as sink:
            sink.write(still(), FOUND)
            raise KeyError
        assert left_behind(tmp_path) == ([] if before is None else ["a.json"])
    assert path.read_text() == "earlier"


def test_json_after_close(tmp_path: Path) -> None:
    sink = JsonSink(tmp_path / "a.json")
    sink.close()
    sink.close()
    with pytest.raises(OvyoloError, match="closed"):
        sink.write(still(), FOUND)
    assert json.loads((tmp_path / "a.json").read_text()) == []


@pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink])
def test_not_finite_is_no_json(tmp_path: Path, sink: Callable[[Path], Any]) -> None:
    broken = Detections.from_arrays([[0, 0, np.nan, 1]], [0.5], [0])
    with pytest.raises(DimensionError, match=r"a\.png.*finite"), sink(tmp_path / "a") as opened:
        opened.write(still(), broken)


def test_json_lines_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonLinesSink(path) as sink:
        for i, frame in enumerate(film("b.mp4", 3)):
            sink.write(frame, FOUND)
            lines = path.read_bytes().split(b"\n")
            assert len(lines) == i + 2 and lines[-1] == b""
            assert json.loads(lines[i])["index"] == i
    assert sink.path == path


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvSink(path) as sink:
        sink.write(still(), FOUND)
        sink.write(still("empty.png"), NOTHING)
        assert len(rows(path.read_bytes().decode())) == 3
    table = rows(path.read_bytes().decode())
    assert table[0] == ["source", "index", "timestamp", "class_id", "name", "confidence", "x1", "y1", "x2", "y2"]
    assert table[1] == ["a.png", "0", "0.0", "1", 'Loch, "groß"', "0.87654", "6.0", "4.0", "30.0", "20.5"]
    assert len(table) == 3 and b"\r" not in path.read_bytes()


# what file names may hold on Linux, bytes that are no UTF-8 (surrogates) included
odd_names = st.text(st.characters(exclude_characters="\0/", exclude_categories=())).filter(bool) | st.sampled_from(
    [
        "a,b.png",
        'say "x".png',
        "two\nlines.png",
        "crlf\r\n.png",
        "cr\r.png",
        "\r",
        "grün.png",
        "図.png",
        "'=1+1",
        "\udcff.png",
        " ",
    ]
)


@given(names=st.lists(odd_names, min_size=1, max_size=4), labels=st.lists(odd_names, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, names: list[str], labels: list[str]) -> None:
    folder = tmp_path_factory.mktemp("trip")
    found = Detections.from_arrays([[1, 2, 3, 4]] * len(labels), [0.5] * len(labels), range(len(labels)), labels)
    with MultiSink(JsonSink(folder / "j"), JsonLinesSink(folder / "l"), CsvSink(folder / "c")) as sinks:
        for name in names:
            sinks.write(Frame(IMAGE, name), found)
    documents = [
        json.loads((folder / "j").read_bytes()),
        [json.loads(x) for x in (folder / "l").read_bytes().split(b"\n") if x],
    ]
    for document in documents:
        # a pair of surrogates is one character to JSON
        assert [one(f["source"]) for f in document] == [one(n) for n in names]
        assert all([one(b["name"]) for b in f["boxes"]] == [one(x) for x in labels] for f in document)
    table = rows((folder / "c").read_bytes().decode("utf-8"))[1:]
    expected = [[escaped(name), escaped(label)] for name in names for label in labels]
    assert [[row[0], row[4]] for row in table] == expected


def one(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def test_txt(tmp_path: Path) -> None:
    with TxtSink(tmp_path / "labels") as sink:
        sink.write(still("x/a.png"), FOUND)
        sink.write(still("y/A.jpg"), NOTHING)
        for frame in film("b.mp4", 2) + film("other/b.avi", 1):
            sink.write(frame, FOUND)
    folder = tmp_path / "labels"
    assert left_behind(folder) == ["A-2.txt", "a.txt", "b-2_000000.txt", "b_000000.txt", "b_000001.txt"]
    assert (folder / "A-2.txt").read_bytes() == b""
    table = np.loadtxt(folder / "a.txt")
    np.testing.assert_allclose(
        table, [[1, 0.3, 0.30625, 0.4, 0.4125, 0.876543], [0, 0.075, 0.1125, 0.15, 0.225, 0.5]], atol=1e-6
    )
    assert sink.path == folder


def test_names_never_collide() -> None:
    names = Names()
    assert [names.claim(s, ".txt") for s in ("a", "a", "A", "a-2", "b_000001")] == [
        "a",
        "a-2",
        "A-3",
        "a-2-2",
        "b_000001",
    ]
    assert names.claim("b", ".txt", numbered=True) == "b-2"  # b_000001.txt is taken
    assert names.claim("c", ".txt", numbered=True) == "c"
    assert names.claim("c_000007", ".txt") == "c_000007-2"


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "a-2", "a_000000", "a-2_000001", "ß", "SS"]), st.booleans())))
def test_names_never_collide_whatever_comes(wanted: list[tuple[str, bool]]) -> None:
    names, taken = Names(), set()
    for stem, numbered in wanted:
        got = names.claim(stem, ".txt", numbered)
        for name in [f"{got}_{i:06d}" for i in range(3)] if numbered else [got]:
            assert name.casefold() not in taken
            taken.add(name.casefold())


@pytest.mark.parametrize(
    ("source", "stem"),
    [("image0", "image0"), ("rtsp://u:p@h/1?x", "rtsp_u_p@h_1_x"), ("../..", ".._.."), ("", "image"), ("con", "_con"),
     ("...", "image"), ("a" * 400, "a" * 100)],
)  # fmt: skip
def test_stems_of_sources_without_a_file(source: str, stem: str) -> None:
    got = stem_of(Frame(IMAGE, source))
    assert "/" not in got and "\\" not in got
    if source != "../..":
        assert got == stem


def test_multi_serves_and_closes_all(tmp_path: Path) -> None:
    calls: list[str] = []

    def sink(name: str, failing: bool) -> Any:
        def act(what: str) -> None:
            calls.append(f"{name} {what}")
            if failing:
                raise OvyoloError(f"{name} failed to {what}")

        return SimpleNamespace(write=lambda f, d: act("write"), close=lambda: act("close"))

    both = MultiSink(sink("a", True), sink("b", False), sink("c", True))
    with pytest.raises(OvyoloError, match="a failed to write; c failed to write"):
        both.write(still(), FOUND)
    with pytest.raises(OvyoloError, match="a failed to close; c failed to close"):
        both.close()
    assert calls == ["a write", "b write", "c write", "a close", "b close", "c close"]
    with pytest.raises(ZeroDivisionError), MultiSink(JsonSink(tmp_path / "a.json")) as sinks:
        sinks.write(still(), FOUND)
        raise ZeroDivisionError
    assert left_behind(tmp_path) == []


def test_multi_stops_with_one() -> None:
    sinks = MultiSink(SimpleNamespace(stopped=False), SimpleNamespace(stopped=True))  # type: ignore[arg-type]
    assert sinks.stopped and not MultiSink().stopped


def test_coco(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    path = tmp_path / "new" / "coco.json"
    with CocoSink(path) as sink:
        sink.write(still("dir/a.png"), FOUND)
        sink.write(still("dir/b.png"), NOTHING)
        sink.write(film("b.mp4", 3)[2], FOUND[:1])
        assert not path.exists()
    coco = COCO(path)
    assert [image["file_name"] for image in coco.loadImgs([1, 2, 3])] == ["a.png", "b.png", "b.mp4#2"]
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "open", 2: 'Loch, "groß"'}
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first == {"id": 1, "image_id": 1, "category_id": 2, "bbox": [6, 4, 24, 16.5], "area": 396, "iscrowd": 0,
                     "score": 0.87654}  # fmt: skip
    assert second["category_id"] == 1 and not coco.getAnnIds(imgIds=[2]) and len(coco.getAnnIds(imgIds=[3])) == 1
    sink.close()


def test_coco_of_nothing_and_without_names(tmp_path: Path) -> None:
    with CocoSink(tmp_path / "a.json"):
        pass
    empty = {"annotations": [], "images": [], "categories": []}
    assert json.loads((tmp_path / "a.json").read_text()) == empty
    with CocoSink(tmp_path / "a.json") as sink:
        sink.write(Frame(IMAGE, "image0"), Detections.from_arrays([[0, 0, 2, 2]], [1], [2]))
    told = json.loads((tmp_path / "a.json").read_text())
    assert [c["name"] for c in told["categories"]] == ["0", "1", "2"] and told["images"][0]["file_name"] == "image0"
    with pytest.raises(DimensionError, match="not a finite number"), CocoSink(tmp_path / "b.json") as sink:
        sink.write(still(), Detections.from_arrays([[0, 0, 2, np.inf]], [1], [0]))
    assert left_behind(tmp_path) == ["a.json"]


def test_callback() -> None:
    calls: list[tuple[str, int]] = []
    with CallbackSink(lambda frame, found: calls.append((frame.source, len(found)))) as sink:
        sink.write(still(), FOUND)
        assert not sink.stopped
    assert calls == [("a.png", 2)]
    enough = CallbackSink(lambda frame, found: False)
    enough.write(still(), FOUND)
    assert enough.stopped and MultiSink(enough).stopped


def test_a_gap_is_in_the_lines(tmp_path: Path) -> None:
    with JsonLinesSink(tmp_path / "a.jsonl") as sink:
        sink.write(Frame(IMAGE, "camera 0", 7, None, 1.5, True, 25, 0.25), NOTHING)
        sink.write(Frame(IMAGE, "camera 0", 8, None, 1.6, True, 25), NOTHING)
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first["gap"] == 0.25 and "gap" not in second
