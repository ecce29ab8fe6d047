"""Verdicts by their rules, each on results made by hand."""

from __future__ import annotations

import json
import math
import random

import pytest
from verdict_cases import cell as a_cell
from verdict_cases import layer, line_up, record, result, spread

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.judge import NOT_FOUND_SENTENCE, judge
from leakgauge.errors import OptionError

NEAR, AMID = 1e-6, 0.11


def one(
    psnr: float = 10.0,
    truth: float = AMID,
    decoys: int = 25,
    status: str = "ok",
    *,
    name: str = "a",
    low: float = 0.05,
    cell: Cell | None = None,
    **fields: object,
) -> CellResult:
    """One cell that attacks one record; its decoys lie from `low` on."""
    line_ups = [line_up(name, truth, spread(decoys, low), others=[f"{name}-{k}" for k in range(decoys)])]
    return result(cell or a_cell(f"folder:x?indices={name}"), [psnr], line_ups, status, **fields)  # type: ignore[arg-type]


def verdict(*results: CellResult) -> str:
    (entry,) = judge(results, resamples=200).records
    return entry.verdict


def test_by_rank_though_nothing_can_be_seen() -> None:
    found = judge([one(8.0, NEAR)], resamples=200)
    (entry,) = found.records
    assert (entry.verdict, entry.rank, entry.decoys) == ("identified", 1, 25)
    assert entry.p == entry.adjusted == 1 / 26
    assert any("though nothing can be made out" in text for text in entry.sentences)
    assert found.sentence.startswith(
        "1 of 1 private record is identified. The worst is record 1: 8.0 dB (control 10.0 dB), nearer"
    )
    assert found.worst == entry


def test_as_it_is_without_decoys() -> None:
    for psnr in (math.inf, 35.0):
        found = judge([one(psnr, decoys=0)], resamples=200)
        assert found.records[0].verdict == "identified"
        assert math.isnan(found.records[0].p)
        assert "not testable: they have no decoys" in found.not_testable[0]


def test_as_it_is_with_too_few_decoys() -> None:
    found = judge([one(35.0, NEAR, decoys=18)], resamples=200)
    assert (found.records[0].verdict, found.records[0].rank, found.records[0].decoys) == ("identified", 0, 18)
    assert "at most 18 decoys, and 19 are needed" in found.not_testable[0]
    assert verdict(one(10.0, NEAR, decoys=18)) == "not found"


def test_thirty_decibels_are_not_enough_where_decoys_come_as_near() -> None:
    entry = judge([one(31.0, AMID)], resamples=200).records[0]
    assert entry.verdict == "partly"
    assert any("look of the class" in text for text in entry.sentences)
    assert verdict(one(math.inf, AMID)) == "identified"


def test_what_the_control_reaches_is_no_leak() -> None:
    assert verdict(one(35.0, decoys=0, control=33.0)) == "not found"
    assert verdict(one(22.0, decoys=0, control=20.0)) == "not found"
    assert verdict(one(22.0, decoys=0, control=18.0)) == "partly"


def test_a_rank_that_is_unlikely_only_before_correction_is_partly() -> None:
    """Among twenty records one that leads by little leads by chance."""
    results = [one(8.0, spread(25)[0] - 1e-4, name="lead"), *(one(8.0, AMID, name=f"other-{k}", low=0.02) for k in range(19))]
    found = judge(results, resamples=200)
    assert found.records[0].p == 1 / 26
    assert found.records[0].adjusted > 0.05
    assert found.records[0].verdict == "partly"
    assert found.counts == {"identified": 0, "partly": 1, "incomplete": 0, "not found": 19, "not attackable": 0}
    assert NOT_FOUND_SENTENCE in found.sentence


@pytest.mark.parametrize("status", ["unsupported", "failed", "timeout"])
def test_incomplete_where_another_attack_was_not_played_out(status: str) -> None:
    other = one(math.nan, math.inf, 0, status, cell=a_cell("folder:x?indices=a", "recursive"))
    entry = judge([one(), other], resamples=200).records[0]
    assert entry.verdict == "incomplete"
    assert f"'recursive' ({status})" in entry.sentences[-1]
    assert verdict(one(8.0, NEAR), other) == "identified"


def test_a_cell_that_failed_before_its_data_were_read_counts_for_all_of_them() -> None:
    data = "folder:x?indices=0-1"
    both = result(a_cell(data), [10.0, 10.0], [line_up("a", AMID, spread(25)), line_up("b", AMID, spread(25), place=1)])
    failed = CellResult(a_cell(data, "recursive"), "failed", "no reason")
    assert [entry.verdict for entry in judge([failed, both], resamples=200).records] == ["incomplete"] * 2
    (unread,) = judge([failed], resamples=200).records
    assert (unread.verdict, unread.name) == ("incomplete", "")
    assert "folder" not in unread.record


