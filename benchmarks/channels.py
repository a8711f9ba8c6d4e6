"""Channels: criteria compared at one budget, and what fewer channels buy.

    python benchmarks/channels.py MODEL --data DATA [--macs 0.1] [--imgsz 640] [--pictures N] [--rounds N] [--smoke]

- Criteria: L1, L2, batch-norm scale and Taylor each remove the same share of the multiplications, by one global
  ranking that weighs each block by the multiplications it saves. Nothing is fine-tuned; batch norms are measured anew
  on pictures of the training split, for the whole network too (so that it is compared with its like). AP is that of
  the exported IR on the validation split. Taylor's loss is the training loss on pictures of the training split,
  without augmentation.
- Latency: networks with about 30 % and 50 % fewer channels, the same share of every group, in FP32 and in turn with
  the whole one. Their predicted speedups are those that the profile of the whole network gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ovyolo.bench.machine import describe, load_warning
from ovyolo.bench.turns import take_turns
from ovyolo.compress.channels import (
    CRITERIA,
    Plan,
    Target,
    apply_plan,
    costs_of,
    plan_pruning,
    profile_network,
    recalibrate,
)  # fmt: skip
from ovyolo.compress.channels.speedup import timer
from ovyolo.dataset import DataSet, load_dataset
from ovyolo.evaluate.judge import Judge, compile_session
from ovyolo.export.graph import build_model
from ovyolo.letterbox import letterbox
from ovyolo.train.loss import DetectionLoss
from ovyolo.train.network import Network, load_network

BATCH = 8
Batch = tuple[torch.Tensor, torch.Tensor]


def batches(dataset: DataSet, imgsz: tuple[int, int], count: int) -> Iterator[Batch]:
    """Letterboxed pictures, evenly spread, and their objects: picture, class, centre and size in input pixels."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()
    for start in range(0, len(chosen), BATCH):
        pictures, targets = [], []
        for place, index in enumerate(chosen[start : start + BATCH]):
            item = dataset.items[index]
            image = cv2.imread(str(item.path), cv2.IMREAD_COLOR)
            if image is None:
                raise SystemExit(f"{item.path} cannot be read")
            picture, fit = letterbox(image, imgsz)
            pictures.append(np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1)))
            boxes = item.boxes * fit.gain + np.array([fit.left, fit.top] * 2)
            centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            head = np.column_stack([np.full(len(item), place), item.class_id])
            targets.append(np.concatenate([head, centre, size], axis=1))
        yield torch.from_numpy(np.stack(pictures)).float() / 255, torch.from_numpy(np.concatenate(targets)).float()


def average_precision(network: Network, judge: Judge, imgsz: tuple[int, int]) -> dict[str, Any]:
    model, _ = build_model(network.checkpoint(Path("network")), imgsz)
    figures = judge.score(judge.predict(model))
    return {name: figures[name] for name in ("ap", "ap50")}


def criteria_rows(dense: Network, options: argparse.Namespace, imgsz: tuple[int, int]) -> list[dict[str, Any]]:
    train = load_dataset(options.data, "train", limit=options.pictures)
    held = load_dataset(options.data, "val", limit=options.val_pictures).checked(skip_bad=True)
    pictures = list(batches(train, imgsz, options.pictures))
    loss = DetectionLoss(dense.anchors_in_pixels(), dense.strides, len(dense.names), imgsz)
    judge = Judge(held, build_model(dense.checkpoint(Path("dense")), imgsz)[1])

    def loss_of(network: Network, batch: Batch) -> torch.Tensor:
        return loss(network(batch[0]), batch[1]).total

    rows = []
    for criterion in ("", *CRITERIA):
        plan: Plan | None = None
        network = load_network(options.model).eval()
        if criterion:
            target = Target(macs=options.macs)
            plan = plan_pruning(network, target, imgsz, criterion=criterion, batches=pictures, loss_of=loss_of)
            network = apply_plan(network, plan)
        raw = average_precision(network, judge, imgsz)
        recalibrate(network, (batch for batch, _ in pictures))
        costs = costs_of(network, imgsz)
        rows.append({
            "criterion": criterion or "whole",
            "macs": round(costs.macs / plan.before["macs"], 3) if plan else 1.0,
            "params": round(costs.params / plan.before["params"], 3) if plan else 1.0,
            "as pruned": raw,
            "norms measured anew": average_precision(network, judge, imgsz),
        })  # fmt: skip
        print(f"{rows[-1]}", file=sys.stderr, flush=True)
    return rows


