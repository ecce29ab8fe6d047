"""Texts on the page, in the JSON and in the terminal: what differs is marked, everything is escaped, redaction leaves nothing."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from report_examples import HOSTILE, four_pictures, one_rebuilt, sweep
from rich.console import Console
from text_examples import LETTER, NOTE, all_texts, hostile_text, masked, texts, three_texts, tokens, untold

from leakgauge.audit.record import Record, Series
from leakgauge.report.html import render_html
from leakgauge.report.json_export import to_json
from leakgauge.report.redaction import NAME_LEFT_OUT
from leakgauge.report.summary import summarise
from leakgauge.report.terminal import print_report, record_tables
from leakgauge.report.text_attacks import text_attack_rows
from leakgauge.report.text_redaction import strip_texts
from leakgauge.report.texts import compared
from leakgauge.report.words import record_verdict


def test_what_differs_is_enclosed_in_signs_and_marked() -> None:
    page = render_html([three_texts()])
    assert "sleeps well and <mark>‹takes one tablet in the›</mark> morning [SEP]" in page
    assert "sleeps well and <mark>‹gave two pills at that›</mark> morning [SEP]" in page
    assert page.count(f">{LETTER}<") >= 2, "an exact text has no marks"
    assert "Token accuracy" in page
    assert "62 % (control 15 %)" in page
    assert "precision 80 %, recall 75 %" in page
    assert "PSNR" not in page.partition("<script>")[0].partition('<select id="sort">')[0]


@pytest.mark.parametrize(
    ("truth", "guess", "ours", "theirs"),
    [
        ("a b c", "a b c", [("a b c", False)], [("a b c", False)]),
        ("a b c d", "a c d", [("a", False), ("b", True), ("c d", False)], [("a", False), ("…", True), ("c d", False)]),
        ("a b", "x a b", [("a b", False)], [("x", True), ("a b", False)]),
        ("a b", "", [("a b", True)], [("…", True)]),
        ("", "", [], []),
    ],
)
def test_texts_are_aligned(truth: str, guess: str, ours: list[tuple[str, bool]], theirs: list[tuple[str, bool]]) -> None:
    found = compared(tokens(truth), tokens(guess))
    assert [[(run.text, run.differs) for run in side] for side in found] == [ours, theirs]


def test_a_masked_text_is_rebuilt_only_with_its_words_under_the_mask() -> None:
    one = masked()
    page = render_html([one])
    assert record_verdict(one) == "partly"
    assert "<mark>‹\u27e6tablet\u27e7›</mark>" in page
    assert "Words under the mask" in page
    assert "none named" in page
    whole = replace(one, scores=(replace(one.text_scores[0], masked_accuracy=1.0),))
    assert record_verdict(whole) == "rebuilt"


def test_verdict_and_conditions_are_said_in_words() -> None:
    page = render_html([three_texts()])
    assert "1 of 3 private texts was rebuilt, 1 more partly." in page
    assert "at least 0.2 above the control" in page
    assert '<p class="figure">exact</p>' in page
    for name, value in (
        ("Task", "classification of sequences"),
        ("Token embeddings", "frozen"),
        ("Size of one input", "24 tokens"),
    ):
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page
    assert "Places under the mask" in page
    assert "Length of each text (attention mask)" in page
    assert "pictures, tables and other data that are not texts" in " ".join(summarise([three_texts()]).untested)


def test_pages_of_pictures_alone_say_nothing_about_texts() -> None:
    page = render_html([one_rebuilt(), four_pictures()])
    assert "ROUGE" not in page
    assert "PSNR, highest first" in page
    assert "Task" not in page


def test_pictures_and_texts_share_a_page() -> None:
    summary = summarise([one_rebuilt(), three_texts()])
    assert summary.headline == "2 of 4 private examples were rebuilt, 1 more partly."
    assert summary.worst is not None
    assert summary.worst.record == 1, "an exact text stands before a picture with slight noise"
    assert len(summary.attacks) == len(summary.text_attacks) == 1
    page = render_html([one_rebuilt(), three_texts()])
    assert "30 dB or more" in page
    assert "ROUGE-L reaches 0.5" in page
    assert [len(table.rows) for table in record_tables([one_rebuilt(), three_texts()])] == [1, 1]


def test_a_series_of_texts_has_a_slider() -> None:
    steps = []
    for place, (text, guess) in enumerate((("std 0.001", NOTE), ("std 0.1", "[CLS] blue lips"))):
        one = texts(f"step-{place}", [NOTE], [guess], series=Series("Noise on the gradient", float(place), text))
        steps.append(one)
    page = render_html(steps)
    assert 'data-text="std 0.001: exact, rebuilt"' in page
    assert "not found" in page
    assert "at std 0.001 the text was still rebuilt" in page


def test_without_an_original_the_reconstruction_alone_is_shown() -> None:
    page = render_html([untold()])
    assert NOTE in page
    assert "Token accuracy</dt>" not in page
    assert "No original was given" in page
    assert NOTE not in render_html([untold()], redact=True)


def test_everything_is_escaped() -> None:
    for redact in (False, True):
        page = render_html([hostile_text()], redact=redact)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "onerror=alert(2)>" not in page
    assert "&lt;script&gt;" in render_html([hostile_text()])
    assert HOSTILE in json.dumps(to_json([hostile_text()]), ensure_ascii=False).replace('\\"', '"')


def test_json_holds_scores_tokens_and_counts() -> None:
    exported = to_json([three_texts()])
    record = exported["records"][0]
    assert record["texts"]["truth"][0] == list(tokens(LETTER))
    assert [score["verdict"] for score in record["scores"]] == ["rebuilt", "partly", "not found"]
    assert record["scores"][0]["exact"] is True
    assert record["conditions"]["text"]["embeddings"] == "frozen"
    assert {entry["pattern"]: entry["recovered"] for entry in record["spans"]} == {
        "e-mail address": 1, "date": 1, "telephone number": 1, "long number": 0,
    }  # fmt: skip
    assert exported["verdict"]["spans"] == record["spans"]
    assert exported["verdict"]["text_attacks"][0]["exact"] == 1


def words_left(records: list[Record]) -> str:
    page = render_html(records, redact=True)
    return re.sub(r"\s+", " ", page) + json.dumps(to_json(records, redact=True))


def test_redaction_leaves_no_original_and_nothing_near_one() -> None:
    left = words_left([three_texts(), masked(), untold()])
    for secret in ("anna.keller", "7946", "sleeps well", "tablet", "eats", "two pills", "notes.tsv"):
        assert secret not in left
    assert "[CLS] blue lips" in left, "what was not found may stay"
    assert "left out: redacted" in left
    assert "1 of 4 private texts was rebuilt" in left, "counts stay"
    assert "e-mail address 1 of 1" in left
    assert NAME_LEFT_OUT in words_left([replace(three_texts(), title="notes.tsv#1 under attack")])


def test_a_poor_reconstruction_that_holds_a_span_is_left_out() -> None:
    one = texts("span", [LETTER], ["[CLS] a call to 020 7946 0958 is of no use to us in this"])
    assert one.text_scores[0].rougeL < 0.5
    stripped = strip_texts(one).texts
    assert stripped is not None
    assert stripped.guess == (None,)
    assert stripped.control != (None,)


def test_a_reconstruction_near_another_original_of_the_batch_is_left_out() -> None:
    crossed = texts("crossed", [NOTE, LETTER], [LETTER, NOTE])
    stripped = strip_texts(crossed).texts
    assert stripped is not None
    assert stripped.guess == (None, None)


def test_the_table_in_the_terminal() -> None:
    out = io.StringIO()
    print_report([three_texts(), untold()], Console(file=out, width=140))
    shown = out.getvalue()
    assert "1/3" in shown
    assert "exact" in shown
    assert "Records of texts" in shown
    assert "Personally identifying spans: 3 of the 3" in re.sub(r"\s+", " ", shown)


def test_medians_attack_by_attack() -> None:
    (row,) = text_attack_rows([three_texts(), one_rebuilt(), *sweep()])
    assert (row.texts, row.exact, row.labels_right, row.labels) == (3, 1, 2, 3)
    assert row.token_accuracy == pytest.approx(8 / 13)
    assert row.cells[4] == "62 %"


def test_a_page_of_many_texts_stays_small() -> None:
    long = " ".join(f"word{place}" for place in range(700))
    many = texts("many", [long] * 400, [long.replace("word7", "other")] * 400)
    page = render_html([many])
    assert len(page.encode()) < 5_000_000
    assert "further example" in page


def test_every_example_renders() -> None:
    assert render_html(all_texts()) == render_html(all_texts())
