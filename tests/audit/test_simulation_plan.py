"""Plans: what they say, and the one sentence about each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulation_plans import table, tiny

from leakgauge.audit.plan_file import parse_plan, read_plan
from leakgauge.audit.simulation.attacker import check_adaptive
from leakgauge.audit.simulation.split import share_out
from leakgauge.audit.tradeoff.policy import broken_rules, parse_policy
from leakgauge.audit.tradeoff.strength import strengths
from leakgauge.errors import DataError, OptionError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEXT = """
model = "lenet-dlg"
input = "3x16x16"
classes = 4
rounds = 5

[[clients]]
name = "clinic"
examples = 4

[[clients]]
count = 2
examples = 2
lr = 0.5

[training]
lr = 0.1
epochs = 1

[attack]
with = ["dlg"]
every = 2
"""


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_plan_is_read_with_its_defaults(plan_file: Path) -> None:
    plan = read_plan(plan_file)
    assert plan.name == "clinic"
    assert plan.shape == (3, 16, 16)
    assert [name for name, _ in plan.members] == ["clinic", "site-2", "site-3"]
    assert plan.attacked_rounds == (1, 3, 5)
    assert plan.attacked_clients == ("clinic", "site-2", "site-3")
    trainings = [plan.training_of(client) for _, client in plan.members]
    assert [training.lr for training in trainings] == [0.1, 0.5, 0.5]
    assert trainings[0].epochs == 1


def test_keys_can_be_set_from_outside(plan_file: Path) -> None:
    changes = [
        "attack.budget=40",
        "clients[0].batch_size=2",
        "federation.topology=ring",
        'data.source="demo:faces"',
        "clients[1].steps=3",
    ]
    plan = read_plan(plan_file, changes)
    assert plan.attack.budget == 40
    assert plan.clients[0].batch_size == 2
    assert plan.federation.topology == "ring"
    assert plan.data.source == "demo:faces"
    changed = plan.training_of(plan.clients[1])
    assert (changed.steps, changed.epochs) == (3, None)
    assert read_plan(plan_file, data="demo:digits").data.source == "demo:digits"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": [{"examples": 1}, {"examples": 1, "batch_size": 0}]}, "clients[1].batch_size is 0; expected a whole"),
        ({"clients": [{"examples": 0}]}, "clients[0].examples is 0; expected a number >= 1"),
        ({"clients": [{"examples": 1, "batchsize": 2}]}, "clients[0] has the unknown key 'batchsize'. Did you mean"),
        ({"clients": []}, "clients is []; expected at least one entry"),
        ({"clients": [{"name": "a", "examples": 1}, {"name": "a", "examples": 2}]}, "Two clients are called 'a'"),
        ({"clients": [{"examples": 1, "defences": ["gaussian-noise:sd=1"]}]}, "clients[0].defences[0]: "),
        ({"training__optimiser": "sdg"}, "training.optimiser is 'sdg'; expected one of sgd, adam, adamw"),
        ({"training__learning_rate": 1}, "training has the unknown key 'learning_rate'."),
        ({"rounds": 0}, "rounds is 0; expected a number >= 1"),
        ({"rounds": 2.5}, "rounds is 2.5; expected a whole number"),
        ({"input": "16x16"}, "input is '16x16'; expected channels x height x width"),
        ({"input": "2x16x16"}, "expected 1 channel (grey) or 3 (colour)"),
        ({"loss": "cross-entropy"}, "loss is 'cross-entropy'. Did you mean 'cross_entropy'?"),
        ({"attack__attacks": ["dgl"]}, "attack.with[0]: There is no attack 'dgl'. Did you mean 'dlg'?"),
        ({"attack__attacks": ["dlg:seed=1"]}, "attack.with[0]: 'seed' is no option of the attack"),
        ({"attack__attacks": ["dlg", "dlg"]}, "attack.with names 'dlg' twice"),
        ({"attack__rounds": [3]}, "attack.rounds[0] is 3; expected a round from 1 to 2"),
        ({"attack__rounds": [1], "attack__every": 1}, "attack.rounds and attack.every are both given"),
        ({"attack__clients": ["site"]}, "attack.clients[0] is 'site'. Did you mean"),
        ({"attack__budget": "fsat"}, "attack.budget is 'fsat'; expected fast, paper, max"),
        ({"attack__prior": "class-mean"}, "attack.prior is 'class-mean'. Did you mean 'class mean'?"),
        ({"federation__topology": "star"}, "federation.topology is 'star'; expected 'server', 'ring' or 'complete'"),
        ({"federation__topology": "ring", "federation__secure_aggregation": True}, "federation.secure_aggregation needs a"),
        ({"federation__server_defence": "clip"}, "federation.server_defence: The defence 'clip' needs the option 'norm'"),
        ({"tradeoff": {"defences": ["none"]}, "data__validation": 0}, "data.validation is 0"),
        ({"tradeoff": {"defences": ["noise"]}}, "tradeoff.defences[0]: There is no defence 'noise'."),
        ({"nmae": "x"}, "The plan has the unknown key 'nmae'. Did you mean 'name'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as error:
        parse_plan(table(**changes))
    text = str(error.value)
    assert words in text
    assert "\n" not in text


def test_a_mistake_in_a_file_is_named_with_its_line(plan_file: Path) -> None:
    plan_file.write_text(TEXT.replace("count = 2", "cuont = 2"), encoding="utf-8")
    with pytest.raises(
        OptionError, match=r"^clinic.toml, line 12: clients\[1\] has the unknown key 'cuont'. Did you mean 'count'"
    ):
        read_plan(plan_file)
    plan_file.write_text(TEXT, encoding="utf-8")
    with pytest.raises(OptionError, match=r"^--set 'rounds=0': rounds is 0; expected a number >= 1"):
        read_plan(plan_file, ["rounds=0"])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(OptionError, match="The plan lacks the key 'model'"):
        parse_plan({name: value for name, value in table().items() if name != "model"})


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("model = \n", encoding="utf-8")
    with pytest.raises(DataError, match="is not TOML"):
        read_plan(tmp_path / "broken.toml")
    with pytest.raises(OptionError, match="is no change"):
        read_plan_with(tmp_path, "attack")
    with pytest.raises(OptionError, match="names entry '7'; there are 2"):
        read_plan_with(tmp_path, "clients[7].lr=1")


def read_plan_with(folder: Path, change: str) -> None:
    (folder / "plan.toml").write_text(TEXT, encoding="utf-8")
    read_plan(folder / "plan.toml", [change])


def test_a_defence_needs_an_attack_that_adapts() -> None:
    plan = tiny(clients=[{"examples": 1, "defences": ["gaussian-noise:std=1e-3"]}], attack__attacks=["linear-layer"])
    with pytest.raises(OptionError, match="no attack that adapts to a defence"):
        check_adaptive(plan)
    check_adaptive(tiny(attack__attacks=["linear-layer"]))


def test_policies() -> None:
    rules = parse_policy("rdlv <= 0.1 and mean ssim<0.5, accuracy >= 0.7")
    assert [str(rule) for rule in rules] == ["max rdlv <= 0.1", "mean ssim < 0.5", "accuracy >= 0.7"]
    values = {("rdlv", "max"): 0.1, ("ssim", "mean"): 0.5, ("accuracy", "max"): float("nan")}
    assert broken_rules(rules, values) == ("mean ssim < 0.5 (it is 0.5)", "accuracy >= 0.7 (it is not measured)")
    assert parse_policy("") == ()
    with pytest.raises(OptionError, match="tradeoff.policy has the rule 'rdlv = 1'"):
        parse_policy(["rdlv = 1"])
    with pytest.raises(OptionError, match="names the measure 'rdvl'. Did you mean 'rdlv'"):
        parse_policy("rdvl <= 1")


def test_strengths_are_put_in_order_within_each_family() -> None:
    texts = ["quantise:bits=4", "gaussian-noise:std=1e-1", "none", "gaussian-noise:std=1e-3", "quantise:bits=8", "half-precision"]
    found = strengths(texts)
    assert [entry.text for entry in found] == [
        "none", "quantise:bits=8", "quantise:bits=4", "gaussian-noise:std=1e-3", "gaussian-noise:std=1e-1", "half-precision",
    ]  # fmt: skip
    swept = strengths(["dp-sgd:noise_multiplier=2,clip_norm=1", "dp-sgd:noise_multiplier=0.5,clip_norm=1"])
    assert [(entry.option, entry.value) for entry in swept] == [("noise_multiplier", 0.5), ("noise_multiplier", 2.0)]
    with pytest.raises(OptionError, match="names 'none' twice"):
        strengths(["none", "none"])


@pytest.mark.parametrize("name", ["chest_xray", "chest_xray_tradeoff", "dlg_table"])
def test_every_example_is_a_plan_that_runs_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKGAUGE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = EXAMPLES / f"{name}.toml"
    plan = read_plan(path)
    check_adaptive(plan)
    pictures = share_out(plan, path.parent)
    assert pictures.pool.bundled
    assert f"leakgauge {'tradeoff' if plan.tradeoff else 'simulate'} examples/{name}.toml --out" in path.read_text(
        encoding="utf-8"
    )
    if plan.tradeoff is not None:
        assert parse_policy(plan.tradeoff.policy)
        assert len(strengths(plan.tradeoff.defences)) == len(plan.tradeoff.defences)
