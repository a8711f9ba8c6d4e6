"""``ovyolo info``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovyolo.core import shared_core


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="an .xml that ovyolo made")
    parser.add_argument("--json", action="store_true", help="print the card as JSON instead")


def size_of(path: Path) -> str:
    """The pair's size, as people read it."""
    size = sum(p.stat().st_size for p in (path, path.with_suffix(".bin")))
    return f"{size / 1e6:.1f} MB"


def summary(path: Path) -> list[str]:
    """What the model is, a fact a line."""

    from ovyolo.runtime import read_model

    model, card = read_model(path, shared_core())
    shown = ", ".join(card.names[:8]) + (f", … ({card.num_classes} in all)" if card.num_classes > 8 else "")
    lines = [
        f"{path}  {size_of(path)}, weights {card.precision}",
        f"  classes  {shown}",
        f"  input    {_port(model.input(0))}, BGR bytes as the camera gives them",
    ]
    for index, name in enumerate(card.head.outputs):
        port = next(p for p in model.outputs if name in p.get_names())
        detail = "boxes decoded by the graph"
        if card.head.kind == "anchors":
            anchors = "  ".join(f"{w:g}×{h:g}" for w, h in card.head.anchors[index])
            detail = f"stride {card.head.strides[index]}, anchors {anchors}"
        lines.append(f"  output   {_port(port, name)}, {detail}")
    lines += [f"  {key:<8} {value}" for key, value in card.made.items()]
    lines += [f"  runs on  {card.runs_on}"] if card.runs_on else []
    lines += [f"  scored   {key} {value}" for key, value in card.scores.items()]
    lines += [f"  note     {note}" for note in card.notes]
    return lines


def _port(port: object, name: str | None = None) -> str:
    """Name, shape and type of an input or output."""
    label = name or sorted(port.get_names())[0]  # type: ignore[attr-defined]
    dims = ",".join(str(d) for d in port.get_partial_shape())  # type: ignore[attr-defined]
    return f"{label} [{dims}] {port.get_element_type().get_type_name()}"  # type: ignore[attr-defined]


def run(options: argparse.Namespace) -> int:
    """Print the card."""
    path = Path(options.model)
    if options.json:
        from ovyolo.runtime import read_model

        print(read_model(path, shared_core())[1].to_json())
        return 0
    for line in summary(path):
        print(line)
    return 0
