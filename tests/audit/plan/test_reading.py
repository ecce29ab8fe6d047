"""Plans: what they say, and the one sentence about each mistake, with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_plans import plain, table

from leakgauge.audit.plan.reading import parse_audit_plan, read_audit_plan
from leakgauge.errors import DataError, LeakgaugeError, OptionError

TEXT = """
seeds = [0, 1]
data = ["demo:face?size=16"]
models = ["lenet-dlg:width=4"]
attacks = ["idlg"]
protocols = [
  {},
  { lr = 0.1, steps = 2 },
]

[verdict]
false_alarm = 0.01
"""


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_plan_is_read_with_its_defaults(plan_file: Path) -> None:
    plan = read_audit_plan(plan_file)
    assert (plan.name, plan.seeds, plan.defences, plan.states) == ("clinic", [0, 1], ["none"], ["untrained"])
    assert (plan.budget, plan.decoys, plan.verdict.false_alarm, plan.verdict.resamples) == ("fast", "auto", 0.01, 10_000)
    assert plan.protocols[1].given() == {"lr": 0.1, "steps": 2}
    assert plan.threats[0].model_dump() == {"labels": False, "batch_norm": True, "defence": True}


def test_keys_can_be_set_from_outside(plan_file: Path) -> None:
    changes = ["budget=40", "protocols[1].lr=0.5", "seeds[0]=7", "verdict.resamples=200", 'defences=["prune:fraction=0.5"]']
    plan = read_audit_plan(plan_file, changes)
    assert (plan.budget, plan.seeds, plan.verdict.resamples) == (40, [7, 1], 200)
    assert plan.protocols[1].given()["lr"] == 0.5
    assert plan.defences == ["prune:fraction=0.5"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [0]}, "The plan has the unknown key 'sedes'. Did you mean 'seeds'?"),
        ({"data": None}, "The plan lacks the key 'data'."),
        ({"data": "demo:cat"}, "data is 'demo:cat'; expected a list, in brackets."),
        ({"models": []}, "models is []; expected at least one entry."),
        ({"seeds": [0, 1.5]}, "seeds[1] is 1.5; expected a whole number."),
        ({"seeds": [2**63]}, "seeds[0] is 9223372036854775808; expected a whole number of at most 63 bits."),
        ({"seeds": [True]}, "seeds[0] is True; expected a whole number."),
        ({"budget": "fsat"}, "budget is 'fsat'; expected fast, paper, max or a whole number. Did you mean 'fast'?"),
        ({"budget": 0}, "budget is 0; expected a whole number from 1 to 1000000000."),
        ({"budget": 2.5}, "budget is 2.5; expected fast, paper, max or a whole number."),
        ({"time_limit": float("inf")}, "time_limit is inf; expected a finite number."),
        ({"time_limit": 0}, "time_limit is 0; expected a number > 0."),
        ({"loss": "cross-entropy"}, "loss is 'cross-entropy'. Did you mean 'cross_entropy'?"),
        ({"attacks": ["idlg", "dgl"]}, "attacks[1]: There is no attack 'dgl'. Did you mean 'dlg'?"),
        ({"attacks": ["idlg:seed=1"]}, "attacks[0]: 'seed' is no option of the attack 'idlg' itself"),
        ({"attacks": ["bn-matching:prior=folder:/nowhere"]}, "attacks[0]: There is no /nowhere to read 'folder' from."),
        ({"defences": ["none", "prun:fraction=1"]}, "defences[1]: There is no defence 'prun'. Did you mean 'prune'?"),
        ({"defences": ["prune:fraction=0.5 + clip"]}, "defences[0]: The defence 'clip' needs the option 'norm'"),
        ({"models": ["lenet-dgl"]}, "models[0]: There is no network 'lenet-dgl'. Did you mean 'lenet-dlg'?"),
        ({"models": ["lenet-dlg:widht=2"]}, "models[0]: The network 'lenet-dlg' has no option 'widht'. Did you mean 'width'?"),
        ({"models": ["no.such.module:net"]}, "models[0]: The model 'no.such.module:net' needs the module 'no.such.module'"),
        ({"models": ["mlp:hidden=1048576-1048576"]}, "models[0]: The model 'mlp:hidden=1048576-1048576' has 4399 GB of weights"),
        ({"data": ["demo:cta"]}, "data[0]: There is no demo picture 'cta'. Did you mean 'cat'?"),
        ({"data": ["folder:/nowhere"]}, "data[0]: There is no /nowhere to read 'folder' from."),
        ({"data": ["demo:faces?indices=100"]}, "data[0]: demo:faces holds 100 pictures, indices 0 to 99; there is no index 100."),
        ({"data": ["demo:faces?size=8192"]}, "data[0]: The batch"),
        ({"num_classes": 2}, "models[0]: The label 5 of 'face' has no output: the model 'lenet-dlg:width=4' has 2 classes"),
        ({"decoys": "folder:/nowhere"}, "decoys: There is no /nowhere to read 'folder' from."),
        ({"states": ["weights.safetensors"]}, "states[0]: There is no file weights.safetensors"),
        ({"states": ["trained:rounds=x"]}, "states[0]: The state 'trained:rounds=x' needs a number of rounds"),
        ({"states": ["trained:rounds=2"]}, "states[0]: The state 'trained:rounds=2' needs data to train on: give training.data."),
        ({"protocols": [{"lr": "x"}]}, "protocols[0]: lr is 'x'; expected a number > 0, or None."),
        ({"protocols": [{"learning_rate": 1}]}, "protocols[0] has the unknown key 'learning_rate'."),
        ({"protocols": [{"lr": 0.1, "schedule": ["a"]}]}, "protocols[0]: schedule is ('a',); expected a list of numbers."),
        ({"protocols": [{"lr": 0.1, "schedule": [float("nan")]}]}, "protocols[0]: schedule is [nan]; expected finite numbers."),
        ({"protocols": [{"lr": 10**400}]}, "expected a number > 0, or None."),
        ({"protocols": [{"lr": 0.1, "steps": 10**9}]}, "protocols[0]: steps is 1000000000; expected at most 1000000."),
        ({"threats": [{"labels": 1}]}, "threats[0].labels is 1; expected true or false."),
        ({"name": "a\x00b"}, "name is 'a\\x00b'; expected text without control characters."),
        ({"verdict": {"false_alarm": 1}}, "verdict.false_alarm is 1; expected a number < 1."),
        ({"verdict": {"flase_alarm": 0.1}}, "verdict has the unknown key 'flase_alarm'. Did you mean 'false_alarm'?"),
        ({"exclude": [{}]}, "exclude[0] is empty, which would leave out every cell."),
        ({"exclude": [{"attack": "idlg"}]}, "exclude[0] has the unknown key 'attack'. Did you mean 'attacks'?"),
        ({"exclude": [{"attacks": "dlgg"}]}, "exclude[0].attacks has 'dlgg'; the plan's attacks have no such entry."),
        ({"exclude": [{"attacks": "*"}]}, "The plan's [[exclude]] leaves out every cell."),
        ({"exclude": [{"protocols": {"lrr": 1}}]}, "exclude[0].protocols has {'lrr': 1}; there is no field 'lrr'."),
        ({"exclude": [{"seeds": 5}]}, "exclude[0].seeds has 5; expected one of the plan's seeds: [0]."),
        ({"seeds": list(range(400)), "attacks": ["idlg"] * 400}, "The plan has 320000 cells; expected at most 100000."),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LeakgaugeError) as error:
        parse_audit_plan(plain(**changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"statistic": "share"}, "expect[0].statistic is 'share'; expected median, mean, min or max for the measure 'psnr'."),
        ({"measure": "rebuilt"}, "expect[0].statistic is 'median'; expected 'share' for the measure 'rebuilt'."),
        ({"value": None}, "expect[0] lacks the key 'value' (or 'versus', another group of cells)."),
        ({"relation": "about"}, "expect[0] lacks the key 'tolerance', which 'about' needs."),
        ({"tolerance": 1.0}, "expect[0].tolerance is only for the relation 'about'."),
        ({"where": {"attacks": "tag"}}, "expect[0].where.attacks has 'tag'; the plan's attacks have no such entry."),
        ({"measure": "psrn"}, "expect[0].measure is 'psrn'; expected"),
        ({"what": ""}, "expect[0].what is ''; expected some text."),
    ],
)
def test_a_mistake_in_an_expectation_is_named(changes: dict[str, Any], words: str) -> None:
    entry = {"what": "It leaks", "measure": "psnr", "relation": "at least", "value": 10.0} | changes
    with pytest.raises(OptionError) as error:
        parse_audit_plan(plain(expect=[{key: value for key, value in entry.items() if value is not None}]))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("seeds = [0, 1]", "sedes = [0, 1]", "clinic.toml, line 2: The plan has the unknown key 'sedes'. Did you mean 'seeds'?"),
        ("steps = 2", "stepz = 2", "clinic.toml, line 8: protocols[1] has the unknown key 'stepz'. Did you mean 'steps'?"),
        ("lr = 0.1", "lr = -1", "clinic.toml, line 8: protocols[1]: lr is -1; expected a number > 0"),
        ("false_alarm = 0.01", "false_alarm = 2", "clinic.toml, line 12: verdict.false_alarm is 2; expected a number < 1."),
        ('"idlg"', '"dgl"', "clinic.toml, line 5: attacks[0]: There is no attack 'dgl'."),
        ("demo:face?", "demo:fase?", "clinic.toml, line 3: data[0]: There is no demo picture 'fase'."),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(plan_file: Path, before: str, after: str, words: str) -> None:
    plan_file.write_text(TEXT.replace(before, after), encoding="utf-8")
    with pytest.raises(OptionError) as error:
        read_audit_plan(plan_file)
    assert words in str(error.value)


def test_a_mistake_from_outside_is_named_with_the_setting(plan_file: Path) -> None:
    with pytest.raises(OptionError, match=r"^--set 'budget=x': budget is 'x'; expected fast, paper, max"):
        read_audit_plan(plan_file, ["budget=x"])
    with pytest.raises(OptionError, match=r"^--set 'sede=1': The plan has the unknown key 'sede'. Did you mean 'seeds'"):
        read_audit_plan(plan_file, ["sede=1"])
    for setting in ("budget", "=1", "seeds[9]=1", "seeds.x=1"):
        with pytest.raises(OptionError, match="--set"):
            read_audit_plan(plan_file, [setting])


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_audit_plan(tmp_path / "none.toml")
    with pytest.raises(DataError, match="cannot be read"):
        read_audit_plan(tmp_path)
    path = tmp_path / "broken.toml"
    for text, words in (
        ("data = \n", "is not TOML"),
        ("a = " + "[" * 20_000, "is not TOML"),
        ("a = " + "9" * 5000, "is not TOML"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=words):
            read_audit_plan(path)
    path.write_bytes(b"name = '\xff'\n")
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_audit_plan(path)
    path.write_bytes(b"#" * (5 * 2**20))
    with pytest.raises(DataError, match="expected at most 4194304"):
        read_audit_plan(path)


def test_the_whole_small_plan_is_valid() -> None:
    plan = parse_audit_plan(table())
    assert plan.to_json()["training"]["clients"] == 2
