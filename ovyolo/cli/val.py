"""``ovyolo val``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.cli.arguments import fraction, image_size, positive
from ovyolo.cli.tiles import add_tile_arguments, tile_words
from ovyolo.errors import DataError, OvyoloError

if TYPE_CHECKING:
    from ovyolo.dataset import DataSet
    from ovyolo.evaluate.compare import Variant
    from ovyolo.evaluate.sizes import SizeEdges

ID_SCHEMES = ("dataset", "zero-based", "one-based", "coco91")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="an .xml that ovyolo made, or a .pt or .onnx, which is exported to a cache first",
    )  # fmt: skip
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="a YOLO data.yaml, or a COCO .json with the labels"
    )
    parser.add_argument(
        "--split", default="val", choices=("train", "val", "test"), help="part of a data.yaml (default: val)"
    )
    parser.add_argument(
        "--images", metavar="DIR", help="folder of a COCO .json's pictures (default: looked for near it)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many pictures, evenly spread")
    parser.add_argument(
        "--conf", type=fraction, default=0.001, help="boxes need more confidence than this (default: 0.001)"
    )
    parser.add_argument(
        "--iou", type=fraction, default=0.6, help="overlap above which the better box stays (default: 0.6)"
    )
    parser.add_argument(
        "--max-det", type=positive, default=300, metavar="N", help="at most so many boxes a picture (default: 300)"
    )
    parser.add_argument(
        "--imgsz", "--img", type=image_size, metavar="N|H,W", help="input size, for a .pt or .onnx model"
    )
    parser.add_argument("--device", default="CPU", help="where to compute: CPU, GPU, NPU (default: CPU)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OpenVINO decides)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), help="what to compute in (default: f32 on a CPU)"
    )
    parser.add_argument("--rect", action="store_true", help="least padding: a model a picture shape, made from a .pt")
    parser.add_argument("--cache-dir", metavar="DIR", help="keep compiled and exported models here")
    add_tile_arguments(parser)
    parser.add_argument(
        "--compare", nargs="+", metavar="WAY",
        help='look at the pictures in several ways, in turn, and print accuracy and time side by side: "plain", '
        '"tile=640", "tile=640,overlap=0.3,full", "tile=auto", "imgsz=1280" (of a .pt)',
    )  # fmt: skip
    judge = parser.add_argument_group("judging")
    judge.add_argument(
        "--sizes", metavar="A,B,...",
        help="figures by object size as well: edges in pixels (16,32,96) or as shares of the picture (1%%,5%%)",
    )  # fmt: skip
    judge.add_argument("--predictions", metavar="FILE", help="judge these COCO-format predictions instead of a model")
    judge.add_argument(
        "--category-ids", choices=ID_SCHEMES, default="dataset",
        help="what category_id means in them: the data set's own numbers (default), the place among its classes "
        "from 0 or from 1, or COCO's 1 to 90 for its 80 classes",
    )  # fmt: skip
    judge.add_argument(
        "--at-conf", type=fraction, metavar="CONF",
        help="confidence for precision, recall, F1 and the confusion matrix (default: where mean F1 is highest)",
    )  # fmt: skip
    judge.add_argument(
        "--match-iou",
        type=fraction,
        default=0.5,
        metavar="IOU",
        help="overlap that finds an object, for the same (default: 0.5)",
    )
    judge.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used; exit status 1")
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="all scores as JSON; - is standard output, instead of the table")
    out.add_argument("--save-json", metavar="FILE", help="the predictions in COCO's format")
    out.add_argument("--report", metavar="FILE", help="an HTML page with plots and the worst pictures")
    out.add_argument("--per-class", action="store_true", help="a line for each class, also when they are many")
    out.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.epilog = """examples:
  ovyolo val best.xml --data data.yaml
  ovyolo val best.pt --data data.yaml --report report.html
  ovyolo val best.xml --data instances_val.json --images val2017 --save-json boxes.json
  ovyolo val --data data.yaml --predictions other-tool.json
  ovyolo val best.xml --data data.yaml --tile 640 --full --sizes 16,32,96
  ovyolo val best.xml --data data.yaml --compare "plain" "tile=640" "tile=640,full" --report compared.html

