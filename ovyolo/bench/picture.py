"""Where the time of a frame goes, as a stacked bar a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.bench.latency import PARTS
from ovyolo.errors import OvyoloError
from ovyolo.io.output import replacing

if TYPE_CHECKING:
    from ovyolo.bench.result import BenchResult

__all__ = ["check_picture", "write_picture"]

COLOURS = ("#b8c0c8", "#d55e00", "#0072b2", "#009e73")
INK = "#22303c"
SETTINGS: dict[str, Any] = {
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "ovyolo", "font.size": 10, "text.color": INK,
    "axes.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def check_picture(path: str | Path) -> Path:
    """Refuse, before the measurement, a picture that could not be made after it."""
    target = Path(path)
    if target.suffix.lower() not in (".svg", ".png"):
        raise OvyoloError(f"the picture {path} has an unknown kind: name a file that ends in .svg or .png")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OvyoloError('matplotlib draws the picture and is missing: pip install "ovyolo[val]"') from error
    return target


def write_picture(result: BenchResult, path: str | Path) -> Path:
    """Draw the medians of a frame's parts into an ``.svg`` or ``.png``.

    Raises:
        OvyoloError: matplotlib is missing, latency was not measured, or the file cannot be written.
    """
    target = check_picture(path)
    if result.latency is None:
        raise OvyoloError("the picture shows latency, which was not measured")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [model.name for model in result.models]
    summaries = [result.summary(name, "latency") for name in names]
    settings: Any = SETTINGS
    with mpl.rc_context(settings):
        figure = Figure(figsize=(8, 1.7 + 0.55 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(names))
        left = [0.0] * len(names)
        for part, colour in zip(PARTS, COLOURS, strict=True):
            widths = [summary[part]["median"] for summary in summaries]
            axes.barh(rows, widths, left=left, height=0.55, color=colour, label=part)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        for row, end, summary in zip(rows, left, summaries, strict=True):
            total, infer = summary["total"]["median"], summary["infer"]["median"]
            text = f" {total:.2f} ms, {infer / total:.1%} of it the network"
            axes.text(end, row, text, va="center", fontsize=9)
        axes.set_xlim(0, max(left) * 1.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(list(rows), [name if len(name) <= 32 else name[:31] + "…" for name in names])
        axes.set_xlabel("milliseconds a frame, medians, one frame at a time")
        figure.legend(loc="outside upper center", ncols=len(PARTS))
        figure.supxlabel(f"{result.machine['cpu']}, OpenVINO {result.machine['openvino']}", fontsize=8)
        with replacing(target) as part_file:
            metadata = {"Date": None} if target.suffix.lower() == ".svg" else None
            figure.savefig(part_file, format=target.suffix.lower()[1:], dpi=120, metadata=metadata)
    return target
