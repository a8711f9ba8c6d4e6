"""Measuring: what a model costs on this machine, split into its parts, and how several compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovyolo.bench.api import bench as bench
    from ovyolo.bench.result import BenchResult as BenchResult
    from ovyolo.bench.result import ModelCost as ModelCost
    from ovyolo.bench.turns import Ratio as Ratio
    from ovyolo.bench.turns import Turns as Turns
    from ovyolo.bench.turns import take_turns as take_turns

__all__ = ["BenchResult", "ModelCost", "Ratio", "Turns", "bench", "take_turns"]

# lazily, because the process whose cold start is measured passes through here
_LAZY = {
    "bench": "api", "BenchResult": "result", "ModelCost": "result", "Ratio": "turns", "Turns": "turns",
    "take_turns": "turns",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"ovyolo.bench.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'ovyolo.bench' has no attribute {name!r}")
