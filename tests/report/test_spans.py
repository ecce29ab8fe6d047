"""Personally identifying spans: what the patterns find, in texts as vocabularies write them, and files of patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_examples import LETTER, NOTE, texts, tokens

from leakgauge.data.demo_texts import TEXTS
from leakgauge.errors import DataError, OptionError
from leakgauge.report.spans import BUILT_IN, count_spans, plain, read_patterns, spans_in, spans_sentence


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to anna.keller@example.org.", [("e-mail address", "anna.keller@example.org")]),
        ("write to anna. keller @ example. org before friday", [("e-mail address", "anna.keller@example.org")]),
        ("call 020 7946 0958 now", [("telephone number", "020 7946 0958")]),
        ("or +44 20 7946 0958", [("telephone number", "+44 20 7946 0958")]),
        ("born 4 may 1961, seen 2024-03-01", [("date", "4 may 1961"), ("date", "2024-03-01")]),
        ("on 04 / 05 / 2024 and May 4th, 2020", [("date", "04/05/2024"), ("date", "May 4th, 2020")]),
        ("the card 4929 1234 5678", [("long number", "4929 1234 5678")]),
        ("190 over 110 in room 12, 40 degrees, 6.8 twice", []),
        ("she may come at 5", []),
        ("", []),
    ],
)  # fmt: skip
def test_built_in_patterns(text: str, found: list[tuple[str, str]]) -> None:
    assert spans_in(plain((text,)), BUILT_IN) == found


def test_the_demo_texts_hold_what_they_say() -> None:
    found = [span for _, text in TEXTS for span in spans_in(plain((text,)), BUILT_IN)]
    assert ("date", "4 may 1961") in found
    assert ("telephone number", "020 7946 0958") in found
    assert ("e-mail address", "anna.keller@example.org") in found


def test_a_span_counts_once_for_its_text_and_is_recovered_by_any_attack() -> None:
    missed, found = texts("missed", [LETTER], ["[CLS] blue lips"]), texts("found", [LETTER], [LETTER.upper()])
    counts = {count.pattern: (count.originals, count.recovered) for count in count_spans([missed, found])}
    assert counts == {"e-mail address": (1, 1), "date": (1, 1), "telephone number": (1, 1), "long number": (0, 0)}
    assert sum(count.recovered for count in count_spans([missed])) == 0
    assert "0 of the 3" in spans_sentence(count_spans([missed]))
    assert "match nothing" in spans_sentence(count_spans([texts("none", [NOTE], [NOTE])]))
    assert spans_sentence(count_spans([])) == ""


def test_a_number_within_another_is_not_recovered() -> None:
    one = texts("within", ["call 020 7946 0958 now"], ["call 020 7946 09581 now"])
    assert {count.recovered for count in count_spans([one])} == {0}


def test_patterns_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "patterns.txt"
    path.write_text("# names of the ward\n\nname = keller|lindgren\nroom=room \\d+\n", encoding="utf-8")
    found = read_patterns(path)
    assert set(found) == {*BUILT_IN, "name", "room"}
    assert spans_in("Mrs Keller in room 12", found) == [("name", "Keller"), ("room", "room 12")]
    text = texts("named", ["mrs keller in room 12"], ["mrs kelly in room 12"])
    counts = {count.pattern: (count.originals, count.recovered) for count in count_spans([text], found) if count.originals}
    assert counts == {"name": (1, 0), "room": (1, 1)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("name = (", r"pattern 'name' in line 1 .* cannot be read"),
        ("lindgren", "Line 1 .* is no pattern"),
        ("x = a*", "empty text"),
    ],
)
def test_a_bad_pattern_is_one_sentence(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(line, encoding="utf-8")
    with pytest.raises(OptionError, match=words) as caught:
        read_patterns(tmp_path / "p.txt")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_patterns(tmp_path / "none.txt")


def test_tokens_become_running_text() -> None:
    assert plain(tokens("a  \u27e6word\u27e7\n b")) == " a word b"
