"""Audits in MLflow, in local stores: what is logged is what was found, and nothing private by default."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "report"))

from report_examples import four_pictures, one_rebuilt, record
from simulation_examples import result, sweep

from leakgauge.audit.filters import audit_filter
from leakgauge.audit.folder import save_record
from leakgauge.audit.recordings import Leakage, save_leakage
from leakgauge.errors import DataError, IntegrationError
from leakgauge.integrations.mlflow import log_audit
from leakgauge.integrations.recording.log import Log
from leakgauge.report.simulation.files import write_simulation
from leakgauge.report.tradeoff.files import write_tradeoff

tracking = pytest.importorskip("mlflow.tracking")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A file store, in a folder of the test's own."""
    return (tmp_path / "mlruns").as_uri()


def read(store: str, run_id: str) -> tuple[Any, dict[str, dict[int, float]], Path]:
    """The run, its metrics (name -> step -> value), and its artifacts in a folder."""
    client = tracking.MlflowClient(tracking_uri=store)
    run = client.get_run(run_id)
    metrics = {name: {entry.step: entry.value for entry in client.get_metric_history(run_id, name)} for name in run.data.metrics}
    return run, metrics, Path(client.download_artifacts(run_id, ""))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_records(tmp_path: Path, store: str) -> None:
    records = [one_rebuilt(), four_pictures()]
    for each in records:
        save_record(each, tmp_path / "run")
    run, metrics, artifacts = read(store, log_audit(tmp_path / "run", tracking_uri=store, run_name="mine"))
    assert run.info.run_name == "mine"
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == " | ".join(dict.fromkeys(str(each.conditions.batch_size) for each in records))
    assert run.data.tags["leakgauge.redacted"] == "true"
    assert run.data.tags["version.torch"] == torch.__version__
    for step, each in enumerate(records, start=1):
        assert metrics[f"{each.attack}/psnr"][step] == pytest.approx(min(999.0, max(score.psnr for score in each.scores)))
        assert metrics[f"{each.attack}/mse"][step] == pytest.approx(min(score.mse for score in each.scores))
        assert metrics[f"{each.attack}/certified"][step] == each.certified
    assert files(artifacts) == {"report.html", "report.json"}
    assert json.loads((artifacts / "report.json").read_text(encoding="utf-8"))["verdict"]["redacted"] is True
    assert metrics["pictures"][0] == 5


def test_attacked_recordings_have_rounds_as_steps(tmp_path: Path, store: str) -> None:
    save_record(one_rebuilt(), tmp_path)
    lines = [
        Leakage(
            f"round-000{number}-client-7.safetensors",
            number,
            "7",
            "DETERMINED",
            True,
            1,
            1e-7,
            1,
            "rebuilt",
            psnr,
            0.9,
            math.nan,
            1.0,
        )
        for number, psnr in ((1, 30.0), (2, math.inf))
    ]
    save_leakage(lines, "linear-layer", tmp_path)
    _, metrics, _ = read(store, log_audit(tmp_path, tracking_uri=store))
    assert metrics["psnr/7"] == {1: 30.0, 2: 999.0}
    assert metrics["certified/7"] == {1: 1.0, 2: 1.0}
    assert "rdlv/7" not in metrics


def test_names_and_places_stay_at_home_unless_asked(tmp_path: Path, store: str) -> None:
    truth = one_rebuilt().pictures
    assert truth is not None
    assert truth.truth is not None
    secret = record(
        "secret", truth.truth, truth.guess, title="attack on /home/anna/mueller.png", cause="see /home/anna/notes.txt"
    )
    told = []
    for redact in (True, False):
        run, _, artifacts = read(store, log_audit(secret, tracking_uri=store, redact=redact))
        written = "".join(path.read_text(encoding="utf-8") for path in artifacts.rglob("*") if path.is_file())
        told.append("mueller" in written + str(run.data.params) + str(run.data.tags))
    assert told == [False, True]


def test_a_simulation_has_rounds_as_steps(tmp_path: Path, store: str) -> None:
    simulated = result()
    run, metrics, artifacts = read(store, log_audit(simulated, tracking_uri=store))
    assert set(metrics["accuracy"]) == {facts.index for facts in simulated.rounds}
    for leak in simulated.attacks:
        name = leak.attack if leak.variant == "plain" else f"{leak.attack} adaptive"
        assert metrics[f"ssim/{leak.sender}/{name}"][leak.round] == pytest.approx(max(score.ssim for score in leak.scores))
    number = simulated.attacks[0].round
    same = [score.ssim for leak in simulated.attacks if leak.round == number for score in leak.scores]
    assert metrics["ssim/any client"][number] == pytest.approx(max(same))
    assert {"report.html", "simulation.json", "leakage.csv"} <= files(artifacts)
    assert "mueller" not in str(run.data.params)
    assert run.data.params["rounds"] == "3"
    write_simulation(simulated, tmp_path / "redacted", redact=True)
    _, again, artifacts = read(store, log_audit(tmp_path / "redacted", tracking_uri=store))
    assert again == metrics
    assert {"report.html", "simulation.json", "leakage.csv"} <= files(artifacts)


