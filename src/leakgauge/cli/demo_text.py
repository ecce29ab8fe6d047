"""The demo's network for texts: a small GPT-2 with random weights and the vocabulary of the bundled texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

NAME = "leakgauge.cli.demo_text:network"


def available() -> bool:
    """Whether the packages of the extra 'text' are installed."""
    from importlib.util import find_spec

    from leakgauge.cli.doctor import EXTRAS

    return all(find_spec(package) is not None for package in EXTRAS["text"])


def network() -> nn.Module:
    """A GPT-2 of 2 layers, 64 wide, with plain attention; `load_model` sees to the draw of its weights."""
    import transformers

    from leakgauge.data.tokeniser import DEMO, SPECIAL, load_tokeniser

    config = transformers.GPT2Config(
        vocab_size=load_tokeniser(DEMO).size,
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=48,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=SPECIAL.index("[CLS]"),
        eos_token_id=SPECIAL.index("[SEP]"),
    )
    config._attn_implementation = "eager"
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model
