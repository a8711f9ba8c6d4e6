"""``compress``: a trained checkpoint in, a smaller, faster IR out, and a report of what it cost."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovyolo.compress.compress_report import write_page
from ovyolo.compress.latency import machine
from ovyolo.compress.lineup import form_of, line_up
from ovyolo.compress.pipeline import Compression
from ovyolo.compress.qat.check import check_ir
from ovyolo.compress.recipe import Recipe
from ovyolo.errors import ExportError, TargetError
from ovyolo.evaluate.predictions import write_text
from ovyolo.export.portable import save_ir
from ovyolo.export.provenance import provenance
from ovyolo.train.network import Network

__all__ = ["CompressResult", "compress"]

CHECKED_PICTURES = 4


@dataclass(frozen=True)
class CompressResult:
    """What a compression left.

    Args:
        path: the ``.xml``.
        report: what was measured.
        json_path, html_path: the same as files; the page is None where Jinja2 is not installed.
    """

    path: Path
    report: dict[str, Any]
    json_path: Path
    html_path: Path | None


def compress(
    model: str | Path,
    data: str | Path,
    output: str | Path | None = None,
    recipe: Recipe | None = None,
    *,
    work: str | Path | None = None,
    imgsz: tuple[int, int] = (640, 640),
    device: str = "auto",
    precision: str = "auto",
    workers: int = 2,
    skip_bad: bool = False,
    quiet: bool = True,
    **changes: Any,
) -> CompressResult:
    """Make a trained detector smaller and faster: channels are removed, the network is trained on, and quantizers are
    trained in.

    Args:
        model: a YOLOv5 ``.pt`` or one of ours.
        data: the ``data.yaml`` that it was trained with, with ``train`` and ``val``.
        output: the ``.xml`` to write; by default ``model`` with ``-compressed``.
        recipe: what to do; ``changes`` are single values by name, such as ``speedup=2.5``.
        work: the folder for the steps, from which an interrupted run goes on; by default ``output`` with ``-steps``.
        imgsz: ``(height, width)`` of the input in pixels.
        device: where PyTorch computes; latency is always measured on this machine's CPU.
        precision: of the trainings, see :class:`~ovyolo.train.TrainSettings`.
        workers: threads that prepare pictures.
        skip_bad: go on without files that cannot be used.
        quiet: no progress.

    Raises:
        TargetError: the recipe's speed or ``max_drop`` cannot be met; says how near it came, and nothing is written.
        OvyoloError: as :func:`~ovyolo.train.api.train`.

    Example:
        >>> from ovyolo.compress.api import compress
        >>> result = compress("best.pt", "data.yaml", speedup=3.0)  # doctest: +SKIP
        >>> result.report["steps"][-1]["speedup"]  # doctest: +SKIP
        3.06
    """
    source = Path(model)
    recipe = replace(recipe or Recipe(), **changes)
    target = Path(output) if output is not None else source.with_name(f"{source.stem}-compressed.xml")
    if target.suffix.lower() != ".xml":
        raise ExportError(f"{target} is not a name for an IR: the output must end in .xml")
    folder = Path(work) if work is not None else target.with_name(f"{target.stem}-steps")
    run = Compression(
        source, Path(data), folder, recipe, imgsz, device=device, precision=precision, workers=workers,
        skip_bad=skip_bad, quiet=quiet,
    )  # fmt: skip
    steps = run.run()
    made = provenance(source)
    measured = line_up(steps.networks, imgsz, folder / "steps", made)
    last = list(steps.networks)[-1]
    report: dict[str, Any] = {
        "model": source.name, "data": str(data), "output": target.name, "imgsz": list(imgsz),
        "recipe": json.loads(recipe.to_json()), "machine": machine(), "pictures": len(run.validation),
        "training_pictures": len(run.training), "objects": run.validation.objects, "versions": _versions(),
        "steps": [{"name": name, **steps.measured[name], **measured[name]} for name in steps.networks],
    }  # fmt: skip
    reference = "trained on" if "trained on" in steps.measured else "original"
    report["reference"] = reference
    report["drop"] = round(steps.measured[reference]["ap"] - steps.measured[last]["ap"], 3)
    report["speedup"] = measured[last]["speedup"]
    final = steps.networks[last]
    ir, card = form_of(final, imgsz)
    few = [run.pictures.varied(None).sample(0, i)[0] for i in range(min(CHECKED_PICTURES, len(run.training)))]
    report["check"] = check_ir(final, ir, card, few)
    report["layers"] = _layers(steps.networks["original"], final, imgsz)
    _refuse(report, recipe)
    scores = {name: value for name, value in steps.measured[last].items() if not isinstance(value, dict)}
    facts = {"compressed": {"recipe": report["recipe"], "speedup": report["speedup"], "drop": report["drop"]}}
    save_ir(ir, replace(card, made={**made, **facts}, scores={"val": scores, "data": str(data)}), target)
    json_path = target.with_suffix(".compress.json")
    write_text(json_path, json.dumps(report, indent=1, ensure_ascii=False))
    page = write_page(target.with_suffix(".compress.html"), report)
    shutil.copyfile(_checkpoint_of(folder, last), target.with_suffix(".pt"))
    return CompressResult(target, report, json_path, page)


def _refuse(report: dict[str, Any], recipe: Recipe) -> None:
    """Raise where the result is not what was asked for."""
    if recipe.max_drop is not None and report["drop"] > recipe.max_drop:
        raise TargetError(
            f"{report['drop']:.2f} points of AP were lost, more than max_drop {recipe.max_drop:g}; nothing was "
            f"written: ask for less than {report['speedup']:.2f} times, or train longer (recover_epochs, qat_epochs)"
        )


def _checkpoint_of(folder: Path, step: str) -> Path:
    return folder / f"{step.replace(' ', '-')}.pt"


def _layers(before: Network, after: Network, imgsz: tuple[int, int]) -> list[list[Any]]:
    """Channels and multiplications of every convolution, before and after."""
    from ovyolo.compress.channels import costs_of

    new = {layer.name: layer for layer in costs_of(after, imgsz).layers}
    rows = []
    for layer in costs_of(before, imgsz).layers:
        other = new.get(layer.name) or new.get(f"{layer.name}.conv") or layer
        rows.append([layer.name, layer.outputs, other.outputs, layer.macs, other.macs])
    return rows


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("openvino", "nncf", "torch", "numpy")}
