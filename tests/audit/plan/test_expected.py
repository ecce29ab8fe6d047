"""What a plan's cells will cost: counted, and timed a little."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from audit_plans import plain

from leakgauge.audit.case import Case, run_case
from leakgauge.audit.plan.expand import cells_of
from leakgauge.audit.plan.expected import Expected, expected_work, in_words
from leakgauge.audit.plan.reading import parse_audit_plan


def test_every_cell_has_its_work() -> None:
    attacks = ["inverting-gradients:restarts=1", "bn-matching", "recursive", "span-check"]
    plan = parse_audit_plan(plain(seeds=[0, 1, 2], attacks=attacks, budget=400, data=["demo:faces?indices=0-1&size=16"]))
    told: list[float] = []
    expected = expected_work(plan, cells_of(plan), told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]  # seeds share what is timed
    assert [one.cell for one in expected] == list(cells_of(plan))
    by_attack = {one.cell.attack: one for one in expected}
    assert by_attack[attacks[0]].work == by_attack["bn-matching"].work == "at most 400 gradient evaluations"
    assert by_attack[attacks[0]].evaluations == 400
    assert by_attack["recursive"].work.startswith("not applicable: recursive cannot treat")  # two examples
    assert by_attack["span-check"].work.startswith("not applicable")
    assert by_attack["bn-matching"].seconds and by_attack["recursive"].seconds == 0
    assert in_words(expected, 2).startswith("12 cells, at most 2400 gradient evaluations, at most about ")


def test_what_will_fail_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import torch\nfrom torch import nn\n\nclass Net(nn.Linear):\n    def forward(self, inputs):\n"
        "        if torch.is_grad_enabled(): raise KeyError('only forwards')\n"
        "        return super().forward(inputs.flatten(1))\n\ndef net():\n    return Net(256, 10)\n"
    )
    (tmp_path / "raising_network_of_a_test.py").write_text(code, encoding="utf-8")
    plan = parse_audit_plan(plain(models=["raising_network_of_a_test:net"], attacks=["dlg"], data=["demo:face?size=16"]))
    (expected,) = expected_work(plan, cells_of(plan))
    assert (expected.work, expected.evaluations, expected.seconds) == ("will fail: 'only forwards'", 0, None)


def test_closed_forms_are_told_as_such() -> None:
    plan = parse_audit_plan(plain(attacks=["linear-layer", "recursive"], models=["mlp"], data=["demo:face?size=16"]))
    expected = expected_work(plan, cells_of(plan))
    assert [one.work for one in expected] == ["closed form", "closed form"]
    assert all(one.seconds is not None and 0 < one.seconds < 10 for one in expected)


def test_the_expected_time_is_that_of_the_run_within_a_factor() -> None:
    attack = "inverting-gradients:restarts=1"
    plan = parse_audit_plan(plain(attacks=[attack], data=["demo:face?size=16"], budget=1500))
    (expected,) = expected_work(plan, cells_of(plan))
    begun = time.monotonic()
    run_case(Case("lenet-dlg:width=4", "demo:face?size=16", attack, budget=1500))
    took = time.monotonic() - begun
    assert expected.seconds is not None and took / 6 < expected.seconds < took * 6


def test_a_time_limit_bounds_what_is_expected() -> None:
    plan = parse_audit_plan(plain(attacks=["inverting-gradients"], budget=10**8, time_limit=7.0))
    assert [one.seconds for one in expected_work(plan, cells_of(plan))] == [7.0, 7.0]


def test_a_network_beyond_the_machine_is_not_built() -> None:
    plan = parse_audit_plan(plain(models=["mlp:hidden=1048576-4096"], data=["demo:face?size=16"], attacks=["dlg"]))
    (expected,) = expected_work(plan, cells_of(plan))
    assert (expected.evaluations, expected.seconds) == (20, None)
    assert in_words([expected]).endswith("and 1 that was not timed.")


def test_the_whole_in_words() -> None:
    plan = parse_audit_plan(plain())
    cell = cells_of(plan)[0]
    known = [Expected(cell, "at most 10 gradient evaluations", 10, 100.0)] * 36
    assert in_words(known, 2) == "36 cells, at most 360 gradient evaluations, at most about 30 minutes on 2 workers."
    long = [Expected(cell, "closed form", 0, 9000.0)]
    assert in_words(long, 4) == "1 cell, 1 closed form, at most about 2.5 hours on 4 workers."
