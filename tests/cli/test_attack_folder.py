"""`leakgauge attack` on a folder of recordings: leakage per round and client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from leakgauge.core.spec import ImageSpec
from leakgauge.data import public_pictures
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.integrations.recording.recorder import Recorder
from leakgauge.models import load_model
from leakgauge.truth import Batch

MODEL, SPEC = "mlp:hidden=16,activation=sigmoid", ImageSpec((1, 8, 8))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two clients in two rounds, one SGD step on one picture each; the truths in a folder of their own."""
    from leakgauge.audit.guard.probe import Private

    recorder = Recorder(tmp_path / "recordings", MODEL, spec=SPEC, num_classes=10, keep_truth=True)
    pixels = public_pictures(SPEC.shape, 4)
    for index in (1, 2):
        for place, client in enumerate(("north", "south")):
            model = load_model(MODEL, 10, SPEC.shape, seed=index)
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            batch = Batch(SPEC.normalise(pixels[2 * index - 2 + place][None]), torch.tensor([place]), SPEC)
            nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            config = {"lr": 0.1, "local-steps": 1, "batch-size": 1, "optimizer": "sgd", "mode": "eval"}
            message = Exchange(before, model.state_dict(), "weights", 1, config, "test", "server", index, client)
            assert recorder.record(message, Private(batch)).path is not None
    return tmp_path / "recordings"


def test_every_recording_is_attacked_and_told_by_round_and_client(leakgauge, recordings, tmp_path):
    out = tmp_path / "out"
    run = leakgauge(
        "attack", recordings, "--model", MODEL, "--with", "linear-layer", "--truth", recordings / "truth", "--out", out, "--json"
    )  # fmt: skip
    assert run.code == 0, run.err
    lines = run.json["recordings"]
    assert [(line["round"], line["client"]) for line in lines] == [(1, "north"), (1, "south"), (2, "north"), (2, "south")]
    assert all(line["verdict"] == "rebuilt" and line["psnr"] > 60 and line["certified"] == 1 for line in lines)
    assert all(line["rdlv"] is None or line["rdlv"] > 0 for line in lines)
    assert json.loads((out / "leakage.json").read_text())["recordings"] == lines
    page = out / "report.html"
    assert leakgauge("report", out, "--html", page).code == 0
    assert "round 2" in page.read_text()


def test_without_truth_the_recordings_alone_tell_what_is_certified(leakgauge, recordings, tmp_path):
    run = leakgauge("attack", recordings, "--model", MODEL, "--with", "linear-layer", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    assert "determined, 1 certified" in run.out
    assert "round 1" in run.out
    assert "south" in run.out


def test_an_attack_that_does_not_apply_is_a_line_and_no_end(leakgauge, recordings, tmp_path):
    run = leakgauge(
        "attack", recordings, "--model", MODEL, "--with", "recursive", "--out", tmp_path / "out", "--json", "--time-limit", "5"
    )  # fmt: skip
    assert run.code == 0, run.err
    assert len(run.json["recordings"]) == 4


def test_a_recording_that_cannot_be_read_is_named_at_the_end_and_the_others_are_done(leakgauge, recordings, tmp_path):
    broken = recordings / "round-0001-client-north.safetensors"
    broken.write_bytes(broken.read_bytes()[:200])
    run = leakgauge("attack", recordings, "--model", MODEL, "--with", "linear-layer", "--out", tmp_path / "out", "--json")
    assert run.code == 2
    assert len(run.json["recordings"]) == 3
    assert run.err.strip().startswith("1 of 4 recordings cannot be attacked; the first is round-0001-client-north.safetensors")


def test_a_folder_without_observations_and_a_truth_that_is_no_folder_are_one_sentence(leakgauge, recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    run = leakgauge("attack", tmp_path / "empty", "--model", MODEL, "--with", "linear-layer", "--out", tmp_path / "out")
    assert "There is no observation in" in run.sentence
    truth = next((recordings / "truth").iterdir())
    run = leakgauge(
        "attack", recordings, "--model", MODEL, "--with", "linear-layer", "--truth", truth, "--out", tmp_path / "out"
    )  # fmt: skip
    assert "is no folder" in run.sentence
