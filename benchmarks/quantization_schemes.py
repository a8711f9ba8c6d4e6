"""Every way to quantize a detector that is reachable here, on one model: size, latency ratio, AP, and what it executes.

    python benchmarks/quantization_schemes.py MODEL --data data.yaml [--calib PATH…] [--work DIR] [--only WORDS]
                                              [--rounds N] [--json] [--smoke]

- AP: on the validation pictures of ``--data``; calibration pictures that are among them are left out (``--calib``).
- "heads": the mean change of confidences and boxes near objects on the validation pictures against FP32; less noisy
  than AP on few pictures.
- Latency: FP32 and the scheme in turn, A B A B, one picture, LATENCY hint; the ratio is the median over turns.
- "in 8 bits": how many of the convolutions the runtime executes in 8 bits, by its own account.

Networks and AP are kept in ``--work``, so that a second run only measures latency again, on an idle machine. With
``ONEDNN_MAX_CPU_ISA=AVX2`` in the environment, convolutions are computed as on CPUs without VNNI (take another
``--work``). ``--smoke`` makes a small model and pictures of its own: it shows that every way runs; its numbers mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openvino as ov

from ovyolo.compress import Scheme
from ovyolo.compress.calibration import choose_calibration
from ovyolo.compress.finish import mild_precisions
from ovyolo.compress.folded import load_folded
from ovyolo.compress.head_error import head_error
from ovyolo.compress.journal import Journal, dataset_hash
from ovyolo.compress.latency import machine, measure_latency
from ovyolo.compress.refine import Quantizer
from ovyolo.compress.stages import Stages
from ovyolo.dataset import load_dataset
from ovyolo.errors import OvyoloError
from ovyolo.evaluate.judge import Judge, compile_session, run_pictures
from ovyolo.export.half import halve_weights
from ovyolo.export.portable import save_ir
from ovyolo.io.images import read_image
from ovyolo.letterbox import letterbox
from ovyolo.runtime import OpenVINOSession, read_model
from ovyolo.version import __version__

LOOKED_AT = 32  # validation pictures that heads are compared on


@dataclass(frozen=True)
class Way:
    """A row of the table.

    Args:
        name: in words.
        does: what comes of it.
        scheme: how to quantize; None leaves the network as it is.
        config: for the runtime, on top of the usual.
        fp32: store unquantized weights in 32 bits.
        on: what the CPU has to have.
    """

    name: str
    does: str
    scheme: Scheme | None = None
    config: dict[str, Any] = field(default_factory=dict)
    fp32: bool = False
    on: str | None = None

    @property
    def options(self) -> str:
        """What a user of ``ovyolo quantize`` types."""
        if self.scheme is None:
            precision = self.config.get("INFERENCE_PRECISION_HINT")
            return (
                f"`--precision {precision}` (no quantizing)"
                if precision
                else "`export --fp32`"
                if self.fp32
                else "`export`"
            )
        words = []
        for name, value in self.scheme.to_dict().items():
            if value == getattr(Scheme(), name):
                continue
            option = f"--{name.replace('_', '-')}"
            words.append(option if value is True else f"{option} {value}")
        return f"`{' '.join(words)}`" if words else "(default)"


def nearest(**choices: Any) -> Scheme:
    """NNCF's own rounding and bias correction."""
    return Scheme(rounding="nearest", **choices)


