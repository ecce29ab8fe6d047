"""Small transformers of which only adapters, or only some layers, are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakgauge.core import ThreatModel
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.federated.client import Client
from leakgauge.randomness import rng
from leakgauge.truth import Batch


class LowRank(nn.Module):
    """LoRA by hand: base(x) + B A x, the base frozen; B starts at zero.

    Source: Hu et al. 2021, section 4.1.
    """

    def __init__(self, base: nn.Module, width: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.up(self.down(x))
        return y


class Bottleneck(nn.Module):
    """An adapter by hand: h + up(relu(down(h))) behind a sublayer.

    Source: Houlsby et al. 2019, section 2.1.
    """

    def __init__(self, base: nn.Module, width: int, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.normal_(self.up.weight, std=1e-3)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.base(x)
        y: Tensor = h + self.up(torch.relu(self.down(h)))
        return y


def frozen(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def by_hand(model: nn.Module, rank: int, *, mlp: bool = False) -> nn.Module:
    """A GPT-2 with LoRA at the attention of each block, and at the last layer of each MLP."""
    frozen(model)
    torch.manual_seed(2)
    width = model.config.n_embd
    for block in model.transformer.h:
        block.attn.c_attn = LowRank(block.attn.c_attn, width, 3 * width, rank)
        if mlp:
            block.mlp.c_proj = LowRank(block.mlp.c_proj, 4 * width, width, rank)
    return model.eval()


def by_peft(model: nn.Module, rank: int) -> nn.Module:
    """The same as `by_hand` from peft."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["c_attn"], fan_in_fan_out=True)
    return get_peft_model(model, config).eval()  # type: ignore[arg-type]


def started(model: nn.Module) -> nn.Module:
    """With B that has left zero, as after some rounds."""
    generator = rng(0, "adapter")
    for name, parameter in model.named_parameters():
        if "lora_B" in name or ".up.weight" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def with_bottlenecks(model: nn.Module, rank: int) -> nn.Module:
    """A GPT-2 with Houlsby's adapters behind the MLP of each block."""
    frozen(model)
    torch.manual_seed(2)
    for block in model.transformer.h:
        block.mlp = Bottleneck(block.mlp, model.config.n_embd, rank)
    return model.eval()


def observed(model: nn.Module, texts: Batch, *, labels: bool = False, **training: object) -> Observation:
    """One client's update; what is trained is left as the model says."""
    update = Client(model, training=LocalTraining(**training)).train(texts)  # type: ignore[arg-type]
    return ThreatModel.honest_but_curious(labels=labels).observe(update, model, texts.spec)
