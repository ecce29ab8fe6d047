"""Look-alikes: the examples of a source out of which decoys are chosen, with their content's hash and whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from leakgauge.data.demo import list_demo
from leakgauge.data.load import list_items
from leakgauge.data.pictures import resized, with_channels
from leakgauge.data.spec import parse_data_spec
from leakgauge.data.text import DEMO_TEXTS, is_text, parse_text_data, text_rows
from leakgauge.data.tokeniser import Tokeniser, load_tokeniser

MOST = 399  # a line-up of 400 tells p = 0.0025, and a batch of 16 of one class apart
MOST_BYTES = 64_000_000
HASH = 12
Tokens = tuple[str, ...]
Entry = TypeVar("Entry")
SERIES = {"digit": "digits", "digits": "digits", "face": "faces", "faces": "faces"}  # demo pictures of which there are many


@dataclass(frozen=True)
class LookAlikes:
    """Examples of one class of one source, of one shape, without copies of each other and at most one of each patient.

    Args:
        records: hash of each one's content.
        patients: whose they are; '' where the data do not say.
        pixels: (M, C, H, W) in [0, 1]; None for texts.
        tokens: of texts, printable, without special ones.
    """

    records: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    pixels: Tensor | None = None
    tokens: tuple[Tokens, ...] = ()


@dataclass(frozen=True)
class Private:
    """A private example as its source has it.

    Args:
        record: hash of its content before resizing, so that it is the same at every size.
        patient: '' where the data do not say.
        kind: its class; 'all' where classes do not count.
        source: where others like it are, without a choice of examples; '' where there are none.
        text: of a text.
    """

    record: str
    patient: str
    kind: str
    source: str
    text: str = field(default="", repr=False)


def private_pictures(data: str) -> tuple[Private, ...]:
    """The examples that a text names, in the order of the batch."""
    spec = parse_data_spec(data)
    items = list_items(spec)
    found = []
    for row in spec.select(len(items)):
        item, source = items[row], f"{spec.source}:{spec.path}" + (f"?split={spec.split}" if spec.split else "")
        label = item.label
        if spec.source == "demo":
            name = item.name.partition("[")[0]
            source = f"demo:{SERIES[name]}" if name in SERIES else ""
            label = list_demo(["digits"])[0].label if name == "digit" else label
        found.append(Private(content_hash(item.pixels()), item.patient, str(label), source))
    return tuple(found)


@lru_cache(maxsize=32)
def pictures_of_kind(source: str, kind: str, shape: tuple[int, int, int], sized: bool) -> LookAlikes:
    """Look-alikes among pictures.

    Args:
        source: 'SOURCE:PATH?..'; with indices, only those.
        kind: see `Private`.
        shape: (C, H, W) that they are brought to.
        sized: whether a size was asked for; else those of another size are left out.
    """
    spec = parse_data_spec(source)
    items = list_items(spec)
    items = [items[row] for row in spec.select(len(items)) if kind == str(items[row].label)]
    records: list[str] = []
    patients: list[str] = []
    pixels: list[Tensor] = []
    most = max(19, min(MOST, MOST_BYTES // (4 * shape[0] * shape[1] * shape[2])))
    for item in spread(one_each(items, [item.patient for item in items]), most):
        raw = item.pixels()
        record = content_hash(raw)
        if record in records or not (sized or tuple(raw.shape[1:]) == shape[1:]):
            continue
        records.append(record)
        patients.append(item.patient)
        pixels.append(resized(with_channels(raw, shape[0]), (shape[1], shape[2])))
    stacked = torch.stack(pixels) if pixels else torch.zeros(0, *shape)
    return LookAlikes(tuple(records), tuple(patients), stacked)


def private_texts(data: str) -> tuple[Private, ...]:
    """The same as `private_pictures` for texts; the class counts where the task is classification."""
    parsed = parse_text_data(data)
    rows = text_rows(parsed)
    source = parsed.path if parsed.path == DEMO_TEXTS else f"text:{parsed.path}"
    source += f"?column={parsed.column}" if parsed.column else ""
    chosen = [rows[place] for place in parsed.chosen.select(len(rows))]
    classes = parsed.task == "classification"
    return tuple(Private(text_hash(row[1]), row[2], str(row[0]) if classes else "all", source, row[1]) for row in chosen)


@lru_cache(maxsize=32)
def texts_of_kind(source: str, kind: str, tokeniser: str) -> LookAlikes:
    """Look-alikes among texts."""
    parsed, reader = parse_text_data(source), load_tokeniser(tokeniser)
    rows = text_rows(parsed)
    chosen = [rows[place] for place in parsed.chosen.select(len(rows))]
    chosen = [row for row in chosen if row[1].strip() and kind in ("all", str(row[0]))]
    found = {text_hash(row[1]): row for row in spread(one_each(chosen, [row[2] for row in chosen]), MOST)}
    tokens = tuple(plain_tokens(row[1], reader) for row in found.values())
    return LookAlikes(tuple(found), tuple(row[2] for row in found.values()), tokens=tokens)


def plain_tokens(text: str, reader: Tokeniser) -> Tokens:
    """The printable tokens of a text, without special ones."""
    return words_of(reader.pieces([token for token in reader.encode(text) if token not in reader.special]))


@lru_cache(maxsize=8)
def records_in(data: str) -> frozenset[str]:
    """Hashes of everything that a text names: what a prior or a training has seen."""
    return frozenset(entry.record for entry in (private_texts if is_text(data) else private_pictures)(data))


def content_hash(pixels: Tensor) -> str:
    """Of a picture (C, H, W) before it is resized."""
    content = f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:HASH]


def text_hash(text: str) -> str:
    """Of a text before it is cut into tokens."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:HASH]


def words_of(tokens: Sequence[str], special: frozenset[str] = frozenset()) -> Tokens:
    """Tokens as a record prints them, without the brackets around masked words and without special ones."""
    plain = (token.replace("\u27e6", "").replace("\u27e7", "").strip() for token in tokens)
    return tuple(token for token in plain if token and token not in special)


def one_each(entries: Sequence[Entry], patients: Sequence[str]) -> list[Entry]:
    """The first entry of every patient, and all without one: pictures of one person resemble each other."""
    first: dict[str, int] = {}
    for place, patient in enumerate(patients):
        first.setdefault(patient or f"\0{place}", place)
    return [entries[place] for place in first.values()]


def spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """At most `most` entries: the first half from the start, where private examples usually are, the rest spread evenly."""
    if len(entries) <= most:
        return list(entries)
    start = most // 2
    step = (len(entries) - start) / (most - start)
    return [*entries[:start], *(entries[start + int(place * step)] for place in range(most - start))]
