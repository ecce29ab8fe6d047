"""The commands of the how-to pages, run as they stand, in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r"^( *)```sh([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def commands(page: Path, slow: bool) -> list[tuple[str, int]]:
    """Lines of the shell blocks, each with the exit code that the page announces."""
    found = []
    for _, info, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if slow or "slow" not in info.split():
            expected = int((re.search(r"fails=(\d)", info) or [0, "0"])[1])
            found += [(line.strip(), expected) for line in text.splitlines() if line.strip()]
    return found


def run_page(page: Path, folder: Path, slow: bool) -> None:
    for name in ("examples", "plans"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line, expected in commands(page, slow):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == expected, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_there_is_a_page_for_each_kind_of_user() -> None:
    assert len(PAGES) >= 6
    assert all(commands(page, slow=True) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page, False) != commands(page, True)], ids=lambda page: page.stem
)
def test_slow_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, slow=True)
