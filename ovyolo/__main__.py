"""``python -m ovyolo`` is ``ovyolo``."""

import sys

from ovyolo.cli import main

sys.exit(main())
