"""Texts attack by attack: medians with intervals, and the table in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakgauge.audit.record import Record
from leakgauge.audit.text_record import TextScore
from leakgauge.report.by_attack import bootstrap_median, median
from leakgauge.report.text_words import is_text, percent, rouge, text_level
from leakgauge.report.words import control_score, is_unsupported, record_verdict

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = (
    "Attack", "Defence", "Records", "Texts", "Exact", "Median tokens", "95 % interval", "Median ROUGE-L", "Control tokens",
    "Labels right", "Evaluations, median",
)  # fmt: skip


@dataclass(frozen=True)
class TextAttackRow:
    """What one attack achieved on texts, with or without a defence.

    Args:
        attack: its name.
        defended: whether the records were made with a defence.
        records, texts, exact: how many records, private texts with a score, and of them sequences that are the same.
        token_accuracy: median; NaN without scores.
        interval: 95 % bootstrap interval of the median; None for fewer than 3 scores.
        rougeL: median.
        control: median token accuracy of the control for the same texts.
        labels_right, labels: classes that were right, and that could be compared.
        evaluations: median number of gradient evaluations per record.
    """

    attack: str
    defended: bool
    records: int
    texts: int
    exact: int
    token_accuracy: float
    interval: tuple[float, float] | None
    rougeL: float
    control: float
    labels_right: int
    labels: int
    evaluations: int

    @property
    def cells(self) -> tuple[str, ...]:
        """All but the name, as `HEADINGS` has them."""
        interval = f"{percent(self.interval[0])} to {percent(self.interval[1])}" if self.interval else "too few scores"
        return (
            "with a defence" if self.defended else "none",
            str(self.records),
            str(self.texts),
            str(self.exact),
            percent(self.token_accuracy),
            interval,
            rouge(self.rougeL),
            percent(self.control),
            f"{self.labels_right} of {self.labels}" if self.labels else "not compared",
            str(self.evaluations),
        )


def text_attack_rows(records: Sequence[Record]) -> tuple[TextAttackRow, ...]:
    """One row per attack on texts and per with or without a defence, in order of appearance."""
    groups: dict[tuple[str, bool], list[Record]] = {}
    for record in (record for record in records if is_text(record) and not is_unsupported(record)):
        groups.setdefault((record.attack, record.conditions.defence != "none"), []).append(record)
    return tuple(_row(attack, defended, members) for (attack, defended), members in groups.items())


def _row(attack: str, defended: bool, records: list[Record]) -> TextAttackRow:
    scores = [score for record in records for score in record.text_scores if not math.isnan(score.token_accuracy)]
    controls = [control_score(record, score.index) for record in records for score in record.text_scores]
    labelled = [score for score in scores if score.label is not None and score.label_guess is not None]
    return TextAttackRow(
        attack=attack,
        defended=defended,
        records=len(records),
        texts=len(scores),
        exact=sum(score.exact for score in scores),
        token_accuracy=median([score.token_accuracy for score in scores]),
        interval=bootstrap_median([score.token_accuracy for score in scores]),
        rougeL=median([score.rougeL for score in scores]),
        control=median([one.token_accuracy for one in controls if isinstance(one, TextScore) and one.token_accuracy >= 0]),
        labels_right=sum(score.label == score.label_guess for score in labelled),
        labels=len(labelled),
        evaluations=round(median([float(record.evaluations) for record in records])),
    )


def texts_table(records: Sequence[Record]) -> Table:
    """One line per record of texts: attack, verdict, outcome, scores, control and labels."""
    from rich.text import Text

    from leakgauge.report.terminal import STYLES, framed, labels_right

    table = framed("Records of texts", "tokens in place: the text that leaked most, and the median; bag: recall of all tokens")
    table.add_column("record", overflow="fold", min_width=20)
    table.add_column("verdict", overflow="fold", min_width=9, max_width=15)
    for heading in ("exact", "worst", "median", "ROUGE-L", "bag", "control", "labels\nright"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        verdict, worst, scores = record_verdict(record), record.worst, record.text_scores
        control = [score.in_place for score in record.control.scores if isinstance(score, TextScore)] if record.control else []
        defence = "" if record.conditions.defence == "none" else f", {record.conditions.defence}"
        table.add_row(
            Text(record.title).append(f"\n{record.attack}{defence}", style="dim"),
            Text(verdict, style=STYLES.get(verdict, "")).append(f"\n{record.outcome.lower().replace('_', ' ')}", style="dim"),
            f"{sum(score.exact for score in scores)}/{len(scores)}" if scores else "-",
            text_level(worst).removesuffix(" of the tokens") if isinstance(worst, TextScore) else "-",
            percent(median([score.in_place for score in scores if score.in_place >= 0])) if scores else "-",
            rouge(max((score.rougeL for score in scores if score.rougeL >= 0), default=math.nan)) if scores else "-",
            percent(record.texts.bag_recall) if record.texts and scores else "-",
            percent(median(control)) if control else "-",
            labels_right(record),
        )
    return table
