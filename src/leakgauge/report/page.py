"""What a page holds, as values: cards, sliders and the first screen. The template and the JSON export read the same page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from leakgauge.audit.architecture import Architecture
from leakgauge.audit.record import Conditions, Record, nearness
from leakgauge.report.cards import Card, Step, Sweep
from leakgauge.report.figures import curve_svg, curve_text
from leakgauge.report.gallery import ORIGINAL, RECONSTRUCTION, Detail, Example, Picture, examples_of
from leakgauge.report.layers import Network, layer_rows, layers_sentence, network_in_words
from leakgauge.report.redaction import scrub_architectures, scrub_text, strip_pixels
from leakgauge.report.spans import BUILT_IN, Patterns, SpanCount, count_spans
from leakgauge.report.summary import Summary, summarise
from leakgauge.report.text_conditions import text_rows
from leakgauge.report.text_redaction import strip_texts
from leakgauge.report.texts import TextExample, TextRow, batch_facts, text_examples
from leakgauge.report.words import is_attack, record_verdict, seconds_in_words

LIMIT = 4_600_000  # bytes, by estimate: a page stays below 5 MB
LEVELS = (
    Detail(frames=8, examples=8, pixels=512, rows=100000, cards=1000),
    Detail(frames=4, examples=8, pixels=256, rows=100000, cards=1000),
    Detail(frames=0, examples=8, pixels=224, rows=100000, cards=1000),
    Detail(frames=0, examples=4, pixels=128, rows=1000, cards=1000),
    Detail(frames=0, examples=2, pixels=96, rows=200, cards=1000),
    Detail(frames=0, examples=1, pixels=64, rows=64, cards=300),
    Detail(frames=0, examples=1, pixels=32, rows=16, cards=60),
)
NAMES = {
    "model": "Model",
    "model_state": "State of the model",
    "shape": "Size of one input",
    "input_range": "Range of the inputs",
    "batch_size": "Examples in the batch",
    "training": "Local training",
    "mode": "Mode of the client",
    "batch_norm": "BatchNorm",
    "labels": "Labels",
    "defence": "Defence",
    "dtype": "Arithmetic",
    "threat": "Who attacks",
    "knowledge": "Granted beyond the minimum",
    "realistic": "Kind of figure",
    "budget": "Budget",
    "seeds": "Seeds",
    "versions": "Versions",
    "device": "Device",
    "text": "Texts",
}
REALISTIC, DIAGNOSTIC = "realistic", "diagnostic"
KINDS = {
    True: "realistic: no more than a real server has",
    False: "diagnostic: the attacker was given more than a real server has",
}


@dataclass(frozen=True)
class Page:
    """Everything that a page shows.

    Args:
        summary: the verdict in words.
        cards: one per record, in the given order.
        sweeps: one per series and attack.
        worst: the card of the worst record, its example, and the pictures or texts of the first screen.
        shortened: what was left out to keep the page small, or ''.
        redacted: whether originals and what comes near them are left out.
        records: all records, cards or not; redacted where the page is.
        architectures: networks that were counted; redacted where the page is.
        spans: identifying spans in the texts of each record.
    """

    summary: Summary
    cards: tuple[Card, ...]
    sweeps: tuple[Sweep, ...]
    worst: tuple[Card, Example | TextExample] | None
    shortened: str
    redacted: bool
    records: tuple[Record, ...]
    architectures: tuple[Architecture, ...] = ()
    spans: tuple[tuple[SpanCount, ...], ...] = ()

    @property
    def networks(self) -> tuple[Network, ...]:
        """The counted networks in words."""
        return tuple(map(network_in_words, self.architectures))

    @property
    def front(self) -> tuple[Picture, ...]:
        """Original and reconstruction of the worst example, for the first screen."""
        if self.worst is None or isinstance(self.worst[1], TextExample):
            return ()
        return tuple(picture for picture in self.worst[1].pictures if picture.what in (ORIGINAL, RECONSTRUCTION))

    @property
    def front_text(self) -> tuple[TextRow, ...]:
        """The same where it is a text."""
        return self.worst[1].rows if self.worst and isinstance(self.worst[1], TextExample) else ()

    @property
    def repeated(self) -> tuple[tuple[int, Picture], ...]:
        """Pictures that stand on the page outside the cards, each with the number of its record."""
        front = [(self.worst[0].number, picture) for picture in self.front] if self.worst else []
        for sweep in self.sweeps:
            if sweep.truth:
                front.append((sweep.steps[0].card.number, sweep.truth))
            for step in sweep.steps:
                own = step.truth if sweep.truth is None else None
                front += [(step.card.number, picture) for picture in (own, step.picture) if picture]
        return tuple((number, picture) for number, picture in front if picture.uri)

    def size(self) -> int:
        """Estimated bytes of the page."""
        repeated = sum(len(picture.uri) + 400 for _, picture in self.repeated)
        counted = 1000 * sum(len(one.layers) + len(one.reasons) for one in self.architectures)
        return 60_000 + repeated + counted + sum(card.size() for card in self.cards)


def build_page(
    records: Sequence[Record], redact: bool = False, architectures: Sequence[Architecture] = (), patterns: Patterns = BUILT_IN
) -> Page:
    """The page at the finest level of detail that stays below 5 MB; `patterns` are those of identifying spans in texts."""
    counted = scrub_architectures(architectures, records) if redact else tuple(architectures)
    readable = scrub_text(records) if redact else list(records)
    summary = summarise(readable, patterns)
    spans = tuple(count_spans([record], patterns) for record in readable)
    shown = [strip_texts(strip_pixels(record), patterns) for record in readable] if redact else readable
    for level in LEVELS:
        page = _page(summary, shown, redact, level)
        if page is not None:
            return replace(page, architectures=counted, spans=spans)
    raise AssertionError("the coarsest level of detail always makes a page")


def _page(summary: Summary, records: Sequence[Record], redacted: bool, detail: Detail) -> Page | None:
    """The page at one level of detail, or None as soon as it grows too large."""
    chosen = list(enumerate(records))
    if len(chosen) > detail.cards:
        leaked = sorted(chosen, key=lambda entry: _best(entry[1]), reverse=True)
        chosen = sorted(leaked[: detail.cards], key=lambda entry: entry[0])
    cards: list[Card] = []
    size = 0
    for position, record in chosen:
        cards.append(_card(position + 1, record, detail, redacted))
        size += cards[-1].size()
        if size > LIMIT and detail is not LEVELS[-1]:
            return None
    worst = None
    if summary.worst is not None:
        card = next((card for card in cards if summary.worst.record == card.number - 1), None)
        wanted = summary.worst.score.index + 1
        shown: list[Example | TextExample] = [*card.examples, *card.texts] if card else []
        example = next((example for example in shown if example.number == wanted), None)
        worst = (card, example) if card and example else None
    page = Page(summary, tuple(cards), _sweeps(cards), worst, _shortened(records, detail), redacted, tuple(records))
    return page if page.size() <= LIMIT or detail is LEVELS[-1] else None


def _card(number: int, record: Record, detail: Detail, redacted: bool) -> Card:
    return Card(
        number=number,
        record=record,
        verdict=record_verdict(record),
        kind=REALISTIC if record.conditions.realistic else DIAGNOSTIC,
        near=_best(record),
        examples=examples_of(record, detail, redacted),
        curve=curve_svg(record, f"curve-{number}"),
        curve_text=curve_text(record),
        conditions=condition_rows(record.conditions),
        seconds=seconds_in_words(record.seconds),
        layers=layer_rows(record),
        layers_text=layers_sentence(record),
        texts=text_examples(record, detail.rows),
        texts_text=batch_facts(record),
    )


def condition_rows(conditions: Conditions) -> tuple[tuple[str, str], ...]:
    """Every condition, named and written in words."""
    rows = []
    for item in fields(Conditions):
        value = getattr(conditions, item.name)
        if item.name == "text":
            rows += text_rows(value)
            continue
        if item.name == "shape":
            text = " x ".join(str(side) for side in value) + (" tokens" if conditions.text else "")
        elif item.name == "realistic":
            text = KINDS[bool(value)]
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {entry}" for key, entry in value.items()) or "none"
        elif isinstance(value, tuple):
            text = ", ".join(str(entry) for entry in value) or "nothing"
        else:
            text = str(value)
        rows.append((NAMES[item.name], text))
    return tuple(rows)


def _sweeps(cards: Sequence[Card]) -> tuple[Sweep, ...]:
    groups: dict[tuple[str, str, str], list[Card]] = {}
    for card in cards:
        if card.record.series and is_attack(card.record):
            key = (card.record.series.name, card.record.attack, card.record.conditions.model)
            groups.setdefault(key, []).append(card)
    return tuple(_sweep(name, attack, members) for (name, attack, _), members in groups.items() if len(members) > 1)


def _sweep(name: str, attack: str, cards: list[Card]) -> Sweep:
    """The example shown is the one that leaked most anywhere in the sweep."""
    ordered = sorted(cards, key=lambda card: (card.record.series.value if card.record.series else 0.0, card.number))
    leaked = max((card for card in ordered), key=lambda card: card.near).record.worst
    wanted = leaked.index + 1 if leaked else 1
    steps = tuple(_step(card, wanted) for card in ordered)
    truths = [step.truth for step in steps]
    shared = truths[0] if truths[0] and all(truth and truth.uri == truths[0].uri for truth in truths) else None
    return Sweep(name, attack, steps, shared)


def _step(card: Card, wanted: int) -> Step:
    example = next((example for example in card.examples if example.number == wanted), None)
    pictures = {picture.what: picture for picture in example.pictures} if example else {}
    text = card.record.series.text if card.record.series else ""
    written = next((example for example in card.texts if example.number == wanted), None)
    return Step(text, card, example, pictures.get(RECONSTRUCTION), pictures.get(ORIGINAL), written)


def _best(record: Record) -> float:
    values = [near for near in map(nearness, record.scores) if not math.isnan(near)]
    return max(values, default=-math.inf)


def _shortened(records: Sequence[Record], detail: Detail) -> str:
    """What was left out to keep the page below 5 MB, in a sentence."""
    finest, parts = LEVELS[0], []
    if detail.frames < finest.frames:
        parts.append(f"filmstrips have at most {detail.frames} pictures" if detail.frames else "filmstrips are left out")
    if detail.pixels < finest.pixels:
        parts.append(f"pictures larger than {detail.pixels} pixels are averaged down")
    if any(len(record.picture_scores) > detail.examples for record in records):
        parts.append(f"at most {detail.examples} examples per record have pictures, those that leaked most")
    if len(records) > detail.cards:
        parts.append(f"only the {detail.cards} records that leaked most have a card of their own")
    return f"To keep this page small, {'; '.join(parts)}." if parts else ""
