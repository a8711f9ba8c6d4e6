"""A checkpoint is data: ``.pt`` files read into inert records, whatever they ask for.

:func:`read_checkpoint` goes from a path to the record tree of a detector. Below it lie the containers (``archive``,
``zip_entries``), the pickle machine (``unpickle``, ``pickle_*``, ``tensors``) and the refusals (``kinds``, ``sniff``).
"""

from __future__ import annotations

from ovyolo.export.checkpoint.reader import Checkpoint, read_checkpoint
from ovyolo.export.checkpoint.records import Record, attr, children, class_name, copied, is_kind, tensor, walk

__all__ = [
    "Checkpoint",
    "Record",
    "attr",
    "children",
    "class_name",
    "copied",
    "is_kind",
    "read_checkpoint",
    "tensor",
    "walk",
]