def test_an_unredacted_folder_leaves_its_page_at_home(tmp_path: Path, store: str) -> None:
    write_simulation(result(), tmp_path / "open")
    (tmp_path / "open" / "records").mkdir()
    (tmp_path / "open" / "records" / "private.safetensors").write_bytes(b"private")
    run, metrics, artifacts = read(store, log_audit(tmp_path / "open", tracking_uri=store))
    assert files(artifacts) == set()
    assert "accuracy" in metrics
    assert "not redacted" in run.data.tags["leakgauge.note"]
    assert "mueller" not in str(run.data.params) + str(run.data.tags)
    _, _, artifacts = read(store, log_audit(tmp_path / "open", tracking_uri=store, redact=False))
    assert "report.html" in files(artifacts)
    assert not any(name.startswith("records") for name in files(artifacts))


def test_a_trade_off_has_defences_as_steps(tmp_path: Path, store: str) -> None:
    swept = sweep()
    run, metrics, artifacts = read(store, log_audit(swept, tracking_uri=store))
    for step, point in enumerate(swept.points, start=1):
        assert run.data.params[f"defence.{step}"] == point.strength.text
        assert metrics["accuracy"][step] == pytest.approx(point.accuracy)
    assert {"report.html", "tradeoff.json"} <= files(artifacts)
    write_tradeoff(swept, tmp_path / "swept", redact=True)
    assert read(store, log_audit(tmp_path / "swept", tracking_uri=store))[1] == metrics


def test_a_filter_and_a_recording(tmp_path: Path, store: str) -> None:
    found = audit_filter(lambda before, after: dict(after), torch.nn.Linear(4, 3), claim="gaussian-noise:std=0.1")
    run, metrics, artifacts = read(store, log_audit(found, tracking_uri=store))
    assert metrics["faults"][0] == len(found.faults) > 0
    assert run.data.tags["leakgauge.verdict"] == found.verdict
    assert files(artifacts) == {"filter.json"}
    log = Log(tmp_path / "recorded")
    for number in (1, 2):
        log.write(
            "probe",
            "a probe of /home/anna",
            round=number,
            client="hospital 1",
            attack="linear-layer",
            ssim=0.1 * number,
            rdlv=None,
        )
        log.write("decision", "blocked", round=number, client="hospital 1", values={"rdlv": 0.5})
    run, metrics, artifacts = read(store, log_audit(tmp_path / "recorded", tracking_uri=store))
    assert metrics["ssim/hospital 1"] == {1: 0.1, 2: 0.2}
    assert metrics["decision.rdlv/hospital 1"] == {1: 0.5, 2: 0.5}
    assert "anna" not in (artifacts / "recording.json").read_text(encoding="utf-8")


def test_a_run_that_exists_and_an_experiment_by_name(store: str) -> None:
    client = tracking.MlflowClient(tracking_uri=store)
    own = client.create_run(client.create_experiment("training")).info.run_id
    assert log_audit(one_rebuilt(), tracking_uri=store, run_id=own) == own
    assert client.get_run(own).info.status == "RUNNING", "a run of one's own is not ended"
    first, second = (log_audit(one_rebuilt(), tracking_uri=store, experiment="audits") for _ in range(2))
    assert client.get_run(first).info.experiment_id == client.get_run(second).info.experiment_id
    assert client.get_experiment_by_name("audits") is not None


def test_a_store_in_sqlite(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.MlflowClient(tracking_uri=store)
    client.create_experiment("audits", artifact_location=(tmp_path / "artifacts").as_uri())
    _, metrics, artifacts = read(store, log_audit(result(), tracking_uri=store, experiment="audits"))
    assert len(metrics["accuracy"]) == 3
    assert "report.html" in files(artifacts)


def test_wrong_use_is_one_sentence(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        log_audit(tmp_path / "nowhere", tracking_uri=store)
    with pytest.raises(DataError, match="holds no audit; expected records"):
        log_audit(tmp_path, tracking_uri=store)
    (tmp_path / "simulation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        log_audit(tmp_path, tracking_uri=store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    with pytest.raises(IntegrationError, match="MLflow refused the audit: .*MLFLOW_ALLOW_FILE_STORE"):
        log_audit(one_rebuilt(), tracking_uri=(tmp_path / "other").as_uri())


def test_nothing_of_mlflow_is_imported_before_it_is_used() -> None:
    script = "import sys, leakgauge.integrations.mlflow; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
