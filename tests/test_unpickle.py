"""The pickle machine: what Python pickles comes back as data, and nothing of it is ever run."""

from __future__ import annotations

import argparse
import ast
import collections
import datetime
import math
import pathlib
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.torch_save import Call, Name, New, Raw, Writer

import ovyolo.export.checkpoint
from ovyolo.errors import CheckpointError, OvyoloError, UnsafeCheckpointError
from ovyolo.export.checkpoint.pickle_scalars import Budget
from ovyolo.export.checkpoint.records import Record
from ovyolo.export.checkpoint.unpickle import PickleMachine

PROTOCOLS = range(6)


def load(data: bytes, limit: int = 1 << 26) -> object:
    return PickleMachine(data, Budget(limit)).load()


scalars = st.none() | st.booleans() | st.integers(-(1 << 200), 1 << 200) | st.floats() | st.text() | st.binary()
keys = st.text() | st.integers(-(1 << 40), 1 << 40) | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.lists(inner).map(tuple),
    max_leaves=30,
)


def same(a: object, b: object) -> bool:
    """Equality that knows NaN, and types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: object, protocol: int) -> None:
    assert same(load(pickle.dumps(value, protocol)), value)


@given(st.sets(keys), st.frozensets(keys), st.sampled_from(PROTOCOLS))
def test_sets_come_back(members: set, frozen: frozenset, protocol: int) -> None:
    assert load(pickle.dumps([members, frozen], protocol)) == [members, frozen]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_values_come_back(protocol: int) -> None:
    value = {"text": "x" * 70_000, "wide": "\U0001f600" * 300, "bytes": b"y" * 70_000, "list": list(range(5_000))}
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (collections.OrderedDict(a=1, b=[2]), {"a": 1, "b": [2]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (collections.defaultdict(int), {}),
        (collections.deque([1, 2], 5), [1, 2]),
        (bytearray(b"\x00\xff"), bytearray(b"\x00\xff")),
        (b"", b""),
        (1 + 2j, 1 + 2j),
        (pathlib.PurePosixPath("/data/runs/best.pt"), "/data/runs/best.pt"),
        (pathlib.PureWindowsPath("C:\\runs\\best.pt"), "C:\\runs\\best.pt"),
        (np.float64(0.25), 0.25),
        (np.int64(-7), -7),
        (np.float16(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("hütte"), "hütte"),
    ],
    ids=repr,
)
def test_known_objects_become_data(value: object, expected: object, protocol: int) -> None:
    found = load(pickle.dumps(value, protocol))
    assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "u2", "?", "c8", "U3", "S2"])
def test_numpy_arrays_come_back(dtype: str, protocol: int) -> None:
    straight = np.arange(12).reshape(3, 4).astype(dtype)
    for array in (straight, np.asfortranarray(straight), straight[:0], np.array(straight[1, 1])):
        found = load(pickle.dumps(array, protocol))
        assert isinstance(found, np.ndarray) and found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_namespaces_and_dates_become_records(protocol: int) -> None:
    for value in (argparse.Namespace(a=1, b="x"), types.SimpleNamespace(a=1, b="x")):
        found = load(pickle.dumps(value, protocol))
        assert isinstance(found, Record) and found.state == {"a": 1, "b": "x"}
    found = load(pickle.dumps(datetime.datetime(2021, 5, 1, tzinfo=datetime.timezone.utc), protocol))
    assert isinstance(found, Record) and found.qualname == "datetime" and isinstance(found.args[0], bytes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_and_self_referential_structures(protocol: int) -> None:
    inner: list = [1]
    value: dict = {"a": inner, "b": inner}
    value["self"] = value
    inner.append(value)
    found = load(pickle.dumps(value, protocol))
    assert isinstance(found, dict)
    assert found["a"] is found["b"] and found["self"] is found and found["a"][1] is found


def test_network_classes_become_inert_records() -> None:
    found = load(Writer().pickled(New("models.anything", "Outer.Layer", {"width": 3})))
    assert isinstance(found, Record)
    assert (found.module, found.qualname, found.state) == ("models.anything", "Outer.Layer", {"width": 3})
    found = load(Writer().pickled(Call(Name("utils.loss", "Kind"), (2,))))
    assert isinstance(found, Record) and found.args == (2,)


def test_dicts_and_lists_of_network_packages_keep_their_entries() -> None:
    start = b"cutils.config\nSettings\n)\x81"
    found = load(Writer().pickled([Raw(start + b"K\x01K\x02s"), Raw(start + b"K\x07a")]))
    assert isinstance(found, list)
    assert found[0].entries == {1: 2} and found[1].entries == [7]


def test_memory_is_bounded_by_the_budget() -> None:
    data = b"\x80\x02(" + b"}" * 10_000 + b"t."
    load(data, 2_000_000)
    with pytest.raises(CheckpointError, match="memory"):
        load(data, 500_000)


def test_a_large_memo_index_costs_nothing() -> None:
    assert load(b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.", 10_000) is None


def test_pickles_in_a_row() -> None:
    data = b"".join(pickle.dumps(value, 2) for value in ([1], {"a": 2}, "x"))
    machine = PickleMachine(data, Budget(100_000))
    assert [machine.load(), machine.load(), machine.load()] == [[1], {"a": 2}, "x"]
    assert machine.position == len(data)


def test_names_are_refused_even_if_never_called() -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
        load(b"\x80\x02cos\nsystem\n.")


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    try:
        load(data)
    except OvyoloError as error:
        assert str(error)


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([bytes([code]) for code in range(256)] + [b"K\x01", b"h\x00", b"q\x00", b"X\x01\x00\x00\x00a"])
    )
)
def test_random_opcodes_raise_only_our_errors(opcodes: list[bytes]) -> None:
    try:
        load(b"ccollections\nOrderedDict\ncnumpy\ndtype\n" + b"".join(opcodes) + b".")
    except OvyoloError as error:
        assert str(error)


def test_nothing_that_could_run_code_is_imported() -> None:
    """The reader's own source names neither pickle nor importlib, and never calls eval, exec or the like."""
    modules = sorted(Path(ovyolo.export.checkpoint.__file__).parent.glob("*.py"))
    assert len(modules) > 10
    for module in modules:
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported = {node.module or ""}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__", "getattr", "setattr", "globals"}
                continue
            else:
                continue
            assert not imported & {"pickle", "_pickle", "importlib", "marshal", "subprocess", "torch", "ctypes"}