def latency_rows(dense: Network, imgsz: tuple[int, int], rounds: int) -> dict[str, Any]:
    profile = profile_network(dense, imgsz, runs=rounds)
    networks, plans = {"whole": dense}, {}
    for share in (0.3, 0.5):
        name = f"-{share:.0%} channels"
        plans[name] = plan_pruning(dense, Target(channels=share), imgsz, criterion="l1", ranking="uniform",
                                   profile=profile)  # fmt: skip
        networks[name] = apply_plan(dense, plans[name])
    picture = np.random.default_rng(0).integers(0, 256, (*imgsz, 3), np.uint8)
    with ExitStack() as stack:
        timers = {}
        for name, network in networks.items():
            model, card = build_model(network.checkpoint(Path("network")), imgsz)
            session = stack.enter_context(closing(compile_session(model, card)))
            session.input(0)[0] = picture
            timers[name] = timer(session)
        turns = take_turns(timers, range(rounds), warm_up=3)
    rows = []
    for name, plan in plans.items():
        ratio = turns.ratio(name, "whole", "ms")
        rows.append({
            "network": name,
            "channels gone": round(plan.reached, 3),
            "macs": round(plan.after["macs"] / plan.before["macs"], 3),
            "params": round(plan.after["params"] / plan.before["params"], 3),
            "predicted latency": round(plan.after["ms"] / plan.before["ms"], 3),
            "latency": [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)],
        })  # fmt: skip
    whole = float(np.median(turns.samples("whole", "ms")))
    return {
        "whole ms": round(whole, 2),
        "sum of layers ms": round(profile.counted_ms, 2),
        "rounds": rounds,
        "rows": rows,
    }


def print_report(report: dict[str, Any]) -> None:
    print(json.dumps(report["machine"]))
    print(f"\n{report['model']}: criteria at one budget, not fine-tuned; AP / AP50")
    print(f"{'criterion':10} {'macs':>6} {'params':>7} {'as pruned':>16} {'norms anew':>16}")
    for row in report["criteria"]:
        both = [
            f"{row[key]['ap'] or 0:.1f} / {row[key]['ap50'] or 0:.1f}" for key in ("as pruned", "norms measured anew")
        ]
        print(f"{row['criterion']:10} {row['macs']:6.3f} {row['params']:7.3f} {both[0]:>16} {both[1]:>16}")
    latency = report["latency"]
    print(f"\nlatency against the whole network ({latency['whole ms']} ms), FP32, {latency['rounds']} rounds in turn")
    for row in latency["rows"]:
        value, low, high = row["latency"]
        print(f"{row['network']:14} macs {row['macs']:.3f}  params {row['params']:.3f}  "
              f"latency {value:.3f} ({low:.3f} to {high:.3f}), predicted {row['predicted latency']:.3f}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="data.yaml with train and val")
    parser.add_argument("--macs", type=float, default=0.1, help="the share of multiplications that goes (0.1)")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--pictures", type=int, default=64, help="of the training split, for Taylor and batch norms")
    parser.add_argument("--val-pictures", type=int, help="of the validation split (all)")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=("criteria", "latency"), help="one half of it")
    parser.add_argument("--smoke", action="store_true", help="few pictures and rounds, small: shows that it runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.imgsz, options.pictures, options.val_pictures, options.rounds = 320, 8, 8, 4
    warning = load_warning()
    if warning:
        print(warning, file=sys.stderr)
    dense, imgsz = load_network(options.model).eval(), (options.imgsz, options.imgsz)
    report = {
        "machine": {**describe(), "torch": torch.__version__},
        "model": options.model.name,
        "criteria": [] if options.only == "latency" else criteria_rows(dense, options, imgsz),
        "latency": {"whole ms": None, "rounds": 0, "rows": []}
        if options.only == "criteria"
        else latency_rows(dense, imgsz, options.rounds),
    }
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
