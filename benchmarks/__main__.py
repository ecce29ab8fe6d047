"""`make bench`: the side-by-side cost figures, with their limits. Exits with 1 when a limit does not hold."""

from __future__ import annotations

import contextlib
import io
import sys

from benchmarks.cost import main

buffer = io.StringIO()
with contextlib.redirect_stdout(buffer):
    main()
print(buffer.getvalue())
sys.exit("| NO |" in buffer.getvalue())
