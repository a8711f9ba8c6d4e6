"""``ovyolo vpu``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their options."""
    parts = parser.add_subparsers(dest="part", metavar="setup|blob|check", required=True)
    setup = parts.add_parser("setup", help="make the environment with the last OpenVINO that drives a Myriad stick")
    setup.add_argument("--python", metavar="EXE", help="a Python 3.7 to 3.9 (default: one is looked for)")
    setup.add_argument(
        "--release", choices=("2022.2.0", "2021.4.2"), help="of OpenVINO (default: 2022.2.0 on Linux, else 2021.4.2)"
    )
    blob = parts.add_parser("blob", help="compile an IR for the stick; no stick is needed")
    blob.add_argument("model", help="an FP16 .xml that ovyolo made")
    blob.add_argument("-o", "--output", metavar="FILE", help="the .blob to write (default: MODEL with that suffix)")
    look = parts.add_parser("check", help="say what is here and what is missing: plugin, libusb, udev rule, sticks")
    look.add_argument("--model", metavar="M", help="an .xml to compute on the device and on the CPU, and to time")
    look.add_argument(
        "--device",
        default="MYRIAD",
        help="MYRIAD, MYRIAD.<id>; LEGACY.CPU to try all but the stick; also GPU, NPU (default: MYRIAD)",
    )
    parser.epilog = """examples:
  ovyolo vpu setup
  ovyolo vpu blob best.xml
  ovyolo vpu check --model best.xml

The environment is kept in OVYOLO_VPU_HOME, or in the user's data folder. Then: ovyolo detect --device MYRIAD"""


def run(options: argparse.Namespace) -> int:
    """Do what the subcommand says."""
    if options.part == "setup":
        from ovyolo.vpu.install import make_environment

        make_environment(options.release, options.python, say=lambda line: print(line, flush=True))
        return 0
    if options.part == "blob":
        from ovyolo.vpu.blob import make_blob, record_of

        path = make_blob(options.model, options.output)
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB, its record in {record_of(path).name}")
        return 0
    from ovyolo.vpu.check import check

    report = check(None if options.model is None else Path(options.model), options.device)
    print("\n".join(report.lines))
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 2 if report.problems else 0
