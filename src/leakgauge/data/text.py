"""Texts: from a table or a plain file to a batch of token ids."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from leakgauge.core.text_spec import IGNORED, TASKS, TextSpec
from leakgauge.data.demo_texts import TEXTS
from leakgauge.data.folder import PATIENT
from leakgauge.data.spec import DataSpec, ranges_of
from leakgauge.data.tokeniser import DEMO, Tokeniser, load_tokeniser
from leakgauge.errors import DataError, OptionError, did_you_mean
from leakgauge.randomness import rng
from leakgauge.truth import Batch

KEYS = ("indices", "tokeniser", "length", "task", "column", "mask", "seed")
COLUMNS = ("sentence", "text")
DEMO_TEXTS = "demo:texts"
PREFIX = "text:"


@dataclass(frozen=True)
class TextData:
    """Which texts to read, and how they become token ids.

    Args:
        path: a table with a header (.tsv, .csv) or a file with one text per line; 'demo:texts' for the bundled ones.
        chosen: which rows, in order.
        tokeniser: folder of a vocabulary, or 'demo'; '' for the one that whoever reads the texts takes.
        length: tokens of a padded text; longer ones are refused. None takes the longest.
        task: of `TextSpec`.
        column: of the table; by default 'sentence' or 'text'.
        mask: share of the tokens that a masked language model has to predict, at least one of each text.
        seed: of the masked places.
    """

    path: str
    chosen: DataSpec
    tokeniser: str = ""
    length: int | None = None
    task: str = "classification"
    column: str = ""
    mask: float = 0.15
    seed: int = 0


def is_text(text: str) -> bool:
    """Whether a text names texts: 'text:PATH?..' or 'demo:texts?..'."""
    return text.strip().startswith(PREFIX) or text.strip().partition("?")[0] == DEMO_TEXTS


def parse_text_data(text: str) -> TextData:
    """Reads 'text:PATH?tokeniser=FOLDER&indices=0-3&length=32&task=masked&mask=0.15&seed=0&column=sentence'.

    Raises:
        OptionError: for an unknown key or a value out of range.
    """
    place, mark, query = text.strip().rpartition("?")
    if not mark:
        place, query = query, ""
    path = place if place == DEMO_TEXTS else place.removeprefix(PREFIX)
    if not path:
        raise OptionError(f"The data {text!r} names nothing after 'text'; expected text:PATH.")
    values: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        key = "tokeniser" if key == "tokenizer" else key
        if key not in KEYS:
            raise OptionError(f"The data {text!r} has no option {key!r}.{did_you_mean(key, KEYS)}")
        if not value or key in values:
            raise OptionError(
                f"The data {text!r} gives {key!r} {'twice' if key in values else 'no value'}; expected {key}=VALUE."
            )
        values[key] = value
    task = values.get("task", "classification")
    if task not in TASKS:
        raise OptionError(f"task={task}.{did_you_mean(task, TASKS)}")
    ranges = ranges_of(values["indices"]) if "indices" in values else None
    return TextData(
        path=path,
        chosen=DataSpec("text", path, ranges=ranges),
        tokeniser=values.get("tokeniser", ""),
        length=None if "length" not in values else _whole("length", values["length"], 1),
        task=task,
        column=values.get("column", ""),
        mask=_share(values.get("mask", "0.15")),
        seed=_whole("seed", values.get("seed", "0"), 0),
    )


def load_texts(text: str, tokeniser: str = DEMO) -> Batch:
    """The texts that a text names, as token ids with an attention mask; see `parse_text_data`.

    Args:
        text: 'text:PATH?..' or 'demo:texts?..'.
        tokeniser: taken where the text names none.

    Returns:
        Inputs 'input_ids' and 'attention_mask', (N, L) int64, padded at the end; labels as the task has them; the TextSpec;
        and names, 'notes.tsv#3' for the fourth text of a file.

    Raises:
        OptionError: for an unknown key or value.
        DataError: if a file is missing, a text is empty, one has more tokens than `length`, or texts of several lengths meet
            a tokeniser without padding.
        MissingExtraError: without transformers.
    """
    data = parse_text_data(text)
    data = replace(data, tokeniser=data.tokeniser or tokeniser)
    rows = text_rows(data)
    places = data.chosen.select(len(rows))
    found = load_tokeniser(data.tokeniser)
    encoded = [_encoded(data, place, rows[place][1], found) for place in places]
    length = data.length or max(map(len, encoded))
    if found.padding is None and any(len(tokens) != length for tokens in encoded):
        raise DataError(
            f"The tokeniser {data.tokeniser!r} has no padding token, and the texts have {min(map(len, encoded))} to {length} "
            "tokens; choose texts of one length, or another tokeniser."
        )
    ids = torch.full((len(encoded), length), found.padding or 0)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    labels = torch.tensor([rows[place][0] for place in places])
    if data.task == "causal":
        labels = torch.where(mask == 1, ids, IGNORED)
    elif data.task == "masked":
        ids, labels = _masked(ids, mask, found, data)
    spec = TextSpec(length, found.size, found.padding, data.task)
    names = tuple(f"{Path(data.path).name.removeprefix('demo:')}#{place}" for place in places)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, spec, names)


def text_rows(data: TextData) -> list[tuple[int, str, str]]:
    """Every text of a file before any is chosen: label, text, and whose it is ('' where no column `patient` or `subject` says).

    Raises:
        DataError: if the file cannot be read.
    """
    return [(label, text, "") for label, text in TEXTS] if data.path == DEMO_TEXTS else _read(data)


def public_tokens(tokeniser: Tokeniser, length: int) -> torch.Tensor:
    """The bundled demo texts as token ids (M, length), cut there, and -100 beyond their end. Public: no person in them exists."""
    rows = torch.full((len(TEXTS), length), IGNORED)
    for row, (_, text) in enumerate(TEXTS):
        tokens = tokeniser.encode(text)[:length]
        rows[row, : len(tokens)] = torch.tensor(tokens)
    return rows


def _encoded(data: TextData, place: int, sentence: str, tokeniser: Tokeniser) -> list[int]:
    tokens = tokeniser.encode(sentence)
    if not tokens or not sentence.strip():
        raise DataError(f"Text {place} of {data.path} is empty; expected at least one token.")
    if data.length is not None and len(tokens) > data.length:
        raise DataError(f"Text {place} of {data.path} has {len(tokens)} tokens, and length={data.length}: {sentence[:60]!r}.")
    return tokens


def _masked(ids: torch.Tensor, mask: torch.Tensor, tokeniser: Tokeniser, data: TextData) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs with mask tokens, and the labels under them."""
    if tokeniser.mask is None:
        raise OptionError(f"task=masked needs a mask token, and the tokeniser {data.tokeniser!r} has none.")
    generator = rng(data.seed, "masked places")
    inputs, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for row in range(len(ids)):
        kept = range(int(mask[row].sum()))
        inner = torch.tensor([place for place in kept if int(ids[row, place]) not in tokeniser.special] or list(kept))
        count = max(1, round(data.mask * len(inner)))
        places = inner[torch.randperm(len(inner), generator=generator)[:count]]
        labels[row, places], inputs[row, places] = ids[row, places], tokeniser.mask
    return inputs, labels


