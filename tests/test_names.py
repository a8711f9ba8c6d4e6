"""Class names from ``data.yaml`` and from what ONNX files say about themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovyolo.errors import DataError
from ovyolo.export.imported.onnx_metadata import OnnxDamagedError, read_onnx_metadata
from ovyolo.export.names import _from_literal, read_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [scratch, dent]", ("scratch", "dent")),
        ("nc: 2\nnames:\n  0: scratch\n  1: dent\n", ("scratch", "dent")),
        ("names: {1: dent, 0: scratch}", ("scratch", "dent")),
        ("names: ['no', yes, 1e3, 007]", ("no", "yes", "1e3", "007")),
        ("train: images\nnames:\n- 'traffic light'\n- Löcher\n", ("traffic light", "Löcher")),
        ("\ufeffnames: [a]", ("a",)),
        ("names: !!python/object/apply:os.abort [x]", ("x",)),  # a tag is nothing but a tag
    ],
)
def test_names_are_read(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_names(path) == names


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- 1\n- 2",
        b"train: images",
        b"names:",
        b"names: []",
        b"names: person",
        b"names: {0: a, 2: b}",
        b"names: {a: 0, b: 1}",
        b"names: [[a], [b]]",
        b"names: ['', b]",
        b"names: {0: a, '0 ': b}",
        b"nc: 3\nnames: [a, b]",
        b"nc: [3]\nnames: [a, b, c]",
        b"names: [a, b",
        b"\xff\xfe\x00\x01",
        b"names: [\x00]",
        b"[" * 100_000,
        b"a: &a [x, x]\nb: &b [*a, *a]\nnames: *b",
    ],
)
def test_bad_data_yaml_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_names(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_data_yaml(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(DataError, match=r"give the path of a data\.yaml"):
            read_names(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "person",
        "{0: 'a', 2: 'b'}",
        "[]",
        "__import__('os')",
        "(" * 5000,
        "-" * 50_000 + "1",
        "[1," * 90_000,
        "'" * 9,
    ],
)
def test_literals_that_are_no_names(text: str) -> None:
    assert _from_literal(text) is None


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(key: str, value: str) -> bytes:
    return field(14, field(1, key.encode()) + field(2, value.encode()))


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=200), max_size=5), st.binary(max_size=3000))
@settings(max_examples=50, deadline=None)
def test_metadata_is_found_around_a_graph(
    tmp_path_factory: pytest.TempPathFactory, props: dict[str, str], graph: bytes
) -> None:
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    items = [entry(key, value) for key, value in props.items()]
    version = varint(1 << 3) + varint(8)
    opset = field(8, field(1, b"") + varint(2 << 3) + varint(17))
    path.write_bytes(version + b"".join(items[:2]) + field(7, graph) + opset + b"".join(items[2:]))
    assert read_onnx_metadata(path) == {**props, "onnx.opset": "17"}


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    path.write_bytes(data)
    try:
        found = read_onnx_metadata(path)
    except OnnxDamagedError:
        return
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.items())


def test_metadata_with_sizes_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for data in (
        varint(14 << 3 | 2) + varint(1 << 40),
        varint(7 << 3 | 2) + varint(1 << 62) + b"abc",
        b"\xff" * 30,
        field(14, varint(1 << 3 | 2) + varint(1000) + b"x"),
        varint(14 << 3 | 3),
    ):
        path.write_bytes(data)
        with pytest.raises(OnnxDamagedError):
            read_onnx_metadata(path)


def test_large_and_many_entries_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(entry("big", "x" * (2 << 20)) + entry("names", "{0: 'a'}"))
    assert read_onnx_metadata(path) == {"names": "{0: 'a'}"}
    path.write_bytes(b"".join(entry(str(i), "x") for i in range(10_000)))
    assert len(read_onnx_metadata(path)) <= 4096
