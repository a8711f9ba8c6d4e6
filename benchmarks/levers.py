"""Each lever of ``ovyolo compress`` on its own, and together: what it costs in AP and buys in time, bytes and memory.

    python benchmarks/levers.py best.pt --data data.yaml --out levers             # hours on a CPU
    python benchmarks/levers.py best.pt --data data.yaml --out levers --pictures 400 --epochs 3 --qat-epochs 1
    python benchmarks/levers.py --smoke                                           # shows that it runs

Every group of rows is one compression in a folder of its own within ``--out``, and begins from the steps it has in
common with ``channels-30``, which is always made: no row trains the baseline or prunes the same channels again. An
interrupted run goes on. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ovyolo.bench.coldstart import ColdStart
from ovyolo.bench.machine import describe, load_warning
from ovyolo.compress.journal import Journal
from ovyolo.compress.lineup import line_up
from ovyolo.compress.pipeline import Compression, Steps
from ovyolo.compress.recipe import Recipe
from ovyolo.dataset import load_dataset
from ovyolo.errors import OvyoloError
from ovyolo.evaluate.predictions import write_text

BASE = "channels-30"
COMMON = ("original", "trained on")
MEASURED = ("bytes", "zipped", "macs", "params", "zeros", "ms", "speedup", "precisions")


@dataclass(frozen=True)
class Group:
    """A compression: how it differs from the base's, which steps are the base's, and what its own steps are called."""

    rows: dict[str, str]
    changes: dict[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = COMMON


NO_CHANNELS = {"channels": None, "recover_epochs": 0}


def named(what: str, *steps: str) -> dict[str, str]:
    """Titles by step."""
    said = {
        "pruned": f"{what}, as pruned", "levels": what, "coarse maps": f"{what}, at once",
        "recovered": f"{what}, recovered",
        "sparse": what, "INT8": f"{what}, PTQ", "wider steps": f"{what}, PTQ", "INT8 trained": f"{what}, QAT",
    }  # fmt: skip
    return {step: said[step] for step in steps}


INT8 = ("INT8", "INT8 trained")
GROUPS = {
    BASE: Group({
        "original": "FP32", "trained on": "FP32, trained on",
        **named("30 % fewer channels", "pruned", "recovered", *INT8),
    }),
    "int8": Group({"INT8": "PTQ", "INT8 trained": "QAT"}, NO_CHANNELS),
    "heads": Group(named("idle level's head gone", "levels", *INT8), {**NO_CHANNELS, "levels": "heads"}),
    "cut": Group(
        named("idle level and its maps cut", "coarse maps", "recovered", *INT8), {"channels": None, "levels": "cut"}
    ),
    "heads-hardswish": Group(
        named("idle level's head gone, Hardswish", "recovered", *INT8),
        {"channels": None, "levels": "heads", "activation": "hardswish"},
    ),
    "heads-few-hardswish": Group(
        named("idle level's head gone, Hardswish where 3 times faster needs it", "recovered", *INT8),
        {"channels": None, "speedup": 3.0, "levels": "heads", "activation": "auto"},
    ),
    "size-20": Group(
        named("idle level's head gone, wider steps for 1/5 of the file", "wider steps", "INT8 trained"),
        {**NO_CHANNELS, "levels": "heads", "size": 0.2},
    ),
    "hardswish": Group(
        named("Hardswish", "recovered", *INT8), {"channels": None, "activation": "hardswish"}
    ),
    "relu": Group(named("ReLU", "recovered", *INT8), {"channels": None, "activation": "relu"}),
    "channels-50": Group(named("50 % fewer channels", "pruned", "recovered", *INT8), {"channels": 0.5}),
    "zeros-60": Group(named("60 % zeros", "sparse", *INT8), {"channels": None, "sparsity": 0.6}),
    "zeros-80": Group(named("80 % zeros", "sparse", *INT8), {"channels": None, "sparsity": 0.8}),
    "channels-30-zeros-60": Group(
        named("30 % fewer channels, 60 % zeros", "sparse", *INT8), {"sparsity": 0.6},
        (*COMMON, "pruned"),
    ),
    "no-distillation": Group(
        named("30 % fewer channels, no distillation", "recovered", *INT8), {"distill": 0.0, "features": 0.0},
        (*COMMON, "pruned"),
    ),
    "no-maps": Group(
        named("idle level's head gone, Hardswish, nothing learned from maps", "recovered"),
        {"channels": None, "levels": "heads", "activation": "hardswish", "features": 0.0, "quantize": False},
    ),
    **{
        f"criterion-{name}": Group(
            named(f"MACs as at 30 %, by {name}", "pruned", "recovered"), {"criterion": name, "quantize": False}
        )
        for name in ("l1", "l2", "bn")
    },
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="a .pt that trains")
    parser.add_argument("--data", type=Path, help="its data.yaml")
    parser.add_argument("--out", type=Path, help="folder for steps and tables; a run there goes on")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=3, help="of each recovery, and while weights become zero (3)")
    parser.add_argument("--qat-epochs", type=int, default=1, help="with quantizers (1)")
    parser.add_argument(
        "--lr", type=float, default=Recipe.lr, help=f"rate of all but those with quantizers ({Recipe.lr})"
    )
    parser.add_argument("--pictures", type=int, help="train with so many, evenly spread (all)")
    parser.add_argument("--val-pictures", type=int, help="judge by so many, evenly spread (all)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", nargs="*", choices=GROUPS, default=list(GROUPS), help=f"beside {BASE} (all)")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")
    parser.add_argument("--smoke", action="store_true", help="tiny boards, one epoch: its numbers mean nothing")
    options = parser.parse_args()
    if not options.smoke and not (options.model and options.data and options.out):
        parser.error("MODEL, --data and --out are needed, or --smoke")
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            tiny(options, Path(folder))
        try:
            return Levers(options).run()
        except OvyoloError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the steps that are done", file=sys.stderr)
            return 130


def tiny(options: argparse.Namespace, folder: Path) -> None:
    """Synthetic boards and an untrained network, for ``--smoke``."""
    from ovyolo.demo.boards import CLASSES
    from ovyolo.demo.dataset import make_dataset
    from ovyolo.train.architecture import new_network
    from ovyolo.train.network import save_network

    options.imgsz, options.batch, options.epochs, options.qat_epochs, options.quiet = 128, 4, 1, 1, True
    options.rows, options.out = ["criterion-l1"], folder / "out"
    options.data = make_dataset(folder / "boards", train=8, val=4, imgsz=128, quiet=True)
    options.model = save_network(new_network("n", list(CLASSES), seed=0), folder / "n.pt")


class Levers:
    """The groups that were asked for, and their table."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.imgsz = (options.imgsz, options.imgsz)
        self.out.mkdir(parents=True, exist_ok=True)
        recipe = Recipe(
            speedup=None, channels=0.3, activation="keep", levels="keep", prune_steps=1, recover_epochs=options.epochs,
            sparsity=0.0, qat_epochs=options.qat_epochs, batch=options.batch, lr=options.lr, distill=1.0, features=1.0,
        )  # fmt: skip
        self.base = Compression(
            options.model, self.data(), self.out / BASE, recipe, self.imgsz, device=options.device, quiet=options.quiet
        )
        # of another machine, times would not be comparable
        self.machine = {**describe(), "torch": version("torch"), "nncf": version("nncf")}
        inputs = {**self.base.journal.inputs, "machine": {k: self.machine[k] for k in ("cpu", "openvino")}}
        self.journal = Journal(self.out / "rows.json", inputs)

    def data(self) -> Path:
        """The data set, or the part of it that was asked for as a ``data.yaml`` of its own."""
        wanted = {"train": self.options.pictures, "val": self.options.val_pictures}
        if not any(wanted.values()):
            return Path(self.options.data)
        splits = {split: load_dataset(self.options.data, split, limit=limit) for split, limit in wanted.items()}
        listed = {split: [str(item.path.resolve()) for item in one.items] for split, one in splits.items()}
        path = self.out / "data.yaml"
        write_text(path, yaml.safe_dump({**listed, "names": list(splits["train"].names)}, allow_unicode=True))
        return path

    def run(self) -> int:
        """Make what is missing, and print and write the table."""
        if warning := load_warning():
            print(f"CAUTION: {warning}", file=sys.stderr)
        for name in dict.fromkeys((BASE, *self.options.rows)):
            if not self.options.quiet:
                print(f"== {name}", file=sys.stderr, flush=True)
            self.journal.measure(name, lambda name=name: self.measured(name))  # type: ignore[misc]
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.options).items()}
        report = {
            "machine": self.machine, "settings": settings, "training_pictures": len(self.base.training),
            "pictures": len(self.base.validation), "recipe": json.loads(self.base.recipe.to_json()),
            "rows": [{"group": name, **row} for name in self.shown() for row in self.journal.measured[name]],
        }  # fmt: skip
        write_text(self.out / "levers.json", json.dumps(report, indent=1, ensure_ascii=False))
        table = "\n".join(markdown(report))
        write_text(self.out / "levers.md", table + "\n")
        print(table)
        return 0

    def shown(self) -> Iterator[str]:
        return (name for name in GROUPS if name == BASE or name in self.options.rows)

    def measured(self, name: str) -> list[dict[str, Any]]:
        """A group's rows; its networks take turns with the original."""
        group, run = GROUPS[name], self.base
        if name != BASE:
            run = self.base.again(f"group-{name}", self.recipe_of(group), group.shared)
        steps = run.run()
        networks = {step: one for step, one in steps.networks.items() if step == "original" or step in group.rows}
        paths = {step: run.ir_of(step, one) for step, one in networks.items()}
        told = line_up(networks, paths, self.imgsz)
        return [
            {
                "title": title, "step": step, "epochs": trained(steps, step, run.recipe),
                **{key: steps.measured[step][key] for key in ("ap", "ap50", "ap_small")},
                **{key: told[step][key] for key in MEASURED}, "original_ms": told["original"]["ms"],
                "peak_bytes": self.peak(paths[step]),
            }
            for step, title in group.rows.items() if step in told
        ]  # fmt: skip

    def recipe_of(self, group: Group) -> Recipe:
        recipe = replace(self.base.recipe, **group.changes)
        if group.changes.get("criterion"):
            rows = {row["step"]: row for row in self.journal.measured[BASE]}
            gone = 1 - rows["pruned"]["macs"] / rows["original"]["macs"]
            recipe = replace(recipe, channels=None, macs=round(gone, 3))
        return recipe

    def peak(self, path: Path) -> int | None:
        """The most memory of a fresh process that detects in one picture; ``--smoke`` asks for one row's only."""
        if self.options.smoke and path.name != "original.xml":
            return None
        fresh = ColdStart(path, None, device="CPU", threads=None, precision=None, conf=0.25)
        fresh()
        return fresh.peak_bytes