def _read(data: TextData) -> list[tuple[int, str, str]]:
    path = Path(data.path).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The texts in {data.path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if path.suffix not in (".tsv", ".csv"):
        return [(0, line.rstrip("\r"), "") for line in text.split("\n") if line.strip()]
    held = io.StringIO(text, newline="")
    table = csv.DictReader(held, delimiter="\t", quoting=csv.QUOTE_NONE) if path.suffix == ".tsv" else csv.DictReader(held)
    try:
        return _rows(data, table)
    except csv.Error as error:
        raise DataError(f"Line {table.line_num + 1} of {data.path} cannot be read ({error}).") from error


def _rows(data: TextData, table: csv.DictReader[str]) -> list[tuple[int, str, str]]:
    names = table.fieldnames or []
    column = data.column or next((name for name in COLUMNS if name in names), "")
    if column not in names:
        raise DataError(f"{data.path} has no column {data.column or 'sentence'!r}; it has {', '.join(names) or 'none'}.")
    rows = []
    for row in table:
        label = str(row.get("label") or "0")
        if not label.lstrip("-").isdigit():
            raise DataError(f"Line {table.line_num} of {data.path} has the label {label!r}; expected a whole number.")
        rows.append((int(label), str(row[column] or ""), next((str(row[key]) for key in PATIENT if row.get(key)), "")))
    return rows


def _whole(key: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise OptionError(f"{key}={text}; expected a whole number >= {least}.")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise OptionError(f"mask={text}; expected a share above 0 and at most 1.")
    return value