def test_played_out_under_another_seed_is_played_out() -> None:
    late = one(10.0, AMID, status="timeout", cell=a_cell("folder:x?indices=a", seed=1))
    assert verdict(one(), late) == "not found"


def test_not_attackable_needs_the_count_or_the_rank_to_say_so() -> None:
    def underdetermined(**fields: object) -> CellResult:
        return one(12.0, AMID, status="underdetermined", **fields)

    assert verdict(underdetermined()) == "not found"
    assert verdict(underdetermined(determinable=False)) == "not attackable"
    assert verdict(underdetermined(layers=(layer(64, 40),))) == "not attackable"
    assert verdict(underdetermined(determinable=False), one(cell=a_cell("folder:x?indices=a", "tag"))) == "not found"
    assert verdict(one(8.0, NEAR, status="underdetermined", determinable=False)) == "identified"


def test_diagnostic_where_only_diagnostic_cells_identify() -> None:
    granted = a_cell("folder:x?indices=a", threat=(("labels", True),))
    found = judge([one(), one(8.0, NEAR, cell=granted, realistic=False)], resamples=200)
    assert (found.records[0].verdict, found.records[0].realistic) == ("identified", False)
    assert "only with more than a real server has" in found.sentence
    again = judge([one(8.0, NEAR), one(8.0, NEAR, cell=granted, realistic=False)], resamples=200)
    assert again.records[0].realistic


def test_controls_are_no_attacks() -> None:
    assert judge([one(35.0, NEAR, cell=a_cell(attack="control"))], resamples=200).records == ()
    fifteen = [one(9.0, NEAR, name=f"{k}", cell=a_cell(f"folder:x?indices={k}", "control")) for k in range(15)]
    found = judge([one(name="0"), *fifteen], resamples=400)
    assert found.groups[0].attack == "dlg"
    assert any("The control, which sees no update" in text for text in found.not_testable)


def test_a_group_points_to_records_though_none_is_identified() -> None:
    """Each leads by little, and twelve of fifteen lead."""
    results = [one(9.0, 0.049, name=f"{k}") if k < 12 else one(9.0, AMID, name=f"{k}", low=0.01) for k in range(15)]
    found = judge(results, resamples=2000)
    assert found.counts["identified"] == 0
    (group,) = found.groups
    assert (group.first, group.line_ups, group.identifying) == (12, 15, True)
    assert group.expected == pytest.approx(15 / 26)
    assert "12 of 15 are nearer than all decoys, where 0.6 are expected by chance" in found.sentence


def test_groups_count_every_status_and_their_medians_leave_failures_out() -> None:
    data = [f"folder:x?indices={k}" for k in range(4)]
    results = [
        one(20.0, name="0", cell=a_cell(data[0])),
        one(40.0, name="1", cell=a_cell(data[1])),
        one(math.nan, math.inf, 0, "unsupported", name="2", cell=a_cell(data[2])),
        CellResult(a_cell(data[3]), "failed", "no reason"),
    ]
    (group,) = judge(results, resamples=200).groups
    assert group.statuses == {"ok": 2, "underdetermined": 0, "unsupported": 1, "failed": 1, "timeout": 0}
    assert (group.records, group.median, group.low, group.high, group.control) == (2, 30.0, 20.0, 40.0, 10.0)


def test_patients_have_the_worst_of_their_records() -> None:
    def of(name: str, truth: float, patient: str) -> CellResult:
        held = line_up(name, truth, spread(25), patient=patient, others=[f"{name}-{k}" for k in range(25)])
        return result(a_cell(f"folder:x?indices={name}"), [9.0], [held])

    found = judge([of("a", AMID, "p1"), of("b", NEAR, "p1"), of("c", AMID, "p2"), of("d", AMID, "")], resamples=200)
    assert [(entry.patient, entry.verdict, entry.identified, len(entry.records)) for entry in found.patients] == [
        ("p1", "identified", 1, 2),
        ("p2", "not found", 0, 1),
    ]
    assert "1 of 2 patients has an identified record." in found.sentence
    assert "p1" not in found.sentence


def test_rounds_by_themselves_and_together() -> None:
    early = one(8.0, NEAR, cell=a_cell("folder:x?indices=a", state="trained:rounds=1"))
    late = one(8.0, AMID, cell=a_cell("folder:x?indices=a", state="trained:rounds=5"))
    found = judge([early, late], resamples=200)
    assert [(entry.state, entry.counts["identified"]) for entry in found.rounds] == [
        ("trained:rounds=1", 1),
        ("trained:rounds=5", 0),
    ]
    assert found.records[0].verdict == "identified"
    assert "over 2 states of the network together; each by itself identifies 1, 0." in found.sentence
    assert judge([early], resamples=200).rounds == ()


