"""``ovyolo compress``."""

from __future__ import annotations

import argparse
import sys

from ovyolo.cli.arguments import image_size, positive
from ovyolo.cli.augmentation import add_augmentation, augmentation_of

NUMBERS = (
    ("speedup", float, "times faster than the FP32 original, everything together (default: 3; with --fast 2.7)"),
    ("channels", float, "share of the channels to remove, instead of a speedup"),
    ("macs", float, "share of the multiplications to remove, instead of a speedup"),
    ("params", float, "share of the parameters to remove, instead of a speedup"),
    (
        "idle",
        float,
        "share of the small, medium or large objects that a coarse level may be alone to find and still goes, to be "
        "learned by the others (default: 0.005)",
    ),
    ("prune-steps", int, "rounds of pruning (default: 2)"),
    ("prune-epochs", int, "epochs between two rounds (default: 1)"),
    ("recover-epochs", int, "epochs after the last (default: 18; with --fast 4)"),
    ("sparsity", float, "share of weights that become zero; smaller when zipped, not faster (default: 0)"),
    (
        "size",
        float,
        "share of the FP16 file that the result may take, both zipped: 8-bit weights in wider steps",
    ),
    ("qat-epochs", int, "epochs with quantizers (default: 2)"),
    ("distill", float, "weight of what the original says beside the labels (default: 0; with --fast 1)"),
    (
        "features",
        float,
        "weight of the maps inside the original, where no channels are gone (default: 0; with --fast 1)",
    ),
    ("lr", float, "learning rate (default: 0.005; with --fast 0.002)"),
    ("qat-lr", float, "learning rate with quantizers (default: 0.0005)"),
    ("batch", int, "pictures a step (default: 16)"),
    ("max-drop", float, "points of AP that may be lost; where more is, milder recipes of the same speed are tried"),
    ("seed", int, "of everything (default: 0)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a trained .pt")
    parser.add_argument("--data", required=True, metavar="FILE", help="the data.yaml that it was trained with")
    parser.add_argument("-o", "--output", metavar="FILE", help="the .xml to write (default: MODEL with -compressed)")
    parser.add_argument("--work", metavar="DIR", help="folder for the steps (default: OUTPUT with -steps)")
    parser.add_argument("--recipe", metavar="FILE", help="a YAML file with any of the values below")
    parser.add_argument("--fast", action="store_true", help="few epochs, no baseline: for a result within the hour")
    parser.add_argument("--imgsz", "--img", type=image_size, default=(640,), metavar="N|H,W", help="input size")
    for name, kind, text in NUMBERS:
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--keep-float", metavar="LAYERS",
        help="layers that stay in floating point, such as model.24,model.9; heads: the last convolutions "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument("--criterion", choices=("taylor", "l1", "l2", "bn"), help="what channels are ranked by")
    parser.add_argument("--weigh", choices=("params", "macs", "ms"), help="the cost that worth is divided by")
    parser.add_argument(
        "--activation", choices=("auto", "hardswish", "relu", "keep"),
        help="instead of dearer ones such as SiLU (default: auto, Hardswish unless it is fast enough without)",
    )  # fmt: skip
    parser.add_argument(
        "--levels", choices=("auto", "cut", "heads", "keep"),
        help="coarse levels that find nothing of their own: their heads go, or are cut with all maps as coarse, which "
        "has to be recovered from, or are kept (default: auto, cut where channels would have to go otherwise)",
    )  # fmt: skip
    parser.add_argument(
        "--ptq-only", action="store_true", help="set ranges from pictures, train no quantizers (as --qat-epochs 0)"
    )
    parser.add_argument("--no-quantize", action="store_true", help="stay in floating point")
    parser.add_argument("--no-baseline", action="store_true", help="do not train the original equally long beside it")
    parser.add_argument("--device", default="auto", help="where PyTorch computes: cpu, cuda (default: a GPU if any)")
    parser.add_argument("--precision", choices=("auto", "f32", "bf16", "f16"), default="auto", help="of the trainings")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="threads for pictures (default: 2)")
    add_augmentation(parser)
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.epilog = """examples:
  ovyolo compress best.pt --data data.yaml --speedup 3
  ovyolo compress best.pt --data data.yaml --fast
  ovyolo compress best.pt --data data.yaml --recipe recipe.yaml -o line3.xml

Beside the output lie its checkpoint (.pt, can be trained on), and reports (.compress.json, .compress.html). Every step
is a file in --work: an interrupted run goes on from there when started again. With --max-drop, a recipe that
loses more is followed by one without zeros and with all coarse maps, then by one that recovers twice as long, at the
same speed: three tries at most, each in a folder of its own in --work.

exit status: 0 done, 2 could not be done, or not as fast or as good as asked: nothing is written"""


def run(options: argparse.Namespace) -> int:
    """Compress and print what it cost."""
    from ovyolo.compress.recipe import FAST, Recipe, changed, read_recipe
    from ovyolo.export.api import as_imgsz
    from ovyolo.train import require_torch

    recipe = FAST if options.fast else Recipe()
    if options.recipe:
        recipe = read_recipe(options.recipe, recipe)
    names = [name.replace("-", "_") for name, _, _ in NUMBERS] + [
        "criterion", "weigh", "activation", "levels", "keep_float",
    ]  # fmt: skip
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.ptq_only:
        given["qat_epochs"] = 0
    if options.no_quantize:
        given["quantize"] = False
    if options.no_baseline:
        given["baseline"] = False
    recipe = changed(recipe, given, "the command")
    require_torch("compress")
    from ovyolo.compress.api import compress
    from ovyolo.compress.compress_report import text_table

    try:
        result = compress(
            options.model, options.data, options.output, recipe, work=options.work, imgsz=as_imgsz(options.imgsz),
            device=options.device, precision=options.precision, workers=options.workers, skip_bad=options.skip_bad,
            augment=augmentation_of(options),
            quiet=options.quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the steps that are done", file=sys.stderr)
        return 130
    print(text_table(result.report))
    for path in (result.path, result.json_path, result.html_path):
        if path is not None:
            print(f"written: {path}", file=sys.stderr)
    return 0
