"""NNCF's PyTorch side behind the same door as its OpenVINO side: no telemetry, no output, errors in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ovyolo.compress.nncf_bridge import load_nncf, silence
from ovyolo.compress.qat.kernels import QuantizerFunctions
from ovyolo.errors import DimensionError, ExportError, OvyoloError, reason_of
from ovyolo.export.checkpoint.own_format import record_of

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = [
    "HOOKS",
    "graph_of",
    "hooks_of",
    "layer_operations",
    "load_nncf_torch",
    "mask_name",
    "nncf_at_work",
    "operations_of_layers",
    "without_hooks",
]

HOOKS = "__nncf_hooks"  # where NNCF keeps what it puts into a module

# what NNCF computes tensors of PyTorch with; it looks once, and PyTorch may have been hidden then (`load_nncf`)
TENSORS = tuple(f"nncf.tensor.functions.torch_{name}" for name in ("io", "linalg", "numeric"))
KERNELS = ("QuantizedFunctionsCPU", "QuantizedFunctionsCUDA")


def load_nncf_torch() -> Any:
    """NNCF with its PyTorch side, whose quantizers compute by :mod:`ovyolo.compress.qat.kernels`: nothing is compiled.

    Raises:
        OvyoloError: it is not installed or cannot be loaded.
    """
    nncf = load_nncf()
    try:
        for name in ("nncf.torch", *TENSORS):
            import_module(name)
        functions = import_module("nncf.torch.quantization.quantize_functions")
    except ImportError as error:
        raise OvyoloError(
            f"training with quantizers needs NNCF's PyTorch side ({error}): `pip install 'ovyolo[compress]'`"
        ) from error
    for name in KERNELS:
        setattr(functions, name, QuantizerFunctions)
    return nncf


@contextlib.contextmanager
def nncf_at_work(doing: str) -> Iterator[Any]:
    """NNCF, quiet; what it raises becomes an :class:`ExportError` that says that it cannot do ``doing``."""
    nncf = load_nncf_torch()
    try:
        with silence(nncf):
            yield nncf
    except OvyoloError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, nncf.InternalError) as error:
        raise ExportError(f"NNCF cannot {doing}: {reason_of(error)}") from error


def hooks_of(module: nn.Module) -> dict[str, nn.Module]:
    """What NNCF has put into ``module``, by the names it gives; empty where it has not been at work.

    One quantizer may stand in several places, and then has several names.
    """
    storage = module._modules.get(HOOKS)
    return {} if storage is None else dict(storage.named_hooks(remove_duplicate=False))


def without_hooks(network: Network) -> Network:
    """A copy of the network without what NNCF has put into it; masks are not applied to the weights."""
    tensors = {
        key: value.detach().cpu().numpy() for key, value in network.tensors().items() if key[: len(HOOKS)] != HOOKS
    }
    return type(network)(record_of(network.description, tensors), network.names, network.strides)


def mask_name(weight: str) -> str:
    """What NNCF calls the mask of the parameter ``weight``."""
    return f"post_hooks.{weight.replace('.', ':')}__0.0"


def graph_of(network: Network) -> Any:
    """NNCF's graph of the network as it is without hooks."""
    plain = without_hooks(network).eval()
    with nncf_at_work("follow the network"):
        from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph
        from nncf.torch.function_hook.wrapper import wrap_model

        side = plain.probe_side
        with torch.no_grad():
            return build_nncf_graph(wrap_model(plain), torch.zeros(1, 3, side, side))


def layer_operations(graph: Any) -> dict[str, list[tuple[str, int]]]:
    """By the name of each parameter (``model.24.m.0.weight``), the operations that use it, by NNCF's names, and at
    which of their inputs.

    NNCF names an operation by the modules that were *called* on the way to it, so layers in a list share a name with
    their owner: only the graph tells whose is whose.
    """
    from nncf.torch.model_graph_manager import get_const_node

    found: dict[str, list[tuple[str, int]]] = {}
    for node in graph.get_all_nodes():
        for port in getattr(node.layer_attributes, "constant_port_ids", ()):
            constant = get_const_node(node, port, graph)
            if constant is not None:
                found.setdefault(constant.layer_attributes.name, []).append((node.node_name, port))
    return found


def operations_of_layers(network: Network, layers: tuple[str, ...], others: tuple[str, ...] = ()) -> list[str]:
    """The operations of the named layers (``"model.24"``, ``"model.24.m.0"``), and of ``others``, parts without
    weights.

    Raises:
        DimensionError: there is no such layer, or it has no weights.
    """
    if not layers and not others:
        return []
    graph = graph_of(network)
    operations = layer_operations(graph)
    everything = [node.node_name for node in graph.get_all_nodes() if "/" in node.node_name]

    def within(part: str) -> list[str]:
        return [name for name in everything if name.startswith(f"{part.replace('.', '/')}/")]

    found: list[str] = []
    for layer in layers:
        weights = [weight for weight in operations if f"{weight}.".startswith(f"{layer}.")]
        own = [name for weight in weights for name, _ in operations[weight]]
        if not own:
            last = len(network.model) - 1
            raise DimensionError(
                f"there is no layer {layer!r} with weights: layers are called model.0 to model.{last}, their parts "
                "as model.2.cv1"
            )
        # additions, activations and the like in between
        found += own + within(layer)
    for part in others:
        found += within(part)
    return list(dict.fromkeys(found))
