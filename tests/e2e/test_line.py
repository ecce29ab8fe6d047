"""The whole line on real pictures, each step its own process: capture, validate, attack, report."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from e2e_run import Leakgauge, start
from safetensors.torch import load_file

ATTACK = ("attack", "client.safetensors", "--model", "lenet-dlg", "--with", "idlg", "--budget", "400")


@pytest.fixture(scope="module")
def attacked(leakgauge: Leakgauge, captured: Path) -> Path:
    """The folder of an attack on the captured observation, with the truth given for scoring."""
    done = leakgauge(*ATTACK, "--truth", "truth/client.safetensors", "--out", "run", cwd=captured)
    assert done.code == 0, done.err
    assert "Counting does not rule out exact recovery" in done.out
    assert "Expected time: " in done.out
    return captured / "run"


def test_validate_agrees_with_the_truth(leakgauge: Leakgauge, captured: Path) -> None:
    done = leakgauge(
        "validate", "client.safetensors", "--model", "lenet-dlg", "--truth", "truth/client.safetensors", cwd=captured
    )
    assert done.code == 0, done.err
    assert "conv1.weight" in done.out
    assert "The update agrees with the batch and the protocol." in done.out


def test_attack_writes_a_record_and_a_reconstruction(attacked: Path) -> None:
    found = load_file(attacked / "reconstruction.safetensors")
    assert found["inputs"].shape == (1, 3, 8, 8)
    record = json.loads(next((attacked / "records").glob("*/record.json")).read_text())
    assert record["attack"] == "idlg"
    assert record["conditions"]["model_state"] == "untrained"
    assert record["conditions"]["labels"] == "recovered"
    assert record["conditions"]["batch_norm"] == "none in the network"
    assert record["conditions"]["budget"] == "400"
    assert record["scores"][0]["psnr"] in ("inf",) or record["scores"][0]["psnr"] > 30
    assert record["control"]["scores"][0]["psnr"] < 25
    assert record["reproduce"].startswith("leakgauge attack client.safetensors")


def test_report_reads_the_folder_of_an_attack(leakgauge: Leakgauge, attacked: Path) -> None:
    done = leakgauge("report", attacked, "--html", "page.html", "--json", "page.json", cwd=attacked)
    assert done.code == 0, done.err
    page = (attacked / "page.html").read_text()
    assert "data:image/png;base64," in page
    assert " dB" in page
    assert set(json.loads((attacked / "page.json").read_text())) == {"verdict", "records"}


def test_the_same_seed_gives_the_same_bits_in_two_processes(
    leakgauge: Leakgauge, attacked: Path, captured: Path, tmp_path: Path
) -> None:
    done = leakgauge(*ATTACK, "--out", tmp_path / "again", cwd=captured)
    assert done.code == 0, done.err
    first, second = (load_file(folder / "reconstruction.safetensors") for folder in (attacked, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ctrl_c_keeps_the_best_so_far(captured: Path, tmp_path: Path) -> None:
    made = ("attack", "client.safetensors", "--model", "lenet-dlg", "--with", "inverting-gradients", "--budget", "10000000")
    process = start(*made, "--truth", "truth/client.safetensors", "--out", tmp_path, cwd=captured)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Expected time"):
            break
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert process.returncode == 0, err
    assert "the best so far is kept" in err
    assert "TIMEOUT" in out
    record = json.loads(next((tmp_path / "records").glob("*/record.json")).read_text())
    assert record["outcome"] == "TIMEOUT"
    assert record["evaluations"] > 2
    assert record["scores"][0]["psnr"] > 5
    assert load_file(tmp_path / "reconstruction.safetensors")["inputs"].shape == (1, 3, 8, 8)
