"""Other runtimes, so that all compute the same: what each needs as input, and the arrays that it returns.

Nothing here is imported before a user asks for that runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError, ModelError, OvyoloError, reason_of

__all__ = ["RUNTIMES", "Runtime", "open_runtime"]

Array = NDArray[Any]


class Runtime(Protocol):
    """A network that another runtime computes."""

    version: str
    """Name and version of the package."""
    planes_first: bool
    """Whether it takes ``(1, 3, H, W)``, else ``(1, H, W, 3)``: float32, RGB, 0 to 1."""
    relative: bool
    """Whether box coordinates come as fractions of the input picture."""
    imgsz: tuple[int, int] | None
    """``(height, width)`` that it takes; None is any."""

    def __call__(self, picture: NDArray[np.float32]) -> list[Array]:
        """Compute."""


class OnnxRuntime:
    """``onnxruntime`` on the CPU. Its threads do not spin while they wait: they would take the others' turns."""

    planes_first, relative = True, False

    def __init__(self, path: Path, threads: int | None) -> None:
        import onnxruntime

        self.version = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()
        if len(given) != 1 or given[0].type not in ("tensor(float)", "tensor(float16)") or len(given[0].shape) != 4:
            raise ModelError(f"{path} takes {[(i.type, i.shape) for i in given]}, not one float picture [1, 3, H, W]")
        self._name, self._half = given[0].name, given[0].type == "tensor(float16)"
        self.imgsz = size_of(given[0].shape[2:])

    def __call__(self, picture: NDArray[np.float32]) -> list[Array]:
        """See :class:`Runtime`."""
        found: list[Array] = self._session.run(
            None, {self._name: picture.astype(np.float16) if self._half else picture}
        )
        return found


class Torch:
    """A TorchScript file on the CPU. Loading one runs its code: name files that you trust."""

    planes_first, relative = True, False
    imgsz: tuple[int, int] | None = None

    def __init__(self, path: Path, threads: int | None) -> None:
        import torch

        self.version = f"torch {torch.__version__}"
        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self._module = torch.jit.load(str(path), map_location="cpu").float().eval()

    def __call__(self, picture: NDArray[np.float32]) -> list[Array]:
        """See :class:`Runtime`."""
        with self._torch.inference_mode():
            return flat(self._module(self._torch.from_numpy(picture)))


class LiteRT:
    """A TensorFlow Lite file in ``ai-edge-litert`` (or ``tflite_runtime``), with its XNNPACK kernels."""

    planes_first, relative = False, True

    def __init__(self, path: Path, threads: int | None) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            from tflite_runtime.interpreter import Interpreter  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from importlib.metadata import version

        package = Interpreter.__module__.split(".")[0].replace("_", "-")
        self.version = f"{package} {version(package)}"
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        given = self._interpreter.get_input_details()
        if len(given) != 1 or len(given[0]["shape"]) != 4 or given[0]["shape"][3] != 3:
            raise ModelError(f"{path} takes {[tuple(i['shape']) for i in given]}, not one picture [1, H, W, 3]")
        self._input, self._outputs = given[0], self._interpreter.get_output_details()
        self.imgsz = size_of(given[0]["shape"][1:3])

    def __call__(self, picture: NDArray[np.float32]) -> list[Array]:
        """See :class:`Runtime`."""
        kind, (scale, zero) = self._input["dtype"], self._input["quantization"]
        if kind != np.float32:
            limits = np.iinfo(kind)
            picture = np.clip(np.rint(picture / scale + zero), limits.min, limits.max).astype(kind)
        self._interpreter.set_tensor(self._input["index"], picture)
        self._interpreter.invoke()
        found = []
        for output in self._outputs:
            value = self._interpreter.get_tensor(output["index"])
            scale, zero = output["quantization"]
            found.append(value if value.dtype == np.float32 else (value.astype(np.float32) - zero) * np.float32(scale))
        return found


RUNTIMES: dict[str, tuple[Callable[[Path, int | None], Runtime], str, str]] = {
    "onnxruntime": (OnnxRuntime, ".onnx", "onnxruntime"),
    "torch": (Torch, ".torchscript or .pt made by torch.jit", "torch"),
    "litert": (LiteRT, ".tflite", "ai-edge-litert"),
}


def open_runtime(name: str, path: Path, threads: int | None) -> Runtime:
    """Load ``path`` in the runtime called ``name``.

    Raises:
        DimensionError: there is no such runtime here.
        OvyoloError: its package is not installed.
        ModelError: it cannot load the file.
    """
    if name not in RUNTIMES:
        raise DimensionError(f"against is {name!r}; it takes one of {', '.join(RUNTIMES)}")
    make, kind, package = RUNTIMES[name]
    if not path.is_file():
        raise ModelError(f"{path} is not a file: name a {kind} for {name}")
    try:
        return make(path, threads)
    except ImportError as error:
        raise OvyoloError(
            f"{package} is not installed, so nothing can be compared with it: pip install {package}"
        ) from error
    except OvyoloError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise ModelError(f"{name} cannot load {path} ({reason_of(error)}): name a {kind}") from error


def size_of(shape: Any) -> tuple[int, int] | None:
    """Height and width where both are fixed numbers."""
    sides = [int(side) if isinstance(side, (int, np.integer)) and side > 0 else 0 for side in shape]
    return (sides[0], sides[1]) if all(sides) else None


def flat(value: Any) -> list[Array]:
    """All tensors in nested lists and tuples."""
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in flat(part)]
    return [value.float().numpy()]
