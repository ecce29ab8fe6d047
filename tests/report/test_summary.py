"""The verdict in words: a golden text, and each sentence only where records support it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_examples import (
    SEEN,
    UNSEEN,
    conditions,
    control,
    everything,
    four_pictures,
    noisy,
    one_rebuilt,
    record,
    scene,
    sweep,
    undeterminable,
    without_truth,
)

from leakgauge.audit.record import Record
from leakgauge.report.advice import recommendations, untested
from leakgauge.report.by_attack import attack_rows, bootstrap_median, median
from leakgauge.report.summary import summarise
from leakgauge.report.words import NOT_FOUND_SENTENCE, decibels, in_words, sentence

GOLDEN = Path(__file__).with_name("summary.txt")  # to refresh: read what the failing test prints, and if it is right, paste it


def found(error: float, seed: int = 1, count: int = 1, **changes: object) -> Record:
    truth = scene(seed)[None].repeat(count, 1, 1, 1)
    return record(
        f"r{error:g}-{seed}".replace(".", "-"), truth, noisy(truth, error), conditions=conditions(batch_size=count, **changes)
    )


def test_golden_text_of_a_fixed_set_of_records() -> None:
    summary = summarise([one_rebuilt(), four_pictures(), *sweep(), without_truth(), control()])
    assert "\n".join(summary.sentences()) == GOLDEN.read_text(encoding="utf-8").strip()


def test_counts_are_of_different_pictures_and_ignore_controls() -> None:
    summary = summarise([*sweep(), one_rebuilt(), control()])
    assert (summary.pictures, summary.attempts) == (1, 6)
    assert (summary.rebuilt, summary.partly, summary.not_found) == (1, 0, 0)
    assert summary.headline == "1 of 1 private picture was rebuilt."


def test_nothing_found_reads_exactly_like_this() -> None:
    summary = summarise([found(0.6)])
    assert (
        summary.headline
        == "Not found: these attacks, with this knowledge and effort, did not find it; this is no proof of safety."
    )
    assert summary.verdict == "not found"
    assert NOT_FOUND_SENTENCE in summary.change[0]


def test_the_control_keeps_a_flat_picture_from_counting_as_partly_rebuilt() -> None:
    flat = scene(1)[None] * 0.05 + 0.475
    one = record("flat", flat, noisy(flat, 0.03))
    assert one.scores[0].psnr > 20
    assert summarise([one]).partly == 0


def test_the_worst_is_the_highest_psnr_among_attacks() -> None:
    worst = summarise([control(), one_rebuilt(), four_pictures()]).worst
    assert worst is not None
    assert (worst.record, worst.score.index, worst.score.psnr) == (2, 0, math.inf)
    assert "exact, that is, it equals the original, pixel for pixel" in worst.text


def test_without_originals_nothing_is_judged() -> None:
    summary = summarise([without_truth()])
    assert summary.worst is None
    assert summary.verdict == "no original given"
    assert "No original was given" in summary.headline
    assert "2 reconstructions were certified by the attack itself" in " ".join(summary.found)


def test_no_records_at_all() -> None:
    assert summarise([]).attempts == 0


def test_diagnostic_figures_are_named() -> None:
    text = " ".join(summarise([found(0.01, realistic=False), found(0.01, seed=2)]).found)
    assert "1 of the rebuilt was rebuilt only in diagnostic records" in text


def test_undeterminable_batches_are_named() -> None:
    assert "cannot determine the batch without a prior" in " ".join(summarise([undeterminable()]).found)


def test_a_sweep_names_the_strength_from_which_on_nothing_was_found() -> None:
    (advice,) = recommendations(sweep())
    assert advice.startswith("Noise on the shared gradient: at standard deviation 0.001 the picture was still partly rebuilt; ")
    assert "from standard deviation 0.01 on, these attacks, with this knowledge and effort, did not find it" in advice
    assert "an attacker who adapts to it may do better" in advice


def test_a_sweep_that_never_stopped_the_attack_says_so() -> None:
    (advice,) = recommendations(sweep()[:3])
    assert "none of the tested strengths, up to standard deviation 0.001, stopped the attack" in advice


def test_a_sweep_downwards_is_understood() -> None:
    flipped = [replace(one, series=replace(one.series, value=-one.series.value)) for one in sweep() if one.series]
    assert "at standard deviation 0.01 and below" in recommendations(flipped)[0]


@pytest.mark.parametrize(
    ("weak", "strong", "words"),
    [
        ({}, {"defence": "gaussian-noise:std=0.1"}, "The defence 'gaussian-noise:std=0.1': "),
        ({"batch_norm": SEEN}, {"batch_norm": UNSEEN}, "BatchNorm statistics that are not shared: "),
        ({}, {"training": "5 SGD steps"}, "'5 SGD steps' instead of 'one gradient' as local training: "),
        ({}, {"count": 8}, "A batch of 8 instead of 1: "),
    ],
)
def test_a_change_is_advised_only_if_the_same_attack_fails_with_it(
    weak: dict[str, object], strong: dict[str, object], words: str
) -> None:
    (advice,) = recommendations([found(0.01, **weak), found(0.6, **strong)])  # type: ignore[arg-type]
    assert advice.startswith(words)
    assert NOT_FOUND_SENTENCE in advice
    still = recommendations([found(0.01, **weak), found(0.02, **strong)])  # type: ignore[arg-type]
    assert "None of these records shows a change that stopped the attack" in still[0]
    other = replace(found(0.02, **strong), attack="another attack")  # type: ignore[arg-type]
    assert "None of these records" in recommendations([found(0.01, **weak), found(0.6, **strong), other])[0]  # type: ignore[arg-type]


def test_a_larger_batch_comes_with_the_counting_bound() -> None:
    big = replace(found(0.6, count=8), determinable=False)
    (advice,) = recommendations([found(0.01), big])
    assert "cannot be determined without a prior" in advice
    assert "may still do better" in advice


def test_two_differences_at_once_are_no_evidence() -> None:
    assert "None of these" in recommendations([found(0.01), found(0.6, defence="clipping", mode="train")])[0]


def test_what_was_not_tested_follows_the_records() -> None:
    plain = " | ".join(untested([found(0.01)]))
    for words in (
        "other than dlg",
        "malicious server",
        "several rounds",
        "membership",
        "not pictures",
        "any defence",
        "'untrained'",
    ):
        assert words in plain
    covered = untested(
        [found(0.01, threat="malicious server over many rounds"), found(0.6, defence="noise", model_state="trained")]
    )
    text = " | ".join(covered)
    assert "a malicious server" not in text
    assert "several rounds" not in text
    assert "any defence" not in text
    assert "attacks made for the defences" in text


def test_medians_by_attack_with_an_interval_from_three_scores_on() -> None:
    rows = attack_rows(everything())
    by_name = {(row.attack, row.defended): row for row in rows}
    four = by_name["inverting-gradients", False]
    scores = sorted(score.psnr for score in four_pictures().scores)
    assert four.psnr == pytest.approx((scores[1] + scores[2]) / 2)
    assert four.interval is not None
    assert four.interval[0] <= four.psnr <= four.interval[1]
    assert four.labels_text == "4 of 4"
    assert by_name["recursive", False].interval is None
    assert by_name["dlg", True].records == 4


def test_bootstrap_is_deterministic_and_stands_infinite_scores() -> None:
    values = [20.0, 25.0, math.inf, 31.0, math.inf]
    assert bootstrap_median(values) == bootstrap_median(values)
    assert bootstrap_median([math.inf] * 3) == (math.inf, math.inf)
    assert bootstrap_median([1.0, 2.0]) is None
    assert median([10.0, math.inf]) == 10.0
    assert math.isnan(median([]))


def test_summary_as_json_is_strict() -> None:
    json.dumps(summarise(everything()).to_json(), allow_nan=False)


def test_words_for_numbers() -> None:
    assert [decibels(value) for value in (41.23, math.inf, math.nan, -3.14)] == ["41.2 dB", "exact", "no score", "-3.1 dB"]
    assert len({in_words(value) for value in (math.nan, math.inf, 45, 35, 25, 15, 5)}) == 7
    assert sentence("abc") == "Abc."
