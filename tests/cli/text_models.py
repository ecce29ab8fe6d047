"""Small Hugging Face folders (config.json only) for the demo's vocabulary, and a plug-in with one attack on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from leakgauge.attacks.base import Attack, Limits
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described


def folder(place: Path, kind: str, **changes: Any) -> str:
    """'hf:FOLDER' of a BERT ('masked', 'classification') or a GPT-2 ('causal'), 32 wide."""
    import transformers

    from leakgauge.data.tokeniser import load_tokeniser

    size = load_tokeniser("demo").size
    if kind == "causal":
        small = {
            "vocab_size": size,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 48,
            "bos_token_id": 2,
            "eos_token_id": 3,
        }
        config = transformers.GPT2Config(**{**small, **changes})
        config.architectures = ["GPT2LMHeadModel"]
    else:
        small = {
            "vocab_size": size, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
            "max_position_embeddings": 48, "num_labels": 2,
        }  # fmt: skip
        config = transformers.BertConfig(**{**small, **changes})
        config.architectures = ["BertForMaskedLM" if kind == "masked" else "BertForSequenceClassification"]
    config.save_pretrained(place / kind)
    return f"hf:{place / kind}"


class Parrot(Attack):
    """Says the tokens it was told, whatever the update."""

    def __init__(self, tokens: str) -> None:
        self.tokens = tokens

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        if not isinstance(seen.spec, TextSpec):
            raise UnsupportedError("parrot needs a TextSpec; the observation has none.")
        told = [int(token) for token in str(self.tokens).split("-")][: seen.spec.length]
        row = torch.full((seen.spec.length,), seen.spec.padding or 0)
        row[: len(told)] = torch.tensor(told)
        return Reconstruction(
            inputs=row.expand(seen.num_examples, -1).clone(),
            labels=None,
            outcome=Outcome.UNDERDETERMINED,
            explains=False,
            certified=unverified(seen.num_examples),
            confidence=torch.zeros(seen.num_examples),
            stats=Stats(),
            seconds=0.0,
        )


@described(needs="texts", source="a test")
def parrot(tokens: str = "7-8") -> Parrot:
    """Says the tokens it was told."""
    return Parrot(tokens)


def install(site: Path, monkeypatch: Any) -> None:
    """Registers `parrot` as a package of its own would."""
    from leakgauge import registry

    info = site / "parrot-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[leakgauge.attacks]\nparrot = text_models:parrot\n")
    monkeypatch.syspath_prepend(site)
    registry._entries.cache_clear()
    monkeypatch.setattr(registry, "_entries", registry._entries.__wrapped__)
