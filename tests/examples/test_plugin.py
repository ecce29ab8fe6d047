"""The sample plug-in, built and installed as anybody would, seen by the command line and by Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its metadata, as pip installs them."""
    work = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(ROOT / "examples" / "plugin", work / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--target", str(work / "site"), str(source)], check=True, timeout=300)
    return work / "site"


def python(installed: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def leakgauge(installed: Path, *arguments: str, folder: Path) -> str:
    done = python(installed, "-m", "leakgauge.cli", *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("kind", "name"), [("attacks", "public-average"), ("defences", "round-to"), ("measures", "edges")])
def test_the_catalogue_lists_it(installed: Path, tmp_path: Path, kind: str, name: str) -> None:
    lines = json.loads(leakgauge(installed, "list", kind, "--json", folder=tmp_path))[kind]
    (found,) = [line for line in lines if line["name"] == name]
    assert found["summary"].endswith(".")


def test_attack_defence_measure_and_reporter_work_from_the_command_line(installed: Path, tmp_path: Path) -> None:
    picture = ["lenet-dlg", "--data", "demo:cat?size=32", "--out", "client.safetensors", "--truth", "truth.safetensors"]
    leakgauge(installed, "capture", *picture, "--defence", "round-to:step=0.001", folder=tmp_path)
    attack = ["client.safetensors", "--model", "lenet-dlg", "--with", "public-average:value=0.4", "--measure", "edges"]
    leakgauge(installed, "attack", *attack, "--truth", "truth.safetensors", "--out", "run", folder=tmp_path)
    (file,) = (tmp_path / "run" / "records").glob("*/record.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["attack"] == "public-average"
    assert "round-to" in record["conditions"]["defence"]
    (measured,) = record["measured"]
    assert measured["name"] == "edges"
    assert measured["values"] == [0.0]  # a grey picture has no edges
    leakgauge(installed, "report", "run", "--with", "markdown=run.md", folder=tmp_path)
    assert "| public-average: " in (tmp_path / "run.md").read_text(encoding="utf-8")


def test_the_attack_keeps_the_rules(installed: Path, tmp_path: Path) -> None:
    code = (
        "from leakgauge.testing import check_attack\n"
        "from leakgauge_sample.attack import public_average\n"
        "found = check_attack(public_average())\n"
        "assert found.passed, found.failures\n"
    )
    done = python(installed, "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_closed_forms_see_through_its_layer(installed: Path, tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "from leakgauge_sample.layer import Scale\n"
        "from leakgauge.chain.trace import trace\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), Scale(2.0), torch.nn.Linear(8, 3))\n"
        "chain = trace(net, (3, 2, 2))\n"
        "assert chain.reasons == (), chain.reasons\n"
        "assert 'affine' in [link.kind for link in chain.links]\n"
    )
    done = python(installed, "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
