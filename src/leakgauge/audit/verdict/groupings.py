"""Groups of cells that differ in data and seed only, states of the network, and patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import ExampleScore
from leakgauge.audit.run.result import STATUSES, CellResult
from leakgauge.audit.text_record import TextScore
from leakgauge.audit.verdict.grouped import Together, together
from leakgauge.audit.verdict.judgement import GroupVerdict, PatientVerdict, RecordVerdict, RoundVerdict
from leakgauge.audit.verdict.records import record_verdict
from leakgauge.audit.verdict.sightings import Sighting, evidence_of, flat, is_control, sightings_of
from leakgauge.audit.verdict.words import IDENTIFIED, ORDER
from leakgauge.measures.intervals import median_interval
from leakgauge.randomness import rng

Found = Mapping[str, Sequence[Sighting]]
Conditions = tuple[str, str, str, str, str, str, str]


def conditions_of(cell: Cell) -> Conditions:
    """What cells of one group share: attack, defence, model, state, protocol, threat and budget."""
    return cell.attack, cell.defence, cell.model, cell.state, table_text(cell.protocol), table_text(cell.threat), str(cell.budget)


def table_text(table: Sequence[tuple[str, object]]) -> str:
    """'lr=0.1, steps=5'; '' for an empty one."""
    return ", ".join(f"{name}={value}" for name, value in table)


def groups_of(
    results: Sequence[CellResult], false_alarm: float, resamples: int, seed: int
) -> tuple[tuple[GroupVerdict, ...], tuple[GroupVerdict, ...]]:
    """Every group, attacks and then controls. Controls see no update: where they rank private examples low, decoys do not fit."""
    cells: dict[Conditions, list[CellResult]] = {}
    for result in results:
        cells.setdefault(conditions_of(result.cell), []).append(result)
    made = {key: _group(key, held, false_alarm, resamples, seed) for key, held in cells.items()}
    attacks = {key: group for key, group in made.items() if not is_control(cells[key][0])}
    tested = {key: group.p for key, group in attacks.items() if not math.isnan(group.p)}
    for key, value in holm(tested).items():
        held = replace(attacks[key], adjusted=value, identifying=value <= false_alarm)
        attacks[key] = replace(held, sentence=_sentence(held))
    return tuple(attacks.values()), tuple(group for key, group in made.items() if key not in attacks)


def holm(chances: Mapping[Conditions, float]) -> dict[Conditions, float]:
    """p corrected for several tests, whatever their dependence (Holm 1979)."""
    reached, found = 0.0, {}
    order = sorted(chances, key=lambda key: (chances[key], key))
    for place, key in enumerate(order):
        reached = min(1.0, max(reached, (len(order) - place) * chances[key]))
        found[key] = reached
    return found


def rounds_of(results: Sequence[CellResult], false_alarm: float) -> tuple[RoundVerdict, ...]:
    """Each state of the network by itself, where there are several."""
    states = list(dict.fromkeys(result.cell.state for result in results))
    if len(states) < 2:
        return ()
    rounds = []
    for state in states:
        verdicts = [
            entry.verdict for entry in verdicts_of([one for one in results if one.cell.state == state], false_alarm).values()
        ]
        rounds.append(RoundVerdict(state, len(verdicts), {name: verdicts.count(name) for name in ORDER}))
    return tuple(rounds)


def patients_of(records: Sequence[RecordVerdict]) -> tuple[PatientVerdict, ...]:
    """Each patient that the data name."""
    of_patient: dict[str, list[RecordVerdict]] = {}
    for entry in records:
        if entry.patient:
            of_patient.setdefault(entry.patient, []).append(entry)
    return tuple(
        PatientVerdict(
            patient=patient,
            verdict=min((entry.verdict for entry in held), key=ORDER.index),
            records=tuple(entry.record for entry in held),
            identified=sum(entry.verdict == IDENTIFIED for entry in held),
            adjusted=min((entry.adjusted for entry in held if not math.isnan(entry.adjusted)), default=math.nan),
        )
        for patient, held in of_patient.items()
    )


def verdicts_of(results: Sequence[CellResult], false_alarm: float) -> dict[str, RecordVerdict]:
    """The verdict on every private example from these cells alone, controls left out."""
    found = sightings_of(result for result in results if not is_control(result))
    everything = flat(found)
    evidence = evidence_of(everything, false_alarm)
    real = [sighting for sighting in everything if sighting.realistic]
    realistic = evidence if len(real) == len(everything) else evidence_of(real, false_alarm)
    return {record: record_verdict(record, seen, evidence, realistic) for record, seen in found.items()}


def _group(key: Conditions, results: Sequence[CellResult], false_alarm: float, resamples: int, seed: int) -> GroupVerdict:
    found = sightings_of(results)
    evidence = evidence_of(flat(found), false_alarm)
    test = together(evidence.tables, resamples, rng(seed, "verdict", "group", *key))
    shown = {record: values for record, seen in found.items() if (values := _levels([one.score for one in seen]))}
    controls = {record: values for record, seen in found.items() if (values := _levels([one.control for one in seen]))}
    interval = median_interval(sorted(map(median, shown.values())), seed=seed, resamples=min(resamples, 10_000))
    texts = any(isinstance(one.score, TextScore) for one in flat(found))
    statuses = [result.status for result in results]
    identified = [evidence.identifies(record, seen) for record, seen in found.items() if record in shown]
    group = GroupVerdict(
        *key,
        cells=len(results),
        statuses={status: statuses.count(status) for status in STATUSES},  # type: ignore[arg-type]
        records=len(shown),
        line_ups=test.line_ups,
        first=test.first,
        expected=test.expected,
        p=test.p,
        adjusted=math.nan,
        identifying=False,
        measure="token accuracy" if texts else "psnr",
        median=interval.median,
        low=interval.low,
        high=interval.high,
        control=median_interval(sorted(map(median, controls.values())), resamples=1).median,
        identified=sum(identified) / len(identified) if identified else math.nan,
        realistic=all(sighting.realistic for sighting in flat(found)),
        sentence="",
    )
    return replace(group, sentence=_sentence(group, test))


def _levels(scores: Sequence[object]) -> list[float]:
    values = [
        score.in_place if isinstance(score, TextScore) else score.psnr
        for score in scores
        if isinstance(score, (TextScore, ExampleScore))
    ]
    return [value for value in values if not math.isnan(value)]


def _sentence(group: GroupVerdict, test: Together | None = None) -> str:
    if group.line_ups == 0:
        return "No line-up could be tested."
    text = (
        f"The private example is nearer than all its decoys in {group.first} of {group.line_ups} line-ups; {group.expected:.1f} "
        f"are expected by chance (p = {group.p:.2g}"
    )
    if test is not None and math.isnan(group.adjusted):
        return f"{text})."
    end = "these reconstructions point to private examples" if group.identifying else "chance explains that"
    return f"{text}, {group.adjusted:.2g} after correction for all groups): {end}."
