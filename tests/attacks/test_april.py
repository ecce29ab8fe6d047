"""april: exact where only the attention reads the embeddings; refused, with the reason, where a residual or a norm passes by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from tests.attacks.text_exact_cases import V, batch, bert, gpt2, noised, seen_of

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.april import April
from leakgauge.core.reconstruction import Outcome
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng


class Plain(nn.Module):
    """Attention that alone reads the sum of token and position embeddings, a head on the mean."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, width), nn.Embedding(16, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.after, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        scores = self.query(states) @ self.key(states).transpose(1, 2) / states.shape[-1] ** 0.5
        scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf")).softmax(2)
        mixed = torch.tanh(self.norm(self.after(scores @ self.value(states))))
        kept = attention_mask[..., None].to(mixed.dtype)
        return self.head((mixed * kept).sum(1) / kept.sum(1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_text_in_closed_form(seed):
    torch.manual_seed(seed)
    texts = batch((7,), seed=seed)
    guess = April()(seen_of(Plain().eval(), texts), rng(0, "attack"), Limits())
    assert torch.equal(guess.inputs, texts.inputs)
    assert guess.labels.tolist() == texts.labels.tolist()
    assert guess.outcome is Outcome.DETERMINED
    assert guess.explains and bool(guess.certified.all())


def test_noise_is_called_inconsistent():
    torch.manual_seed(0)
    guess = April()(noised(seen_of(Plain().eval(), batch((7,))), 1e-2), rng(0, "attack"), Limits())
    assert guess.outcome is Outcome.INCONSISTENT
    assert not guess.explains


@pytest.mark.parametrize(
    ("make", "lengths", "frozen", "words"),
    [
        (bert, (7,), False, "a residual connection or a norm"),
        (gpt2, (7,), False, "a residual connection or a norm"),
        (Plain, (7, 6), False, "it reads one example, and the batch has 2"),
        (Plain, (7,), True, "learnable position embedding"),
    ],
)
def test_what_does_not_fit_is_refused(make, lengths, frozen, words):
    with pytest.raises(UnsupportedError, match=words):
        April()(seen_of(make().eval(), batch(lengths), frozen=frozen), rng(0, "attack"), Limits())
