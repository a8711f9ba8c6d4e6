"""Making the old runtime's environment: everything comes from the package index, nothing of it is in ovyolo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ovyolo.errors import DeviceError, DimensionError
from ovyolo.vpu.environment import RELEASES, Environment, default_release, home, python_in

__all__ = ["Recipe", "find_python", "make_environment", "plan"]

LINUX = sys.platform.startswith("linux")
PYTHONS = ("3.9", "3.8", "3.7")
PATIENCE = 1800.0  # seconds for pip, on a slow line


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of; ``taken`` are files out of ``wheel``, which itself is not installed."""

    packages: tuple[tuple[str, str], ...]
    """Requirement and licence, as its metadata says it."""
    wheel: str = ""
    wheel_licence: str = ""
    taken: tuple[str, ...] = ()


RECIPES = {
    "2022.2.0": Recipe(
        (("openvino==2022.2.0", "Apache-2.0"), ("libusb-package", "Apache-2.0, with libusb under LGPL-2.1")),
        "openvino-tensorflow==2.2.0",
        "Apache-2.0; the stick's firmware in it is Intel's own",
        ("libopenvino_intel_myriad_plugin.so", "usb-ma2x8x.mvcmd"),
    ),
    "2021.4.2": Recipe(
        (
            ("openvino==2021.4.2", "Intel's proprietary licence, EULA.txt in it"),
            ("libusb-package", "Apache-2.0, with libusb under LGPL-2.1"),
        ),
        "openvino-tensorflow==1.1.0" if LINUX else "",
        "Apache-2.0",
        ("myriad_compile",) if LINUX else (),
    ),
}


def plan(release: str) -> list[str]:
    """What :func:`make_environment` installs, and under which licence, a sentence each."""
    recipe = RECIPES[release]
    lines = [f"{requirement}: {licence}" for requirement, licence in recipe.packages]
    if recipe.wheel:
        lines.append(f"{', '.join(recipe.taken)} out of the wheel of {recipe.wheel}: {recipe.wheel_licence}")
    return lines


def make_environment(
    release: str | None = None,
    python: str | Path | None = None,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Environment:
    """Make the environment for Myriad sticks, unless it is there and works.

    Args:
        release: ``"2022.2.0"`` (Linux) or ``"2021.4.2"``; by default the better one for this system.
        python: a Python 3.7 to 3.9; by default one is looked for.
        folder: where environments are kept; by default ``OVYOLO_VPU_HOME`` or the user's data folder.
        say: called with what goes on, a line each.

    Raises:
        DeviceError: no such Python is here, or something could not be fetched or does not work.
        DimensionError: the release is not one of those, or not for this system.
    """
    release = release or default_release()
    if release not in RECIPES:
        raise DimensionError(f"release is {release!r}; it takes one of {', '.join(RELEASES)}")
    if release == "2022.2.0" and not LINUX:
        raise DimensionError(
            "release 2022.2.0 has its Myriad plugin on the package index for Linux only: take 2021.4.2"
        )
    folder = folder or home()
    target = folder / release
    environment = Environment(python_in(target), release)
    if environment.python.exists():
        if (problem := fault(environment, release)) is None:
            say(f"{target} is there and works")
            return environment
        say(f"{target} is there, but {problem}: it is made anew")
    base = find_python(python)
    say(f"installing into {target}, with {base}:")
    for line in plan(release):
        say(f"  {line}")
    draft = folder / f"{release}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        _run([str(base), "-m", "venv", str(draft)], "a virtual environment cannot be made")
        _install(draft, RECIPES[release], say)
        if (problem := fault(Environment(python_in(draft), release), release)) is not None:
            raise DeviceError(f"what was installed into {draft} does not work: {problem}")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(draft, target)
    except OSError as error:
        raise DeviceError(f"{target} cannot be made: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    say(f"{target} works")
    return environment


def fault(environment: Environment, release: str) -> str | None:
    """What is wrong with an environment; None when it could serve a stick."""
    try:
        found = environment.probe()
    except DeviceError as error:
        return str(error)
    if not str(found["runtime"]).startswith(release.removesuffix(".0")):
        return f"its OpenVINO is {found['runtime']}"
    if found["myriad"]["plugin"] is None or found["myriad"]["firmware"] is None:
        return "the Myriad plugin or its firmware is missing"
    if found["libusb"] is None:
        return "libusb is missing"
    return str(found["myriad"]["problem"]) if found["myriad"]["problem"] else None


def find_python(given: str | Path | None = None) -> Path:
    """An interpreter of Python 3.7 to 3.9 that really starts: the one given, or the newest found.

    Raises:
        DeviceError: there is none.
    """
    if given is not None:
        found = _version(given)
        if found not in PYTHONS:
            raise DeviceError(
                f"{given} is {'Python ' + found if found else 'no Python that starts'}, but the old OpenVINO needs "
                "Python 3.7, 3.8 or 3.9: name one with --python"
            )
        return Path(shutil.which(str(given)) or given)
    for version in PYTHONS:
        for candidate in _candidates(version):
            if _version(candidate) == version:
                return Path(shutil.which(str(candidate)) or candidate)
    raise DeviceError(
        "no Python 3.9, 3.8 or 3.7 was found, which the old OpenVINO needs: install one "
        "(`uv python install 3.9`, `pyenv install 3.9`, or from python.org) and name it with --python"
    )


def _candidates(version: str) -> Iterable[str | Path]:
    yield f"python{version}"
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    data = os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")
    roots += [Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path(data) / "uv" / "python"))]
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
        yield local / "Programs" / "Python" / f"Python{version.replace('.', '')}" / "python.exe"
    for root in roots:
        for pattern in (f"{version}.*", f"cpython-{version}.*"):
            for folder in sorted(root.glob(pattern), reverse=True):
                yield folder / ("python.exe" if sys.platform == "win32" else "bin/python")


def _version(python: str | Path) -> str | None:
    """``"3.9"``; None for what does not start, as a version manager's stub."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _install(folder: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    python = str(python_in(folder))
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    say("  fetching OpenVINO, a minute or so …")
    requirements = [requirement for requirement, _ in recipe.packages]
    _run([*pip, "install", *requirements], f"{' '.join(requirements)} cannot be installed")
    if not recipe.wheel:
        return
    say("  fetching the plugin …")
    code = "import openvino; print(list(openvino.__path__)[0])"
    libraries = Path(_run([python, "-I", "-c", code], "OpenVINO cannot be imported").strip()) / "libs"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        # the files do not depend on the Python that the wheel is for, and there is none for 3.7
        fetch = ["download", "--no-deps", "--only-binary=:all:", "--python-version", "3.9", "-d", place, recipe.wheel]
        _run([*pip, *fetch], f"{recipe.wheel} cannot be fetched")
        wheels = list(Path(place).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                members = {name.rsplit("/", 1)[-1]: name for name in archive.namelist()}
                for name in recipe.taken:
                    (libraries / name).write_bytes(archive.read(members[name]))
                    (libraries / name).chmod(0o755)
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise DeviceError(
                f"the wheel of {recipe.wheel} does not hold {', '.join(recipe.taken)}: {error}"
            ) from error


def _run(command: list[str], failure: str) -> str:
    """Standard output of a command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{failure}: {error}") from error
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise DeviceError(f"{failure}: {words[-1].strip() if words else f'status {done.returncode}'}")
    return done.stdout
