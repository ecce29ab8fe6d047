"""Proof, mere explanation and contradiction, in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from report_examples import conditions, layers, noisy, one_rebuilt, record, scene, sweep, without_truth

from leakgauge.audit.record import Record
from leakgauge.report.advice import recommendations
from leakgauge.report.html import render_html
from leakgauge.report.proof import merely_explains, proof_sentences, proofs
from leakgauge.report.summary import summarise
from leakgauge.report.words import certificate, share


def certified(error: float = 0.001, **changes: object) -> Record:
    truth = scene(1)[None]
    one = record("sure", truth, noisy(truth, error), attack="recursive", explains=True, certified=1, title="A closed form")
    scores = tuple(replace(score, certified=True) for score in one.scores)
    return replace(one, scores=scores, layers=layers(), radius=2e-6, **changes)  # type: ignore[arg-type]


def explaining() -> Record:
    """A wrong picture that explains the update: what a layer without enough equations leaves."""
    truth = scene(1)[None]
    return record("open", truth, noisy(truth, 0.5), attack="recursive", explains=True, layers=layers(300), title="Left open")


def test_a_certified_picture_is_named_as_proof_with_its_seconds() -> None:
    (line,) = proof_sentences([certified()])
    assert line.startswith(
        "1 reconstruction was certified by the attack itself, without the original: 'A closed form' by recursive"
    )
    assert "by recursive, error radius 0.0002 % of the range." in line
    assert line.endswith("That is proof, under the stated conditions: nothing else nearby explains the update.")
    summary = summarise([certified(seconds=1.64)])
    assert line in summary.found
    assert summary.proof_seconds == ("The certified results took: 'A closed form' 1.6 s.",)
    assert summary.proof_seconds[0] in " ".join(summary.sentences())
    assert "A closed form&#39; 1.6 s." in render_html([certified(seconds=1.64)])


def test_many_certificates_are_counted_and_few_named() -> None:
    (line,) = proof_sentences([certified(title=f"Number {place}") for place in range(5)])
    assert line.startswith("5 reconstructions were certified")
    assert "2 further records" in line
    assert "Number 3" not in line


def test_without_an_original_the_certificate_is_the_headline() -> None:
    summary = summarise([replace(without_truth(), radius=math.nan)])
    assert summary.headline == "No original was given; 2 reconstructions are certified from the update alone."
    assert "error radius" not in " ".join(summary.found)


def test_a_wrong_picture_that_explains_the_update_is_never_called_recovered() -> None:
    one = explaining()
    assert merely_explains(one)
    assert proofs(one) == 0
    summary = summarise([one])
    assert summary.verdict == "not found"
    text = " ".join((summary.headline, *summary.found, *summary.proof_seconds, *summary.change))
    assert "explains the update to rounding and yet is not the original" in text
    for words in ("proof, under", "were rebuilt", "was rebuilt", "certified by"):
        assert words not in text
    page = render_html([one])
    assert "and this one is not the original" in page
    assert "0 reconstructions certified" in page


def test_a_certificate_that_the_original_contradicts_is_no_proof() -> None:
    wrong = certified(error=0.5)
    assert proofs(wrong) == 0
    (line,) = proof_sentences([wrong])
    assert line.startswith("1 certified reconstruction is not the original to compare with")
    assert "proof, under" not in line
    assert "determines this picture" not in render_html([wrong]).split("What the attack itself can know")[0]


def test_nothing_is_said_where_nothing_is_certified() -> None:
    assert proof_sentences([one_rebuilt(), *sweep()]) == ()
    assert certificate(one_rebuilt()) == ""


def test_advice_points_to_the_architecture_only_after_a_closed_form_proved_something() -> None:
    (advice,) = recommendations([certified()])
    assert advice.startswith("The architecture: the layers of lenet-dlg determine a picture")
    assert "inspect" in advice
    assert not any("The architecture" in line for line in recommendations([explaining(), one_rebuilt()]))


@pytest.mark.parametrize(
    ("value", "words"),
    [(2e-6, "0.0002 %"), (4.3e-5, "0.004 %"), (0.25, "20 %"), (1e-12, "less than 0.0000001 %"), (0.0, "less than 0.0000001 %")],
)
def test_shares_have_one_digit_and_no_exponent(value: float, words: str) -> None:
    assert share(value) == words


def test_certificates_of_what_is_no_picture() -> None:
    row = replace(certified(), conditions=conditions(shape=(1, 1, 9)), radius=math.nan)
    assert certificate(row) == "the update determines this example, nothing else nearby explains it"
    assert certificate(replace(row, certified=2)).startswith("the update determines these examples")
