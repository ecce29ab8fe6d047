"""The page as text: complete without JavaScript, self-contained, escaped, small, and the same bytes every time."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from report_examples import HOSTILE, four_pictures, hostile, one_rebuilt, record, scene, sweep, undeterminable, without_truth
from rich.console import Console

from leakgauge.audit.record import Record
from leakgauge.errors import DataError
from leakgauge.report.figures import curve_svg
from leakgauge.report.html import render_html, write_html
from leakgauge.report.json_export import to_json, write_json
from leakgauge.report.page import build_page
from leakgauge.report.pictures import data_uri, difference, png_bytes, shrunk
from leakgauge.report.reporters import html as html_reporter
from leakgauge.report.reporters import json as json_reporter
from leakgauge.report.summary import summarise
from leakgauge.report.terminal import print_report
from leakgauge.report.words import NOT_FOUND_SENTENCE

VOID = {"meta", "link", "img", "input", "br"}


class Outline(HTMLParser):
    """Collects what the tests ask about, and checks that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(records: list[Record]) -> str:
    return render_html(records)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_the_page_is_small_and_the_same_every_time(page: str, records: list[Record]) -> None:
    assert len(page.encode()) < 5_000_000
    assert render_html(records) == page
    assert len(page.encode()) < build_page(records).size()


def test_it_names_no_outside_address(page: str) -> None:
    assert "http:" not in page
    assert "https:" not in page
    for _, attributes in Outline(page).tags:
        places = [attributes.get(name) or "#" for name in ("src", "href", "action", "srcset", "poster", "data")]
        assert all(place.startswith(("data:", "#")) for place in places)
    assert "url(" not in re.sub(r"url\(#", "", page)
    assert "@import" not in page
    assert "default-src 'none'; img-src data:;" in page


def test_nothing_hostile_becomes_an_element(outline: Outline, page: str) -> None:
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert len(outline.all("script")) == 1
    for tag, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    assert {str(attributes.get("src"))[:22] for attributes in outline.all("img")} == {"data:image/png;base64,"}


def test_control_characters_are_dropped() -> None:
    page = render_html([replace(one_rebuilt(), title="be\u202efore\x00\x07")])
    assert "before" in page
    assert not re.search("[\x00-\x08\u202e]", page)


def test_every_picture_has_alternative_text_and_stands_in_the_json(outline: Outline, records: list[Record]) -> None:
    exported = to_json(records)
    listed = [*exported["verdict"]["pictures"], *(picture for entry in exported["records"] for picture in entry["pictures"])]
    images = outline.all("img")
    assert all(image["alt"] and image["width"] and image["height"] for image in images)
    assert sorted(str(image["alt"]) for image in images) == sorted(str(picture["alt"]) for picture in listed)
    assert {picture["what"] for picture in listed} == {"original", "reconstruction", "difference", "control", "filmstrip frame"}


def test_headings_go_down_one_level_at_a_time_and_labels_exist(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in outline.tags:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name) is None or attributes[name] in identifiers
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in identifiers
    assert {"header", "main", "footer", "section", "article"} <= {tag for tag, _ in outline.tags}
    assert len(outline.all("table")) == len(outline.all("caption"))
    assert all("scope" in attributes for attributes in outline.all("th"))


def test_it_is_complete_without_javascript(page: str, records: list[Record]) -> None:
    text = re.sub(r"\s+", " ", "".join(Outline(page).text))
    for entry in records:
        assert entry.title in text
        assert entry.reproduce in text
        assert entry.conditions.model in text
        for score in entry.scores:
            assert ("exact" if score.mse == 0 else f"{score.psnr:.1f} dB") in text
    assert text.count("standard deviation ") > 5
    assert "hidden" not in {name for tag, attributes in Outline(page).tags if tag not in ("form", "div") for name in attributes}
    for words in ("30 dB or more", "20 dB if that is at least 3 dB above the control", NOT_FOUND_SENTENCE, "What was not tested"):
        assert words in text
    assert "Realistic" not in text
    assert "diagnostic: the attacker was given more than a real server has" in text


def test_a_record_that_counting_leaves_open_says_so() -> None:
    assert "The batch cannot be determined without a prior" in render_html([undeterminable()])
    assert "The batch cannot be determined without a prior" not in render_html([one_rebuilt()])


def test_a_record_without_truth_says_what_is_known() -> None:
    page = render_html([without_truth()])
    assert "Only the attack&#39;s own verdict is known" in page
    assert "2 reconstructions certified" in page
    assert page.count("<img") == 2 + 2 * 3


