"""Tables of layers: a closed form's own, and what counting says of a network; on the page, in JSON and in the terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from report_examples import HOSTILE, conditions, hostile, layers, one_rebuilt, without_truth
from rich.console import Console

from leakgauge.audit.architecture import Architecture, architecture_of
from leakgauge.audit.record import Record
from leakgauge.models import load_model
from leakgauge.report.html import render_html
from leakgauge.report.json_export import to_json
from leakgauge.report.layers import HEADINGS, architecture_rows, deficit_sentence, estimate, layer_rows, layers_sentence
from leakgauge.report.terminal import architecture_table, layers_table


def solved(missing: int = 0, **changes: object) -> Record:
    return replace(one_rebuilt(), attack="recursive", layers=layers(missing), **changes)  # type: ignore[arg-type]


def counted(name: str = "cnn6-d:bias=last") -> Architecture:
    return architecture_of(load_model(name, input_shape=(3, 32, 32)), name, (3, 32, 32))


def printed(table: object) -> str:
    out = io.StringIO()
    Console(file=out, width=110).print(table)
    return out.getvalue()


def test_the_table_stands_on_the_page_with_a_sentence_above_it() -> None:
    page = render_html([solved()])
    for words in (*HEADINGS, "gradient and weight equations", "73,728", "6.7e-07", "In the end none of them lacked equations."):
        assert words in page
    assert page.index("In the end none of them lacked") < page.index("73,728")
    assert "Layer by layer" not in render_html([one_rebuilt()])


def test_what_is_missing_is_said_as_an_estimate_and_the_error_is_not_a_number() -> None:
    rows = layer_rows(solved(missing=238))
    assert rows[-1].cells[-2:] == ("about 240", "not determined")
    text = layers_sentence(solved(missing=238))
    assert "conv1 lacked about 240 for 3,072 values" in text
    assert "a guess" in text
    assert [estimate(number) for number in (0, 7, 20, 21, 4608)] == ["0", "7", "20", "about 21", "about 4,600"]


def test_layers_that_were_solved_together_are_named() -> None:
    joined = replace(layers()[-1], name="conv1 to conv2", method="all equations of these layers together")
    one = replace(solved(), layers=(*layers(missing=40), joined))
    assert layers_sentence(one).endswith("conv1 to conv2: all equations of these layers together.")
    assert layers_sentence(one_rebuilt()) == ""


def test_json_has_the_rows_and_nothing_infinite() -> None:
    (entry,) = json.loads(json.dumps(to_json([solved(missing=3)]), allow_nan=False))["records"]
    assert entry["layers"][1]["rank"] == 3069
    assert entry["layers"][1]["predicted_error"] == "inf"
    assert entry["radius"] is None


def test_a_hostile_layer_stays_text() -> None:
    page = render_html([hostile()])
    assert "<script>alert" not in page
    bad = replace(counted(), model=HOSTILE, verdict=HOSTILE, reasons=(HOSTILE,))
    rows = tuple(replace(row, name=HOSTILE, verdict=HOSTILE, type=HOSTILE) for row in bad.layers)
    page = render_html([one_rebuilt()], architectures=[replace(bad, layers=rows)])
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_a_redacted_page_keeps_the_tables_and_leaves_out_names() -> None:
    one = solved(scores=(replace(one_rebuilt().scores[0], name="mueller.png"),))
    secret = replace(one, layers=(replace(one.layers[0], name="mueller", method="from /home/anna/x.png"), one.layers[1]))
    architecture = replace(counted(), model="mueller", verdict="as in /home/anna/net.csv")
    for text in (
        render_html([secret], redact=True, architectures=[architecture]),
        json.dumps(to_json([secret], redact=True, architectures=[architecture])),
    ):
        assert "mueller" not in text
        assert "anna" not in text
        assert "gradient and weight equations" in text
        assert "280" in text


def test_the_terminal_shows_the_same() -> None:
    text = printed(layers_table(solved()))
    for words in ("conv2", "73,728", "6.7e-07", "recursive"):
        assert words in text
    text = printed(architecture_table(counted()))
    assert re.search(r"conv2\s+Conv2d\s+3,468\s+3,780\s+3,188\s+280", text), text


def test_counting_stands_on_the_page_and_in_the_json() -> None:
    page = render_html([one_rebuilt()], architectures=[counted()])
    assert "What the networks give away by counting" in page
    assert "layer conv2 is 280 equations short" in page
    assert "Security deficit (Chen &amp; Campbell 2022) 233" in page
    assert to_json([], architectures=[counted()])["verdict"]["architectures"][0]["layers"][1]["rank_deficiency"] == 280
    assert "by counting" not in render_html([one_rebuilt()])


def test_layers_that_cannot_be_counted_have_no_numbers() -> None:
    pooled = load_model("cnn6-d", input_shape=(3, 32, 32))
    one = architecture_of(pooled, "x", (3, 32, 32))
    odd = replace(
        one, layers=(replace(one.layers[0], rank=None, rank_deficiency=None, reason="odd"),), deficit=None, reasons=("odd",)
    )
    assert architecture_rows(odd)[0].cells[1:5] == ("3,072", "-", "-", "-")
    assert deficit_sentence(odd) == "No layer can be counted: odd."
    assert "Not counted: odd" in deficit_sentence(replace(one, reasons=("odd",)))


@pytest.mark.parametrize("entry", [solved(), without_truth()])
def test_a_certificate_is_shown_with_its_radius(entry: Record) -> None:
    certain = replace(
        entry,
        certified=max(1, entry.certified),
        radius=2e-6,
        explains=True,
        scores=tuple(replace(score, certified=True) for score in entry.scores),
        conditions=conditions(),
    )
    page = render_html([certain])
    assert "up to an error radius of 0.0002 % of the range of values" in page
    assert "other inputs may explain it as well" not in page
