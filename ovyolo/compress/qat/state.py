"""Checkpoints of networks with quantizers and masks: plain tensors and JSON.

The file is an ovyolo checkpoint like any other: who knows nothing of quantizers reads the floating-point network from
it, with masked weights as zeros. What is beyond that lies beside it, so that training goes on as if undisturbed.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovyolo.compress.qat.bridge import HOOKS, graph_of, hooks_of, load_nncf_torch, nncf_at_work
from ovyolo.compress.qat.quantizers import keep_bytes_exact
from ovyolo.compress.qat.sparsify import effective_weights
from ovyolo.errors import CheckpointError, OvyoloError, reason_of
from ovyolo.export.checkpoint.own_format import FORMAT, FORMAT_VERSION
from ovyolo.train.network import load_network, save_atomically

if TYPE_CHECKING:
    from ovyolo.train.network import Network

__all__ = ["attach_hooks", "hooks_json", "load_trained", "save_trained"]

# classes that a checkpoint may ask for
ALLOWED = ("nncf.torch.quantization.layers", "nncf.torch.function_hook.pruning.*.modules")


def save_trained(network: Network, path: str | Path, **others: Any) -> Path:
    """Write the network, with its quantizers and masks, whole or not at all.

    Args:
        network: with or without quantizers and masks.
        path: where to.
        others: small values kept beside it: numbers, texts, lists and dicts of them.

    Raises:
        CheckpointError: the file cannot be written.
    """
    masked = effective_weights(network)
    tensors: dict[str, Tensor] = {}
    beyond: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        stored = value.detach().cpu().clone()
        if name.startswith(HOOKS) or name.endswith("num_batches_tracked"):
            beyond[name] = stored
        elif name in masked:
            # the values under the masks count when masks are chosen anew
            beyond[name] = stored
            tensors[name] = masked[name].cpu().clone()
        else:
            tensors[name] = stored
    description = json.dumps({**network.description, "names": list(network.names)})
    content = {"format": FORMAT, "version": FORMAT_VERSION, "description": description, "tensors": tensors}
    content |= {"hooks": hooks_json(network), "beyond": beyond, **others}
    return save_atomically(content, Path(path))


def load_trained(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """What :func:`save_trained` wrote, in evaluation mode, to be trained on or exported; and the values beside it.

    Plain checkpoints are read, too: the network has then no quantizers.

    Raises:
        CheckpointError: the file is missing, damaged, or its quantizers do not fit the network.
        OvyoloError: NNCF is missing.
    """
    path = Path(path)
    network = load_network(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile):
        content = {}  # not one of ours: what could be read has been read
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return network.eval(), {}
    others = {
        key: value
        for key, value in content.items()
        if key not in ("format", "version", "description", "tensors", "hooks", "beyond")
    }
    try:
        network = attach_hooks(network, content.get("hooks", ""))
        _fill(network, content.get("beyond", {}))
    except OvyoloError as error:
        raise type(error)(f"{path}: {error}") from error
    keep_bytes_exact(network)
    return network.eval(), others


def hooks_json(network: Network) -> str:
    """What NNCF has put into the network, and where, as JSON; empty where there is nothing."""
    if not hooks_of(network):
        return ""
    nncf = load_nncf_torch()
    return json.dumps({"nncf": nncf.__version__, "config": nncf.torch.get_config(network)})


def attach_hooks(network: Network, text: str) -> Network:
    """Put quantizers and masks into a plain network, in place, as :func:`hooks_json` says; their numbers come later.

    Raises:
        CheckpointError: it is not such a description, or it does not fit the network.
    """
    if not text:
        return network
    try:
        stored = json.loads(text)
        config, version = stored["config"], stored["nncf"]
        places = {name for command in config["compression_state"] for name in command["hook_names_in_model"]}
        wanted = {name.split(".")[1].rpartition("__")[0] for name in places}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError("the description of its quantizers is damaged: take an earlier checkpoint") from error
    known = {node.node_name.replace(".", ":") for node in graph_of(network).get_all_nodes()}
    if wanted - known:
        # hooks at places that are not reached would silently do nothing
        raise CheckpointError(
            f"its quantizers belong to operations that this network has not ({min(wanted - known)[:60]}; made with "
            f"NNCF {version}): export it with the version of ovyolo and NNCF that made it"
        )
    try:
        with nncf_at_work("put the quantizers of the checkpoint back") as nncf:
            made: Network = nncf.torch.load_from_config(network, config, allowed_modules=ALLOWED)
            return made
    except OvyoloError as error:
        raise CheckpointError(str(error)) from error


def _fill(network: Network, beyond: Any) -> None:
    """Set what the plain checkpoint does not say."""
    state = network.state_dict()
    wanted = {name for name in state if name.startswith(HOOKS)}
    if not isinstance(beyond, dict) or not set(beyond) <= set(state) or not wanted <= set(beyond):
        raise CheckpointError("the numbers of its quantizers and masks are not complete: take an earlier checkpoint")
    try:
        network.load_state_dict({**state, **beyond})
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"its quantizers or masks do not fit the network ({reason_of(error)})") from error
