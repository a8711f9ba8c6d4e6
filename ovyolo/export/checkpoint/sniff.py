"""Files that are called ``.pt`` and are something else: said in one sentence each, from their first bytes."""

from __future__ import annotations

import re

from ovyolo.errors import CheckpointError, UnsupportedModelError

__all__ = ["refuse_foreign"]

_DOWNLOAD = "download the checkpoint itself again."

# first bytes: what the file is, and what to do about it
_DAMAGED: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer and not the checkpoint; run `git lfs pull` to fetch the file.",
    ),
    (b"PK\5\6", "it is an empty zip archive; " + _DOWNLOAD),
    (b"\x1f\x8b", "it is a gzip archive; unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive; unpack it first."),
    (b"Rar!", "it is a RAR archive; unpack it first."),
    (b"BZh", "it is a bzip2 archive; unpack it first."),
    (b"\xfd7zXZ", "it is an xz archive; unpack it first."),
    (b"\x28\xb5\x2f\xfd", "it is a Zstandard archive; unpack it first."),
    (b"\x89PNG", "it is a PNG picture; give the path of a checkpoint."),
    (b"\xff\xd8\xff", "it is a JPEG picture; give the path of a checkpoint."),
    (b"%PDF", "it is a PDF document; give the path of a checkpoint."),
)
_OTHER_MODELS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF", "it is an HDF5 file, as Keras writes them; ovyolo reads YOLOv5 checkpoints made by torch.save."),
    (b"\x93NUMPY", "it is a NumPy array; ovyolo reads YOLOv5 checkpoints made by torch.save."),
    (b"GGUF", "it is a GGUF language model; ovyolo reads YOLOv5 checkpoints made by torch.save."),
    (b"7767517", "it is an ncnn model; export the .pt file that it was made from."),
)


def refuse_foreign(head: bytes, suffix: str) -> None:
    """Raise if ``head``, the first 512 bytes of a file, cannot begin a checkpoint.

    Raises:
        CheckpointError: it is empty, a web page, an archive, a picture, or no checkpoint at all.
        UnsupportedModelError: it is a model in another format.
    """
    if not head:
        raise CheckpointError("it is empty; " + _DOWNLOAD)
    if not head.strip(b"\0"):
        raise CheckpointError("it begins with nothing but zeros, as a broken download does; " + _DOWNLOAD)
    for magic, message in _DAMAGED:
        if head.startswith(magic):
            raise CheckpointError(message)
    for magic, message in _OTHER_MODELS:
        if head.startswith(magic):
            raise UnsupportedModelError(message)
    _refuse_text(head)
    if head[4:8] == b"TFL3":
        raise UnsupportedModelError("it is a TensorFlow Lite model; export the .pt file that it was made from.")
    if len(head) > 9 and head[7:8] == b"\0" and head[8:9] == b"{":
        raise UnsupportedModelError(
            "it is a safetensors file: weights without a network description; export the .pt file of the training."
        )
    if head[:1] == b"\x08" and re.search(rb"onnx|pytorch|torch|\x12.{1,40}(main|graph)", head, re.IGNORECASE):
        raise UnsupportedModelError("it is an ONNX model; rename it to .onnx and export that.")
    if head[257:262] == b"ustar":
        raise CheckpointError("it is a tar archive; unpack it first.")
    if head[:4] != b"PK\3\4" and head[:1] != b"\x80":
        hint = "" if suffix in (".pt", ".pth") else " Checkpoints of YOLOv5 are .pt files."
        raise CheckpointError("it is not a checkpoint made by torch.save." + hint)


def _refuse_text(head: bytes) -> None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<head")):
        raise CheckpointError("it is a web page, as a failed download leaves it; " + _DOWNLOAD)
    if start.startswith(b"<?xml") or start.startswith(b"<net"):
        raise CheckpointError("it is an XML file; if it is an OpenVINO model, its name must end in .xml.")
    if start.startswith((b'{"', b"{\n", b"{\r", b"[")) and not start.startswith(b"[\x00"):
        raise CheckpointError("it is a JSON text, as a failed download may leave it; " + _DOWNLOAD)
