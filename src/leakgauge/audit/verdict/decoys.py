"""`decoys_of`: for each private example of a batch, which look-alikes stand in its line-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.audit.case import attack_call
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.prior import OPTION, names_picture
from leakgauge.audit.text_case import folder_of
from leakgauge.audit.verdict.look_alikes import (
    LookAlikes,
    Private,
    pictures_of_kind,
    plain_tokens,
    private_pictures,
    private_texts,
    records_in,
    texts_of_kind,
)
from leakgauge.data.spec import parse_data_spec
from leakgauge.data.text import is_text, parse_text_data
from leakgauge.data.tokeniser import DEMO, load_tokeniser
from leakgauge.errors import OptionError
from leakgauge.measures.identification import FEWEST_DECOYS
from leakgauge.truth import Batch

AUTO, NONE = "auto", "none"
ALONE = "Not testable: there are no other"
LENGTHS = 2.0  # decoys of a text have between half and twice its tokens


@dataclass(frozen=True)
class Decoys:
    """Line-ups of a batch before anything is rebuilt.

    Args:
        private: the private examples, in the order of the batch.
        names: theirs.
        pools: look-alikes by class.
        rows: for each private example, its pool and the rows of it that are its decoys.
        special: printed special tokens, which count in no text.
        words: where the decoys come from, or why there are none.
    """

    private: tuple[Private, ...]
    names: tuple[str, ...]
    pools: tuple[LookAlikes, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]
    special: frozenset[str]
    words: str


def decoys_of(data: str, decoys: str, batch: Batch, *, model: str = "", seen: Sequence[str] = ()) -> Decoys:
    """The decoys of every private example of a batch.

    A decoy is of the same class as the private example, is no copy of it, is not in the batch, belongs to none of the batch's
    patients, and has been seen by priors and training where the private example has, and only there. Texts have between half
    and twice as many tokens, since an attacker knows the length.

    Args:
        data: what the batch was loaded from.
        decoys: 'auto' for the rest of the same source, 'none', or data.
        batch: the loaded batch.
        model: network by name; texts without a tokeniser of their own take the one in its folder.
        seen: data that a prior or the training has seen.

    Raises:
        OptionError: where decoys are pictures and the data texts, or the reverse.
        DataError: if a file cannot be read.
    """
    texts, given = is_text(data), decoys.strip()
    if given not in (AUTO, NONE) and is_text(given) != texts:
        raise OptionError(f"The decoys {given!r} are {'pictures' if texts else 'texts'}, and the data {data!r} are not.")
    private = (private_texts if texts else private_pictures)(data)
    names = batch.names or tuple(f"example {place + 1}" for place in range(len(private)))
    reader = load_tokeniser(parse_text_data(data).tokeniser or folder_of(model) or DEMO) if texts else None
    pools: dict[tuple[str, str], LookAlikes] = {}
    rows: list[tuple[int, tuple[int, ...]]] = []
    for example in private:
        source = {AUTO: example.source, NONE: ""}.get(given, given)
        if not source:
            rows.append((0, ()))
            continue
        key = (source, example.kind)
        if key not in pools:
            pools[key] = (
                texts_of_kind(source, example.kind, reader.name)
                if reader
                else pictures_of_kind(source, example.kind, _shape(batch), _sized(data))
            )
        chosen = _chosen(example, private, pools[key], seen)
        if reader:
            length = len(plain_tokens(example.text, reader))
            lengths = {row: len(pools[key].tokens[row]) for row in chosen}
            chosen = tuple(row for row in chosen if length / LENGTHS <= lengths[row] <= length * LENGTHS)
        rows.append((list(pools).index(key), chosen))
    special = frozenset(piece.strip() for piece in reader.pieces(sorted(reader.special))) if reader else frozenset()
    return Decoys(
        private, names, tuple(pools.values()), tuple(rows), special, _words(private, [len(row) for _, row in rows], given, texts)
    )


def seen_in(cell: Cell, training: str = "") -> tuple[str, ...]:
    """Data that a cell's prior, its attack's own prior picture and its training have seen.

    Args:
        cell: whose.
        training: what its state was trained on.
    """
    _, options = attack_call(cell.attack)
    own = str(options[OPTION]) if names_picture(options) else ""
    return tuple(dict.fromkeys(filter(None, (cell.prior, own, training))))


def _chosen(example: Private, batch: Sequence[Private], pool: LookAlikes, seen: Sequence[str]) -> tuple[int, ...]:
    inside = {other.record for other in batch}
    patients = {other.patient for other in batch} - {""}
    places = [records_in(data) for data in seen]

    def known(record: str) -> list[bool]:
        return [record in place for place in places]

    return tuple(
        row
        for row, (record, patient) in enumerate(zip(pool.records, pool.patients, strict=True))
        if record not in inside and patient not in patients and known(record) == known(example.record)
    )


def _shape(batch: Batch) -> tuple[int, int, int]:
    if batch.pictures is None:
        raise OptionError("The batch holds no pictures of a known shape; decoys cannot be brought to it.")
    return batch.pictures.shape


def _sized(data: str) -> bool:
    spec = parse_data_spec(data)
    return spec.size is not None or spec.source == "demo"


def _words(private: Sequence[Private], counts: Sequence[int], given: str, texts: bool) -> str:
    """Where decoys come from, without naming a file."""
    if given == NONE:
        return "No decoys were asked for."
    thing, few, many = "texts" if texts else "pictures", min(counts), max(counts)
    where = "of the same class and source" if given == AUTO else "of the same class, from the source that the plan names"
    if many == 0:
        return f"{ALONE} {thing} {where}."
    number = str(few) if few == many else f"{few} to {many}"
    patients = ", and one of each other patient" if any(example.patient for example in private) else ""
    length = ", of half to twice the length" if texts else ""
    found = f"{number} other {thing} {where}{length}; none that is in the batch or a copy{patients}."
    short = sum(count < FEWEST_DECOYS for count in counts)
    if short:
        found += f" Not testable for {short} of {len(counts)}: fewer than {FEWEST_DECOYS}."
    return found
