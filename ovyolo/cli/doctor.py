"""``ovyolo doctor``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from ovyolo.version import __version__

EXTRAS = {
    "nncf": ("ovyolo quantize (INT8)", 'pip install "ovyolo[quantize]"'),
    "torch": ("ovyolo compress (pruning and fine-tuning)", 'pip install "ovyolo[compress]"'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def installed(package: str) -> str | None:
    """The version of an installed package, found without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_lines() -> list[str]:
    """What the CPU is, and which of its instruction sets matter here."""
    from ovyolo._nms import cpu_features, simd_level

    found = cpu_features()
    lines = [
        f"  cores           {os.cpu_count()}",
        f"  instructions    {' '.join(found) or 'baseline only'}",
        f"  our kernels     {simd_level()}",
    ]
    vnni = any(name.endswith("vnni") for name in found)
    advice = "8-bit products run natively" if vnni else "8-bit products may saturate: quantize with ovyolo's defaults"
    return [*lines, f"  INT8            {'VNNI: ' if vnni else 'no VNNI: '}{advice}"]


def openvino_lines() -> tuple[list[str], bool]:
    """OpenVINO and its devices; False when nothing can run."""
    try:
        import openvino as ov

        from ovyolo.runtime import available_devices

        devices = available_devices()
    except (ImportError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        return [f"  cannot be loaded ({problem}): pip install --force-reinstall openvino"], False
    lines = [f"  version         {ov.__version__}"]
    lines += [f"  device {name:<8} {full}" for name, full in devices.items()]
    if not any(name.startswith("GPU") for name in devices):
        lines.append("  no GPU          an Intel GPU needs its compute runtime (driver), and /dev/dri on Linux")
    if not any(name.startswith("NPU") for name in devices):
        lines.append("  no NPU          an Intel NPU needs its driver")
    return lines, bool(devices)


def myriad_lines() -> list[str]:
    """Sticks and the old OpenVINO for them."""
    try:
        from ovyolo.vpu.check import summary
    except (ImportError, RuntimeError):
        return ["  OpenVINO comes first"]
    return summary()


def opencv_line() -> tuple[str, bool]:
    """OpenCV, and what to do where it cannot be loaded."""
    try:
        import cv2
    except ImportError as error:
        remedy = (
            "apt-get install libgl1 libglib2.0-0" if "lib" in str(error) and sys.platform == "linux" else "reinstall it"
        )
        return f"  opencv-python   cannot be loaded ({error}): {remedy}", False
    return f"  opencv-python   {cv2.__version__}", True


def run(options: argparse.Namespace) -> int:
    """Print what is here; exit status 1 when detection cannot work."""
    print(f"ovyolo {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("CPU")
    print("\n".join(cpu_lines()))
    print("OpenVINO")
    lines, runs = openvino_lines()
    print("\n".join(lines))
    print("Myriad (NCS2)")
    print("\n".join(myriad_lines()))
    print("Packages")
    line, reads = opencv_line()
    print(line)
    for package in ("numpy", "pyyaml", "tqdm"):
        print(f"  {package:<15} {installed(package) or 'missing: pip install ' + package}")
    for package, (purpose, remedy) in EXTRAS.items():
        found = installed(package) if importlib.util.find_spec(package) else None
        print(f"  {package:<15} {found or f'missing, needed for {purpose}: {remedy}'}")
    if not (runs and reads):
        print("detection cannot work here yet: see above")
        return 1
    return 0
