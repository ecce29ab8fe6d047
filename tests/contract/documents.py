"""The documentation as data: its files and the code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of a page in one language ('' for none), in order."""
    text = page.read_text(encoding="utf-8")
    return [code for found, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if found == language]


def commands(page: Path) -> set[str]:
    """Subcommands that a page shows after `leakgauge`, in code."""
    text = page.read_text(encoding="utf-8")
    code = [*re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    return {name for part in code for name in re.findall(r"(?:^|then )leakgauge ([a-z]\w*)", part, re.MULTILINE)}