def test_reconstructions_are_shown_beside_the_original_they_are_assigned_to() -> None:
    one = four_pictures()
    assert one.pictures is not None
    card = build_page([one]).cards[0]
    for example, score in zip(card.examples, one.scores, strict=True):
        shown = {picture.what: picture.uri for picture in example.pictures}
        assert one.pictures.truth is not None
        assert shown["original"] == data_uri(one.pictures.truth[score.index])
        assert shown["reconstruction"] == data_uri(one.pictures.guess[score.guess])
        assert example.frames[-1].uri == shown["reconstruction"]


def test_no_records_make_a_page_too() -> None:
    Outline(render_html([]))


@pytest.mark.parametrize("count", [60, 400])
def test_a_large_run_stays_below_five_megabytes(count: int) -> None:
    truth = torch.stack([scene(seed, side=96) for seed in range(4)])
    big = record("big", truth, torch.rand(truth.shape, dtype=torch.float64), frames=6)
    records = [replace(big, key=f"big-{number}", title=f"Run {number}") for number in range(count)]
    page = render_html(records)
    assert len(page.encode()) < 5_000_000
    assert "To keep this page small" in page
    assert len(to_json(records)["records"]) == count


def test_pictures_keep_their_size_and_values() -> None:
    for channels in (1, 3):
        picture = scene(3, channels=channels)
        image = Image.open(io.BytesIO(png_bytes(picture)))
        assert image.size == (16, 16)
        assert image.mode == ("L" if channels == 1 else "RGB")
        assert not image.info
        pixels = torch.tensor(list(image.tobytes())).reshape(16, 16, channels).permute(2, 0, 1) / 255
        assert (pixels - picture).abs().max() <= 0.5 / 255 + 1e-9
    assert Image.open(io.BytesIO(png_bytes(torch.rand(2, 4, 7)))).size == (7, 4)
    assert difference(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.1)).max() == pytest.approx(0.4)
    assert shrunk(torch.rand(3, 100, 50), 20).shape == (3, 20, 10)


def test_curve_is_inline_svg_in_the_colours_of_the_page() -> None:
    svg = curve_svg(one_rebuilt(), "curve-1")
    assert svg == curve_svg(one_rebuilt(), "curve-1")
    assert svg.startswith("<svg role=")
    assert "currentColor" in svg
    assert "<style" not in svg
    assert "xmlns" not in svg
    assert set(re.findall(r'id="([^"]*)"', svg)) >= set(re.findall(r'(?:url\(|href=")#([^")]*)', svg))
    assert curve_svg(replace(one_rebuilt(), curve=((1, float("nan")), (2, 1.0))), "x") == ""
    assert "log scale" not in curve_svg(replace(one_rebuilt(), curve=((1, 1.0), (2, -1.0))), "x")


def test_json_is_strict_and_says_what_the_page_says(records: list[Record], tmp_path: Path) -> None:
    write_json(records, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    exported = json.loads(text)
    assert exported.keys() == {"verdict", "records"}
    assert exported["verdict"]["headline"] == summarise(records).headline
    assert [entry["key"] for entry in exported["records"]] == [entry.key for entry in records]
    assert exported["records"][1]["scores"][0] | {"psnr": "inf", "verdict": "rebuilt"} == exported["records"][1]["scores"][0]


def test_only_times_and_versions_may_differ_between_two_runs(records: list[Record]) -> None:
    again = [
        replace(entry, seconds=entry.seconds + 1, conditions=replace(entry.conditions, versions={"torch": "9"}))
        for entry in records
    ]

    def scrub(value: object) -> object:
        if isinstance(value, dict):
            return {key: scrub(entry) for key, entry in value.items() if "seconds" not in key and "version" not in key}
        return [scrub(entry) for entry in value] if isinstance(value, list) else value

    assert scrub(to_json(again)) == scrub(to_json(records))


def test_writing_makes_the_folder_and_names_what_cannot_be_written(tmp_path: Path) -> None:
    write_html(sweep(), tmp_path / "new" / "leak.html")
    html_reporter(redact=True)(sweep(), tmp_path / "redacted.html")
    json_reporter()(sweep(), tmp_path / "leak.json")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["leak.html", "leak.json", "redacted.html"]
    with pytest.raises(DataError, match="The report cannot be written to"):
        write_html(sweep(), tmp_path / "leak.json" / "leak.html")


def test_the_terminal_shows_the_table_and_the_verdict(records: list[Record]) -> None:
    out = io.StringIO()
    print_report(records, Console(file=out, width=100))
    text = re.sub(r"\s+", " ", out.getvalue())
    for words in ("exact", "4/4", "not found", summarise(records).headline, "no original"):
        assert words in text
    narrow = io.StringIO()
    print_report([hostile()], Console(file=narrow, width=60))
    assert HOSTILE[:10] in narrow.getvalue()
