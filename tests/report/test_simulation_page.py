"""Pages of simulations and sweeps: the answer in words, the figures, complete without JavaScript, redacted where asked."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from simulation_examples import leak, plan, result, skipped, sweep, undefined
from test_browser import CONTRAST, OVERFLOW
from test_html import Outline

from leakgauge.audit.simulation.record import SimulationResult
from leakgauge.report.simulation.charts import accuracy_chart, attacks_chart, leakage_chart
from leakgauge.report.simulation.facts import bars_of, lines_of
from leakgauge.report.simulation.files import leakage_csv, simulation_html, simulation_to_json, write_simulation
from leakgauge.report.simulation.words import RULE, answers, headline
from leakgauge.report.tradeoff.charts import tradeoff_charts
from leakgauge.report.tradeoff.files import tradeoff_html, tradeoff_to_json, write_tradeoff
from leakgauge.report.tradeoff.words import headline as tradeoff_headline
from leakgauge.report.words import NOT_FOUND_SENTENCE

SECRETS = ("mueller", "/home/anna", "anna")
PAGES = {
    "simulation": lambda: simulation_html(result()),
    "redacted simulation": lambda: simulation_html(result(), redact=True),
    "trade-off": lambda: tradeoff_html(sweep()),
    "redacted trade-off": lambda: tradeoff_html(sweep(), redact=True),
    "nothing": lambda: simulation_html(result(())),
    "stopped sweep": lambda: tradeoff_html(sweep(complete=False)),
}


def test_the_headline_names_round_client_and_control() -> None:
    text = headline(result())
    assert text.startswith("In rounds 1 and 3 client alone leaked: its only picture was rebuilt (RDLV ")
    assert "against 0 for the prior, SSIM " in text
    assert "for the control" in text
    assert text.endswith("; many did not.")
    lines = answers(result())
    assert lines[0].startswith("alone: its only picture was rebuilt")
    assert lines[1].startswith("many: not found in rounds 1 and 3; nearest RDLV ")


def test_an_undefined_rdlv_is_said() -> None:
    leaks = tuple(undefined(entry) for entry in result().leaks)
    text = headline(result(leaks))
    assert "its only picture was rebuilt (RDLV undefined, since the prior is too far off, SSIM" in text
    assert "nan" not in simulation_html(result(leaks)).lower().replace("nano", "")


def test_nobody_attacked() -> None:
    assert (
        headline(result(()))
        == "Nothing was attacked, so nothing is known about what leaks: no message arrived in the rounds of the plan."
    )
    passed = tuple(
        skipped(entry, "not attacked: too many examples (3, and examples_at_most is 2)") for entry in result().leaks[6:7]
    )
    assert headline(result(passed)).startswith(
        "Nothing was attacked, so nothing is known about what leaks (many: too many examples"
    )
    assert "before any attack had ended" in headline(result((), complete=False))


def test_everything_defended_and_nothing_found_claims_no_safety() -> None:
    leaks = [
        replace(entry, conditions=replace(entry.conditions, defence="gaussian-noise (std 0.001)"))
        for entry in (
            leak(1, "alone", "control", "control", 0.5),
            leak(1, "alone", "dlg", "plain", 0.8),
            leak(1, "alone", "dlg", "adaptive", 0.7),
        )
    ]
    text = headline(result(tuple(leaks)))
    assert text == f"No picture of client alone was found behind the defence 'gaussian-noise (std 0.001)': {NOT_FOUND_SENTENCE}."
    page = simulation_html(result(tuple(leaks)))
    assert "dlg (adaptive)" in page
    for word in ("is safe", "secure against", "protected from"):
        assert word not in page


def test_several_leaking_clients_and_a_stopped_run() -> None:
    leaks = tuple(
        entry
        for sender in ("alone", "many")
        for entry in (leak(1, sender, "control", "control", 0.5), leak(1, sender, "dlg", "plain", 0.02))
    )
    text = headline(result(leaks, complete=False))
    assert text.startswith("2 of 2 attacked clients leaked: ")
    assert "the run was stopped before its end" in text
    assert "3 of its 3 pictures were rebuilt" in "".join(answers(result(leaks)))


def test_lines_and_bars_are_those_of_the_records() -> None:
    whole = result()
    lines = {line.name: line for line in lines_of(whole, "ssim")}
    assert lines["alone"].leaked
    assert not lines["many"].leaked
    assert [point.round for point in lines["many"].points] == [1, 3]
    for point in lines["many"].points:
        best = max(
            (entry for entry in whole.attacks if (entry.round, entry.sender) == (point.round, "many")),
            key=lambda entry: sum(score.ssim for score in entry.scores),
        )
        values = [score.ssim for score in best.scores]
        assert (point.low, point.high) == (min(values), max(values))
        assert point.mean == pytest.approx(sum(values) / 3)
    bars = bars_of(whole, "psnr")
    assert [bar.name for bar in bars] == ["inverting-gradients", "dlg", "control", "prior"]
    assert all(len(bar.values) == 2 for bar in bars), "the messages with a single picture are compared"


def test_figures_are_the_same_bytes_every_time() -> None:
    for draw in (leakage_chart, attacks_chart, accuracy_chart):
        first, second = draw(result()), draw(result())
        assert first is not None
        assert second is not None
        assert (first.svg, first.png) == (second.svg, second.png)
        assert first.alt
        assert "<dc:date>" not in first.svg
    assert [entry.svg for entry in tradeoff_charts(sweep())] == [entry.svg for entry in tradeoff_charts(sweep())]
    assert leakage_chart(result(())) is None


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES.keys())
def test_a_page_keeps_the_conventions(make: Any) -> None:
    page = make()
    assert page == make()
    outline = Outline(page)
    assert not outline.all("script")
    assert "default-src 'none'; img-src data:;" in page
    for _, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on")]
        places = [attributes.get(name) or "#" for name in ("src", "href", "action")]
        assert all(place.startswith(("data:", "#")) for place in places)
    for image in outline.all("img"):
        assert image["alt"]
        assert image["width"]
        assert str(image["src"]).startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in outline.tags:
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in identifiers
        assert attributes.get("aria-labelledby") is None or attributes["aria-labelledby"] in identifiers
    assert len(outline.all("table")) == len(outline.all("caption"))
    assert all("scope" in attributes for attributes in outline.all("th"))


def test_the_page_says_everything_in_words() -> None:
    text = " ".join("".join(Outline(simulation_html(result())).text).split())
    for words in (
        headline(result()),
        *answers(result()),
        RULE,
        "What was not tested",
        "no guarantee",
        "Known start",
        "rank 1 of 21",
    ):
        assert words in text
    for entry in result().attacks:
        assert f"{max(score.psnr for score in entry.scores):.1f} dB" in text
        assert entry.conditions.model_state in text


def test_json_is_strict_and_the_table_has_every_picture() -> None:
    whole = result()
    text = json.dumps(simulation_to_json(whole), allow_nan=False)
    found = json.loads(text)
    assert found["verdict"]["headline"] == headline(whole)
    assert len(found["records"]) == len(whole.leaks)
    lines = list(csv.DictReader(io.StringIO(leakage_csv(whole))))
    assert len(lines) == sum(len(entry.scores) for entry in whole.leaks)
    assert {line["verdict"] for line in lines} == {"rebuilt", "not found", "control", "prior"}
    assert all(line["labels"] and line["model_state"] and line["batch_norm"] for line in lines)


def pictures(page: str) -> list[np.ndarray]:
    uris = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))), dtype=float) / 255 for uri in uris]


@pytest.mark.parametrize("page", ["simulation", "trade-off"])
def test_a_redacted_page_shows_and_names_nothing_private(page: str) -> None:
    plain, redacted = PAGES[page](), PAGES[f"redacted {page}"]()
    truths = [picture.squeeze(0).numpy() for entry in result().leaks if entry.pictures for picture in entry.pictures.truth]
    shown = pictures(redacted)
    assert 0 < len(shown) < len(pictures(plain))
    for image in shown:
        assert all(((image - truth) ** 2).mean() > 1e-2 for truth in truths)
    for secret in SECRETS:
        assert secret not in redacted
    assert "This page is redacted" in redacted
    assert "left out: redacted" in redacted


def test_redacted_files_name_nothing_private(tmp_path: Path) -> None:
    write_simulation(result(), tmp_path / "simulation", redact=True)
    write_tradeoff(sweep(), tmp_path / "sweep", redact=True)
    texts = [path for path in tmp_path.rglob("*.*") if path.suffix in (".json", ".csv", ".html", ".svg")]
    assert len(texts) == 2 * 3 + 4 + 2
    for path in texts:
        for secret in SECRETS:
            assert secret not in path.read_text(encoding="utf-8"), (path, secret)
    assert simulation_to_json(result(), redact=True)["verdict"]["headline"] == headline(result())
    assert tradeoff_to_json(sweep(), redact=True)["verdict"]["redacted"] is True


def test_files_are_written_as_named(tmp_path: Path) -> None:
    write_simulation(result(), tmp_path)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    figures = [
        f"figures/{name}.{end}" for name in ("accuracy", "attacks", "leakage", "reconstructions") for end in ("png", "svg")
    ]
    assert names == [*figures, "leakage.csv", "report.html", "simulation.json"]
    write_simulation(result(()), tmp_path)
    assert not (tmp_path / "figures" / "leakage.svg").exists(), "a figure of an earlier run does not stay"


def test_a_sweep_in_words() -> None:
    assert tradeoff_headline(sweep()).startswith("The policy max ssim <= 0.5 is first met by gaussian-noise:std=0.")
    assert tradeoff_headline(sweep(complete=False)).startswith("The sweep was stopped: 2 of 4 defences are here.")
    free = replace(sweep(), choice=None)
    assert NOT_FOUND_SENTENCE in tradeoff_headline(free)
    page = tradeoff_html(sweep())
    assert "Spearman correlation of leakage (SSIM) with strength -1.00 for the plain attack over 4 strengths" in page
    assert "The adaptive attack found at least as much as the plain one at 3 of 3 settings." in page


def test_bundled_pictures_are_named_as_such() -> None:
    whole = result(bundled=True, source="bundled pictures, since there is no folder:chest_xray on this machine")
    assert "since there is no folder:chest_xray on this machine" in simulation_html(whole)
    assert "nothing follows from them about your data" in simulation_html(whole)


def test_a_hostile_name_stays_text() -> None:
    hostile = result(plan=plan(name="<script>alert(1)</script>"))
    page = simulation_html(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["simulation", "trade-off"])
def test_the_page_in_a_browser(browser: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[kind](), encoding="utf-8")
    trouble: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: trouble.append(message.text))
    page.on(
        "request",
        lambda request: request.url in (path.as_uri(),) or request.url.startswith("data:") or trouble.append(request.url),
    )
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    sizes = page.eval_on_selector_all("img", "images => images.map(image => [image.complete, image.naturalWidth])")
    assert len(sizes) >= 6
    assert all(complete and width > 0 for complete, width in sizes)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratio, element = page.evaluate(CONTRAST)
        assert ratio >= 4.5, element
    for width in (320, 360, 768, 1200):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(OVERFLOW) <= 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert len(page.pdf()) > 10_000
    context.close()
    assert trouble == []


def test_the_result_is_not_changed_by_redaction() -> None:
    whole: SimulationResult = result()
    before = [entry.pictures.guess.clone() for entry in whole.leaks if entry.pictures]
    simulation_html(whole, redact=True)
    after = [entry.pictures.guess for entry in whole.leaks if entry.pictures]
    assert all(bool((one == other).all()) for one, other in zip(before, after, strict=True))
