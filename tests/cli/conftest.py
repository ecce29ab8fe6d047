"""The command line within the test's own process, through the same `main` that the installed command calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_run import Run

from leakgauge.cli import main


@pytest.fixture
def leakgauge(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Runs `leakgauge ARGUMENTS` in the current folder."""

    def run(*arguments: object) -> Run:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Run(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with o.safetensors, one gradient of a small picture on an mlp, and truth/o.safetensors."""
    folder = tmp_path_factory.mktemp("captured")
    made = ["capture", "mlp:hidden=16,activation=sigmoid", "--data", "demo:cat?size=8", "--out", str(folder / "o.safetensors")]
    assert main(made) == 0
    return folder
