"""`leakgauge simulate` and `leakgauge tradeoff`: what a person sees, files, JSON, and one sentence for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_run import Leakgauge

PLAN = """
model = "mlp:hidden=16,activation=sigmoid"
input = "1x8x8"
classes = 2
rounds = 2

[data]
validation = 6
public = 3

[training]
lr = 0.1

[[clients]]
name = "alone"
examples = 1

[[clients]]
name = "many"
examples = 3

[attack]
with = ["linear-layer", "idlg:restarts=1"]
budget = 20

[tradeoff]
defences = ["none", "gaussian-noise:std=0.5"]
policy = "ssim <= 0.6"
measure = "ssim"
rounds = [1]
"""
FILES = [
    "figures/accuracy.svg",
    "figures/attacks.png",
    "figures/leakage.svg",
    "figures/reconstructions.png",
    "leakage.csv",
    "report.html",
]


@pytest.fixture
def plan(own_folder: Path) -> Path:
    path = own_folder / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def test_it_tells_the_answer_and_where_the_page_is(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("simulate", plan, "--out", "run")
    assert run.code == 0, run.err
    assert "client alone leaked: its only picture was rebuilt" in run.out or "attacked clients leaked: " in run.out
    assert "The page: " in run.out
    assert "bundled pictures" in run.err
    for name in (*FILES, "simulation.json"):
        assert (Path("run") / name).is_file(), name
    assert "Traceback" not in run.err


def test_json_is_one_object_and_the_same_the_second_time(leakgauge: Leakgauge, plan: Path) -> None:
    first = leakgauge("simulate", plan, "--out", "run", "--json").json
    second = leakgauge("simulate", plan, "--out", "run", "--json").json
    assert first["records"] == second["records"]
    assert first["verdict"]["complete"] is True
    assert first["out"] == "run"
    assert json.loads(Path("run/simulation.json").read_text(encoding="utf-8"))["verdict"] == first["verdict"]


def test_set_and_data_change_the_plan(leakgauge: Leakgauge, plan: Path) -> None:
    changes = (
        "--set",
        "rounds=1",
        "--set",
        'attack.with=["linear-layer"]',
        "--data",
        "demo:digits?indices=0-40",
        "--set",
        "classes=10",
    )
    found = leakgauge("simulate", plan, "--out", "run", "--json", *changes).json
    assert found["plan"]["rounds"] == 1
    assert found["plan"]["attack"]["with"] == ["linear-layer"]
    assert found["data"] == {"source": "demo: digits", "bundled": True}
    assert {record["attack"] for record in found["records"]} == {"linear-layer", "control", "prior"}


def test_a_redacted_run_says_what_still_holds_pictures(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("simulate", plan, "--out", "run", "--redact")
    assert run.code == 0
    assert "still hold private pictures" in run.out
    assert "This page is redacted" in Path("run/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.toml", "--out", "run"), "The plan 'none.toml' cannot be read"),
        (("plan.toml", "--out", "run", "--set", "clients[1].batch_size=0"), "clients[1].batch_size is 0; expected"),
        (("plan.toml", "--out", "run", "--set", "attack.budgt=3"), "attack has the unknown key 'budgt'. Did you mean 'budget'?"),
        (("plan.toml", "--out", "run", "--set", "data.validation=5000"), "The plan needs 5007 pictures"),
        (("plan.toml", "--out", "run", "--data", "folder:nowhere"), "There is no 'nowhere' for data.source"),
        (("plan.toml", "--out", "plan.toml"), "The folder 'plan.toml' cannot be written to"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "tradeoff"])
def test_a_mistake_is_one_sentence(
    leakgauge: Leakgauge, plan: Path, command: str, arguments: tuple[str, ...], words: str
) -> None:
    assert words in leakgauge(command, *arguments).sentence


def test_a_sweep_tells_the_answer(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("tradeoff", plan, "--out", "sweep")
    assert run.code == 0, run.err
    assert "gaussian-noise:std=0.5" in run.out
    assert "max ssim <= 0.6" in run.out
    for name in ("tradeoff.json", "tradeoff.csv", "report.html", "figures/strength.svg", "figures/frontier.png"):
        assert (Path("sweep") / name).is_file(), name
    found = leakgauge("tradeoff", plan, "--out", "sweep", "--json").json
    assert [point["defence"] for point in found["points"]] == ["none", "gaussian-noise:std=0.5"]
    forms = {(entry["attack"], entry["variant"]) for entry in found["points"][1]["leakages"]}
    assert ("idlg:restarts=1", "plain") in forms
    assert ("idlg:restarts=1", "adaptive") in forms


def test_a_plan_without_a_sweep_is_told(leakgauge: Leakgauge, own_folder: Path) -> None:
    (own_folder / "plan.toml").write_text(PLAN.partition("[tradeoff]")[0], encoding="utf-8")
    assert "The plan has no table [tradeoff]" in leakgauge("tradeoff", "plan.toml", "--out", "run").sentence


def test_defences_without_an_adaptive_attack_are_refused(leakgauge: Leakgauge, plan: Path) -> None:
    change = 'attack.with=["linear-layer"]'
    assert "no attack that adapts to a defence" in leakgauge("tradeoff", plan, "--out", "run", "--set", change).sentence
