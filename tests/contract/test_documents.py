"""The documentation is checked like code: its examples run, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from documents import PAGES, ROOT, blocks, commands

import leakgauge


def run(code: str, folder: Path) -> str:
    """Runs a script in its own process with one thread, and returns what it printed."""
    start = "import torch\ntorch.set_num_threads(1)\n"
    result = subprocess.run([sys.executable, "-c", start + code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    """Calls the command line on a wide, plain terminal."""
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("leakgauge")), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    assert len(code.splitlines()) <= 12
    printed = run(code, tmp_path)
    psnr = float(re.findall(r"tensor\(\[([\d.]+)", printed)[0])
    assert psnr >= 30, "the example is about a picture that comes back"


@pytest.mark.slow
def test_the_tour_runs(tmp_path: Path) -> None:
    run("\n".join(blocks(ROOT / "docs" / "tour.md", "python")), tmp_path)


def test_the_plug_in_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "docs" / "plugins.md", "python")
    (tmp_path / "my_attack.py").write_text(code, encoding="utf-8")
    (declared,) = (block for block in blocks(ROOT / "docs" / "plugins.md", "toml") if "my_attack" in block)
    group, name, target = re.findall(r'"(leakgauge\.\w+)"\]\n(\S+) = "(\S+)"', declared)[0]
    folder = tmp_path / "my_attack-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-attack\nVersion: 0.1\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n", encoding="utf-8")
    use = f"""
import leakgauge as lg
batch = lg.load_data("demo:cat")
model = lg.load_model("lenet-dlg")
seen = lg.ThreatModel.honest_but_curious().observe(lg.Client(model).train(batch), model, batch.spec)
guess = lg.attack(seen, {name!r}, value=0.25)
assert abs(float(guess.inputs.mean()) - 0.25) < 1e-6
assert {name!r} in [entry.name for entry in lg.catalogue("attacks")]
"""
    run(use, tmp_path)


@pytest.mark.parametrize("command", sorted(set().union(*map(commands, PAGES))))
def test_every_command_on_a_page_exists_and_has_help(command: str) -> None:
    result = ask(command, "--help")
    assert result.returncode == 0, result.stderr
    assert command in result.stdout


def test_every_command_is_documented() -> None:
    result = ask("--help")
    known = set(re.findall(r"^[\s│|]*([a-z]+)\s{2,}\S", result.stdout, re.MULTILINE))
    assert known, result.stdout
    assert known <= commands(ROOT / "docs" / "command-line.md")


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text))
    assert set(leakgauge.__all__) <= named, sorted(set(leakgauge.__all__) - named)


def test_every_attack_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for entry in entry_points(group="leakgauge.attacks"):
        if entry.value.startswith("leakgauge."):
            assert f"`{entry.name}`" in text, entry.name


def test_every_target_of_the_makefile_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for page in PAGES:
        assert (
            set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)(?=`|\s{2}|\n)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= phony
        )
