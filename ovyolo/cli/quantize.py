"""``ovyolo quantize``."""

from __future__ import annotations

import argparse
import sys
import warnings

from ovyolo.cli.arguments import fraction, image_size, number, positive

ap_points = number("a number of AP points: give 0 to 100, or none", lambda value: 0 <= value <= 100)


def points(text: str) -> float | None:
    """Points of AP from 0 to 100, or ``none``."""
    return None if text.lower() == "none" else ap_points(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ovyolo.compress.scheme import CHOICES, Scheme

    default = Scheme()
    parser.add_argument("model", metavar="MODEL", help="an .xml that ovyolo made, or a .pt or .onnx")
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="a YOLO data.yaml, or a COCO .json with the labels"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the .xml to write (default: MODEL with -int8)")
    parser.add_argument(
        "--max-drop", type=points, default=0.5, metavar="POINTS",
        help="points of AP that may be lost on the validation set; 0: no class may lose anything; none: measure only "
        "(default: 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--split",
        default="val",
        choices=("train", "val", "test"),
        help="part of a data.yaml to judge by (default: val)",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of a COCO .json's pictures")
    parser.add_argument("--limit", type=positive, metavar="N", help="judge by at most so many pictures")
    parser.add_argument("--imgsz", "--img", type=image_size, metavar="N|H,W", help="input size, for a .pt or .onnx")
    calibration = parser.add_argument_group("calibration pictures (those of the validation set are never used)")
    calibration.add_argument(
        "--calib-split", default="train", choices=("train", "val", "test"), help="part of a data.yaml (default: train)"
    )
    calibration.add_argument(
        "--calib", nargs="+", metavar="PATH", help="pictures, folders, videos or patterns to take instead"
    )
    calibration.add_argument(
        "--calib-size", type=positive, default=128, metavar="N", help="at most so many, evenly spread (default: 128)"
    )
    scheme = parser.add_argument_group("scheme (the defaults lose least; see the README's table)")
    helps = {
        "preset": "mixed: asymmetric activations; performance: symmetric",
        "activations": "static: ranges from the calibration pictures; dynamic: from each picture, in floating point",
        "bits": "of weights and activations; OpenVINO's CPU computes 16 in floating point",
        "weights": "asymmetric needs --overflow none --rounding nearest",
        "granularity": "one scale an output channel, or one a tensor (with --rounding nearest)",
        "rounding": "compensated: by the statistics of the inputs; nearest: NNCF's",
        "bias_correction": "NNCF's, with --rounding nearest",
        "ranges": "how ranges follow from the calibration pictures",
        "overflow": "how products are kept from saturating without VNNI; half and first-layer are NNCF's "
        "(with --rounding nearest)",
        "weight_format": "with --weights-only; all but int8 have 16 values an output channel's scale, fp8 256",
    }
    for name, choices in CHOICES.items():
        value = getattr(default, name)
        scheme.add_argument(
            f"--{name.replace('_', '-')}",
            choices=choices,
            default=value,
            type=type(value),
            help=f"{helps[name]} (default: {value})",
        )
    scheme.add_argument("--smooth-quant", type=fraction, metavar="ALPHA", help="SmoothQuant for convolutions, 0 to 1")
    scheme.add_argument(
        "--weights-only", action="store_true", help="only store weights in --weight-format, compute in floating point"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without files that cannot be used; exit status 1"
    )
    parser.add_argument("--fresh", action="store_true", help="do not go on from an earlier run's measurements")
    parser.add_argument("--no-html", action="store_true", help="write no HTML page")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.epilog = """examples:
  ovyolo quantize best.pt --data data.yaml
  ovyolo quantize best.xml --data data.yaml --max-drop 0.3 -o line3.xml
  ovyolo quantize best.xml --data data.yaml --calib belt.mp4 photos/

Beside the output lie its reports, .quantize.json and .quantize.html. An interrupted run goes on from the .json.

exit status: 0 done, 1 done without files that could not be used (--skip-bad), 2 could not be done, or not within
--max-drop: the original is kept"""


def run(options: argparse.Namespace) -> int:
    """Quantize and print what it cost."""
    from ovyolo.compress.quantize import quantize
    from ovyolo.compress.quantize_report import text_table
    from ovyolo.compress.scheme import CHOICES, Scheme
    from ovyolo.errors import OvyoloWarning

    chosen = {name: getattr(options, name) for name in (*CHOICES, "smooth_quant", "weights_only")}
    with warnings.catch_warnings():
        # they are told as they come, and stand in the table
        warnings.simplefilter("ignore", OvyoloWarning)
        result = quantize(
            options.model, options.data, options.output, max_drop=options.max_drop, scheme=Scheme(**chosen),
            calibration=options.calib_split, calibration_sources=options.calib, calibration_size=options.calib_size,
            split=options.split, images=options.images, imgsz=options.imgsz, limit=options.limit,
            skip_bad=options.skip_bad, fresh=options.fresh, html=not options.no_html, quiet=options.quiet,
        )  # fmt: skip
    print(text_table(result.report))
    for path in (result.path, result.json_path, result.html_path):
        if path is not None:
            print(f"written: {path}", file=sys.stderr)
    return 1 if any("could not be used" in note for note in result.report["notes"]) else 0
