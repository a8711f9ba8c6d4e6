"""``quantize``: a trained model in, an INT8 IR out that lost no more than was allowed, and a report of what it lost."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.compress.budget import Budget, BudgetError, Trial
from ovyolo.compress.scheme import Scheme
from ovyolo.compress.stages import Stages
from ovyolo.errors import DataError, DimensionError, ModelError, OvyoloWarning

if TYPE_CHECKING:
    import openvino

    from ovyolo.card import Card
    from ovyolo.compress.calibration import Calibration
    from ovyolo.compress.journal import Journal
    from ovyolo.compress.judge import Judge
    from ovyolo.compress.search import Found, Search

__all__ = ["QuantizeResult", "quantize"]

DEFAULT_DROP = 0.5
DEFAULT_COUNT = 128
CHECKED_ON = 4  # pictures for the check of instruction sets


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """What became of a model.

    Args:
        path: the INT8 ``.xml``.
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
        return float(self.report["latency"]["speedup"]["INT8"])


@dataclass(eq=False)
class _Run:
    """What the parts of a run share."""

    source: Path
    target: Path
    model: openvino.Model
    card: Card
    judge: Judge
    calibration: Calibration
    journal: Journal
    stages: Stages
    notes: list[str]


def quantize(
    model: str | Path,
    data: str | Path,
    output: str | Path | None = None,
    *,
    max_drop: float | None = DEFAULT_DROP,
    scheme: Scheme | None = None,
    calibration: str = "train",
    calibration_sources: Sequence[str | Path] | None = None,
    calibration_size: int = DEFAULT_COUNT,
    split: str = "val",
    images: str | Path | None = None,
    imgsz: int | Sequence[int] | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    fresh: bool = False,
    html: bool = True,
    quiet: bool = True,
) -> QuantizeResult:
    """Quantize a detector to INT8 within a budget of AP.

    The original is measured, then its INT8 network. If that loses more than ``max_drop``, other ranges are tried, then
    the layers are ranked by the harm that their quantization does to the raw heads, and put back to floating point,
    those first that are worth most, until the budget is met.

    Args:
        model: an ``.xml`` that ovyolo made, or a ``.pt`` or ``.onnx``.
        data: a ``data.yaml`` (or a COCO ``.json``) with labels to measure by.
        output: the ``.xml`` to write; by default the model's name with ``-int8``. Beside it lie the report,
            ``.quantize.json`` (from which an interrupted run goes on) and ``.quantize.html``.
        max_drop: points of AP (of 100) that may be lost on the validation set; None measures and allows anything.
            With 0, no class may lose anything.
        scheme: how to quantize; see :class:`~ovyolo.compress.scheme.Scheme`.
        calibration: the split of ``data`` whose pictures ranges are measured on. Pictures that are in the validation
            set, too, are left out.
        calibration_sources: pictures, folders or videos for that, instead.
        calibration_size: at most so many.
        split: the split to measure by.
        images: the folder of a COCO JSON's pictures.
        imgsz: input size for a ``.pt`` or ``.onnx``.
        limit: measure by at most so many pictures.
        skip_bad: go on without pictures and labels that cannot be used.
        fresh: measure again what an earlier run has measured.
        html: write an HTML page, too.
        quiet: say nothing while working.

    Raises:
        BudgetError: no network was within the budget; nothing was written but the report.
        DataError: the data cannot be used: bad files, other classes, no pictures.
        OvyoloError: the model cannot be read or quantized, NNCF or faster-coco-eval is missing.

    Example:
        >>> from ovyolo.compress import quantize
        >>> result = quantize("best.pt", "data.yaml", max_drop=0.3)  # doctest: +SKIP
        >>> result.path, result.drop, result.speedup  # doctest: +SKIP
        (PosixPath('best-int8.xml'), 0.21, 2.4)
    """
    from ovyolo.compress.nncf_bridge import load_nncf
    from ovyolo.compress.refine import Quantizer
    from ovyolo.compress.search import Search

    if max_drop is not None and not 0 <= max_drop <= 100:
        raise DimensionError(f"max_drop is {max_drop}; it takes points of AP from 0 to 100, or None")
    if calibration_size < 1:
        raise DimensionError(f"calibration_size is {calibration_size}; it takes a whole number from 1")
    source = Path(model)
    target = _target(source, output)
    load_nncf()
    stages = Stages(quiet)
    run = _prepare(
        source, target, data, stages, split=split, images=images, imgsz=imgsz, limit=limit, skip_bad=skip_bad,
        calibration=calibration, sources=calibration_sources, count=calibration_size, fresh=fresh,
    )  # fmt: skip
    scheme = scheme or Scheme()
    before = run.journal.measure("figures before", lambda: _measure_before(run))
    if before["ap"] is None:
        raise DataError(f"{run.judge.dataset} labels no objects, so that AP cannot be measured: give labelled pictures")
    if before["ap"] < 1:
        run.notes.append(
            f"CAUTION: the original itself has AP {before['ap']:.2f}: is this the data set that it was trained for?"
        )
    stages.say(f"  the original: AP {before['ap']:.2f}")
    budget = Budget(before, max_drop)
    quantizer = Quantizer(run.model, run.calibration.pictures, stages)
    search = Search(quantizer, run.card, run.judge, budget, run.journal, stages)
    found = search.run(scheme)
    for note in run.notes:
        warnings.warn(note, OvyoloWarning, stacklevel=2)
    if found is None:
        report = _report(run, budget, None, search)
        run.journal.write(complete=True, report=report)
        at_zero = "" if max_drop else " without any class losing something"
        raise BudgetError(
            f"no INT8 network of {source} stays within {max_drop:g} points of AP {before['ap']:.2f}{at_zero}, so "
            f"the original was kept and nothing was written but {run.journal.path}. Tried: {budget.summary()}"
        )
    return _finish(run, budget, found, search, html)


