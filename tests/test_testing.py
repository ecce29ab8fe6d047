"""`check_attack` passes what keeps the rules, and names what does not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from leakgauge.attacks.base import Attack, Limits
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.registry import make
from leakgauge.testing import check_attack, leak_cases


@dataclass(frozen=True)
class Faulty(Attack):
    """Breaks one rule, by name."""

    fault: str = ""

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        assert seen.pictures is not None
        shape: tuple[int, ...] = (seen.num_examples, *seen.pictures.shape)
        pixels = torch.rand(shape, generator=generator)
        changed: dict[str, Any] = {}
        match self.fault:
            case "shape":
                pixels = pixels[..., 1:]
            case "too many":
                pixels = torch.cat([pixels, pixels])
            case "not finite":
                pixels = pixels / 0
            case "global draws":
                pixels = torch.rand(shape)
            case "explains":
                changed = {"explains": True, "labels": torch.zeros(len(pixels), dtype=torch.int64)}
            case "certified":
                changed = {"certified": torch.ones(len(pixels), dtype=torch.bool)}
            case "confidence":
                changed = {"confidence": torch.full((len(pixels),), 2.0)}
            case "budget":
                limit = (limits or Limits()).evaluations(100, 200, 300)
                changed = {"stats": Stats(evaluations=3 * limit)}
            case "observation":
                next(iter(seen.tensors.values())).zero_()
            case "error":
                raise RuntimeError("not made for this")
        guess = Reconstruction(
            inputs=pixels,
            labels=None,
            outcome=Outcome.UNDERDETERMINED,
            explains=False,
            certified=unverified(len(pixels)),
            confidence=torch.zeros(len(pixels)),
            stats=Stats(),
            seconds=0.0,
        )
        return dataclasses.replace(guess, **changed)


@pytest.mark.parametrize("name", ["control", "linear-layer", "recursive", "idlg"])
def test_built_in_attacks_keep_the_rules(name: str) -> None:
    found = check_attack(make("attacks", name), budget=40)
    assert found.failures == ()
    assert found.passed


def test_an_attack_that_keeps_the_rules_passes_whatever_it_finds() -> None:
    found = check_attack(Faulty(), leak_cases()[:1])
    assert found.passed
    assert len(found.checks) >= 9
    assert found.psnr.keys() == {leak_cases()[0].name}


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "shape"),
        ("too many", "shape"),
        ("not finite", "finite values"),
        ("global draws", "torch's global generator is not used"),
        ("explains", "the recomputed update agrees"),
        ("certified", "what is certified is explained"),
        ("confidence", "confidence in [0, 1]"),
        ("budget", "the budget is kept"),
        ("observation", "the observation stays as it is"),
        ("error", "RuntimeError: not made for this"),
    ],
)
def test_a_broken_rule_is_named(fault: str, rule: str) -> None:
    found = check_attack(Faulty(fault), leak_cases()[2:3], budget=40)
    assert not found.passed
    assert any(rule in failure for failure in found.failures), found.failures


def test_an_attack_that_applies_nowhere_does_not_pass() -> None:
    found = check_attack(make("attacks", "linear-layer"), leak_cases()[2:3])
    assert not found.passed
    assert found.failures == ("The attack applies to none of the cases.",)
    assert found.checks[0].passed is None
    assert found.checks[0].detail
