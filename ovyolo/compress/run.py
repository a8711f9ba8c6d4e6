"""What the parts of a quantization run share, and reading it all before work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.compress.stages import Stages

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card
    from ovyolo.compress.calibration import Calibration
    from ovyolo.compress.journal import Journal
    from ovyolo.evaluate.judge import Judge

__all__ = ["QuantizeResult", "Run", "prepare"]


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """What became of a model.

    Args:
        path: the ``.xml`` that was written.
        report: everything that was measured, as in the JSON report.
        json_path, html_path: the reports; ``html_path`` is None where Jinja2 is not installed or it was not wanted.
    """

    path: Path
    report: dict[str, Any] = field(repr=False)
    json_path: Path
    html_path: Path | None = None

    @property
    def drop(self) -> float:
        """Points of AP lost."""
        return float(self.report["drop"])

    @property
    def speedup(self) -> float:
        """How many times faster than the original in FP32, measured in turn on this machine."""
        return float(self.report["latency"]["speedup"][self.report["precision"]])


@dataclass(eq=False)
class Run:
    """The inputs of a run and what it leaves behind."""

    source: Path
    target: Path
    model: openvino.Model
    card: Card
    judge: Judge
    calibration: Calibration
    journal: Journal
    stages: Stages
    notes: list[str]


def prepare(
    source: Path,
    target: Path,
    data: str | Path,
    stages: Stages,
    *,
    split: str,
    images: str | Path | None,
    imgsz: int | Sequence[int] | None,
    limit: int | None,
    skip_bad: bool,
    calibration: str,
    sources: Sequence[str | Path] | None,
    count: int,
    fresh: bool,
) -> Run:
    """Read the model, the data and the calibration pictures; whatever is wrong with them comes out here."""
    import openvino as ov

    from ovyolo.compress.calibration import choose_calibration, file_hash
    from ovyolo.compress.folded import load_folded
    from ovyolo.compress.journal import Journal, dataset_hash
    from ovyolo.compress.latency import machine
    from ovyolo.compress.nncf_bridge import load_nncf
    from ovyolo.dataset import load_dataset
    from ovyolo.dataset.types import count_of, lines_of
    from ovyolo.errors import DataError
    from ovyolo.evaluate.judge import Judge
    from ovyolo.export.api import as_imgsz
    from ovyolo.version import __version__

    network, card = load_folded(source, None if imgsz is None else as_imgsz(imgsz))
    dataset = load_dataset(data, split, images=images, limit=limit)
    if dataset.problems and not skip_bad and not stages.quiet:
        for line in lines_of(dataset.problems):
            stages.say(f"bad: {line}")
        raise DataError(
            f"{count_of(dataset.problems)} of {dataset} cannot be used (listed above): "
            "mend them, or go on without them with --skip-bad"
        )
    dataset = dataset.checked(skip_bad)
    Judge(dataset, card)  # the classes fit, or it says how they do not
    with stages.stage("reading calibration pictures", None, "picture") as tell:
        chosen, dataset = choose_calibration(
            dataset, card.imgsz, data=Path(data), split=calibration, sources=sources, count=count,
            skip_bad=skip_bad, tell=tell,
        )  # fmt: skip
    judge = Judge(dataset, card, skip_bad=skip_bad)
    problems = [*dataset.problems, *chosen.problems]
    notes = [*chosen.warnings, *([judge.note] if judge.note else [])]
    if problems:
        notes.append(f"{len(problems)} file(s) could not be used and were left out; the first is {problems[0]}")
    for note in notes:
        stages.say(f"  {note}")
    weights = source.with_suffix(".bin")
    inputs = {
        "model": [file_hash(path) for path in (source, *([weights] if source.suffix.lower() == ".xml" else []))],
        "imgsz": list(card.imgsz),
        "validation": dataset_hash(dataset),
        "calibration": chosen.digest,
        "versions": {"ovyolo": __version__, "openvino": ov.__version__, "nncf": load_nncf().__version__},
        "machine": machine(),
    }
    path = target.with_suffix(".quantize.json")
    if fresh:
        path.unlink(missing_ok=True)
    return Run(source, target, network, card, judge, chosen, Journal(path, inputs), stages, notes)