exit status: 0 done, 1 done without files that could not be used (--skip-bad), 2 could not be done"""


def run(options: argparse.Namespace) -> int:
    """Read the data, predict or read predictions, judge, and write what was asked for."""
    if (options.model is None) == (options.predictions is None):
        raise OvyoloError("give a model, or --predictions: one of the two")
    tiles = tile_words(options)
    if options.predictions and (tiles or options.compare):
        raise OvyoloError("tiles are for a model: predictions are judged as they are")
    for option in ("json", "save_json", "report"):
        check_target(getattr(options, option), f"--{option.replace('_', '-')}")
    from ovyolo.dataset import load_dataset
    from ovyolo.dataset.types import count_of, lines_of
    from ovyolo.evaluate import SizeEdges, predict_dataset, read_predictions, score, score_by_size, write_predictions
    from ovyolo.evaluate.metrics import evaluator
    from ovyolo.evaluate.predictions import write_text
    from ovyolo.progress import progress
    from ovyolo.report import check_installed, write_report

    evaluator()
    if options.report:
        check_installed()
    sizes = SizeEdges.parse(options.sizes) if options.sizes else None
    variants = ways(options, tiles) if options.compare else []

    dataset = load_dataset(
        options.data, options.split, images=options.images, limit=options.limit,
        open_pictures=options.predictions is None,
        follow=lambda paths: progress(paths, total=len(paths), unit="file", quiet=options.quiet),
    )  # fmt: skip
    if dataset.problems and not options.skip_bad:
        for line in lines_of(dataset.problems):
            print(f"bad: {line}", file=sys.stderr)
        raise DataError(
            f"{count_of(dataset.problems)} of {dataset} cannot be used (listed above): "
            "mend them, or go on without them with --skip-bad"
        )
    dataset.checked(options.skip_bad)
    if variants:
        return compare_ways(options, dataset, variants, sizes)
    if options.predictions is None:
        dataset, predictions = predict_dataset(
            options.model, dataset, conf=options.conf, iou=options.iou, max_det=options.max_det, imgsz=options.imgsz,
            device=options.device, rect=options.rect, precision=options.precision, threads=options.threads,
            cache_dir=options.cache_dir, skip_bad=options.skip_bad, quiet=options.quiet, **tiles,
        )  # fmt: skip
    else:
        predictions = read_predictions(
            options.predictions, dataset, ids=options.category_ids, skip_bad=options.skip_bad or bool(options.limit)
        )
    for line in lines_of(dataset.problems):
        print(f"skipped: {line}", file=sys.stderr)
    scores = score(dataset, predictions, at_conf=options.at_conf, match_iou=options.match_iou)
    if sizes is not None:
        scores = score_by_size(scores, dataset, predictions, sizes)
    if dataset.problems:
        note = f"{count_of(dataset.problems)} could not be used and were left out"
        scores = replace(scores, notes=(*scores.notes, note))

    if options.json == "-":
        print(scores.to_json())
    else:
        print(scores.table(per_class=options.per_class or None))
    written = []
    if options.json not in (None, "-"):
        write_text(Path(options.json), scores.to_json())
        written.append(options.json)
    if options.save_json:
        written.append(write_predictions(options.save_json, dataset, predictions))
    if options.report:
        written.append(write_report(options.report, dataset, predictions, scores))
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    return 1 if dataset.problems else 0


def ways(options: argparse.Namespace, tiles: dict[str, Any]) -> list[Variant]:
    """What ``--compare`` asks for, checked before work begins."""
    from ovyolo.evaluate.compare import Variant

    if tiles or options.rect or options.imgsz or options.save_json:
        raise OvyoloError(
            "--compare names the ways itself: leave out --tile, --imgsz, --rect and --save-json beside it"
        )
    return [Variant.parse(text) for text in options.compare]


def compare_ways(
    options: argparse.Namespace, dataset: DataSet, variants: Sequence[Variant], sizes: SizeEdges | None
) -> int:
    """Run, print and write a comparison."""
    from ovyolo.evaluate.compare import compare, table
    from ovyolo.evaluate.predictions import write_text

    compared = compare(
        options.model, dataset, variants, conf=options.conf, iou=options.iou, max_det=options.max_det,
        device=options.device, threads=options.threads, cache_dir=options.cache_dir, sizes=sizes, quiet=options.quiet,
    )  # fmt: skip
    text = json.dumps([one.to_dict() for one in compared], ensure_ascii=False, indent=1)
    print(text if options.json == "-" else table(compared))
    written: list[Any] = []
    if options.json not in (None, "-"):
        write_text(Path(options.json), text)
        written.append(options.json)
    if options.report:
        from ovyolo.report.compared import write_comparison

        written.append(write_comparison(options.report, compared))
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    return 1 if dataset.problems else 0


def check_target(path: str | None, option: str) -> None:
    """Refuse, before hours of work, a file that could not be written after it."""
    if path is None or path == "-":
        return
    target = Path(path)
    if target.is_dir():
        raise OvyoloError(f"{option} {path} is a folder: name a file")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OvyoloError(f"{option} {path} cannot be written: {parent} is not a folder")
