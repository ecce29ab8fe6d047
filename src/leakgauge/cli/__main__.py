"""`python -m leakgauge.cli`."""

from __future__ import annotations

import sys

from leakgauge.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
