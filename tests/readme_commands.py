"""Print the commands of a README block that is marked ``<!-- ci: NAME -->``, so that CI runs what users read."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(readme: str, name: str) -> str:
    """The lines of the fenced block that follows the mark."""
    found = re.findall(rf"<!-- ci: {re.escape(name)} -->\s*```\w*\n(.*?)```", readme, re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"the README has {len(found)} blocks marked {name!r}, not one")
    return found[0]


if __name__ == "__main__":
    print(commands(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]), end="")
