"""Making a network smaller and faster without losing what it can do: 8-bit quantization with a budget for AP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovyolo.compress.quantize import QuantizeResult as QuantizeResult
    from ovyolo.compress.quantize import quantize as quantize
    from ovyolo.compress.scheme import Scheme as Scheme

__all__ = ["QuantizeResult", "Scheme", "quantize"]

_LAZY = {"quantize": "quantize", "QuantizeResult": "quantize", "Scheme": "scheme"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(f"ovyolo.compress.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ovyolo.compress' has no attribute {name!r}")
