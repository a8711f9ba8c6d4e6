"""Checkpoints that try to do harm: what ``test_hostile_checkpoints`` feeds to the reader.

:func:`corpus` gives them by name. Payloads that could run code try to create the file ``canary``.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

from hostile_archives import WEIGHTS, legacy_files, zips
from hostile_calls import calls, live_payloads, pickled_text, touch
from reference.torch_save import (
    Call,
    Name,
    New,
    Persistent,
    Raw,
    Tensor,
    checkpoint,
    pickle_zip,
    zip_file,
)


def corpus(canary: Path) -> dict[str, bytes]:
    """Every hostile file, by name."""
    files: dict[str, bytes] = {}
    for name, arguments in calls(canary).items():
        module, _, function = name.partition(" ")
        files[f"call {name}"] = zip_file(checkpoint(opt=Call(Name(module, function), arguments)))
    files |= {f"opcodes: {name}": data for name, data in _opcodes(canary).items()}
    files |= {f"objects: {name}": zip_file(checkpoint(opt=value)) for name, value in _objects(canary).items()}
    files |= {f"bombs: {name}": data for name, data in _bombs().items()}
    files |= {f"tensors: {name}": zip_file(checkpoint(opt=value)) for name, value in _tensors().items()}
    files |= {f"zip: {name}": data for name, data in zips(canary).items()}
    files |= {f"legacy: {name}": data for name, data in legacy_files(canary).items()}
    return files


def _opcodes(canary: Path) -> dict[str, bytes]:
    """Pickles put together by hand."""
    shell, code = f'echo x > "{canary}"', touch(canary)
    live = live_payloads(canary)
    pickles = {
        "os.system alone": live["os.system"],
        "getattr chain": live["getattr chain"],
        "INST": live["INST"],
        "OBJ": live["OBJ"],
        "NEWOBJ of Popen": b"\x80\x02csubprocess\nPopen\n(" + pickled_text(shell) + b"t\x81.",
        "NEWOBJ of a function": b"\x80\x02c_codecs\nencode\n(" + pickled_text("x") + b"t\x81.",
        "NEWOBJ_EX": b"\x80\x04cmodels.yolo\nModel\n)}\x92.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID as text": b"Pos.system\n.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "READONLY_BUFFER": b"\x80\x05]\x98.",
        "Python 2 string": b"S'os'\n.",
        "STACK_GLOBAL os.system": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "STACK_GLOBAL through another name": b"\x80\x04\x8c\x0dmodels.common\x8c\x09os.system\x93.",
        "REDUCE of a string": b"\x80\x02" + pickled_text("os.system") + b")R.",
        "REDUCE of a record": b"\x80\x02cmodels.yolo\nModel\n)\x81)R.",
        "REDUCE of a dict": b"\x80\x02})R.",
        "REDUCE without a tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
        "reduce chain": b"\x80\x02cbuiltins\ngetattr\ncbuiltins\ngetattr\n(tR.",
        "unknown opcode": b"\x80\x02\xff.",
        "protocol 77": b"\x80\x4dN.",
        "exec after STOP": b"\x80\x02}." + live["builtins.exec"],
        "two objects on the stack": b"\x80\x02NN.",
        "mark left over": b"\x80\x02N(N.",
        "empty stack": b"\x80\x02.",
        "no STOP": b"\x80\x02}",
        "pop below the mark": b"\x80\x02N(000.",
        "memo without a value": b"\x80\x02h\x05.",
        "memo put of nothing": b"\x80\x02q\x05N.",
        "negative memo": b"Np-1\n.",
        "memo of 60 digits": b"Np" + b"9" * 60 + b"\n.",
        "appending to a tuple": b"\x80\x02)Na.",
        "appending to a string": b"\x80\x02" + pickled_text("x") + b"Na.",
        "setting items of a list": b"\x80\x02]NNs.",
        "items without a value": b"\x80\x02}(NNNu.",
        "members of a dict": b"\x80\x04}(N\x90.",
        "list as key": b"\x80\x02}]Ns.",
        "dict as key": b"\x80\x02}}Ns.",
        "nested tuples as key": b"\x80\x02})\x85\x85\x85Ns.",
        "list in a set": b"\x80\x04\x8f(]\x90.",
        "list in a frozenset": b"\x80\x04(]\x91.",
        "huge number as key": b"\x80\x02}\x8a\x10" + b"\x7f" * 16 + b"Ns.",
        "BUILD on a class": b"\x80\x02cmodels.yolo\nModel\n}(" + pickled_text("forward") + pickled_text("x") + b"ub.",
        "BUILD on a function": b"\x80\x02c_codecs\nencode\n}(" + pickled_text("x") + pickled_text("x") + b"ub.",
        "BUILD on a list": b"\x80\x02]}b" + b".",
        "BUILD on a string": b"\x80\x02" + pickled_text("x") + b"}b.",
        "INT of letters": b"Ios.system\n.",
        "LONG with underscores": b"L1_000L\n.",
        "FLOAT of letters": b"Fexec\n.",
        "line without an end": b"I" + b"1" * 5000,
        "bad UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "bad UTF-8 in a name": b"\x80\x02c\xff\xfe\nx\n.",
        "text with a bad escape": b"V\\uZZZZ\n.",
        "frame beyond the end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
        "frame within a frame": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x95\x01\x00\x00\x00\x00\x00\x00\x00N..",
        "STOP within a frame": b"\x80\x04\x95\x04\x00\x00\x00\x00\x00\x00\x00N.NN",
        "comment that hides code": b"\x80\x02" + pickled_text("(cos\nsystem\n") + b"0" + live["os.system"],
        "persistent id of a call": b"\x80\x02" + pickled_text("storage") + b"cos\nsystem\n\x86Q.",
    }
    return {name: pickle_zip(data) for name, data in pickles.items()} | {
        "code in a plain pickle": live["builtins.exec"],
        "plain pickle of protocol 2": b"\x80\x02" + live["os.system"],
        "plain pickle of protocol 4": pickle.dumps({"model": code}, 4),
    }


def _objects(canary: Path) -> dict[str, object]:
    """Values within an otherwise honest checkpoint."""
    dtype = Name("numpy", "dtype")
    reconstruct = Name("numpy.core.multiarray", "_reconstruct")
    ndarray = Name("numpy", "ndarray")
    scalar = Name("numpy.core.multiarray", "scalar")
    number = Call(dtype, ("f8", 0, 1), (3, "<", None, None, None, -1, -1, 0))
    plain = (ndarray, (0,), b"b")

    def array(kind: object, shape: object, raw: object, fortran: object = False) -> Call:
        return Call(reconstruct, plain, (1, shape, kind, fortran, raw))

    return {
        "__class__ in a state": New("models.common", "Conv", {"__class__": Name("models.yolo", "Model")}),
        "__dict__ in a state": New("models.common", "Conv", {"__dict__": {}}),
        "__setstate__ in a state": New("models.common", "Conv", {"__setstate__": Name("models.yolo", "Model")}),
        "__reduce__ in a state": New("argparse", "Namespace", {"__reduce__": 1}),
        "__dict__ in slots": New("models.common", "Conv", (None, {"__dict__": {}})),
        "number as attribute": New("models.common", "Conv", {1: 2}),
        "state that is a list": New("models.common", "Conv", [1]),
        "state of a dict": Call(Name("collections", "OrderedDict"), (), {"__init__": 1}),
        "instance of Popen": New("subprocess", "Popen", {}),
        "subclass of Path": New("pathlib", "PosixPath", {"_flavour": 1}),
        "array of objects": array(Call(dtype, ("O8", 0, 1)), (1,), b"x" * 8),
        "array of objects as a list": array(number, (1,), [Name("models.yolo", "Model")]),
        "array with fields": array(
            Call(dtype, ("V8", 0, 1), (3, "|", None, ("a",), {"a": (number, 0)}, 8, 1, 0)), (1,), b"x" * 8
        ),
        "type with a field list": Call(dtype, ([("a", "O")], 0, 1)),
        "type that is code": Call(dtype, ("__import__('os')", 0, 1)),
        "type with commas": Call(dtype, ("f8,O", 0, 1)),
        "type of dates": Call(dtype, ("M8[ns]", 0, 1)),
        "type with metadata": Call(dtype, ("f8", 0, 1), (4, "<", None, None, None, -1, -1, 0, {"x": 1})),
        "type with fields in its state": Call(dtype, ("f8", 0, 1), (3, "<", None, ("a",), {}, -1, -1, 0)),
        "big-endian array": array(Call(dtype, ("f8", 0, 1), (3, ">", None, None, None, -1, -1, 0)), (1,), b"x" * 8),
        "array of another class": Call(reconstruct, (Name("models.yolo", "Model"), (0,), b"b")),
        "array of memmap": Call(reconstruct, (Name("numpy", "memmap"), (0,), b"b")),
        "array born large": Call(reconstruct, (ndarray, (1 << 40,), b"b")),
        "array shorter than its shape": array(number, (1 << 40,), b"x" * 8),
        "array longer than its shape": array(number, (1,), b"x" * 80),
        "array of negative shape": array(number, (-1,), b"x" * 8),
        "array whose shape overflows": array(number, (1 << 61, 16), b""),
        "array of 40 dimensions": array(number, (1,) * 40, b"x" * 8),
        "array with a class as type": array(Name("numpy", "float64"), (1,), b"x" * 8),
        "array with a strange order": array(number, (1,), b"x" * 8, "fortran"),
        "scalar of an object": Call(scalar, (Call(dtype, ("O8", 0, 1)), Name("models.yolo", "Model"))),
        "scalar that is too long": Call(scalar, (number, b"x" * 800)),
        "scalar beyond Unicode": Call(scalar, (Call(dtype, ("U1", 0, 1)), b"\xff" * 4)),
        "array state twice": Call(reconstruct, plain, (1, (1,), number, False, b"x" * 8, 0)),
        "state of a tensor": Raw(b""),
        "encoding by rot13": Call(Name("_codecs", "encode"), ("x", "rot13")),
        "encoding by utf-8": Call(Name("_codecs", "encode"), ("x", "utf-8")),
        "encoding of wide text": Call(Name("_codecs", "encode"), ("\u4e00", "latin1")),
        "default factory that is no name": Call(Name("collections", "defaultdict"), ("os.system",)),
        "default factory os.system": Call(Name("collections", "defaultdict"), (Name("os", "system"),)),
        "deque without end": Call(Name("collections", "deque"), ([], "x")),
        "dict of single values": Call(Name("builtins", "dict"), ([[1]],)),
        "set of lists": Call(Name("builtins", "set"), ([[1]],)),
        "base that is not object": Call(
            Name("copyreg", "_reconstructor"), (Name("models.yolo", "Model"), Name("builtins", "int"), None)
        ),
        "persistent id that is text": Persistent("os.system"),
        "persistent id of another kind": Persistent(("module", Name("os", "system"), "f", "x")),
        "persistent id within another": Persistent(
            ("storage", Persistent(("storage", Name("torch", "FloatStorage"), "0", "cpu", 1)), "0", "cpu", 1)
        ),
        "persistent id with a callable": Persistent(("storage", Name("models.yolo", "Model"), "0", "cpu", 108)),
        "persistent id with a path": Persistent(("storage", Name("torch", "ByteStorage"), "../../version", "cpu", 2)),
        "persistent id of a missing storage": Persistent(("storage", Name("torch", "ByteStorage"), "99", "cpu", 2)),
        "tensor function within a wrapper": Call(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (Name("_codecs", "encode"), Name("torch", "Tensor"), ("x", "latin1"), {}),
        ),
        "parameter of a list": Call(Name("torch._utils", "_rebuild_parameter"), ([1], True, {})),
        "device of a list": Call(Name("torch", "device"), ([1],)),
        "size of texts": Call(Name("torch", "Size"), (["x"],)),
    } | {"state of a tensor": _tensor_with_state()}


def _tensor_with_state() -> Call:
    arguments = (Persistent(("storage", Name("torch", "HalfStorage"), "0", "cpu", 108)), 0, (2,), (1,), False, {})
    number = Call(Name("numpy", "dtype"), ("f8", 0, 1))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments, (1, (1,), number, False, b"x" * 8))


def _bombs() -> dict[str, bytes]:
    """Small files that take much memory or time elsewhere."""
    pickles = {
        "billion laughs of lists": b"\x80\x02]q\x000"
        + b"".join(_tenfold(i, b"](", b"", b"e") for i in range(40))
        + b"h\x28.",
        "billion laughs of dicts": b"\x80\x02]q\x000"
        + b"".join(_tenfold(i, b"}(", b"K", b"u") for i in range(40))
        + b"h\x28.",
        "billion laughs of tuples": b"\x80\x02)" + b"2\x86" * 200 + b".",
        "1000 nested tuples": b"\x80\x02)" + b"\x85" * 1000 + b".",
        "20000 nested tuples": b"\x80\x02)" + b"\x85" * 20_000 + b".",
        "20000 nested lists": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
        "20000 nested records": b"\x80\x02" + _nested_records(20_000),
        "100000 nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "100000 nested tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
        "100000 nested dicts": b"\x80\x02" + b"}K\x01" * 100_000 + b"N" + b"s" * 100_000 + b".",
        "100000 nested records": b"\x80\x02" + _nested_records(100_000),
        "100000 marks": b"\x80\x02" + b"(" * 100_000 + b".",
        "a million empty dicts": b"\x80\x02(" + b"}" * 1_000_000 + b"t.",
        "a million empty sets": b"\x80\x04(" + b"\x8f" * 1_000_000 + b"t.",
        "a million memo entries": b"\x80\x04N" + b"\x94" * 1_000_000 + b".",
        "a million duplicates": b"\x80\x02(" + b"N" + b"2" * 3_000_000 + b"t.",
        "a million instances": b"\x80\x02cmodels.a\nB\nq\x00(" + b"h\x00)\x81" * 300_000 + b"t.",
        "a million empty containers made by calls": b"\x80\x02c__builtin__\nset\nq\x00(" + b"h\x00)R" * 300_000 + b"t.",
        "lists copied again and again": b"\x80\x02cbuiltins\nlist\nq\x00]("
        + b"N" * 50_000
        + b"e\x85q\x01("
        + b"h\x00h\x01R" * 20_000
        + b"t.",
        "wide text": b"\x80\x02" + _widepickled_text(6_000_000) + b".",
        "memo at 2^31": b"\x80\x02Nr\xff\xff\xff\x7f0j\xfe\xff\xff\x7f.",
        "integer of 2^31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "integer of negative length": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "integer of a million bytes": b"\x80\x02\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b".",
        "decimal of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "bytes of 2^63": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "bytes of 2^64": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        "bytes of 4 GiB": b"\x80\x03B\xff\xff\xff\xff.",
        "text of 2^63": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "text of 4 GiB": b"\x80\x02X\xff\xff\xff\xff.",
        "bytearray of 2^63": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "tuple that holds itself as root": b"\x80\x02]q\x00h\x00a.",
        "dict that is its own model": b"\x80\x02}q\x00" + pickled_text("model") + b"h\x00s.",
    }
    return {name: pickle_zip(data) for name, data in pickles.items()}


def _tenfold(level: int, begin: bytes, key: bytes, end: bytes) -> bytes:
    """A container that holds the one of the level below ten times."""
    items = b"".join((key + bytes([i]) if key else b"") + b"h" + bytes([level]) for i in range(10))
    return begin + items + end + b"q" + bytes([level + 1]) + b"0"


def _nested_records(depth: int) -> bytes:
    open_one = b"h\x00)\x81}" + b"h\x01"
    return b"cmodels.a\nB\nq\x00" + pickled_text("x") + b"q\x0100" + open_one * depth + b"N" + b"sb" * depth + b"."


def _widepickled_text(count: int) -> bytes:
    raw = b"a" * count + "\U0001f600".encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _tensors() -> dict[str, object]:
    """Tensors that lie about their storages."""
    return {
        "size beyond the storage": Tensor(WEIGHTS, size=(65,), stride=(1,)),
        "size far beyond the storage": Tensor(WEIGHTS, size=(1 << 61,), stride=(1,)),
        "size that overflows 64 bits": Tensor(WEIGHTS, size=(1 << 32, 1 << 32), stride=(1, 1)),
        "size that overflows to nothing": Tensor(WEIGHTS, size=(1 << 61, 8), stride=(0, 0)),
        "negative size": Tensor(WEIGHTS, size=(-1,), stride=(1,)),
        "size of text": Tensor(WEIGHTS, size=("64",), stride=(1,)),
        "size of floats": Tensor(WEIGHTS, size=(64.0,), stride=(1,)),
        "size of booleans": Tensor(WEIGHTS, size=(True,), stride=(1,)),
        "size that is a number": Tensor(WEIGHTS, size=64, stride=(1,)),
        "60 dimensions": Tensor(WEIGHTS, size=(1,) * 60, stride=(1,) * 60),
        "negative stride": Tensor(WEIGHTS, size=(4,), stride=(-1,), offset=63),
        "stride beyond the storage": Tensor(WEIGHTS, size=(2,), stride=(64,)),
        "stride that overflows": Tensor(WEIGHTS, size=(3,), stride=(1 << 61,)),
        "stride of 2^70": Tensor(WEIGHTS, size=(3,), stride=(1 << 70,)),
        "fewer strides than sizes": Tensor(WEIGHTS, size=(2, 2), stride=(1,)),
        "a number for strides": Tensor(WEIGHTS, size=(2,), stride=1),
        "stride 0 to a terabyte": Tensor(WEIGHTS, size=(1 << 20, 1 << 20), stride=(0, 0)),
        "stride 0 to 100 MB": Tensor(WEIGHTS, size=(1 << 25,), stride=(0,)),
        "empty with an absurd size": Tensor(WEIGHTS, size=(0, 1 << 60), stride=(1, 1)),
        "offset beyond the storage": Tensor(WEIGHTS, offset=1, size=(64,), stride=(1,)),
        "offset far beyond the storage": Tensor(WEIGHTS, offset=1 << 60, size=(1,), stride=(1,)),
        "negative offset": Tensor(WEIGHTS, offset=-4, size=(1,), stride=(1,)),
        "offset of text": Tensor(WEIGHTS, offset="0"),
        "more elements than stored": Tensor(WEIGHTS, count=65),
        "fewer elements than stored": Tensor(WEIGHTS, count=63, size=(1,), stride=(1,)),
        "negative number of elements": Tensor(WEIGHTS, count=-64, size=(1,), stride=(1,)),
        "2^62 elements": Tensor(WEIGHTS, count=1 << 62, size=(1,), stride=(1,)),
        "number of elements as float": Tensor(WEIGHTS, count=64.0),
        "narrower type than stored": Tensor(WEIGHTS, storage="HalfStorage"),
        "wider type than stored": Tensor(WEIGHTS, storage="DoubleStorage"),
        "quantized type": Tensor(WEIGHTS, storage="QInt8Storage"),
        "type that does not exist": Tensor(WEIGHTS, storage="EvilStorage"),
        "key with a path": Tensor(WEIGHTS, key="../0"),
        "one storage of two types": [
            Tensor(WEIGHTS, key="w"),
            Tensor(WEIGHTS, key="w", storage="IntStorage"),
        ],
        "unknown rebuild function": Tensor(WEIGHTS, rebuild="_rebuild_sparse_tensor"),
        "tensor without a storage": Call(
            Name("torch._utils", "_rebuild_tensor_v2"), (b"x" * 64, 0, (1,), (1,), False, {})
        ),
        "tensor without arguments": Call(Name("torch._utils", "_rebuild_tensor_v2"), ()),
    }
