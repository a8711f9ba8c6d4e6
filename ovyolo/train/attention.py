"""C3TR's transformer, trainable: multi-head self-attention over the positions of a map (arXiv:1706.03762)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ovyolo.errors import UnsupportedModelError
from ovyolo.export.checkpoint import Record, attr, children, tensor

__all__ = ["Attention", "TransformerBlock"]


class Attention(nn.Module):
    """torch.nn.MultiheadAttention's tensors, computed with plain products, which NNCF and the converter can follow."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        if attr(record, "bias_k", None) is not None or attr(record, "add_zero_attn", False):
            raise UnsupportedModelError(f"layer {name} uses an attention with extra keys, which is not known")
        self.heads = int(attr(record, "num_heads", 1))
        for key in ("in_proj_weight", "in_proj_bias"):
            stored = tensor(record, key)
            value = None if stored is None else nn.Parameter(torch.from_numpy(np.array(stored, np.float32)))
            self.register_parameter(key, value)
        if self.in_proj_weight is None:
            raise UnsupportedModelError(f"layer {name} has no attention weights")
        self.out_proj = _linear(children(record)["out_proj"])

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, length, channels = q.shape
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            nn.functional.linear(x, weight, bias).reshape(n, length, self.heads, channels // self.heads).transpose(1, 2)
            for x, weight, bias in zip((q, k, v), self.in_proj_weight.chunk(3), biases, strict=True)
        )
        weights = (q @ k.transpose(2, 3) / (channels // self.heads) ** 0.5).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(n, length, channels))


class _Layer(nn.Module):
    """Attention and a two-step linear map, each with its input added; no normalisation."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__()
        parts = children(record)
        for key in ("q", "k", "v", "fc1", "fc2"):
            self.add_module(key, _linear(parts[key]))
        self.ma = Attention(parts["ma"], f"{name}.ma")

    def forward(self, x: Tensor) -> Tensor:
        x = self.ma(self.q(x), self.k(x), self.v(x)) + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """A convolution where the number of channels changes, a learnt position term, and attention layers."""

    def __init__(self, record: Record, name: str, convolution: nn.Module | None) -> None:
        super().__init__()
        parts = children(record)
        if "tr" not in parts or "linear" not in parts:
            raise UnsupportedModelError(f"layer {name} is not the transformer known by that name")
        self.conv = convolution
        self.linear = _linear(parts["linear"])
        self.tr = nn.Sequential(*(_Layer(part, f"{name}.tr.{key}") for key, part in children(parts["tr"]).items()))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        n, channels, height, width = x.shape
        sequence = x.flatten(2).transpose(1, 2)
        sequence = self.tr(sequence + self.linear(sequence))
        return sequence.transpose(1, 2).reshape(n, channels, height, width)


def _linear(record: Record) -> nn.Linear:
    weight, bias = tensor(record, "weight"), tensor(record, "bias")
    assert weight is not None
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.array(weight)))
        if bias is not None:
            made.bias.copy_(torch.from_numpy(np.array(bias)))
    return made
