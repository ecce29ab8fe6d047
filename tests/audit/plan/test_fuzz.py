"""Mutated plans: each is a valid plan, or ends in one sentence; never in another exception."""

from __future__ import annotations

import datetime
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from leakgauge.audit.plan.expand import cells_of
from leakgauge.audit.plan.reading import parse_audit_plan, read_audit_plan
from leakgauge.errors import LeakgaugeError

TEXT = """
name = "clinic"
seeds = [0, 1]
data = ["demo:face?size=16", "demo:faces?indices=0-1&size=16&channels=3"]
models = ["lenet-dlg:width=4", "mu-fc:hidden=8"]
attacks = ["idlg", "inverting-gradients:restarts=1,tv=0.01", "bn-matching:prior=demo:cat"]
defences = ["none", "clip:norm=1 + gaussian-noise:std=1e-3"]
protocols = [{}, { lr = 0.1, steps = 2, mode = "train", betas = [0.9, 0.99] }]
threats = [{ labels = true }, { batch_norm = false }]
states = ["untrained", "trained:rounds=1,clients=2"]
num_classes = 10
budget = 20
time_limit = 5.0
decoys = "demo:faces?size=16"

[training]
data = "demo:faces?indices=10-17&size=16"
lr = 0.1

[verdict]
false_alarm = 0.05

[[exclude]]
attacks = "idlg"
defences = "clip*"

[[expect]]
what = "It leaks"
where = { attacks = "idlg", threats = { labels = true } }
measure = "psnr"
relation = "at least"
value = 10.0
"""
SIGNS = "[]{}\"'=,.:#-+*?&\\\n\t \x00é€0123456789abcdefgxyz"
VALUES = (
    "0", "-1", "1e400", "nan", "-inf", "true", '""', '"\\u0000"', "[]", "[[]]", "{}", "[1, 'a']", "1979-05-27", "9" * 30, "0.5",
    '"../.."', '"none"', '"*"', '"trained:rounds=1"', '"text:"', '"hf:x"', '"os:system"', '"folder:/proc/self"', "[0]",
    "{ a = 1 }",
    '["demo:all?size=8"]', '["' + "a" * 300 + '"]', '["demo:texts?indices=0"]', '["pkg.mod:net"]', '"demo:cat?size=8x"',
)  # fmt: skip


def mutated(draw: random.Random) -> str:
    """The plan with one to three changes: signs, lines, words or values."""
    text = TEXT
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        at, where = draw.randrange(len(text)), draw.randrange(len(lines))
        kind = draw.randrange(7)
        if kind == 0:
            text = text[:at] + draw.choice(SIGNS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randint(1, 8) :]
        elif kind == 2:
            del lines[where]
            text = "\n".join(lines)
        elif kind == 3:
            lines.insert(where, draw.choice(lines))
            text = "\n".join(lines)
        elif kind == 4:
            key, sign, _ = lines[where].partition("=")
            lines[where] = f"{key}{sign} {draw.choice(VALUES)}" if sign else lines[where]
            text = "\n".join(lines)
        elif kind == 5:
            other = draw.randrange(len(text))
            text = text[:at] + text[other : other + draw.randint(1, 20)] + text[at:]
        else:
            words = lines[where].split('"')
            if len(words) > 2:
                words[1] = draw.choice(("", "cat", "demo:", "a:b", "x" * 50, words[1][::-1], words[1].upper(), words[1] * 2))
            lines[where] = '"'.join(words)
            text = "\n".join(lines)
    return text


def outcome(path: Path, text: str) -> str:
    """The sentence about a plan, or '' for a valid one, whose cells have been made."""
    path.write_text(text, encoding="utf-8", newline="")
    try:
        cells_of(read_audit_plan(path))
    except LeakgaugeError as error:
        assert error.exit_code == 2
        return str(error)
    return ""


def check(path: Path, seeds: range) -> tuple[int, int]:
    """How many mutated plans are valid, and how many are not; fails with the plan where a sentence is none."""
    valid = 0
    for seed in seeds:
        text = mutated(random.Random(seed))
        try:
            sentence = outcome(path, text)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault, and the plan is what tells of it
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{text}")
        valid += not sentence
        if sentence:
            assert "\n" not in sentence and len(sentence) < 2000, f"seed {seed}: {sentence!r}"
            assert "Traceback" not in sentence
    return valid, len(seeds) - valid


ENTRIES: tuple[Any, ...] = (
    0, -1, 1, 2, 16, 10**30, 0.0, -0.5, 1e-300, float("nan"), float("inf"), True, False, datetime.date(2020, 1, 1),
    [], {}, [[]], [{}], {"a": 1}, "", " ", "none", "auto", "*", "a" * 500, "cross_entropy", "mse", "binary_cross_entropy",
    "train", "float16", "about", "share", "../x", "untrained", "trained:", "trained:rounds=1,lr=0", "trained:rounds=1e9",
    "demo:texts?indices=0-1", "demo:digits?indices=3&size=16", "demo:cat?size=0", "demo:cat?indices=0-99999999", "demo:all",
    "text:/", "folder:.", "npz:x", "dlg:restarts=-1", "dlg:restarts=x", "dlg:history=0", "dlg:tv=nan", "control:rule=best",
    "lamp:prior=hf:x", "tag", "bn-matching:prior=", "bn-matching:prior=demo:", "prune:fraction=2", "clip:norm=0", "sign + sign",
    " + ", "dp-sgd:noise_multiplier=1,clip_norm=1", "mlp", "mlp:hidden=0", "lenet-dlg:width=1048576", "shallow-resnet",
    "json:loads", "torch.nn:ReLU", "math:inf", "hf:", "timm:resnet18",
)  # fmt: skip


def places(table: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a table, the root aside."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [found for key, entry in entries for found in ((*place, key), *places(entry, (*place, key)))]


def mutated_table(draw: random.Random) -> dict[str, Any]:
    """The plan as a table, with one or two entries replaced, taken out, doubled, or put under another key."""
    table = tomllib.loads(TEXT)
    for _ in range(draw.randint(1, 2)):
        *way, last = draw.choice(places(table))
        holder: Any = table
        for key in way:
            holder = holder[key]
        kind = draw.randrange(5)
        if kind <= 1:
            holder[last] = draw.choice(ENTRIES)
        elif kind == 2:
            del holder[last]
        elif isinstance(holder, list):
            holder.append(draw.choice((holder[last], draw.choice(ENTRIES))))
        else:
            holder[draw.choice((f"{last}s", "data", "lr", "measure", "", "name"))] = holder[last]
    return table


def test_mutated_tables_end_in_a_sentence_or_a_plan() -> None:
    valid = 0
    for seed in range(300):
        table = mutated_table(random.Random(seed))
        try:
            cells_of(parse_audit_plan(table))
            valid += 1
        except LeakgaugeError as error:
            assert str(error) and "\n" not in str(error), f"seed {seed}: {error}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault, and the table is what tells of it
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{table}")
    assert 10 < valid < 250


def test_the_plan_itself_is_valid(tmp_path: Path) -> None:
    assert outcome(tmp_path / "plan.toml", TEXT) == ""


def test_mutated_plans_end_in_a_sentence_or_a_plan(tmp_path: Path) -> None:
    valid, wrong = check(tmp_path / "plan.toml", range(300))
    assert valid > 10 and wrong > 100


@pytest.mark.slow
def test_many_more_mutated_plans_end_in_a_sentence_or_a_plan(tmp_path: Path) -> None:
    check(tmp_path / "plan.toml", range(1000, 2000))
