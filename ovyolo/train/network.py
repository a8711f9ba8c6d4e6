"""A YOLOv5 detector in PyTorch, built from what a checkpoint describes; raw heads out.

The description stays with the network, so that what was trained, pruned or re-headed is saved, exported and built again
by the same reader and emitter as a file of YOLOv5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovyolo.errors import CheckpointError, OvyoloError, UnsupportedModelError, reason_of
from ovyolo.export.checkpoint import Checkpoint, Record, attr, children, class_name, read_checkpoint, tensor
from ovyolo.export.checkpoint.own_format import FORMAT, FORMAT_VERSION, describe, record_of
from ovyolo.export.graph import MALFORMED
from ovyolo.io.output import replacing
from ovyolo.train.blocks import Block, build_layer

__all__ = ["Detect", "Layers", "Network", "load_network", "save_atomically", "save_network"]

COARSEST = 64  # cells, in pixels: of the levels that networks are made with


class Detect(Block):
    """The head: one convolution a level, ``na * (5 + nc)`` channels each; no decoding."""

    anchors: Tensor

    def __init__(self, record: Record, name: str) -> None:
        super().__init__(record, name)
        self.nc, self.na = int(attr(record, "nc", 0)), int(attr(record, "na", 0))
        anchors = tensor(record, "anchors")
        if anchors is None:
            raise UnsupportedModelError(f"layer {name} has no anchors")
        # in units of each level's stride, as checkpoints keep them
        self.register_buffer("anchors", torch.from_numpy(np.array(anchors, np.float32)))

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        return ("m",)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [convolution(one) for convolution, one in zip(self.m, x, strict=True)]


class Layers(nn.Sequential):
    """The numbered layers and who reads whom. It is called, not iterated, so that NNCF's names keep the numbers."""

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[int | list[int]]) -> None:
        super().__init__(*layers)
        self.sources = tuple(sources)
        wanted = {index + j if j < 0 else j for index, f in enumerate(sources) for j in _listed(f) if j != -1}
        self.kept = frozenset(wanted)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor | None] = []
        previous: Any = x
        for index, (layer, source) in enumerate(zip(self, self.sources, strict=True)):
            given = [previous if j == -1 else outputs[index + j if j < 0 else j] for j in _listed(source)]
            previous = layer(given if isinstance(source, list) else given[0])
            outputs.append(previous if index in self.kept else None)
        return previous


class Network(nn.Module):
    """A detector that trains.

    Args:
        model: the record of a whole network, as :func:`~ovyolo.export.checkpoint.read_checkpoint` gives it.
        names: class names by index.
        strides: input pixels a cell of each level.

    Its ``state_dict`` has the names that the checkpoint has.

    Raises:
        UnsupportedModelError: a layer is not known or does not fit.

    Example:
        >>> import torch
        >>> from ovyolo.train.network import load_network
        >>> network = load_network("best.pt")  # doctest: +SKIP
        >>> [tuple(head.shape) for head in network(torch.zeros(1, 3, 640, 640))]  # doctest: +SKIP
        [(1, 33, 80, 80), (1, 33, 40, 40), (1, 33, 20, 20)]
    """

    def __init__(self, model: Record, names: Sequence[str], strides: Sequence[int]) -> None:
        super().__init__()
        records = list(children(children(model)["model"]).values())
        layers = [build_layer(record, f"model.{i}") for i, record in enumerate(records[:-1])]
        layers.append(Detect(records[-1], f"model.{len(records) - 1}"))
        self.model = Layers(layers, [_source_of(record) for record in records])
        self.names = tuple(names)
        self.strides = tuple(int(stride) for stride in strides)
        self.description = describe(model)
        head = self.head
        self.description["parts"]["model"]["parts"][str(len(records) - 1)]["attributes"]["stride"] = list(self.strides)
        if head.nc != len(self.names) or len(self.strides) != len(head.anchors):
            raise UnsupportedModelError(
                f"its head tells {head.nc} classes apart on {len(head.anchors)} levels, "
                f"but it has {len(self.names)} class names and {len(self.strides)} strides"
            )

    @property
    def head(self) -> Detect:
        """The last layer."""
        last = self.model[-1]
        assert isinstance(last, Detect)
        return last

    @property
    def probe_side(self) -> int:
        """Pixels a side of pictures that are small and yet come through every layer: where coarse levels went, maps of
        wider cells than the heads have are left."""
        return max(COARSEST, 2 * max(self.strides))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Raw heads ``[N, na*(5+nc), H/stride, W/stride]``, one a level, of f32 RGB ``[N, 3, H, W]`` from 0 to 1."""
        return self.model(x)

    def anchors_in_pixels(self) -> Tensor:
        """``[levels, na, 2]``: width and height in input pixels."""
        strides = torch.tensor(self.strides, device=self.head.anchors.device)
        return self.head.anchors * strides.view(-1, 1, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer by the name that the checkpoint has, without the counters of batch norms."""
        return {key: value for key, value in self.state_dict().items() if not key.endswith("num_batches_tracked")}

    def record(self) -> Record:
        """The record tree with today's tensors: what the emitter builds an IR from."""
        arrays = {key: value.detach().cpu().numpy() for key, value in self.tensors().items()}
        record = record_of(self.description, arrays)
        record.state["names"] = list(self.names)
        return record

    def checkpoint(self, path: Path) -> Checkpoint:
        """The network as if it had just been read from ``path``."""
        return Checkpoint(path, self.record(), dict(enumerate(self.names)), self.strides, "model", "ovyolo")


