"""``compress``: a trained checkpoint in, a smaller, faster IR out, and a report of what it cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovyolo.compress.compress_report import write_page
from ovyolo.compress.forms import form_of
from ovyolo.compress.latency import machine
from ovyolo.compress.lineup import line_up
from ovyolo.compress.pipeline import Compression
from ovyolo.compress.qat.check import check_ir
from ovyolo.compress.recipe import Recipe
from ovyolo.compress.tries import Found, drop_of, reference_of, search
from ovyolo.errors import ExportError
from ovyolo.evaluate.predictions import write_text
from ovyolo.export.portable import save_ir
from ovyolo.io.output import copy_file
from ovyolo.report.changes import compare_found
from ovyolo.train.activation import activations_of
from ovyolo.train.augment import Augment
from ovyolo.train.network import Network

__all__ = ["CompressResult", "compress"]

CHECKED_PICTURES = 4
SLOWER = 0.95  # of what was asked for: less is said


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
    augment: Augment | None = None,
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
        augment: how training pictures are varied; best as they were when the model was trained.
        quiet: no progress.

    Raises:
        TargetError: the recipe's speed cannot be reached, or nothing that was tried at this speed keeps to its
            ``max_drop`` (see :func:`~ovyolo.compress.tries.search`); says how near it came, and nothing is written.
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
    first = Compression(
        source, Path(data), folder, recipe, imgsz, device=device, precision=precision, workers=workers,
        skip_bad=skip_bad, augment=augment, quiet=quiet,
    )  # fmt: skip
    found = search(first)
    run, steps, recipe = found.run, found.steps, found.run.recipe
    paths = {name: run.ir_of(name, network) for name, network in steps.networks.items()}
    measured = line_up(steps.networks, paths, imgsz)
    last = list(steps.networks)[-1]
    report: dict[str, Any] = {
        "model": source.name, "data": str(data), "output": target.name, "imgsz": list(imgsz),
        "recipe": json.loads(recipe.to_json()), "machine": machine(), "pictures": len(run.validation),
        "training_pictures": len(run.training), "objects": run.validation.objects, "versions": _versions(),
        "steps": [{"name": name, **steps.measured[name], **measured[name]} for name in steps.networks],
    }  # fmt: skip
    smaller = measured[last]["zipped"] / measured["original"]["zipped"]
    final, reference = steps.networks[last], reference_of(steps)
    dataset, before = run.found(reference, steps.networks[reference]).without_failed(run.validation)
    after = run.found(last, final).without_failed(run.validation)[1]
    changed, pictures = compare_found(dataset, before, after)
    report |= {
        "reference": reference, "drop": drop_of(steps), "speedup": measured[last]["speedup"], "tries": found.tried,
        "changes": changed.to_dict(), "notes": _notes(found, measured[last]["speedup"], smaller, first.recipe),
    }  # fmt: skip
    ir, card = form_of(final, imgsz)
    few = [run.pictures.varied(None).sample(0, i)[0] for i in range(min(CHECKED_PICTURES, len(run.training)))]
    report["check"] = check_ir(final, ir, card, few)
    report["layers"] = _layers(steps.networks["original"], final, imgsz)
    scores = {name: value for name, value in steps.measured[last].items() if not isinstance(value, dict)}
    facts = {"compressed": {"recipe": report["recipe"], "speedup": report["speedup"], "drop": report["drop"]}}
    save_ir(ir, replace(card, made={**run.made, **facts}, scores={"val": scores, "data": str(data)}), target)
    json_path = target.with_suffix(".compress.json")
    write_text(json_path, json.dumps(report, indent=1, ensure_ascii=False))
    page = write_page(target.with_suffix(".compress.html"), report, pictures)
    copy_file(run.path_of(last), target.with_suffix(".pt"))
    return CompressResult(target, report, json_path, page)


def _notes(found: Found, speedup: float, smaller: float, asked: Recipe) -> list[str]:
    """What is to be known of the figures."""
    notes = []
    target = asked.prune_target()
    if target is not None and target[0] == "speedup" and speedup < SLOWER * target[1]:
        planned = found.tried[-1]["speedup"]
        notes.append(
            f"CAUTION: {target[1]:g} times was asked for, and {planned:.2f} measured when channels were chosen, but "
            f"now it is {speedup:.2f}: other programs may run, or the machine got slower; measure again when it is idle"
        )
    if asked.size is not None and smaller > asked.size:
        notes.append(f"CAUTION: the zipped file takes {smaller:.3f} of the original's, {asked.size:g} was asked for")
    networks = found.steps.networks
    if "levels" in networks:
        gone = " and ".join(map(str, sorted(set(networks["original"].strides) - set(networks["levels"].strides))))
        notes.append(
            f"gone is the level of stride {gone}, without which at most {asked.idle:.1%} of the small, the medium or "
            "the large objects in the validation pictures were lost, before training: objects larger than those may "
            "not be found any more (levels 'keep' keeps it)"
        )
    if "activation" in networks:
        before = activations_of(networks.get("levels", networks["original"]))
        changed = {kind: count - before.get(kind, 0) for kind, count in activations_of(networks["activation"]).items()}
        told = " and ".join(f"{kind} in {count}" for kind, count in changed.items() if count > 0)
        notes.append(f"the network has other activation functions than it had: {told} of {sum(before.values())} places")
    longer = found.run.recipe.epochs - asked.epochs
    if longer > 0 and "trained on" in found.steps.measured:
        notes.append(
            f"the result was trained for {found.run.recipe.epochs} epochs, what it is compared with for {asked.epochs}"
        )
    return notes


def _layers(before: Network, after: Network, imgsz: tuple[int, int]) -> list[list[Any]]:
    """Channels and multiplications of every convolution, before and after."""
    from ovyolo.compress.channels import costs_of

    new = {layer.name: layer for layer in costs_of(after, imgsz).layers}
    rows = []
    for layer in costs_of(before, imgsz).layers:
        other = new.get(layer.name) or new.get(f"{layer.name}.conv")
        rows.append([layer.name, layer.outputs, other.outputs if other else 0, layer.macs, other.macs if other else 0])
    return rows


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("openvino", "nncf", "torch", "numpy")}
