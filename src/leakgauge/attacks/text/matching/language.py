"""A language model as a prior: how likely token sequences are to a causal model of the same vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from leakgauge.core.text_spec import IGNORED
from leakgauge.errors import UnsupportedError
from leakgauge.models import load_model


@dataclass(frozen=True)
class LanguagePrior:
    """Mean negative log-likelihood of a batch of token sequences, in nats per token.

    Args:
        model: a causal language model that takes 'input_ids' and 'attention_mask'.
    """

    model: nn.Module = field(repr=False)

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor) -> float:
        """The score of token ids (N, L); places outside the mask do not count."""
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        output = self.model(input_ids=ids, attention_mask=mask)
        logits: Tensor = output.logits if hasattr(output, "logits") else output
        target = torch.where(mask == 1, ids, IGNORED)[:, 1:]
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), target.flatten())
        return float(loss) if bool((target != IGNORED).any()) else 0.0


def language_prior(name: str, vocabulary: int) -> LanguagePrior | None:
    """The prior for an option's text: '' or 'none' for none, else a network's name such as 'hf:FOLDER'.

    Raises:
        UnsupportedError: if the model is no causal language model of that vocabulary.
    """
    if name in ("", "none"):
        return None
    model = load_model(name)
    ids = torch.zeros(1, 2, dtype=torch.int64)
    try:
        with torch.no_grad():
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        logits = output.logits if hasattr(output, "logits") else output
        scores = int(logits.shape[-1]) if logits.ndim == 3 else 0
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedError(f"The prior {name!r} is no language model: called with token ids it fails ({error}).") from error
    if scores != vocabulary:
        raise UnsupportedError(
            f"The prior {name!r} scores {scores} token ids per place and the attacked network has {vocabulary}: a prior "
            "needs the same tokeniser."
        )
    return LanguagePrior(model)
