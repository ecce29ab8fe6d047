"""Fixtures of the whole line: the command, and one captured observation."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_run import Leakgauge, Run, start


@pytest.fixture(scope="session")
def leakgauge() -> Leakgauge:
    """Runs `leakgauge ARGUMENTS` in a folder and returns what came of it."""

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 120, **environment: str) -> Run:
        process = start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=timeout)
        return Run(process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def captured(leakgauge: Leakgauge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with client.safetensors: one gradient of a small real picture, and truth/client.safetensors."""
    folder = tmp_path_factory.mktemp("captured")
    done = leakgauge("capture", "lenet-dlg", "--data", "demo:cat?size=8", "--out", "client.safetensors", cwd=folder)
    assert done.code == 0, done.err
    return folder
