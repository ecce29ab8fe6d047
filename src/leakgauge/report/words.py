"""Words for numbers and verdicts: the sentences that a page, a table and a JSON file share."""

from __future__ import annotations

import math
from decimal import Decimal

from leakgauge.audit.record import ABOVE_CONTROL_DB, PARTLY_DB, REBUILT_DB, Record, Score, verdict_of
from leakgauge.audit.verdict import words as of_verdicts

REBUILT, PARTLY, NOT_FOUND = "rebuilt", "partly", "not found"
UNKNOWN = "no original given"
CONTROL = "control"
SEVERITY = {REBUILT: 3, PARTLY: 2, UNKNOWN: 1, NOT_FOUND: 0, CONTROL: -1}

NOT_FOUND_SENTENCE = of_verdicts.NOT_FOUND_SENTENCE
RULE = (
    f"A picture counts as rebuilt when its reconstruction reaches {REBUILT_DB:.0f} dB or more, and as partly rebuilt from "
    f"{PARTLY_DB:.0f} dB if that is at least {ABOVE_CONTROL_DB:.0f} dB above the control, the best guess that a fixed rule makes "
    f"without the update. Otherwise it was not found: {NOT_FOUND_SENTENCE}. The limits are a convention; the pictures decide."
)
SCALE = (
    "PSNR compares two pictures pixel by pixel, in decibels (dB); higher means more alike. From about 40 dB people see hardly "
    "any difference, around 30 dB slight noise, around 20 dB the shapes and colours, and below 10 dB little or nothing is alike. "
    "SSIM compares structure; 1 means the same. MSE is the mean squared error of pixels between 0 and 1; 0 means the same."
)
NO_TRUTH = (
    "No original was given, so nobody can say here how close these reconstructions are. Only the attack's own verdict is known: "
    "whether the result explains the update, and whether it was certified as the only input nearby that does."
)
UNDETERMINABLE = (
    "The batch cannot be determined without a prior: what is shared holds fewer independent equations than the batch has "
    "unknowns. Whatever looks like an original here owes part of it to what the attacker knew or assumed beforehand."
)


def decibels(psnr: float) -> str:
    """'41.2 dB', 'exact' for identical pictures, 'no score' where there is none."""
    if math.isnan(psnr):
        return "no score"
    return "exact" if psnr == math.inf else f"{psnr:.1f} dB"


def number(value: float, digits: int = 3) -> str:
    """A number for people: three significant digits, or 'none' for NaN."""
    return "none" if math.isnan(value) else f"{value:.{digits}g}"


def similarity(value: float) -> str:
    """SSIM with two decimals."""
    return "none" if math.isnan(value) else f"{value:.2f}"


def in_words(psnr: float) -> str:
    """What a PSNR looks like to the eye, as the end of a sentence."""
    if math.isnan(psnr):
        return "it could not be compared"
    if psnr == math.inf:
        return "it equals the original, pixel for pixel"
    if psnr >= 40:
        return "by eye it can hardly be told from the original"
    if psnr >= REBUILT_DB:
        return "the original is clearly recognisable, with slight errors"
    if psnr >= PARTLY_DB:
        return "shapes and colours agree, details are noisy or lost"
    if psnr >= 10:
        return "at most coarse patches of light and dark agree"
    return "little or nothing agrees"


def share(value: float) -> str:
    """A share in per cent with one significant digit, as '0.0002 %'."""
    if not value >= 1e-9:
        return "less than 0.0000001 %"
    return f"{Decimal(f'{100 * value:.0e}'):f} %"


def certificate(record: Record) -> str:
    """What an attack's certificate says, as a clause; '' where nothing is certified."""
    if not record.certified:
        return ""
    those = "this picture" if record.certified == 1 else "these pictures"
    if record.conditions.text is not None:
        those = "this text" if record.certified == 1 else "these texts"
    elif len(record.conditions.shape) != 3 or min(record.conditions.shape[1:]) < 2:
        those = "this example" if record.certified == 1 else "these examples"
    if math.isnan(record.radius):
        return f"the update determines {those}, nothing else nearby explains it"
    return f"the update determines {those} up to an error radius of {share(record.radius)} of the range of values"


def count(quantity: int, noun: str, plural: str = "") -> str:
    """'1 picture', '3 pictures'."""
    return f"{quantity} {noun if quantity == 1 else plural or noun + 's'}"


def listed(words: list[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def sentence(text: str) -> str:
    """Upper-case first letter, full stop at the end."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")


def is_attack(record: Record) -> bool:
    """Whether a record counts as an attempt; controls do not, nor attacks that could not treat the network at all."""
    return record.attack != CONTROL and not is_unsupported(record)


def is_unsupported(record: Record) -> bool:
    """Whether the attack could not treat the network or the protocol."""
    return record.outcome == "UNSUPPORTED"


def control_score(record: Record, index: int) -> Score | None:
    """The control's score for one private example."""
    scores = record.control.scores if record.control else ()
    return next((score for score in scores if score.index == index), None)


def example_verdict(record: Record, score: Score) -> str:
    """'rebuilt', 'partly' or 'not found' for one private example."""
    return verdict_of(score, control_score(record, score.index))


def label_text(score: Score) -> str:
    """'right (3)', 'wrong (1 instead of 3)', 'not named', or '' where there is no class."""
    if score.label is None:
        return "" if score.label_guess is None else f"{score.label_guess}, not compared"
    if score.label_guess is None:
        return "not named"
    return (
        f"right ({score.label})" if score.label == score.label_guess else f"wrong ({score.label_guess} instead of {score.label})"
    )


def record_verdict(record: Record) -> str:
    """The worst verdict over a record's examples; 'no original given' or 'control' where there is none."""
    if not is_attack(record):
        return CONTROL
    if not record.scores:
        return UNKNOWN
    return max((example_verdict(record, score) for score in record.scores), key=lambda verdict: SEVERITY[verdict])


def seconds_in_words(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 20 s'."""
    if math.isnan(seconds):
        return "not measured"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s"
