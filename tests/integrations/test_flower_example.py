"""examples/flower_app, as a person runs it: in one process, and with Flower's engine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import leakgauge as lg
from leakgauge.federated.validate import validate

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "examples" / "flower_app"
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # no environment is active


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("app") / "out"
    python = [sys.executable, str(APP / "launch.py"), str(out), "--in-process"]
    done = subprocess.run(python, capture_output=True, text=True, check=False, timeout=280, env=BARE, cwd="/")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def check(out):
    """Two rounds of two clients on both sides, of which `validate` finds the true batches."""
    for side in ("clients", "server"):
        files = sorted((out / side).glob("*.safetensors"))
        assert len(files) == 4
        assert {file.name[:10] for file in files} == {"round-0001", "round-0002"}
        name = (out / side / "MODEL").read_text().strip()
        for file in files:
            seen = lg.Observation.load(file, lg.load_model(name, num_classes=2, input_shape=(1, 32, 32)))
            truth = lg.Batch.load(out / "clients" / "truth" / f"{file.stem}.truth.safetensors")
            assert seen.num_examples == len(truth) == 2
            assert len(seen.batch_norm) == 3
            assert seen.provenance.assumed == ()
            assert validate(seen, seen.model, truth).residual <= 1e-5
    names = [path for path in out.rglob("*.safetensors") if "truth" not in path.name]
    assert len(names) == 8


def test_the_app_records_in_one_process(in_process):
    out, said = in_process
    check(out)
    assert "clients: 4 of 4" in said
    assert "server: 4 of 4" in said


def test_the_printed_commands_work(in_process):
    _, said = in_process
    lines = [line for line in said.splitlines() if line.startswith("leakgauge ")]
    assert len(lines) == 2
    leakgauge = str(Path(sys.executable).parent / "leakgauge")
    for line, extra in zip(lines, ([], ["--budget", "20"]), strict=True):
        done = subprocess.run(
            [leakgauge, *line.split()[1:], *extra, "--json"], capture_output=True, text=True, check=False, timeout=200, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_a_guard_in_the_run_configuration_blocks_every_update(tmp_path):
    out = tmp_path / "out"
    python = [
        sys.executable,
        str(APP / "launch.py"),
        str(out),
        "--in-process",
        "--run-config",
        "block='deficit >= 0' num-server-rounds=1",
    ]
    done = subprocess.run(python, capture_output=True, text=True, check=False, timeout=280, env=BARE, cwd="/")
    assert done.returncode == 1  # not everything was recorded: the server got nothing
    assert "server: 0 of 2" in done.stdout
    lines = [json.loads(line) for line in (out / "server" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["not delivered"] * 2


def test_a_used_folder_is_refused(in_process):
    out, _ = in_process
    done = subprocess.run(
        [sys.executable, str(APP / "launch.py"), str(out)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "is not empty" in done.stderr) == (2, True)


def test_the_app_is_a_flower_app():
    config = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert set(config["components"]) == {"serverapp", "clientapp"}
    assert os.access(APP / "run", os.X_OK)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "python").exists(), reason="`run` uses ../../.venv, which is not there")
def test_the_app_records_in_flowers_own_engine(tmp_path):
    out, mark = tmp_path / "out", f"LEAKGAUGE_TEST={tmp_path}"
    done = subprocess.run(
        [str(APP / "run"), str(out)], capture_output=True, text=True, check=False, timeout=280, cwd="/",
        env={**BARE, "LEAKGAUGE_TEST": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    check(out)
    left = []
    for process in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            left += [process] if mark.encode() in process.read_bytes() else []
    assert left == []  # neither server nor ray stays behind
