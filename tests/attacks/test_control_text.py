"""The control for texts: frequencies of public texts, and nothing of the update."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from leakgauge.attacks.base import Limits
from leakgauge.attacks.control import ControlGuess
from leakgauge.attacks.control_text import control_tokens
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError, ShapeError
from leakgauge.randomness import rng

SPEC = TextSpec(5, 10, 0)
PUBLIC = torch.tensor([[2, 7, 4, 3, IGNORED], [2, 7, 3, IGNORED, IGNORED], [2, 8, 4, 4, 3], [2, 9, 4, 3, IGNORED]])


def test_the_most_frequent_token_of_each_place() -> None:
    name, tokens = control_tokens(SPEC, "position", PUBLIC)
    assert tokens.tolist() == [2, 7, 4, 3, 3]
    assert "each place of 4 public texts" in name
    assert control_tokens(TextSpec(7, 10, 0), "position", PUBLIC)[1].tolist() == [2, 7, 4, 3, 3, 2, 2], (
        "beyond them: the most frequent"
    )


def test_the_most_frequent_tokens() -> None:
    assert control_tokens(SPEC, "frequent", PUBLIC)[1].tolist() == [2, 3, 4, 7, 8]
    assert control_tokens(TextSpec(8, 10, 0), "frequent", PUBLIC)[1].tolist() == [2, 3, 4, 7, 8, 9, 2, 3]


def test_the_best_is_chosen_on_the_public_texts_alone() -> None:
    name, tokens = control_tokens(SPEC, "best", PUBLIC)
    assert torch.equal(tokens, control_tokens(SPEC, "position", PUBLIC)[1])
    assert "each place" in name
    shuffled = torch.tensor([[1, 2, 3, 4, 5], [5, 1, 2, 3, 4], [4, 5, 1, 2, 3], [3, 4, 5, 1, 2], [2, 3, 4, 5, 1]])
    assert "each place" not in control_tokens(SPEC, "best", shuffled)[0], "no place has a usual token, but all have the same bag"


def test_without_public_texts_there_is_one_token() -> None:
    name, tokens = control_tokens(SPEC)
    assert tokens.tolist() == [1] * 5
    assert "no public texts" in name
    assert control_tokens(TextSpec(2, 10, None))[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rule", "public", "error", "words"),
    [
        ("grey", PUBLIC, OptionError, "no control rule 'grey' for texts"),
        ("position", None, OptionError, "needs public texts"),
        ("best", PUBLIC.double(), ShapeError, "expected token ids"),
        ("best", PUBLIC + 5, ShapeError, "below 10"),
    ],
)
def test_wrong_use(rule: str, public: torch.Tensor | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        control_tokens(SPEC, rule, public)


def test_the_attack_gives_every_text_the_same_guess_whatever_the_update() -> None:
    network = nn.Embedding(10, 4)
    seen = Observation(network, {"weight": torch.ones(10, 4)}, "gradient", "cross_entropy", LocalTraining(), SPEC, 3)
    found = ControlGuess(public=PUBLIC)(seen, rng(0, "x"), Limits("fast"))
    other = ControlGuess(public=PUBLIC)(dataclasses.replace(seen, tensors={"weight": torch.zeros(10, 4)}), rng(1, "y"))
    assert found.inputs.tolist() == other.inputs.tolist() == [[2, 7, 4, 3, 3]] * 3
    assert not bool(found.certified.any())
    assert not found.explains
