"""`--fail-if`: reading rules, and judging records by them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cli_run import MODEL

from leakgauge.audit.case import Case, run_case
from leakgauge.audit.record import Record
from leakgauge.cli.rules import Rule, breaches, parse_rule
from leakgauge.errors import OptionError


@pytest.fixture(scope="module")
def record() -> Record:
    return run_case(Case(MODEL, "demo:cat,retina?size=8", "control"))


def attacked(record: Record, *psnr: float) -> Record:
    scores = tuple(replace(score, psnr=value, label_guess=score.label) for score, value in zip(record.scores, psnr, strict=True))
    return replace(record, attack="dlg", scores=scores)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ssim > 0.5", Rule("ssim", ">", 0.5)),
        (" psnr>=30 dB", Rule("psnr", ">=", 30.0)),
        ("mse<1e-3", Rule("mse", "<", 1e-3)),
        ("label-accuracy == 1", Rule("label_accuracy", "==", 1.0)),
        ("psnr > inf", Rule("psnr", ">", math.inf)),
    ],
)
def test_rules_are_read(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sim > 0.5", "Did you mean 'ssim'"),
        ("ssim", "expected MEASURE > NUMBER"),
        ("ssim > high", "cannot be read"),
        ("ssim > 1e", "no number"),
        ("__import__('os') > 1", "cannot be read"),
        ("ssim > 0.5 or True", "cannot be read"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_rule(text)


def test_any_example_can_break_a_rule(record: Record) -> None:
    found = breaches([attacked(record, 12.0, 31.0)], parse_rule("psnr > 30"))
    assert [(breach.example, breach.value) for breach in found] == [(1, 31.0)]
    assert "example 2 has psnr 31" in str(found[0])


def test_an_exact_picture_breaks_a_rule_and_a_missing_score_does_not(record: Record) -> None:
    assert len(breaches([attacked(record, math.inf, math.nan)], parse_rule("psnr > 30"))) == 1


def test_controls_are_left_out_and_nothing_judged_is_an_error(record: Record) -> None:
    assert breaches([record, attacked(record, 5.0, 6.0)], parse_rule("psnr > 7")) == []
    for text in ("psnr > 7", "identified > 0.5"):
        with pytest.raises(OptionError, match="cannot be judged"):
            breaches([record], parse_rule(text))


def test_rules_on_labels_certificates_and_verdicts(record: Record) -> None:
    one = attacked(record, 35.0, 5.0)
    assert len(breaches([one], parse_rule("label_accuracy >= 1"))) == 1
    assert len(breaches([one], parse_rule("rebuilt > 0"))) == 1
    assert breaches([one], parse_rule("certified > 0")) == []
    blind = replace(one, scores=(), control=None, certified=2)
    assert len(breaches([blind], parse_rule("certified > 1"))) == 1
