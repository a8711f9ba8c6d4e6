"""What a compiled model really runs: the precision and the kernel of each operation, as the runtime tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

__all__ = ["Executed", "executed_precisions", "summarize_executed"]

# operations that do a network's arithmetic
ARITHMETIC = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
EIGHT_BITS = ("i8", "u8")


@dataclass(frozen=True)
class Executed:
    """An operation as it is executed.

    Args:
        name: the operation's.
        kind: what it is, in the runtime's words: ``"Convolution"``, ``"Pooling"``, ….
        precision: what it computes in: ``"i8"``, ``"u8"``, ``"f32"``, ``"bf16"``, ``"f16"``.
        kernel: the implementation, such as ``"brgconv_avx512_vnni_I8"``.
        layers: the operations of the model that were fused into it.
    """

    name: str
    kind: str
    precision: str
    kernel: str
    layers: tuple[str, ...]

    @property
    def in_8_bits(self) -> bool:
        """Whether it computes with 8-bit integers."""
        return self.precision in EIGHT_BITS

    def to_list(self) -> list[Any]:
        """For JSON."""
        return [self.name, self.kind, self.precision, self.kernel]


def executed_precisions(compiled: Any, kinds: tuple[str, ...] | None = ARITHMETIC) -> list[Executed]:
    """The operations of an ``openvino.CompiledModel`` in the order that they are executed in.

    Args:
        compiled: on a device that describes what it executes, as the CPU does.
        kinds: only operations of these kinds; None for all.

    Example:
        >>> import openvino as ov
        >>> compiled = ov.Core().compile_model("best_int8.xml", "CPU")  # doctest: +SKIP
        >>> summarize_executed(executed_precisions(compiled))  # doctest: +SKIP
        {'i8': 60}
    """
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        kind = info.get("layerType", node.get_type_name())
        if kinds is not None and kind not in kinds:
            continue
        layers = tuple(filter(None, info.get("originalLayersNames", "").split(",")))
        precision, kernel = info.get("runtimePrecision", ""), info.get("primitiveType", "")
        found.append(Executed(node.get_friendly_name(), kind, precision, kernel, layers))
    return found


def summarize_executed(executed: list[Executed]) -> dict[str, int]:
    """How many operations compute in which precision."""
    return dict(Counter(one.precision for one in executed).most_common())


def _text(value: Any) -> str:
    value = getattr(value, "value", value)
    return str(value.astype(str) if hasattr(value, "astype") and not isinstance(value, str) else value)
