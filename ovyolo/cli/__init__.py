"""The ``ovyolo`` command: a file a subcommand. Each parses, calls one function and prints.

Exit status: 0 done, 1 done but something was skipped or is missing, 2 could not be done (one line on stderr says why),
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from ovyolo.errors import OvyoloError, OvyoloWarning
from ovyolo.version import __version__

__all__ = ["main"]

COMMANDS = {
    "export": "turn a trained model (.pt, .onnx, .xml) into an OpenVINO IR with a card",
    "detect": "find objects in pictures, folders and videos",
    "val": "measure a model, or anybody's predictions, on labelled pictures by COCO's metrics",
    "quantize": "make an INT8 model that loses no more AP than allowed, and report what it lost",
    "compress": "make a trained detector smaller and faster: fewer channels, trained quantizers, and what it cost",
    "train": "train a detector, or go on with one, on labelled pictures",
    "bench": "measure what models cost here: latency by part, throughput, cold start, memory",
    "demo": "find defects on fresh synthetic boards with the model that comes with ovyolo, as trained and compressed",
    "info": "say what a model is: its card, inputs, outputs, precision, size",
    "vpu": "Myriad sticks: make the environment for them, compile blobs, check what is missing",
    "doctor": "say what this machine has: OpenVINO, devices, CPU, and what is missing for what",
}


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def build_parser(wanted: str | None) -> argparse.ArgumentParser:
    """The parser; only the ``wanted`` subcommand's module is loaded."""
    parser = Parser(
        prog="ovyolo",
        description="From a trained YOLO checkpoint to boxes on an Intel machine.",
        epilog="`ovyolo COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"ovyolo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if name == wanted:
            module = import_module(f"ovyolo.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def tell_at_once() -> None:
    """Print each of our warnings as one line, also when it comes again: a camera may be lost more than once."""
    usual: Any = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
        if issubclass(category, OvyoloWarning):
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
        else:
            usual(message, category, *more)

    warnings.simplefilter("always", OvyoloWarning)
    place: Any = warnings
    place.showwarning = show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    wanted = next((word for word in words if word in COMMANDS), None)
    options = build_parser(wanted).parse_args(words)
    try:
        with warnings.catch_warnings():
            tell_at_once()
            return int(options.run(options))
    except OvyoloError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output left; point stdout elsewhere so that the interpreter's last flush is silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except MemoryError:
        print("error: out of memory: use a smaller imgsz or close other programs", file=sys.stderr)
        return 2
