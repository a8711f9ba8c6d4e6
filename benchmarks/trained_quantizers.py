"""What quantizers in PyTorch cost and gain: calibrated, trained for some steps, and the IRs' latency in turn.

    python benchmarks/trained_quantizers.py best.pt --data data.yaml

Training here is distillation from the FP32 network alone, on letterboxed pictures of the train split, without
augmentation: it shows that training works, not what it reaches. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from ovyolo.compress.calibration import choose_calibration
from ovyolo.compress.folded import load_folded
from ovyolo.compress.latency import measure_latency
from ovyolo.compress.qat.check import check_ir
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors
from ovyolo.compress.qat.quantizers import PairGuard, freeze_batch_norms, parameter_groups
from ovyolo.compress.qat.sparsify import sparsify
from ovyolo.compress.qat.to_ir import trained_ir
from ovyolo.compress.refine import Quantizer
from ovyolo.compress.scheme import Scheme
from ovyolo.compress.stages import Stages
from ovyolo.dataset import load_dataset
from ovyolo.evaluate.judge import Judge, compile_session
from ovyolo.export.portable import save_ir
from ovyolo.runtime import read_model
from ovyolo.train.distill import head_loss
from ovyolo.train.fusing import fuse_batch_norms
from ovyolo.train.network import Network, load_network

OVERFLOW = {"pairs": Scheme(rounding="nearest"), "half": Scheme(rounding="nearest", overflow="half")}
RATES = {"weights": 1.0, "biases": 1.0, "norms": 1.0, "quantizers": 0.1, "masks": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a .pt that trains")
    parser.add_argument("--data", required=True, help="its data.yaml")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--calib", type=int, default=64, help="calibration pictures")
    parser.add_argument("--pictures", type=int, default=160, help="training pictures")
    parser.add_argument("--steps", type=int, default=40, help="training steps")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--limit", type=int, help="judge by at most so many pictures")
    parser.add_argument("--zeros", type=float, default=0.4, help="share of zeros in the sparse network")
    parser.add_argument("--only", nargs="*", help="only rows whose names hold one of these words")
    parser.add_argument(
        "--latency", action="store_true", help="measure those rows' latencies, too; wants an idle machine"
    )
    parser.add_argument("--out", type=Path, help="keep IRs and rows there; rows that are there are not made again")
    parser.add_argument("--smoke", action="store_true", help="shows that it runs; its numbers mean nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.imgsz, arguments.steps, arguments.only = 128, 2, ["FP32", "QAT, pairs, fused"]
        arguments.calib = arguments.pictures = arguments.limit = 8
    with tempfile.TemporaryDirectory() as folder:
        Study(arguments, arguments.out or Path(folder)).run()


class Study:
    """Rows of a table, each a network."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "rows.json"
        self.rows: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
        size = (arguments.imgsz, arguments.imgsz)
        dataset = load_dataset(arguments.data, limit=arguments.limit).checked()
        calibration, dataset = choose_calibration(dataset, size, data=Path(arguments.data), count=arguments.calib)
        self.pictures, self.size, self.dataset = calibration.pictures, size, dataset
        self.fp32, self.card = load_folded(Path(arguments.weights), size)
        self.judge = Judge(dataset, self.card)
        self.network = load_network(arguments.weights).eval()
        print(
            f"torch {torch.__version__}, openvino {ov.__version__.split('-')[0]}, {len(dataset)} pictures to judge by, "
            f"{len(self.pictures)} to calibrate, {arguments.pictures} to train on, {size[0]} px"
        )
        print(f"{'':36} {'AP':>6} {'AP50':>6} {'.bin MB':>8}  heads (float, executed)  8-bit  seconds")

    def wanted(self, name: str) -> bool:
        if name in self.rows:
            self.show(name)
            return False
        return not self.arguments.only or any(word in name for word in self.arguments.only)

    def run(self) -> None:
        if self.wanted("FP32"):
            self.judged("FP32", self.fp32, self.card, time.perf_counter())
        self.openvino_side()
        self.torch_side()
        if self.arguments.latency:
            self.latency()

    def openvino_side(self) -> None:
        quantizer = Quantizer(self.fp32, self.pictures, Stages())
        for name, scheme in {"default": Scheme(), **OVERFLOW}.items():
            title = f"PTQ by OpenVINO, {name}"
            if self.wanted(title):
                began = time.perf_counter()
                self.judged(title, quantizer(scheme), self.card, began)

    def torch_side(self) -> None:
        calibration = picture_tensors(self.pictures)
        forms = {"fused": fuse_batch_norms(self.network), "batch norms frozen": self.network}
        for form, network in forms.items():
            for name, scheme in OVERFLOW.items():
                title, trained = f"PTQ by torch, {name}, {form}", f"QAT, {name}, {form}"
                wanted = self.wanted(title), self.wanted(trained)
                if not any(wanted):
                    continue
                began = time.perf_counter()
                quantized = insert_quantizers(network, calibration, scheme=scheme)
                if wanted[0]:
                    self.converted(title, quantized, began)
                if wanted[1]:
                    self.trained(trained, quantized, forms["fused"])
        zeros = f"{self.arguments.zeros:.0%} zeros, pairs, fused"
        wanted = self.wanted(f"PTQ, {zeros}"), self.wanted(f"QAT, {zeros}")
        if any(wanted):
            began = time.perf_counter()
            sparse = insert_quantizers(sparsify(forms["fused"], self.arguments.zeros), calibration)
            if wanted[0]:
                self.converted(f"PTQ, {zeros}", sparse, began)
            if wanted[1]:
                self.trained(f"QAT, {zeros}", sparse, forms["fused"])

    def trained(self, title: str, quantized: Network, teacher: Network) -> None:
        began = time.perf_counter()
        data, count = Path(self.arguments.data), self.arguments.pictures
        training, _ = choose_calibration(self.dataset, self.size, data=data, count=count)
        train(quantized, teacher, training.pictures, self.arguments)
        self.converted(title, quantized, began)

    def converted(self, title: str, network: Network, began: float) -> None:
        model, card = trained_ir(network, self.arguments.imgsz)
        self.judged(title, model, card, began, network)

    def judged(self, title: str, model: ov.Model, card: Any, began: float, network: Network | None = None) -> None:
        row: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 1), "file": f"{len(self.rows)}.xml"}
        path = save_ir(model, card, self.folder / row["file"])
        model, card = read_model(path, ov.Core())
        figures = self.judge.score(self.judge.predict(model))
        row |= {"bytes": path.with_suffix(".bin").stat().st_size, "ap": figures["ap"], "ap50": figures["ap50"]}
        if network is not None:
            checked = check_ir(network, model, card, self.pictures[:4])
            assert not checked["lost_zeros"] and not checked["overflowing"], checked
            row |= {key: checked[key] for key in ("float_error", "executed_error", "in_8_bits", "layers", "zeros")}
        self.rows[title] = row
        (self.folder / "rows.json").write_text(json.dumps(self.rows, indent=1))
        self.show(title)

    def show(self, title: str) -> None:
        row = self.rows[title]
        words = ""
        if "layers" in row:
            words = f"{row['float_error']:11.5f} {row['executed_error']:11.5f} {row['in_8_bits']:6d}/{row['layers']}"
        mb = row["bytes"] / 1e6
        print(f"{title:36} {row['ap']:6.2f} {row['ap50']:6.2f} {mb:8.2f}  {words:32} {row['seconds']:7.1f}", flush=True)

    def latency(self) -> None:
        words = self.arguments.only
        names = [name for name in self.rows if name == "FP32" or not words or any(word in name for word in words)]
        models = {name: read_model(self.folder / self.rows[name]["file"], ov.Core()) for name in names}
        sessions = {name: compile_session(model, card) for name, (model, card) in models.items()}
        found = measure_latency(sessions, self.pictures[0], rounds=150, seconds=120)
        print(
            f"{found['processor']}, {found['cores']} cores, {found['instructions']}; {found['rounds']} rounds in turn"
        )
        for name, milliseconds in found["ms"].items():
            print(f"{name:36} {milliseconds:8.2f} ms  {found['speedup'].get(name, 1.0):6.3f} times as fast as FP32")


def train(network: Network, teacher: Network, pictures: Sequence[Any], arguments: argparse.Namespace) -> None:
    """Some steps of distillation, in place: SGD, cosine, batch norms frozen, gradients clipped."""
    rng = np.random.default_rng(0)
    teacher = copy.deepcopy(teacher).eval()
    guard = PairGuard(network)
    groups = [
        {"params": group, "lr": arguments.lr * RATES[name]}
        for name, group in parameter_groups(network).items()
        if group
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    network.train()
    freeze_batch_norms(network)
    for _ in range(arguments.steps):
        batch = batch_of(pictures, rng, arguments.batch)
        with torch.no_grad():
            wanted = teacher(batch)
        loss = head_loss(network(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        guard()
    network.eval()


def batch_of(pictures: Sequence[Any], rng: np.random.Generator, size: int) -> Tensor:
    """Random pictures, some of them mirrored."""
    chosen = [pictures[i] for i in rng.integers(0, len(pictures), size)]
    return torch.cat(picture_tensors([p[:, ::-1] if rng.random() < 0.5 else p for p in chosen]))


if __name__ == "__main__":
    main()
