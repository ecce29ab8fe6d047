"""For authors of plug-ins: leak cases whose answer is known, and `check_attack`: does an attack keep the rules?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.verify import agrees, recomputed
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction
from leakgauge.core.spec import ImageSpec
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.data import public_pictures
from leakgauge.errors import KnowledgeError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.measures import score_tensor
from leakgauge.models import load_model
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SHORT = 12  # gradient evaluations of the check of budgets
STEP = 4  # the last step of a search may cost so many evaluations more


@dataclass(frozen=True)
class LeakCase:
    """A client whose private batch is known here.

    Args:
        name: in words.
        model: the network.
        batch: the private examples.
        training: the client's protocol.
        labels: whether they are granted.
    """

    name: str
    model: nn.Module
    batch: Batch
    training: LocalTraining = LocalTraining()  # noqa: RUF009 - frozen
    labels: bool = False

    def observe(self) -> Observation:
        """What an honest-but-curious server holds."""
        update = Client(self.model, training=self.training).train(self.batch, seed=0)
        return ThreatModel.honest_but_curious(labels=self.labels).observe(update, self.model, self.batch.spec)


@dataclass(frozen=True)
class Check:
    """One rule, and whether it was kept.

    Args:
        case: name of the leak case.
        rule: what was asked.
        passed: None where the attack does not apply to the case, and says so.
        detail: what was seen.
    """

    case: str
    rule: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True)
class AttackCheck:
    """What `check_attack` found.

    Args:
        checks: every rule on every case.
        psnr: case by case, the PSNR in dB of each private example; empty where the attack does not apply.
    """

    checks: tuple[Check, ...]
    psnr: dict[str, tuple[float, ...]]

    @property
    def passed(self) -> bool:
        """Whether some case could be attacked, and no rule was broken."""
        return bool(self.psnr) and all(check.passed is not False for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """Broken rules as sentences; one says so where no case could be attacked."""
        broken = tuple(f"{check.case}: {check.rule}: {check.detail}" for check in self.checks if check.passed is False)
        return broken if broken or self.psnr else ("The attack applies to none of the cases.",)


def leak_cases() -> tuple[LeakCase, ...]:
    """Small clients on public pictures, 3x16x16: three kinds of networks, one picture and four, a gradient and local steps."""
    spec = ImageSpec((3, 16, 16))
    pixels = public_pictures((3, 16, 16), 4, seed=7)

    def batch(count: int) -> Batch:
        return Batch(spec.normalise(pixels[:count]), torch.tensor([3, 1, 4, 5][:count]), spec)

    flat = nn.Sequential(nn.Flatten(), _linear(768, 10))
    lenet = load_model("lenet-dlg", num_classes=10, input_shape=(3, 16, 16), seed=1)
    mlp = load_model("mlp", num_classes=10, input_shape=(3, 16, 16), seed=1)
    steps = LocalTraining(steps=2, lr=0.05)
    return (
        LeakCase("one linear layer, one picture", flat, batch(1)),
        LeakCase("fully connected, one picture", mlp, batch(1)),
        LeakCase("LeNet, one picture, label granted", lenet, batch(1), labels=True),
        LeakCase("LeNet, four pictures", lenet, batch(4), labels=True),
        LeakCase("LeNet, two local steps", lenet, batch(1), steps),
    )


def check_attack(attack: Attack, cases: tuple[LeakCase, ...] | None = None, *, budget: str | int = 200) -> AttackCheck:
    """Plays an attack on leak cases and checks what leakgauge expects of every attack.

    The rules: the same generator gives the same result, bit for bit; the observation and torch's global generator stay as they
    are; at most N records of the right shape, all of them finite unless the outcome says otherwise; certificates and
    confidences fit them; what was spent stays within the budget; cancelling ends the search; `explains` is said only where
    the recomputed update agrees; what does not apply raises UnsupportedError or KnowledgeError. How well it attacks is
    reported (`psnr`) and never a rule.

    Args:
        attack: an attack object, as its factory returns it.
        cases: where; `leak_cases()` by default.
        budget: of each run.

    Returns:
        Every rule with what was seen; `passed` sums it up, and `failures` says what is wrong.
    """
    checks: list[Check] = []
    psnr: dict[str, tuple[float, ...]] = {}
    for case in leak_cases() if cases is None else cases:
        seen = case.observe()
        try:
            guess = _play(attack, seen, budget)
        except (UnsupportedError, KnowledgeError) as reason:
            checks.append(Check(case.name, "it applies", None, str(reason)))
            continue
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises is what the author wants to read
            text = f"{type(error).__name__}: {error}"
            checks.append(
                Check(case.name, "an attack that does not apply raises UnsupportedError or KnowledgeError", False, text)
            )
            continue
        checks += (Check(case.name, rule, passed, detail) for rule, passed, detail in _rules(attack, case, seen, guess, budget))
        if guess.inputs.shape[1:] == case.batch.inputs.shape[1:]:  # type: ignore[union-attr]
            psnr[case.name] = tuple(score_tensor(case.batch, guess.inputs, guess.labels).psnr.tolist())
    return AttackCheck(tuple(checks), psnr)


def _play(attack: Attack, seen: Observation, budget: str | int, cancelled: Callable[[], bool] = lambda: False) -> Reconstruction:
    return attack(seen, rng(0, "check"), Limits(budget, cancelled=cancelled))


def _rules(
    attack: Attack, case: LeakCase, seen: Observation, guess: Reconstruction, budget: str | int
) -> Iterator[tuple[str, bool, str]]:
    count, shape = len(guess), tuple(guess.inputs.shape[1:])
    expected = tuple(seen.pictures.shape) if seen.pictures else shape
    yield "shape", shape == expected and count <= seen.num_examples, f"{count} records of {shape}; expected {expected}"
    finite = bool(torch.isfinite(guess.inputs).all()) or guess.outcome is Outcome.NONFINITE
    yield "finite values, or the outcome NONFINITE", finite, guess.outcome.name
    fits = guess.certified.shape == (count,) and guess.confidence.shape == (count,)
    yield "one certificate and one confidence per record", fits, f"{tuple(guess.certified.shape)}"
    yield "confidence in [0, 1]", bool(((guess.confidence >= 0) & (guess.confidence <= 1)).all()), f"{guess.confidence.tolist()}"
    labels = guess.labels is None or len(guess.labels) == count
    yield "one label per record, or none", labels, "" if labels else f"{len(guess.labels or ())} labels"
    yield "what is certified is explained", guess.explains or not bool(guess.certified.any()), ""
    if guess.explains:
        yield "explains: the recomputed update agrees", *_explained(seen, guess)
    yield from _manners(attack, case, seen, guess, budget)


def _manners(
    attack: Attack, case: LeakCase, seen: Observation, guess: Reconstruction, budget: str | int
) -> Iterator[tuple[str, bool, str]]:
    fresh = case.observe()
    same = _equal(seen.tensors, fresh.tensors) and _equal(seen.model.state_dict(), fresh.model.state_dict())
    yield "the observation stays as it is", same, ""
    before = torch.random.get_rng_state()
    torch.manual_seed(99)  # an attack that draws from the global generator gives something else now
    again = _play(attack, fresh, budget)
    moved = not torch.equal(torch.random.get_rng_state(), _state_after(99))
    torch.random.set_rng_state(before)
    repeated = torch.equal(guess.inputs, again.inputs) and guess.outcome is again.outcome
    yield "the same generator gives the same result", repeated, "two runs differ"
    yield "torch's global generator is not used", not moved, "its state has changed"
    short = _play(attack, fresh, SHORT)
    spent, fixed = short.stats.evaluations, guess.stats.evaluations  # a closed form's work does not depend on the budget
    yield "the budget is kept", spent <= SHORT + STEP or spent == fixed, f"{spent} evaluations with a budget of {SHORT}"
    stopped = _play(attack, fresh, "max", cancelled=lambda: True)
    ended = stopped.outcome is Outcome.TIMEOUT or stopped.stats.evaluations <= max(SHORT, fixed)
    yield "a cancelled search ends", ended, f"{stopped.stats.evaluations} evaluations, {stopped.outcome.name}"


def _explained(seen: Observation, guess: Reconstruction) -> tuple[bool, str]:
    if guess.labels is None:
        return False, "it names no labels, so nothing can be recomputed"
    dtype = torch.float64 if guess.inputs.dtype == torch.float64 else torch.float32
    target = target_of(seen, "observed", dtype, "cpu")
    residual = recomputed(seen, target, guess.inputs.to(dtype), guess.labels)
    return not math.isnan(residual) and agrees(residual, seen, str(dtype).removeprefix("torch.")), f"residual {residual:.1e}"


def _state_after(seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.random.get_rng_state()


def _equal(left: object, right: object) -> bool:
    assert hasattr(left, "items") and hasattr(right, "items")
    first, second = dict(left.items()), dict(right.items())
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer: nn.Linear = torch.nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]  # draws nothing from the global generator
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=rng(1, "weight")) / inputs**0.5)
        layer.bias.zero_()
    return layer
