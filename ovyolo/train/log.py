"""What a training says of itself: a line of JSON an epoch, TensorBoard's events, and a picture at the end."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ovyolo.errors import OvyoloError
from ovyolo.io.output import reason_of, replacing

__all__ = ["Log", "draw_curves"]


class Log:
    """Writes ``log.jsonl`` and, where TensorBoard is installed, its events.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"
        self._board: Any = None

    def write(self, figures: dict[str, Any]) -> None:
        """Add an epoch. Epochs from before a resume that come again replace theirs."""
        kept = [line for line in _lines(self.path) if line.get("epoch", 0) < figures["epoch"]]
        with replacing(self.path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in [*kept, figures]), encoding="utf-8")
        if self._board is None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=figures["epoch"])
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    group = "loss" if name in ("box", "obj", "cls") else "val" if name.startswith("ap") else "run"
                    self._board.add_scalar(f"{group}/{name}", value, figures["epoch"])
            self._board.flush()

    def close(self, history: list[dict[str, Any]]) -> None:
        """Draw the curves."""
        if self._board is not None:
            self._board.close()
        draw_curves(history, self.folder / "curves.png")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a last one that was cut off is left out."""
    if not path.is_file():
        return []
    found = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    except OSError as error:
        raise OvyoloError(reason_of(path, error)) from error
    return found


def draw_curves(history: list[dict[str, Any]], path: Path) -> Path | None:
    """Losses and scores over the epochs, as a PNG; None where matplotlib is not installed or there is nothing."""
    if not history or find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    for name, label in (("box", "boxes"), ("obj", "objectness"), ("cls", "classes")):
        losses.plot(epochs, [line[name] for line in history], label=label, marker=".")
    losses.set(title="training loss by part", xlabel="epoch", ylim=(0, None))
    for name, label in (("ap50", "AP50"), ("ap", "AP"), ("ap_small", "AP small")):
        points = [(line["epoch"], line[name]) for line in history if line.get(name) is not None]
        if points:
            scores.plot(*zip(*points, strict=True), label=label, marker=".")
    scores.set(title="validation, averaged weights", xlabel="epoch", ylabel="points", ylim=(0, 100))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return path