def load_network(path: str | Path) -> Network:
    """The trainable network of a YOLOv5 checkpoint or of one of ours; nothing of the file is executed.

    Raises:
        OvyoloError: as :func:`~ovyolo.export.checkpoint.read_checkpoint`, or a layer cannot be trained.
    """
    checkpoint = read_checkpoint(path)
    try:
        return network_of(checkpoint)
    except OvyoloError as error:
        raise type(error)(f"{path}: {error}") from error
    except MALFORMED as error:
        raise UnsupportedModelError(
            f"{path}: its layers do not fit together ({reason_of(error)}): the file is damaged"
        ) from error


def network_of(checkpoint: Checkpoint) -> Network:
    """As :func:`load_network`, of what was read."""
    head = list(children(children(checkpoint.model)["model"]).values())[-1]
    count = int(attr(head, "nc", 0))
    names = [checkpoint.names.get(i, f"class{i}") for i in range(count)]
    network = Network(checkpoint.model, names, checkpoint.stride or _measured_strides(checkpoint, names))
    return network.float()


def _measured_strides(checkpoint: Checkpoint, names: list[str]) -> tuple[int, ...]:
    """What a forward pass shows, for a file that does not say."""
    head = list(children(children(checkpoint.model)["model"]).values())[-1]
    levels = len(children(children(head)["m"]))
    probe = Network(checkpoint.model, names, [1] * levels).float().eval()
    with torch.no_grad():
        return tuple(256 // out.shape[2] for out in probe(torch.zeros(1, 3, 256, 256)))


def save_network(network: Network, path: str | Path, **others: Any) -> Path:
    """Write a checkpoint of plain tensors and JSON, whole or not at all; ``others`` are small values kept beside it.

    ``ovyolo export``, ``detect``, ``quantize`` and ``train`` read it like any ``.pt``;
    ``torch.load(path, weights_only=True)`` reads it, too.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = json.dumps({**network.description, "names": list(network.names)})
    tensors = {key: value.detach().cpu().clone() for key, value in network.tensors().items()}
    return save_atomically(
        {"format": FORMAT, "version": FORMAT_VERSION, "description": text, "tensors": tensors, **others}, Path(path)
    )


def save_atomically(content: Any, path: Path) -> Path:
    """``torch.save`` to a temporary file beside ``path``, then rename.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # given a name, torch would write the temporary one into the file, and no two files would be alike
        with replacing(path) as part, open(part, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise CheckpointError(f"{path} cannot be written: {reason_of(error)}; an earlier one is still whole") from error
    return path


def _listed(source: int | list[int]) -> list[int]:
    return source if isinstance(source, list) else [source]


def _source_of(record: Record) -> int | list[int]:
    """Whom a layer reads: a list where it takes a list, as Concat and Detect do."""
    found = attr(record, "f", -1)
    if class_name(record) in ("Concat", "Detect"):
        return [int(j) for j in found] if isinstance(found, (list, tuple)) else [int(found)]
    return int(found[0]) if isinstance(found, (list, tuple)) and len(found) == 1 else int(found)
