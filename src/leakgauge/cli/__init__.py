"""The command line. Heavy packages load inside the commands, so that `leakgauge --help` is instant."""

from __future__ import annotations

from leakgauge.cli.app import main

__all__ = ["main"]
