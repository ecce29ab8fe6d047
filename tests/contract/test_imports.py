"""Who may import whom. Two independent checks, and planted violations that each must find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from import_graph import BLIND, HEIGHT, PACKAGE, SEEING, violations

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
CONFIGURATION = ROOT / "pyproject.toml"

PLANTED = {
    "an attack imports the truth": ("attacks/planted.py", "from leakgauge.truth.batch import Batch\n"),
    "an attack imports measures late": ("attacks/planted.py", "def peek():\n    from leakgauge.measures import score\n"),
    "an attack imports the client": ("attacks/planted.py", "from ..federated import client\n"),
    "an attack reaches data through another module": (
        "defences/planted.py",
        "import leakgauge.data.load\n",
        "attacks/planted.py",
        "import leakgauge.defences.planted\n",
    ),
    "an attack takes the truth from the public list": ("attacks/planted.py", "import leakgauge\n"),
    "a measure imports an attack": ("measures/planted.py", "from leakgauge.attacks import base\n"),
    "core imports the report": ("core/planted.py", "import leakgauge.report.html\n"),
    "the truth imports a defence": ("truth/planted.py", "from leakgauge import defences\n"),
}


def lint_imports(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter with the project's configuration on the package below `source`."""
    run = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", run, "--config", str(CONFIGURATION), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_linter_keeps_every_contract(tmp_path: Path) -> None:
    result = lint_imports(SOURCE, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_the_syntax_trees_break_no_rule() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found_by_both(planted: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "src"
    shutil.copytree(SOURCE / PACKAGE, source / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for place, text in zip(planted[::2], planted[1::2], strict=True):
        (source / PACKAGE / place).write_text(text, encoding="utf-8")
    if planted[1] == "import leakgauge\n":  # the linter sees the danger only where the root says where its names come from
        with (source / PACKAGE / "__init__.py").open("a", encoding="utf-8") as root:
            root.write("\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from leakgauge.truth.batch import Batch\n")

    result = lint_imports(source, tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout
    assert any("planted" in sentence for sentence in violations(source))


def test_every_part_of_the_tree_stands_under_the_contracts() -> None:
    contracts = {
        contract["id"]: contract for contract in tomllib.loads(CONFIGURATION.read_text())["tool"]["importlinter"]["contracts"]
    }
    parts = {path.stem for path in (SOURCE / PACKAGE).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__", "registry", "testing"} <= set(HEIGHT)
    truth = contracts["truth"]
    assert set(truth["source_modules"]) == {f"{PACKAGE}.{part}" for part in BLIND & parts}
    assert set(truth["forbidden_modules"]) == {f"{PACKAGE}.{part}" for part in SEEING}
    assert "ignore_imports" not in truth
    assert "allow_indirect_imports" not in truth
