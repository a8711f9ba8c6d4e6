"""``quantize``: a trained model in, an INT8 IR out that lost no more than was allowed, and a report of what it lost."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovyolo.compress.budget import Budget, BudgetError
from ovyolo.compress.run import QuantizeResult, Run, prepare
from ovyolo.compress.scheme import Scheme
from ovyolo.compress.stages import Stages
from ovyolo.errors import DataError, DimensionError, ModelError, OvyoloWarning

__all__ = ["QuantizeResult", "quantize"]

DEFAULT_DROP = 0.5
DEFAULT_COUNT = 128


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
    from ovyolo.compress.finish import finish, report_of
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
    run = prepare(
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
        report = report_of(run, budget, None, search)
        run.journal.write(complete=True, report=report)
        at_zero = "" if max_drop else " without any class losing something"
        raise BudgetError(
            f"no {scheme.precision} network of {source} stays within {max_drop:g} points of AP {before['ap']:.2f}"
            f"{at_zero}, so the original was kept and nothing was written but {run.journal.path}. "
            f"Tried: {budget.summary()}"
        )
    return finish(run, budget, found, search, html)


def _target(source: Path, output: str | Path | None) -> Path:
    target = source.with_name(f"{source.stem}-int8.xml") if output is None else Path(output)
    if target.suffix.lower() != ".xml":
        raise ModelError(f"{target} is not a name for an IR: the output must end in .xml")
    if target.exists() and source.exists() and target.samefile(source):
        raise ModelError(f"{target} would overwrite its own source: name another file with -o")
    return target


def _measure_before(run: Run) -> dict[str, Any]:
    with run.stages.stage("measuring AP of the original", len(run.judge.dataset), "picture") as tell:
        return run.judge.score(run.judge.predict(run.model, tell=tell, keep=True))