DYNAMIC = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
WAYS = (
    Way("FP32", "what the others are compared with", fp32=True),
    Way("FP16 weights", "the file is halved; computed in FP32"),
    Way(
        "BF16 arithmetic",
        "for CPUs with BF16 or AMX; no calibration",
        config={"INFERENCE_PRECISION_HINT": "bf16"},
        on="bf16",
    ),
    Way("FP16 arithmetic", "for CPUs with FP16 arithmetic", config={"INFERENCE_PRECISION_HINT": "f16"}, on="f16"),
    Way(
        "INT8 (mixed: asymmetric activations, symmetric weights per channel)",
        "the default: compensated rounding that cannot saturate",
        Scheme(),
    ),
    Way(
        "symmetric activations",
        "half of the steps are spent on SiLU's small negative lobe",
        Scheme(preset="performance"),
    ),
    Way(
        "NNCF's rounding, 7-bit weights",
        "`OverflowFix.ENABLE`: half the range, safe without VNNI",
        nearest(overflow="half"),
    ),
    Way(
        "NNCF's rounding, its default overflow fix",
        "the first layer only: saturates without VNNI",
        nearest(overflow="first-layer"),
    ),
    Way(
        "NNCF's default of all (symmetric)",
        "`nncf.quantize(model, data)`",
        nearest(overflow="first-layer", preset="performance"),
    ),
    Way("saturation not prevented", "for CPUs with VNNI only", Scheme(overflow="none")),
    Way(
        "asymmetric weights", "OpenVINO computes them in floating point", nearest(overflow="none", weights="asymmetric")
    ),
    Way("weights per tensor", "one scale a layer: too coarse", nearest(granularity="tensor", overflow="half")),
    Way("accurate bias correction", "minutes of calibrating", nearest(overflow="half", bias_correction="accurate")),
    Way("no bias correction", "rounding shifts the means", nearest(overflow="half", bias_correction="none")),
    Way("SmoothQuant 0.15", "finds nothing to smooth in convolutions", nearest(overflow="half", smooth_quant=0.15)),
    Way(
        "ranges: minima and maxima",
        "the widest; tried when the default is not within the budget",
        Scheme(ranges="minmax"),
    ),
    Way("ranges: medians of them", "as good here", Scheme(ranges="median-minmax")),
    Way("ranges: quantiles", "cuts off what makes boxes sure", Scheme(ranges="quantile")),
    Way("ranges: histogram", "the range that errs least on the calibration pictures", Scheme(ranges="histogram")),
    Way("dynamic activations", "ranges of each picture, found in floating point", Scheme(activations="dynamic")),
    Way("16 bits", "no 16-bit integer kernels: computed in FP32", Scheme(bits=16)),
    Way("weights only, INT8", "a small file; computed in FP32", Scheme(weights_only=True)),
    Way(
        "weights only, INT8 asymmetric",
        "a small file; computed in FP32",
        Scheme(weights_only=True, weights="asymmetric"),
    ),
    Way(
        "weights only, INT8, OpenVINO's dynamic quantization on",
        "that is for matrix products; nothing changes",
        Scheme(weights_only=True),
        DYNAMIC,
    ),
    Way("weights only, FP8 (E4M3)", "a small file; computed in FP32", Scheme(weights_only=True, weight_format="fp8")),
    Way(
        "weights only, INT4",
        "16 even steps: too coarse for a detector",
        Scheme(weights_only=True, weight_format="int4"),
    ),
    Way(
        "weights only, NF4 (non-linear)",
        "16 steps as a normal distribution has them: too coarse",
        Scheme(weights_only=True, weight_format="nf4"),
    ),
    Way(
        "weights only, codebook of 16 a layer (non-linear)",
        "16 fitted to each layer: still too coarse",
        Scheme(weights_only=True, weight_format="codebook"),
    ),
)


