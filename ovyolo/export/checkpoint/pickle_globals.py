"""What the names in a checkpoint's pickle stand for.

Nothing here is ever imported because a file names it. A name either stands in the table below and is interpreted by one
of our own small constructors, or lies in a namespace where network classes live (:data:`RECORD_NAMESPACES`) and becomes
an inert :class:`~ovyolo.export.checkpoint.records.Record`, or the file is refused.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import numpy as np

from ovyolo.errors import CheckpointError, UnsafeCheckpointError, UnsupportedModelError
from ovyolo.export.checkpoint.pickle_constructors import CONSTRUCTORS, Global, printable, record_of, unsafe
from ovyolo.export.checkpoint.records import Record
from ovyolo.export.checkpoint.tensors import STORAGE_TYPES, TORCH_DTYPES, DtypeRecord, array_state

if TYPE_CHECKING:
    from ovyolo.export.checkpoint.pickle_scalars import Budget

__all__ = ["RECORD_NAMESPACES", "Globals", "build_state"]

# Packages whose classes may appear in a checkpoint as records: of YOLOv5 and its forks, of torch's own layers and
# optimizers. A name from elsewhere is refused, so this list is a matter of policy and not of safety.
RECORD_NAMESPACES = (
    "models",
    "utils",
    "yolov5",
    "ultralytics",
    "yolo",
    "common",
    "experimental",
    "nets",
    "yolox",
    "yolov6",
    "yolov7",
    "torch.nn",
    "torch.optim",
    "torch.amp",
    "torch.cuda.amp",
    "torchvision",
    "timm",
    "mish_cuda",
)

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# module parts below a namespace that would walk out of it again; common words that are also stdlib modules are not here
_FORBIDDEN_MODULE_PARTS = frozenset(
    [
        "os",
        "sys",
        "subprocess",
        "builtins",
        "posix",
        "nt",
        "shutil",
        "importlib",
        "ctypes",
        "pickle",
        "runpy",
        "socket",
        "pty",
        "pdb",
        "webbrowser",
    ]
)
_FUNCTION_WORDS = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "open",
        "input",
        "getattr",
        "setattr",
        "delattr",
        "globals",
        "locals",
        "vars",
        "breakpoint",
        "system",
        "popen",
    ]
)


class Globals:
    """Looks up names, and makes what REDUCE and NEWOBJ ask for."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._found: dict[tuple[str, str], Global] = {}

    def find(self, module: str, name: str) -> Global:
        known = self._found.get((module, name))
        if known is None:
            self._budget.spend(500)
            known = self._found[(module, name)] = _find(module, name)
        return known

    def call(self, function: object, arguments: object) -> object:
        """REDUCE: ``function(*arguments)``, for those few functions that only describe data."""
        if not isinstance(function, Global):
            raise CheckpointError(
                f"it calls something of type {type(function).__name__}; the file is damaged or a trap."
            )
        if not isinstance(arguments, tuple):
            raise CheckpointError(
                f"it calls {printable(function.module, function.name)} without a tuple of arguments; it is damaged."
            )
        if function.construct is None:
            raise unsafe("call", function.module, function.name)
        return function.construct(arguments, self._budget)

    def new(self, kind: object, arguments: object) -> object:
        """NEWOBJ: an instance of a class, before its state."""
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise CheckpointError("it makes an instance of something that is no class; the file is damaged or a trap.")
        if not kind.instantiable:
            raise unsafe("make an instance of", kind.module, kind.name)
        return Record(kind.module, kind.name, arguments)


def build_state(target: object, state: object, budget: Budget) -> None:
    """BUILD: gives an instance its state, as data."""
    if isinstance(target, np.ndarray):
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], bytes | bytearray):
            budget.spend(len(state[4]))
        array_state(target, state)
        return
    if isinstance(target, DtypeRecord):
        target.set_state(state)
        return
    # objects with slots have a pair: attributes, slots
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if part is None:
            continue
        if not isinstance(target, Record | dict) or not isinstance(part, dict):
            what = (
                printable(target.module, target.name)
                if isinstance(target, Global)
                else f"something of type {type(target).__name__}"
            )
            raise UnsafeCheckpointError(f"it changes the inner state of {what}, which weights have no need of.")
        for name in part:
            if not isinstance(name, str) or (name.startswith("__") and name.endswith("__")):
                raise UnsafeCheckpointError(
                    f"it sets {ascii(name)[:80] if isinstance(name, str) else 'an unnamed attribute'} of an object, "
                    "which could run code elsewhere."
                )
        if isinstance(target, Record):
            budget.spend(60 * len(part))
            target.state.update(part)
        # attributes of an OrderedDict, such as a state_dict's _metadata, are of no use here


def _find(module: str, name: str) -> Global:
    constructor = CONSTRUCTORS.get((module, name))
    if constructor is not None:
        return Global(module, name, constructor)
    if (module, name) in _INSTANTIABLE:
        return Global(module, name, record_of(module, name), instantiable=True)
    if (module, name) in _MARKERS or (module == "torch" and (name in STORAGE_TYPES or name in TORCH_DTYPES)):
        return Global(module, name)
    if module == "torch.storage" and name in STORAGE_TYPES:
        return Global(module, name)
    if _in_namespace(module) and _is_inert_name(module, name):
        is_class = name.rpartition(".")[2].lstrip("_")[:1].isupper()
        return Global(module, name, record_of(module, name) if is_class else None, instantiable=True)
    if module.startswith("torch") and (name.startswith("_rebuild_q") or re.fullmatch(r"Q\w+Storage", name)):
        raise UnsupportedModelError("it holds a network quantized by torch; export the checkpoint of the training.")
    raise unsafe("load", module, name)


def _in_namespace(module: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in RECORD_NAMESPACES)


def _is_inert_name(module: str, name: str) -> bool:
    """Whether a name in a record namespace can only be something of that namespace itself.

    ``models.common`` may import ``os``, so that ``models.common`` ``os.system`` would be a function elsewhere: a
    dotted name must consist of nested classes, and a name must not be that of a module or of a function that runs
    code.
    """
    modules, names = module.split("."), name.split(".")
    if not all(_IDENTIFIER.fullmatch(part) for part in modules + names):
        return False
    if any(part.startswith("__") or part in _FORBIDDEN_MODULE_PARTS for part in modules + names):
        return False
    if any(part in sys.stdlib_module_names or part in _FUNCTION_WORDS for part in names):
        return False
    return len(names) == 1 or all(part.lstrip("_")[:1].isupper() for part in names)


_INSTANTIABLE = frozenset({("argparse", "Namespace"), ("types", "SimpleNamespace")})

_MARKERS = frozenset(
    [
        (module, name)
        for module in ("builtins", "__builtin__")
        for name in ("int", "long", "float", "bool", "str", "unicode", "object")
    ]
    + [("numpy", name) for name in ("ndarray", "float16", "float32", "float64", "int32", "int64", "uint8", "bool_")]
    + [("torch", name) for name in ("Tensor", "FloatTensor", "HalfTensor", "strided", "contiguous_format")]
)
