"""A writer of ``torch.save`` files without torch: for tests that need files torch would not write, or no torch at all.

Python values are pickled with protocol 2 opcodes by :func:`pickled`; what Python has no value for is said with
:class:`Name`, :class:`Call`, :class:`New`, :class:`Tensor` and :class:`Raw`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass, field

import numpy as np

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
STORAGES = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(eq=False)
class Name:
    """A global."""

    module: str
    name: str


@dataclass(eq=False)
class Call:
    """REDUCE, and BUILD where there is a state."""

    function: object
    arguments: object = ()
    state: object = None


@dataclass(eq=False)
class New:
    """An instance: NEWOBJ and BUILD."""

    module: str
    name: str
    state: object = field(default_factory=dict)


@dataclass(eq=False)
class Persistent:
    """A persistent id."""

    pid: object


@dataclass(eq=False)
class Raw:
    """Opcodes as they are; they must leave one object on the stack."""

    opcodes: bytes


@dataclass(eq=False)
class Tensor:
    """A tensor with an own storage, or any claim about one."""

    array: np.ndarray
    key: str | None = None
    size: object = None
    stride: object = None
    offset: object = 0
    count: object = None
    storage: str | None = None
    rebuild: str = "_rebuild_tensor_v2"


class Writer:
    """Collects storages while it pickles."""

    def __init__(self, legacy: bool = False) -> None:
        self.storages: dict[str, np.ndarray] = {}
        self.legacy = legacy

    def pickled(self, value: object) -> bytes:
        return b"\x80\x02" + self._emit(value) + b"."

    def _emit(self, value: object) -> bytes:
        match value:
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int():
                return _integer(value)
            case float():
                return b"G" + struct.pack(">d", value)
            case str():
                raw = value.encode("utf-8", "surrogatepass")
                return b"X" + struct.pack("<I", len(raw)) + raw
            case bytes():
                return b"B" + struct.pack("<I", len(value)) + value
            case list():
                return b"](" + b"".join(map(self._emit, value)) + b"e"
            case tuple():
                return b"(" + b"".join(map(self._emit, value)) + b"t"
            case dict():
                items = b"".join(self._emit(key) + self._emit(item) for key, item in value.items())
                return b"}(" + items + b"u"
            case Name():
                return f"c{value.module}\n{value.name}\n".encode()
            case Call():
                state = b"" if value.state is None else self._emit(value.state) + b"b"
                return self._emit(value.function) + self._emit(value.arguments) + b"R" + state
            case New():
                return f"c{value.module}\n{value.name}\n".encode() + b")\x81" + self._emit(value.state) + b"b"
            case Persistent():
                return self._emit(value.pid) + b"Q"
            case Raw():
                return value.opcodes
            case Tensor():
                return self._tensor(value)
        raise TypeError(type(value))

    def _tensor(self, value: Tensor) -> bytes:
        array = np.ascontiguousarray(value.array)
        key = str(len(self.storages)) if value.key is None else value.key
        self.storages.setdefault(key, array)
        kind = STORAGES[array.dtype.name] if value.storage is None else value.storage
        count = array.size if value.count is None else value.count
        size = array.shape if value.size is None else value.size
        strides = tuple(step // array.itemsize for step in array.strides)
        stride = strides if value.stride is None else value.stride
        pid = ("storage", Name("torch", kind), key, "cpu", count) + ((None,) if self.legacy else ())
        arguments = (Persistent(pid), value.offset, size, stride, False, Call(Name("collections", "OrderedDict")))
        return self._emit(Call(Name("torch._utils", value.rebuild), arguments))


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def zip_file(value: object, prefix: str = "archive", extra: dict[str, bytes] | None = None) -> bytes:
    """The zip form of ``torch.save(value)``; ``extra`` are further entries by their full names."""
    writer = Writer()
    entries = {f"{prefix}/data.pkl": writer.pickled(value), f"{prefix}/byteorder": b"little"}
    entries |= {f"{prefix}/data/{key}": array.tobytes() for key, array in writer.storages.items()}
    return zip_bytes(entries | {f"{prefix}/version": b"3\n"} | (extra or {}))


def zip_bytes(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = compression
            archive.writestr(info, data)
    return buffer.getvalue()


def pickle_zip(pickle: bytes, prefix: str = "archive") -> bytes:
    """A zip form that holds just this pickle."""
    return zip_bytes({f"{prefix}/data.pkl": pickle, f"{prefix}/version": b"3\n"})


def legacy_file(value: object, keys: object = None, tail: bytes | None = None, little: bool = True) -> bytes:
    """The form of ``torch.save`` before torch 1.6; ``keys`` and ``tail`` replace what belongs there."""
    writer = Writer(legacy=True)
    body = writer.pickled(value)
    plain = Writer()
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": sizes}
    listed = sorted(writer.storages) if keys is None else keys
    data = b"".join(
        struct.pack("<q", writer.storages[key].size) + writer.storages[key].tobytes() for key in sorted(writer.storages)
    )
    head = b"\x80\x02" + MAGIC + b"." + plain.pickled(1001) + plain.pickled(system)
    return head + body + plain.pickled(listed) + (data if tail is None else tail)


def legacy_pickle(pickle: bytes) -> bytes:
    """The legacy form around one pickle that uses no storages."""
    plain = Writer()
    head = b"\x80\x02" + MAGIC + b"." + plain.pickled(1001) + plain.pickled({"little_endian": True})
    return head + pickle + plain.pickled([])


def module(module_name: str, name: str, parts: dict | None = None, tensors: dict | None = None, **state: object) -> New:
    """A ``torch.nn.Module``: submodules, parameters (as arrays) and attributes."""
    ordered = Name("collections", "OrderedDict")
    parameters = {
        key: Tensor(array) if isinstance(array, np.ndarray) else array for key, array in (tensors or {}).items()
    }
    return New(
        module_name,
        name,
        {
            "training": False,
            "_parameters": parameters,
            "_buffers": {},
            "_forward_hooks": Call(ordered),
            "_modules": parts or {},
            **state,
        },
    )


def detector(classes: int = 2, **head_state: object) -> New:
    """The smallest network that is a YOLOv5 detector: one convolution and a Detect layer of one level."""
    random = np.random.default_rng(7)
    outputs = 5 + classes
    conv = module(
        "torch.nn.modules.conv",
        "Conv2d",
        tensors={"weight": random.standard_normal((4, 3, 3, 3)).astype(np.float16), "bias": np.zeros(4, np.float16)},
        kernel_size=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
        groups=1,
    )
    last = module(
        "torch.nn.modules.conv",
        "Conv2d",
        tensors={"weight": random.standard_normal((3 * outputs, 4, 1, 1)).astype(np.float16), "bias": None},
    )
    state = {
        "nc": classes,
        "no": outputs,
        "nl": 1,
        "na": 3,
        "i": 1,
        "f": [0],
        "stride": Tensor(np.array([8.0], np.float32)),
    }
    head = module("models.yolo", "Detect", {"m": module("torch.nn.modules.container", "ModuleList", {"0": last})})
    head.state["_buffers"] = {"anchors": Tensor(np.ones((1, 3, 2), np.float16))}
    head.state.update(state | head_state)
    first = module("models.common", "Conv", {"conv": conv}, i=0, f=-1)
    layers = module("torch.nn.modules.container", "Sequential", {"0": first, "1": head})
    return module(
        "models.yolo",
        "Model",
        {"model": layers},
        names=[f"thing {i}" for i in range(classes)],
        stride=Tensor(np.array([8.0], np.float32)),
        save=[],
    )


def checkpoint(**others: object) -> dict:
    """What a training of YOLOv5 saves, around :func:`detector`."""
    return {
        "epoch": -1,
        "best_fitness": 0.5,
        "model": detector(),
        "ema": None,
        "optimizer": None,
        "date": None,
    } | others
