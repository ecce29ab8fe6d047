"""Cards, and the steps of a slider: one record, or one strength, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leakgauge.audit.record import REBUILT_DB, Record
from leakgauge.report.gallery import Example, Picture, pictures_of
from leakgauge.report.layers import LayerRow
from leakgauge.report.proof import merely_explains
from leakgauge.report.texts import RECONSTRUCTION as TEXT_GUESS
from leakgauge.report.texts import TextExample, TextRow
from leakgauge.report.words import NOT_FOUND


@dataclass(frozen=True)
class Card:
    """One record on the page."""

    number: int
    record: Record
    verdict: str
    kind: str
    near: float
    examples: tuple[Example, ...]
    curve: str
    curve_text: str
    conditions: tuple[tuple[str, str], ...]
    seconds: str
    layers: tuple[LayerRow, ...] = ()
    layers_text: str = ""
    texts: tuple[TextExample, ...] = ()
    texts_text: str = ""

    def size(self) -> int:
        """Estimated bytes on the page."""
        pictures = sum(len(picture.uri) + 400 for picture in pictures_of(self.examples))
        texts = sum(example.size() for example in self.texts)
        return pictures + texts + len(self.curve) + 7000 + 900 * len(self.examples) + 1000 * len(self.layers)

    @property
    def merely_explains(self) -> bool:
        """Whether the result explains the update and is not the original."""
        return merely_explains(self.record)

    @property
    def further(self) -> int:
        """How many examples have no line on the page, to keep it small."""
        return max(0, len(self.record.scores) - len(self.examples) - len(self.texts))

    @property
    def sort_psnr(self) -> float:
        """The best PSNR as a finite number, for sorting; of texts what stands for it among pictures, see `nearness`."""
        if self.near == -math.inf:
            return -1e9
        return min(REBUILT_DB * self.near / max(1 - abs(self.near), 1e-12), 1e9)

    @property
    def missed(self) -> bool:
        """Whether some example was not found."""
        verdicts = [*(example.verdict for example in self.examples), *(example.verdict for example in self.texts)]
        return NOT_FOUND in verdicts

    @property
    def sort_seconds(self) -> float:
        """The time as a finite number, for sorting."""
        return self.record.seconds if math.isfinite(self.record.seconds) else 0.0


@dataclass(frozen=True)
class Step:
    """One strength of a sweep."""

    text: str
    card: Card
    example: Example | None
    picture: Picture | None
    truth: Picture | None
    written: TextExample | None = None

    @property
    def level(self) -> str:
        """Its figure in short; '' without a score."""
        return self.written.level if self.written else self.example.psnr if self.example else ""

    @property
    def lines(self) -> tuple[TextRow, ...]:
        """The reconstruction, where the series is about texts."""
        return tuple(row for row in self.written.rows if row.what == TEXT_GUESS) if self.written else ()


@dataclass(frozen=True)
class Sweep:
    """Records of one series, by strength; `truth` is the original where all share it."""

    name: str
    attack: str
    steps: tuple[Step, ...]
    truth: Picture | None
