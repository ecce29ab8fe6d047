"""The example as it stands: a real NVFlare simulation, its recordings counted, opened, attacked and recomputed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from leakgauge.core.observation import Observation
from leakgauge.federated.validate import validate
from leakgauge.integrations.recording.log import read_log
from leakgauge.models import load_model
from leakgauge.truth import Batch

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "examples" / "nvflare_job" / "run"
LEAKGAUGE = ROOT / ".venv" / "bin" / "leakgauge"
SITES, ROUNDS = ("site-1", "site-2"), (0, 1)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LEAKGAUGE.is_file(), reason="the example uses the checkout's .venv")]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The example from a bare environment, as its README line has it."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/tmp")}
    return subprocess.run([str(RUN), *map(str, arguments)], env=bare, capture_output=True, text=True, timeout=300, check=False)


def servers() -> list[str]:
    """Command lines of NVFlare's processes."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in shown if "nvflare" in line and "leakgauge_example" in line]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "out"
    done = run(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def recording(out: Path, site: str, number: int) -> tuple[Path, Path]:
    name = f"round-{number:04d}-client-{site}"
    return out / site / f"{name}.safetensors", out / site / "truth" / f"{name}.truth.safetensors"


def test_every_client_and_round_is_recorded_and_nothing_else(out):
    wanted = {path for site in SITES for number in ROUNDS for path in recording(out, site, number)}
    assert set(out.rglob("*.safetensors")) == wanted
    assert len(wanted) == 8
    for site in SITES:
        assert [line["round"] for line in read_log(out / site) if line["event"] == "recorded"] == [0, 1]
        assert [line["round"] for line in read_log(out / site) if line["event"] == "probe"] == [0, 1]
        assert not [line for line in read_log(out / site) if line["event"] == "error"]
    assert servers() == []


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("site", SITES)
def test_the_true_batch_gives_the_recorded_update(out, site, number):
    path, truth = recording(out, site, number)
    name = (path.parent / "MODEL").read_text().strip()
    seen = Observation.load(path, load_model(name, 10, (1, 16, 16)))
    checked = validate(seen, seen.model, Batch.load(truth))
    assert checked.agrees
    assert checked.residual < 1e-5
    assert seen.provenance.assumed == ()
    assert seen.num_examples == {"site-1": 1, "site-2": 4}[site]
    assert seen.training.steps == {"site-1": 1, "site-2": 2}[site]


def test_the_second_round_starts_where_the_first_ended(out):
    """The average of both sites' first round is the model that both receive in the second."""
    models = {
        site: Observation.load(recording(out, site, 1)[0], load_model("shallow-resnet:width=16", 10, (1, 16, 16))).model
        for site in SITES
    }
    first, second = (models[site].state_dict() for site in SITES)
    start = Observation.load(recording(out, "site-1", 0)[0], load_model("shallow-resnet:width=16", 10, (1, 16, 16))).model
    assert all(first[name].equal(second[name]) for name in first)
    assert not all(first[name].equal(value) for name, value in start.state_dict().items())


def test_attack_opens_a_recording(out, tmp_path):
    path, truth = recording(out, "site-1", 0)
    done = subprocess.run(
        [LEAKGAUGE, "attack", path, "--model", (path.parent / "MODEL").read_text().strip(), "--with", "bn-matching",
         "--truth", truth, "--out", tmp_path / "attack", "--json"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_blocked_client_delivers_nothing_and_the_job_goes_on(tmp_path):
    done = run(tmp_path / "out", "--block", "ssim > 0.95")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = {site: [line["send"] for line in read_log(tmp_path / "out" / site) if line["event"] == "decision"] for site in SITES}
    assert said == {"site-1": [False, False], "site-2": [True, True]}
    assert done.stdout.count("Empty result from client site-1, skipping") == 2
    assert done.stdout.count("Aggregated 1/2 results") == 2
    assert "Aggregated 2/2 results" not in done.stdout


def test_a_folder_with_recordings_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "old.safetensors").touch()
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("already holds recordings; name a new folder.")
    assert len(done.stderr.strip().splitlines()) == 1