def _target(source: Path, output: str | Path | None) -> Path:
    target = source.with_name(f"{source.stem}-int8.xml") if output is None else Path(output)
    if target.suffix.lower() != ".xml":
        raise ModelError(f"{target} is not a name for an IR: the output must end in .xml")
    if target.exists() and source.exists() and target.samefile(source):
        raise ModelError(f"{target} would overwrite its own source: name another file with -o")
    return target


def _prepare(
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
) -> _Run:
    """Read the model, the data and the calibration pictures; whatever is wrong with them comes out here."""
    import openvino as ov

    from ovyolo.compress.calibration import choose_calibration, file_hash
    from ovyolo.compress.folded import load_folded
    from ovyolo.compress.journal import Journal, dataset_hash
    from ovyolo.compress.judge import Judge
    from ovyolo.compress.latency import machine
    from ovyolo.compress.nncf_bridge import load_nncf
    from ovyolo.dataset import load_dataset
    from ovyolo.export.api import as_imgsz
    from ovyolo.version import __version__

    network, card = load_folded(source, None if imgsz is None else as_imgsz(imgsz))
    dataset = load_dataset(data, split, images=images, limit=limit).checked(skip_bad)
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
    return _Run(source, target, network, card, judge, chosen, Journal(path, inputs), stages, notes)


def _measure_before(run: _Run) -> dict[str, Any]:
    with run.stages.stage("measuring AP of the original", len(run.judge.dataset), "picture") as tell:
        return run.judge.score(run.judge.predict(run.model, tell=tell, keep=True))


def _finish(run: _Run, budget: Budget, found: Found, search: Search, html: bool) -> QuantizeResult:
    """Measure what else is to be known of the chosen network, and write it and the reports."""
    from ovyolo.compress.instruction_sets import check_instruction_sets, overflowing_layers
    from ovyolo.export.portable import save_ir

    report = _report(run, budget, found.trial, search)
    report["scheme"] = found.scheme.to_dict()
    report["layers"] = [one.to_list() for one in found.harms[:40]]
    report["latency"] = run.journal.measure(
        f"latency {found.trial.what} {len(found.trial.float_layers)}", lambda: _latency(run, found.model)
    )
    report["drop_error"] = run.journal.measure(
        f"uncertainty {found.trial.what}", lambda: _uncertainty(run, found.model)
    )
    report["alternatives"] = _alternatives(run, budget)
    made = {
        **run.card.made,
        "quantization": {
            **found.scheme.to_dict(),
            "nncf": run.journal.inputs["versions"]["nncf"],
            "calibration": run.calibration.to_dict(),
            "float_layers": list(found.trial.float_layers),
        },
    }
    card = replace(run.card, precision="INT8", made=made)
    pictures = run.calibration.pictures[:CHECKED_ON]
    run.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run.target.stem}-", dir=run.target.parent) as folder:
        draft = save_ir(found.model, card, Path(folder) / "draft.xml")
        with run.stages.stage("checking instruction sets"):
            checked = check_instruction_sets(draft, card, pictures)
        original = save_ir(run.model.clone(), run.card, Path(folder) / "original.xml")
        report["size"] = {"FP16": _size(original), "INT8": _size(draft)}
    overflowing = overflowing_layers(found.model)
    report["instruction_sets"] = {**checked, "layers_that_can_overflow": overflowing}
    made["quantization"]["instruction_sets"] = checked["checked"]
    made["quantization"]["can_overflow_without_vnni"] = len(overflowing)
    card = replace(card, scores=_scores(report), notes=(*run.card.notes, *_notes(run, found, overflowing)))
    path = save_ir(found.model, card, run.target)
    run.journal.write(complete=True, report=report)
    page = None
    if html:
        from ovyolo.compress.quantize_report import write_page

        page = write_page(run.target.with_suffix(".quantize.html"), report)
    return QuantizeResult(path, report, run.journal.path, page)