def trained(steps: Steps, step: str, recipe: Recipe) -> int:
    """Epochs that a step has behind it."""
    if step in COMMON:
        return 0 if step == "original" else recipe.epochs
    names = list(steps.networks)
    taken = {
        "recovered": recipe.recover_epochs, "sparse": recipe.recover_epochs, "INT8 trained": recipe.qat_epochs,
    }  # fmt: skip
    return sum(taken.get(name, 0) for name in names[: names.index(step) + 1])


def markdown(report: dict[str, Any]) -> list[str]:
    """What was measured where, and the table."""
    machine, settings = report["machine"], report["settings"]
    reference = next((row for row in report["rows"] if row["step"] == "trained on"), report["rows"][0])
    lines = [
        f"{Path(settings['model']).name} at {settings['imgsz']}, {report['training_pictures']} pictures to train with, "
        f"{report['pictures']} to judge by; {machine['cpu']}, {machine['usable_cores']} cores, "
        f"{' '.join(machine['instructions'])}; OpenVINO {machine['openvino'].split('-')[0]}, NNCF {machine['nncf']}, "
        f"PyTorch {machine['torch']}, ovyolo {machine['ovyolo']}.",
        "",
        f"| | epochs | AP | against “{reference['title']}” | AP50 | ms, FP32 beside it | times faster | MB | zipped "
        "| MACs | zeros | peak MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    whole = report["rows"][0]["macs"]
    for row in report["rows"]:
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        lines.append(
            f"| {row['title']} | {row['epochs']} | {row['ap']:.2f} | {row['ap'] - reference['ap']:+.2f} "
            f"| {row['ap50']:.2f} | {row['ms']:.2f}, {row['original_ms']:.2f} | {row['speedup']:.2f} "
            f"| {row['bytes'] / 1e6:.2f} | {row['zipped'] / 1e6:.2f} | {row['macs'] / whole:.2f} "
            f"| {row['zeros']:.2f} | {peak} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
