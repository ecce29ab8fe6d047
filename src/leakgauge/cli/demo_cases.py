"""What `leakgauge demo` plays: a table of cases, each with the share of the work that it is known to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from leakgauge.audit.case import Case
from leakgauge.audit.record import Series
from leakgauge.cli import demo_text
from leakgauge.core.threat import ThreatModel
from leakgauge.registry import catalogue

NOISE = "Noise on the shared gradient"
NOISE_LEVELS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
NOISE_LEVELS_QUICK = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EIGHT = "demo:cat,retina,astronaut,coffee,rocket,faces?indices=0-7&size=32&channels=3"
NARROW = "lenet-dlg:width=4"  # on 3x16x16 its first layer leaves 228 of 768 values open, by counting
SHORT = "A rocket behind a first layer that lacks equations"
DIAGNOSTIC = ThreatModel.honest_but_curious(labels=True)


@dataclass(frozen=True)
class Planned:
    """A case, and about how many seconds of one core it takes, for the order and the progress line."""

    case: Case
    seconds: float


# Columns: title, model, data, attack, budget, about how many seconds.
Row = tuple[str, str, str, str, str | int, float]
FULL: tuple[Row, ...] = (
    ("A photograph of a cat from one gradient", "lenet-dlg", "demo:cat?size=32", "idlg", "fast", 10),
    ("A face from one gradient", "lenet-dlg", "demo:face?size=32&channels=3", "idlg", "fast", 10),
    ("A retina from one gradient, label and pixels together", "lenet-dlg", "demo:retina?size=32", "dlg", "fast", 14),
    ("A portrait by division: the first layer is linear", "mlp", "demo:astronaut?size=64", "linear-layer", "fast", 1),
    ("A cat behind six convolutions, solved layer by layer", "cnn6:bias=last", "demo:cat?size=32", "recursive", "fast", 2),
    ("A portrait, though one layer lacks equations", "cnn6-d:bias=last", "demo:astronaut?size=32", "recursive", "fast", 8),
    (SHORT, NARROW, "demo:rocket?size=16", "recursive", "fast", 1),
    (f"{SHORT}, the rest by a prior", NARROW, "demo:rocket?size=16", "hybrid", "fast", 1),
    ("The cat again, by a search that stops early", "lenet-dlg", "demo:cat?size=32", "inverting-gradients", 600, 3),
    ("Two pictures in one batch", "lenet-dlg", "demo:cat,retina?size=16", "idlg", "fast", 7),
    ("Three faces in one batch, labels read from the update", "lenet-dlg", "demo:faces?indices=0-2&size=16", "idlg", 4000, 4),
    ("Eight pictures in one batch: more unknowns than equations", "lenet-dlg", EIGHT, "dlg", 300, 8),
)
QUICK: tuple[Row, ...] = (
    ("A face from one gradient", "lenet-dlg", "demo:face?size=16&channels=3", "idlg", 1000, 4),
    ("A retina from one gradient, label and pixels together", "lenet-dlg", "demo:retina?size=16", "dlg", "fast", 5),
    ("A portrait by division: the first layer is linear", "mlp", "demo:astronaut?size=64", "linear-layer", "fast", 1),
    ("A cat behind six convolutions, solved layer by layer", "cnn6:bias=last", "demo:cat?size=32", "recursive", "fast", 2),
    (SHORT, NARROW, "demo:rocket?size=16", "recursive", "fast", 1),
    (f"{SHORT}, the rest by a prior", NARROW, "demo:rocket?size=16", "hybrid", "fast", 1),
    ("Eight pictures in one batch: more unknowns than equations", "lenet-dlg", EIGHT, "dlg", 60, 2),
)
# A sentence, where the extra 'text' is installed.
TEXT: Row = (
    "A note about a patient from one gradient",
    demo_text.NAME,
    "demo:texts?task=causal&indices=4",
    "span-check",
    "fast",
    3,
)
# The picture of the sweep over noise.
SWEPT: Row = ("A small photograph of a cat, no noise", "lenet-dlg", "demo:cat?size=20", "idlg", 4000, 5)
SWEPT_QUICK: Row = ("A small photograph of a cat, no noise", "lenet-dlg", "demo:cat?size=16", "idlg", 800, 3)


# Networks whose equations the page counts, with the input they see: the demo's main one first.
COUNTED = (("lenet-dlg", (3, 32, 32)), ("cnn6:bias=last", (3, 32, 32)), ("cnn6-d:bias=last", (3, 32, 32)), (NARROW, (3, 16, 16)))
COUNTED_QUICK = tuple(entry for entry in COUNTED if not entry[0].startswith("cnn6-d"))


def planned_cases(quick: bool, seed: int) -> tuple[Planned, ...]:
    """All cases in the order of the report, the same for the same arguments."""
    rows, levels = (QUICK, NOISE_LEVELS_QUICK) if quick else (FULL, NOISE_LEVELS)
    known = {entry.name for entry in catalogue("attacks")}
    texts = (TEXT,) if demo_text.available() else ()
    cases = [_planned(row, seed) for row in (*rows, *texts) if row[3] in known]
    if not quick:
        two = next(index for index, planned in enumerate(cases) if planned.case.title.startswith("Two"))
        cases.insert(two + 1, _with_labels(cases[two]))
    return (*cases, *_noisy(SWEPT_QUICK if quick else SWEPT, levels, seed))


def _planned(row: Row, seed: int) -> Planned:
    title, model, data, attack, budget, seconds = row
    case = Case(model, data, attack, title=title, budget=budget, seed=seed, attack_seed=seed, model_seed=seed)
    return Planned(case, seconds)


def _with_labels(planned: Planned) -> Planned:
    """The same case with the labels granted, which makes it a diagnostic figure."""
    case = replace(planned.case, threat=DIAGNOSTIC, title=f"{planned.case.title}, labels granted", attack="dlg:labels=known")
    return replace(planned, case=case)


def _noisy(row: Row, levels: tuple[float, ...], seed: int) -> Iterator[Planned]:
    """The same picture and attack, first without noise, then behind more and more: the strongest negative result of the demo."""
    plain = _planned(row, seed)
    yield replace(plain, case=replace(plain.case, series=Series(NOISE, 0.0, "no noise")))
    for std in levels:
        text = f"standard deviation {std:g}"
        case = replace(
            plain.case,
            title=f"The same small cat, noise of {text}",
            defences=(f"gaussian-noise:std={std:g}",),
            series=Series(NOISE, std, text),
        )
        yield replace(plain, case=case)