class Bench:
    """Makes, keeps and measures the networks of all ways.

    Args:
        model: what ``ovyolo quantize`` takes.
        data: labelled pictures.
        calib: pictures to calibrate with; by default the train split of ``data``.
        work: where networks and figures are kept.
        limit: judge by at most so many pictures.
    """

    def __init__(self, model: Path, data: Path, calib: list[str] | None, work: Path, limit: int | None) -> None:
        self.model, self.card = load_folded(model)
        dataset = load_dataset(data, limit=limit)
        self.calibration, dataset = choose_calibration(dataset, self.card.imgsz, data=data, sources=calib)
        self.judge = Judge(dataset, self.card)
        self.work = work
        inputs = {
            "model": model.name, "data": dataset_hash(dataset), "calibration": self.calibration.digest,
            "versions": [__version__, ov.__version__], "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""), **machine(),
        }  # fmt: skip
        self.journal = Journal(work / "schemes.json", inputs)
        self.quantizer = Quantizer(self.model, self.calibration.pictures, Stages())
        few = dataset.items[:: max(1, len(dataset) // LOOKED_AT)]
        self.pictures = [letterbox(read_image(item.path), self.card.imgsz)[0] for item in few]
        self.expected = run_pictures(self.model, self.card, self.pictures)

    def path(self, way: Way) -> Path:
        return self.work / f"{''.join(c if c.isalnum() else '-' for c in way.name)}.xml"

    def make(self, way: Way) -> dict[str, Any]:
        """Write the network, judge it, and say what it is."""
        network, card = self.model.clone(), self.card
        if way.scheme is not None:
            from dataclasses import replace

            network, card = self.quantizer(way.scheme), replace(self.card, precision=way.scheme.precision)
        if not way.fp32:
            halve_weights(network)
        save_ir(network, card, self.path(way), fp32=way.fp32)
        model, card = read_model(self.path(way), ov.Core())
        precision = way.config.get("INFERENCE_PRECISION_HINT", "f32")
        figures = self.judge.score(self.judge.predict(model, precision))
        with closing(self.session(way)[0]) as session:
            heads = []
            for picture in self.pictures:
                session.input(0)[0] = picture
                session.submit(0)
                heads.append([output.copy() for output in session.wait(0)])
        return {
            "ap": figures["ap"], "ap50": figures["ap50"], "ap_small": figures["ap_small"],
            "heads": round(100 * head_error(card, self.expected, heads).total, 2),
            "bytes": self.path(way).with_suffix(".bin").stat().st_size,
            "notes": list(card.notes[len(self.card.notes) :]),
        }  # fmt: skip

    def session(self, way: Way) -> tuple[OpenVINOSession, str]:
        """The network as a user would run it, and how many of its convolutions are computed in 8 bits."""
        model, card = read_model(self.path(way), ov.Core())
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", **way.config}
        compiled = ov.Core().compile_model(model, "CPU", config)
        return OpenVINOSession(compiled, card.head.outputs, 1), executed(compiled)

    def latency(self, way: Way, rounds: int) -> dict[str, Any]:
        """FP32 and the way, in turn."""
        session, in_8_bits = self.session(way)
        with closing(session), closing(compile_session(self.model, self.card)) as original:
            both = {"FP32": original, "it": session}
            found = measure_latency(both, self.calibration.pictures[0], rounds=rounds)
        return {
            "ms": found["ms"]["it"],
            "ms_fp32": found["ms"]["FP32"],
            "ratio": found["speedup"]["it"],
            "in_8_bits": in_8_bits,
        }

    def rows(self, ways: list[Way], rounds: int) -> Iterator[dict[str, Any]]:
        """All of it; what a CPU cannot do or the tools refuse is a row, too."""
        for way in ways:
            if way.on is not None and way.on not in mild_precisions():
                yield {
                    "name": way.name,
                    "does": way.does,
                    "options": way.options,
                    "refused": f"this CPU has no {way.on} arithmetic",
                }
                continue
            known = self.journal.measure(way.name, lambda way=way: self.make(way))  # type: ignore[misc]
            yield {"name": way.name, "does": way.does, "options": way.options, **known, **self.latency(way, rounds)}


def executed(compiled: ov.CompiledModel) -> str:
    """Of the runtime's convolutions, how many are in 8 bits."""
    kinds = [
        str(node.get_rt_info()["runtimePrecision"].astype(str))
        for node in compiled.get_runtime_model().get_ordered_ops()
        if "Convolution" in str(node.get_rt_info()["layerType"].astype(str))
    ]
    return f"{sum(kind in ('u8', 'i8') for kind in kinds)}/{len(kinds)}"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown."""
    yield "| scheme | here | options of `ovyolo quantize` | MB | times faster | in 8 bits | AP | drop | heads, % |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    before = next((row["ap"] for row in rows if row["name"] == "FP32"), None)
    for row in rows:
        if "refused" in row:
            yield f"| {row['name']} | {row['refused']} | {row['options']} | | | | | | |"
            continue
        drop = "" if before is None or row["ap"] is None else f"{before - row['ap']:.2f}"
        ap = "" if row["ap"] is None else f"{row['ap']:.2f}"
        figures = (
            f"{row['bytes'] / 1e6:.2f} | {row['ratio']:.2f} | {row['in_8_bits']} | {ap} | {drop} | {row['heads']:.1f}"
        )
        yield f"| {row['name']} | {row['does']} | {row['options']} | {figures} |"


def own_example(folder: Path) -> tuple[Path, Path]:
    """The test suite's model of spots and its pictures."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from reference.spot_model import write_spot_data, write_spot_model

    return write_spot_model(folder / "spots.xml"), write_spot_data(folder / "data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--calib", nargs="+")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", default="", help="ways whose name holds one of these words, comma between")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if not options.smoke and (options.model is None or options.data is None):
        parser.error("give a model and --data, or --smoke")
    words = [word for word in options.only.split(",") if word]
    ways = [way for way in WAYS if not words or any(word in way.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="ovyolo-schemes-") as folder:
        model, data = own_example(Path(folder)) if options.smoke else (options.model, options.data)
        work = options.work or Path(folder) / "work"
        work.mkdir(parents=True, exist_ok=True)
        try:
            bench = Bench(model, data, options.calib, work, options.limit)
            rows = []
            for row in bench.rows(ways, 3 if options.smoke else options.rounds):
                rows.append(row)
                print(f"{len(rows)}/{len(ways)} {row['name']}", file=sys.stderr, flush=True)
        except OvyoloError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    where = machine()
    about = {
        "model": model.name, "data": str(bench.judge.dataset), "pictures": len(bench.judge.dataset),
        "calibration": len(bench.calibration), "openvino": ov.__version__, "ovyolo": __version__,
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"), **where,
    }  # fmt: skip
    if options.json:
        print(json.dumps({**about, "rows": rows}, indent=1))
    else:
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
