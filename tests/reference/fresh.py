"""Code in a fresh interpreter (conftest.py keeps the working folder away from the checkout)."""

from __future__ import annotations

import subprocess
import sys


def run_python(code: str, *arguments: object, timeout: float = 120) -> str:
    """Run ``code`` and return what it prints; fails the test with its standard error when it does not end well."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