def _latency(run: _Run, model: openvino.Model) -> dict[str, Any]:
    """FP32, INT8 and, where this CPU has it, BF16, in turn."""
    from ovyolo.compress.judge import compile_session
    from ovyolo.compress.latency import measure_latency

    with ExitStack() as stack, run.stages.stage("measuring latency", 40, "round") as tell:
        sessions = {"FP32": compile_session(run.model, run.card), "INT8": compile_session(model, run.card)}
        for precision in mild_precisions():
            sessions[precision.upper()] = compile_session(run.model, run.card, precision=precision)
        for session in sessions.values():
            stack.enter_context(closing(session))
        return measure_latency(sessions, run.calibration.pictures[0], tell=tell)


def mild_precisions() -> list[str]:
    """The 16-bit kinds of arithmetic that this CPU has."""
    import openvino as ov

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name, word in (("bf16", "BF16"), ("f16", "FP16")) if word in able]


def _alternatives(run: _Run, budget: Budget) -> dict[str, Any]:
    """What the original scores in 16-bit arithmetic, which needs no quantizing: figures, by kind."""
    found = {}
    for precision in mild_precisions():
        figures = run.journal.measure(f"figures {precision}", lambda p=precision: _measure_mild(run, p))  # type: ignore[misc]
        found[precision.upper()] = {"ap": figures["ap"], "drop": round(budget.before["ap"] - figures["ap"], 3)}
    return found


def _measure_mild(run: _Run, precision: str) -> dict[str, Any]:
    with run.stages.stage(f"measuring AP in {precision}", len(run.judge.dataset), "picture") as tell:
        return run.judge.score(run.judge.predict(run.model, precision, tell))


def _uncertainty(run: _Run, model: openvino.Model) -> float | None:
    with run.stages.stage("measuring how sure the drop is"):
        return run.judge.uncertainty(run.judge.predict(run.model, keep=True), run.judge.predict(model, keep=True))


def _size(path: Path) -> int:
    """Bytes of an IR's two files."""
    return sum(one.stat().st_size for one in (path, path.with_suffix(".bin")))


def _report(run: _Run, budget: Budget, chosen: Trial | None, search: Search) -> dict[str, Any]:
    """What is known when the search is over."""
    from ovyolo.compress.latency import machine

    return {
        "source": run.source.name,
        "output": None if chosen is None else run.target.name,
        "data": str(run.judge.dataset),
        "pictures": len(run.judge.dataset),
        "objects": run.judge.dataset.objects,
        "calibration": run.calibration.to_dict(),
        "max_drop": budget.max_drop,
        "before": budget.before,
        "after": None if chosen is None else chosen.figures,
        "drop": None if chosen is None else round(chosen.drop, 3),
        "float_layers": [] if chosen is None else list(chosen.float_layers),
        "layers_in_all": len(search.quantizer.layers),
        "trials": [trial.to_dict() for trial in budget.trials],
        "head_error": None if search.error is None else search.error.__dict__,
        "notes": run.notes,
        "reused": run.journal.reused,
        "machine": machine(),
        "versions": run.journal.inputs["versions"],
    }


def _scores(report: dict[str, Any]) -> dict[str, Any]:
    """The card's figures: AP in points, before and after."""
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    return {
        "data": Path(report["data"]).name,
        "pictures": report["pictures"],
        "after": {name: report["after"][name] for name in names},
        "before": {name: report["before"][name] for name in names},
        "drop": report["drop"],
        "drop_error": report["drop_error"],
        "bytes": report["size"],
        "latency": report["latency"],
    }


def _notes(run: _Run, found: Found, overflowing: list[str]) -> list[str]:
    """Sentences for the card."""
    notes = list(run.notes)
    if found.trial.float_layers:
        notes.append(
            f"{len(found.trial.float_layers)} layers compute in floating point, because in 8 bits they cost more AP "
            "than was allowed."
        )
    if overflowing:
        notes.append(
            f"8-bit products of {len(overflowing)} layers can saturate on CPUs without VNNI: use it on CPUs with VNNI, "
            "or quantize with overflow 'pairs'."
        )
    return notes
