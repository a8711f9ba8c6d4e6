"""Measuring what else is to be known of the network that was chosen, and writing it, its card and the reports."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.compress.budget import Budget, Trial
from ovyolo.compress.run import QuantizeResult, Run
from ovyolo.core import shared_core

if TYPE_CHECKING:
    import openvino

    from ovyolo.compress.search import Found, Search

__all__ = ["finish", "mild_precisions", "report_of"]

CHECKED_ON = 4  # pictures for the check of instruction sets


def finish(run: Run, budget: Budget, found: Found, search: Search, html: bool) -> QuantizeResult:
    """Measure what else is to be known of the chosen network, and write it and the reports."""
    from ovyolo.compress.instruction_sets import check_instruction_sets, overflowing_layers
    from ovyolo.export.portable import save_ir

    report = report_of(run, budget, found.trial, search)
    kind = found.scheme.precision
    report["precision"] = kind
    report["scheme"] = found.scheme.to_dict()
    report["layers"] = [one.to_list() for one in found.harms[:40]]
    report["latency"] = run.journal.measure(
        f"latency {found.trial.what} {len(found.trial.float_layers)}", lambda: _latency(run, kind, found.model)
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
    card = replace(run.card, precision=kind, made=made)
    pictures = run.calibration.pictures[:CHECKED_ON]
    run.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run.target.stem}-", dir=run.target.parent) as folder:
        draft = save_ir(found.model, card, Path(folder) / "draft.xml")
        with run.stages.stage("checking instruction sets"):
            checked = check_instruction_sets(draft, card, pictures)
        original = save_ir(run.model.clone(), run.card, Path(folder) / "original.xml")
        report["size"] = {"FP16": _size(original), kind: _size(draft)}
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


def _latency(run: Run, kind: str, model: openvino.Model) -> dict[str, Any]:
    """FP32, the quantized ``kind`` and, where this CPU has it, BF16, in turn."""
    from ovyolo.compress.latency import measure_latency
    from ovyolo.evaluate.judge import compile_session

    with ExitStack() as stack, run.stages.stage("measuring latency", 40, "round") as tell:
        sessions = {"FP32": compile_session(run.model, run.card), kind: compile_session(model, run.card)}
        for precision in mild_precisions():
            sessions[precision.upper()] = compile_session(run.model, run.card, precision=precision)
        for session in sessions.values():
            stack.enter_context(closing(session))
        return measure_latency(sessions, run.calibration.pictures[0], tell=tell)


def mild_precisions() -> list[str]:
    """The 16-bit kinds of arithmetic that this CPU has."""

    able = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name, word in (("bf16", "BF16"), ("f16", "FP16")) if word in able]


def _alternatives(run: Run, budget: Budget) -> dict[str, Any]:
    """What the original scores in 16-bit arithmetic, which needs no quantizing: figures, by kind."""
    found = {}
    for precision in mild_precisions():
        figures = run.journal.measure(f"figures {precision}", lambda p=precision: _measure_mild(run, p))  # type: ignore[misc]
        found[precision.upper()] = {"ap": figures["ap"], "drop": round(budget.before["ap"] - figures["ap"], 3)}
    return found


def _measure_mild(run: Run, precision: str) -> dict[str, Any]:
    with run.stages.stage(f"measuring AP in {precision}", len(run.judge.dataset), "picture") as tell:
        return run.judge.score(run.judge.predict(run.model, precision, tell))


def _uncertainty(run: Run, model: openvino.Model) -> float | None:
    with run.stages.stage("measuring how sure the drop is"):
        return run.judge.uncertainty(run.judge.predict(run.model, keep=True), run.judge.predict(model, keep=True))


def _size(path: Path) -> int:
    """Bytes of an IR's two files."""
    return sum(one.stat().st_size for one in (path, path.with_suffix(".bin")))


def report_of(run: Run, budget: Budget, chosen: Trial | None, search: Search) -> dict[str, Any]:
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


def _notes(run: Run, found: Found, overflowing: list[str]) -> list[str]:
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
