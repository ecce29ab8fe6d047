"""Record: one attack on one observation, scored, with every condition that a reader needs to judge it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from leakgauge.audit.measured import Measured
from leakgauge.audit.text_record import TextConditions, Texts, TextScore, near_text, verdict_of_text
from leakgauge.core.reconstruction import LayerReport


@dataclass(frozen=True)
class Conditions:
    """Under what conditions a number holds. A number without them is not shown.

    Args:
        model: name of the network, with options.
        model_state: 'untrained', 'trained (62 % accuracy)', or 'as given'.
        shape: (C, H, W) of one input; (L,) for texts.
        input_range: value range of the inputs, such as '[0, 1]' or 'mean 0.5, std 0.25'.
        batch_size: examples in the client's batch.
        training: the local training in one phrase, such as 'one gradient' or '5 SGD steps, lr 0.1'.
        mode: 'eval' or 'train'.
        batch_norm: 'none in the network', 'statistics not seen' or 'statistics seen'.
        labels: 'known', 'recovered' or 'optimised jointly'.
        defence: 'none', or name and strength.
        dtype: arithmetic of the client.
        threat: who attacks.
        knowledge: what the attacker is granted beyond the model, its state, loss, protocol, spec and example count.
        realistic: False where the attacker has more than a real server would (a diagnostic figure).
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        seeds: what was seeded with what, such as {'client': 0, 'attack': 0}.
        versions: library versions.
        device: 'cpu' or 'cuda'.
        text: what numbers about texts depend on beside; None for pictures.
    """

    model: str
    model_state: str
    shape: tuple[int, ...]
    input_range: str
    batch_size: int
    training: str
    mode: str
    batch_norm: str
    labels: str
    defence: str
    dtype: str
    threat: str
    knowledge: tuple[str, ...]
    realistic: bool
    budget: str
    seeds: dict[str, int]
    versions: dict[str, str]
    device: str = "cpu"
    text: TextConditions | None = None


@dataclass(frozen=True)
class ExampleScore:
    """One private example and the reconstruction assigned to it; pixels in [0, 1] after clamping.

    Args:
        index: position in the batch.
        name: the truth's own name for it (a file name); never an attack's.
        mse, psnr, ssim: against the truth; psnr in dB, inf for identical pictures.
        mse_unclamped: before clamping.
        label: true label, or None.
        label_guess: the attack's label, or None.
        guess: position of the assigned reconstruction.
        certified: whether the attack certified it without the truth.
    """

    index: int
    name: str
    mse: float
    psnr: float
    ssim: float
    mse_unclamped: float
    label: int | None = None
    label_guess: int | None = None
    guess: int = 0
    certified: bool = False


Score = ExampleScore | TextScore


@dataclass(frozen=True)
class Control:
    """The best that a fixed rule gives without the update, assigned by the same rule.

    Args:
        rule: in words, such as 'mid-grey' or 'mean of 16 public pictures'.
        scores: one per example.
    """

    rule: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Series:
    """Membership in a sweep, shown with a slider.

    Args:
        name: what is swept, such as 'Noise on the shared gradient'.
        value: its strength, for the order.
        text: the strength in words, such as 'standard deviation 0.001'.
    """

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Pictures:
    """Pixels in [0, 1], (N, C, H, W) each; frames (T, N, C, H, W). None where there is none."""

    guess: Tensor
    truth: Tensor | None = None
    control: Tensor | None = None
    frames: Tensor | None = None


@dataclass(frozen=True)
class Record:
    """One attack on one observation.

    Args:
        key: unique within a run, made of letters, digits and '-'.
        title: in plain words, such as 'One photograph, gradient matching (DLG)'.
        attack: the attack's name; 'control' records are not attacks.
        outcome: name of the Outcome.
        outcome_text: its sentence.
        explains: the recomputed update agrees to rounding.
        certified: how many reconstructions are certified.
        evaluations, restarts: work done.
        objective, residual: at the result; NaN where there is none.
        curve: (evaluations, objective) pairs.
        frame_evaluations: evaluations at each frame of the filmstrip.
        cause: why the search ended, or ''.
        notes: conditions that the attack states.
        seconds: wall-clock time.
        conditions: everything else that matters.
        bound: the counting bound's verdict in one sentence, or ''.
        determinable: False where the counting bound says that the batch cannot be determined without a prior.
        scores: one per private example; empty where no truth was given.
        control: the control, where a truth was given.
        series: membership in a sweep, or None.
        reproduce: the command that makes this record again.
        pictures: the tensors behind the pictures.
        layers: what each layer's equations gave, output side first; empty for attacks that solve no layers.
        radius: error radius that the attack states, as a share of the range of pixel values; NaN where it states none.
        texts: the tokens of texts; None for pictures.
        measured: measures beyond the scores, those that were asked for by name.
    """

    key: str
    title: str
    attack: str
    outcome: str
    outcome_text: str
    explains: bool
    certified: int
    evaluations: int
    restarts: int
    objective: float
    residual: float
    curve: tuple[tuple[int, float], ...]
    frame_evaluations: tuple[int, ...]
    cause: str
    notes: tuple[str, ...]
    seconds: float
    conditions: Conditions
    bound: str = ""
    determinable: bool = True
    scores: tuple[Score, ...] = ()
    control: Control | None = None
    series: Series | None = None
    reproduce: str = ""
    pictures: Pictures | None = field(default=None, repr=False)
    layers: tuple[LayerReport, ...] = ()
    radius: float = math.nan
    texts: Texts | None = field(default=None, repr=False)
    measured: tuple[Measured, ...] = ()

    @property
    def worst(self) -> Score | None:
        """The example that leaked most: see `nearness`."""
        scored = [score for score in self.scores if not math.isnan(nearness(score))]
        return max(scored, key=nearness, default=None)

    @property
    def picture_scores(self) -> tuple[ExampleScore, ...]:
        """The scores, where inputs are pictures."""
        return tuple(score for score in self.scores if isinstance(score, ExampleScore))

    @property
    def text_scores(self) -> tuple[TextScore, ...]:
        """The scores, where inputs are texts."""
        return tuple(score for score in self.scores if isinstance(score, TextScore))


REBUILT_DB = 30.0  # mean squared error below 1e-3
PARTLY_DB = 20.0
ABOVE_CONTROL_DB = 3.0


def nearness(score: Score) -> float:
    """Grows with the PSNR of a picture, and with what is right of a text, up to 1 for what is the same; NaN without a score."""
    if isinstance(score, TextScore):
        return near_text(score)
    return 1.0 if score.psnr == math.inf else score.psnr / (abs(score.psnr) + REBUILT_DB)


def verdict_of(score: Score, control: Score | None) -> str:
    """'rebuilt' (PSNR of 30 dB or more), 'partly' (20 dB or more, and 3 dB above the control), else 'not found'; for texts see
    `verdict_of_text`.

    The rule is a convention and is stated on every page.
    """
    if isinstance(score, TextScore):
        return verdict_of_text(score, control if isinstance(control, TextScore) else None)
    if score.psnr >= REBUILT_DB:
        return "rebuilt"
    above = not isinstance(control, ExampleScore) or score.psnr >= control.psnr + ABOVE_CONTROL_DB
    return "partly" if score.psnr >= PARTLY_DB and above else "not found"


def finite(value: float) -> Any:
    """A JSON-ready number: 'inf', '-inf' or None for what JSON cannot hold."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