def test_the_change_that_helped_most() -> None:
    def of(defence: str, psnr: float, truth: float, name: str) -> CellResult:
        return one(psnr, truth, name=name, cell=a_cell(f"folder:x?indices={name}", defence=defence))

    results = [
        of(defence, psnr, truth, name)
        for name in ("a", "b")
        for defence, psnr, truth in (("none", 45.0, NEAR), ("sign", 25.0, AMID), ("prune:fraction=0.9", 9.0, AMID))
    ]
    found = judge(results, resamples=200)
    assert found.change == (
        "With the defence 'prune:fraction=0.9' in place of no defence, 0 instead of 2 of 2 private records are identified, by "
        "the same attacks (median of the best reconstructions 9.0 instead of 45.0 dB)."
    )
    assert found.sentence.endswith("What helped most: w" + found.change[1:])
    worse = [of("none", 9.0, AMID, "a"), of("sign", 10.0, AMID, "a")]
    assert judge(worse, resamples=200).change == ""


def test_a_change_is_measured_over_pairs_only() -> None:
    """A defence under which the stronger attack failed gets no credit for that."""
    results = [
        one(45.0, NEAR, cell=a_cell("folder:x?indices=a", "hybrid")),
        one(9.0, AMID, cell=a_cell("folder:x?indices=a", "dlg")),
        one(9.0, AMID, cell=a_cell("folder:x?indices=a", "dlg", defence="sign")),
        one(math.nan, math.inf, 0, "unsupported", cell=a_cell("folder:x?indices=a", "hybrid", defence="sign")),
    ]
    assert judge(results, resamples=200).change == ""


def test_order_of_cells_changes_nothing() -> None:
    results = [
        one(8.0 + k, NEAR if k == 2 else AMID, name=f"{k % 4}", cell=a_cell(f"folder:x?indices={k % 4}", attack=f"dlg:k={k}"))
        for k in range(10)
    ]
    shuffled = random.Random(3).sample(results, len(results))
    first, second = judge(results, resamples=300), judge(shuffled, resamples=300)
    assert {entry.record: entry for entry in first.records} == {entry.record: entry for entry in second.records}
    assert {group.attack: group for group in first.groups} == {group.attack: group for group in second.groups}


def test_a_null_cell_more_takes_no_identification_away_and_adds_none_here() -> None:
    """A record identified with room to spare stays so; nothing else becomes so."""
    before = [
        one(8.0, NEAR, name="a", cell=a_cell("folder:x?indices=a")),
        one(8.0, AMID, name="b", cell=a_cell("folder:x?indices=b")),
    ]
    after = [*before, one(8.0, AMID, name="a", cell=a_cell("folder:x?indices=a", "tag"))]
    for results in (before, after):
        assert [entry.verdict for entry in judge(results, resamples=200).records] == ["identified", "not found"]


def test_json_is_strict_and_names_no_file_in_sentences() -> None:
    failed = one(math.nan, math.inf, 0, "failed", name="z", cell=a_cell("folder:secret?indices=9"))
    found = judge([one(math.inf, 0.0), failed], resamples=200)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["counts"]["identified"] == 1
    said = [
        found.sentence,
        found.change,
        *found.rules,
        *found.not_testable,
        *(s for entry in found.records for s in entry.sentences),
    ]
    assert not any(".png" in sentence or "secret" in sentence for sentence in said)


def test_nothing_to_judge() -> None:
    assert judge([]).sentence == "No private record was attacked, so nothing can be said."
    for false_alarm in (0.0, 1.0, math.nan):
        with pytest.raises(OptionError, match="false-alarm rate"):
            judge([], false_alarm=false_alarm)
    with pytest.raises(OptionError, match="resamples"):
        judge([], resamples=0)


def test_a_smaller_rate_needs_more_decoys() -> None:
    found = judge([one(8.0, NEAR, decoys=25)], false_alarm=0.01, resamples=200)
    assert found.records[0].verdict == "not found"
    assert "99 are needed" in found.not_testable[0]


def test_records_without_line_ups_are_judged_by_their_scores() -> None:
    bare = CellResult(a_cell("folder:x?indices=0-1"), "ok", record=record([41.0, 9.0]))
    assert [entry.verdict for entry in judge([bare], resamples=200).records] == ["identified", "not found"]
