"""What a record holds about texts: scores, conditions, the tokens themselves, and the rule behind the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

HALF = 0.5
ABOVE_CONTROL = 0.2
Tokens = tuple[str, ...]


@dataclass(frozen=True)
class TextConditions:
    """What a number about texts depends on beside the conditions of every record.

    Args:
        task: 'masked', 'classification' or 'causal'.
        length: tokens of a padded text.
        vocabulary: number of token ids.
        tokeniser: its name, or 'none' where tokens are shown as numbers.
        masked_places: whether the attacker was told which tokens are masked: 'none in this task', 'not granted' or 'granted'.
        attention_mask: whether it was told how long each text is: 'not granted'.
        embeddings: 'trained', 'frozen', 'not shared', with 'tied to the output' where they are; 'not known' where none is found.
        dropout: 'off', or 'on, p 0.1'.
    """

    task: str
    length: int
    vocabulary: int
    tokeniser: str
    masked_places: str
    attention_mask: str
    embeddings: str
    dropout: str


@dataclass(frozen=True)
class TextScore:
    """One private text and the reconstruction assigned to it; NaN where there is none.

    Args:
        index: position in the batch.
        name: the truth's own name for it; never an attack's.
        length: tokens of the private text.
        token_accuracy: share of them that stand at their place.
        exact: whether the whole sequence is the same.
        rouge1, rouge2, rougeL: F-measures of common tokens, pairs, and the longest common subsequence.
        unmasked_accuracy: token accuracy where nothing is predicted; NaN for other tasks than 'masked'.
        masked_accuracy: share of the words under the mask that were named; NaN for other tasks, or where none were named.
        label: true class, or None.
        label_guess: the attack's class, or None.
        guess: position of the assigned reconstruction.
        certified: whether the attack certified it without the truth.
    """

    index: int
    name: str
    length: int
    token_accuracy: float
    exact: bool
    rouge1: float
    rouge2: float
    rougeL: float
    unmasked_accuracy: float = math.nan
    masked_accuracy: float = math.nan
    label: int | None = None
    label_guess: int | None = None
    guess: int = 0
    certified: bool = False

    @property
    def in_place(self) -> float:
        """Token accuracy, in a masked text without the places under the mask, which carry no word of it."""
        return self.token_accuracy if math.isnan(self.unmasked_accuracy) else self.unmasked_accuracy

    @property
    def whole(self) -> bool:
        """Whether everything is the same: the sequence, and in a masked text the words under the mask."""
        return self.exact and (math.isnan(self.unmasked_accuracy) or self.masked_accuracy == 1)


@dataclass(frozen=True)
class Texts:
    """The tokens behind the page, as printable strings that make up the text when strung together.

    In a masked text a word under the mask stands in double square brackets. None in place of a text that was left out.

    Args:
        guess: one per reconstruction.
        truth: one per private text; empty where no truth was given.
        control: one per private text; empty likewise.
        bag_precision, bag_recall: of all tokens of the batch together; NaN without a truth.
    """

    guess: tuple[Tokens | None, ...]
    truth: tuple[Tokens | None, ...] = ()
    control: tuple[Tokens | None, ...] = ()
    bag_precision: float = math.nan
    bag_recall: float = math.nan


def verdict_of_text(score: TextScore, control: TextScore | None) -> str:
    """'rebuilt' (the whole sequence), 'partly' (half of the tokens in place, or ROUGE-L of one half, and in that measure 0.2
    above the control), else 'not found'.

    The rule is a convention and is stated on every page.
    """
    if score.whole:
        return "rebuilt"
    pairs = [(score.in_place, control.in_place if control else 0.0), (score.rougeL, control.rougeL if control else 0.0)]
    above = any(value >= HALF and not value < other + ABOVE_CONTROL for value, other in pairs)
    return "partly" if above else "not found"


def near_text(score: TextScore) -> float:
    """How near a reconstruction comes, in [0, 1], for the order on a page; NaN where there is none."""
    return (score.in_place + score.rougeL) / 2 if not score.whole else 1.0


def half_right(score: TextScore) -> bool:
    """Whether half of the private text, or more, can be read in the reconstruction: such a one is redacted.

    True where there is no score, since nothing is known of it then.
    """
    return not max(score.token_accuracy, score.in_place, score.rouge1, score.rougeL) < HALF
