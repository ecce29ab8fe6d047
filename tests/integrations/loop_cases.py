"""Clients in plain PyTorch loops, as people write them, and what `validate` has to say to each capture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.core import ImageSpec, Observation
from leakgauge.federated.validation.validate import Validation, validate
from leakgauge.integrations.recording.loop import LoopRecorder, record
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((2, 6, 6), mean=0.4, std=0.3)
EXAMPLES = 10


class LoRA(nn.Module):
    """A linear layer that stays as it is, plus a trained product of two thin matrices."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(rank, layer.in_features, generator=rng(5, "down")))
        self.up = nn.Parameter(0.3 * torch.randn(layer.out_features, rank, generator=rng(5, "up")))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) + inputs @ self.down.T @ self.up.T


def network(*, norm: bool = False, dropout: bool = False, lora: bool = False, frozen: bool = False) -> nn.Module:
    """Conv, Tanh, Linear, Tanh, Linear to 3 classes, with what is asked for."""
    layers: list[nn.Module] = [nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)]
    if norm:
        layers.insert(1, nn.BatchNorm2d(4))
    if dropout:
        layers.insert(-1, nn.Dropout(0.5))
    model, generator = nn.Sequential(*layers), rng(0, "weights")
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + (0.2 if parameter.ndim == 1 else 0.0)
    if lora:
        model[-1] = LoRA(model[-1])  # type: ignore[arg-type]
        model[0].requires_grad_(False)
    if frozen:
        model[0].requires_grad_(False)
    return model


def data(count: int = EXAMPLES) -> tuple[Tensor, Tensor]:
    """Inputs in model space, and labels."""
    pixels = torch.rand((count, *SPEC.shape), generator=rng(0, "pixels"))
    return SPEC.normalise(pixels), torch.randint(3, (count,), generator=rng(0, "labels"))


def sgd(**settings: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), **{"lr": 0.1, **settings})


def adam(**settings: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda model: torch.optim.Adam(model.parameters(), **{"lr": 0.01, **settings})


def adamw(**settings: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda model: torch.optim.AdamW(model.parameters(), **{"lr": 0.01, **settings})


def decay_of_matrices_only(model: nn.Module) -> torch.optim.Optimizer:
    groups = [
        {"params": [part for part in model.parameters() if part.ndim > 1], "weight_decay": 0.1},
        {"params": [part for part in model.parameters() if part.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.01)


def peft_network() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules=["3", "5"], init_lora_weights=False)
        return get_peft_model(network(), config)  # type: ignore[arg-type]


@contextlib.contextmanager
def process_group(folder: Path) -> Iterator[None]:
    """One process of gloo."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True)
class Case:
    """One loop.

    Args:
        optimiser: makes it from the model.
        model: the network.
        wrap: what is called in its place: 'ddp', 'data parallel', 'compile' or ''.
        epochs, size, accumulation, clip, schedule, train, autocast, dtype, shuffle: of the loop.
        divided: whether the loss is divided by `accumulation`.
        loss: of the loop.
        declared: arguments of `record`.
        cause: name of the hypothesis that `validate` has to find; '' where it has to agree.
    """

    optimiser: Callable[[Any], torch.optim.Optimizer] = field(default_factory=sgd)
    model: Callable[[], nn.Module] = network
    wrap: str = ""
    epochs: int = 2
    size: int = 4
    accumulation: int = 1
    clip: float | None = None
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    train: bool = True
    autocast: bool = False
    dtype: torch.dtype = torch.float32
    shuffle: bool = True
    divided: bool = True
    loss: Callable[[Tensor, Tensor], Tensor] = field(default_factory=nn.CrossEntropyLoss)
    declared: dict[str, Any] = field(default_factory=dict)
    cause: str = ""


def with_norm() -> nn.Module:
    return network(norm=True)


CASES: dict[str, Case] = {
    "SGD, one step on the whole batch": Case(epochs=1, size=EXAMPLES),
    "SGD, three epochs of shuffled mini-batches": Case(epochs=3),
    "SGD, order kept": Case(shuffle=False),
    "momentum": Case(sgd(momentum=0.9)),
    "Nesterov, weight decay": Case(sgd(momentum=0.9, nesterov=True, weight_decay=0.01)),
    "Adam": Case(adam()),
    "Adam, weight decay, betas": Case(adam(weight_decay=0.1, betas=(0.8, 0.95))),
    "AdamW, weight decay": Case(adamw(weight_decay=0.1)),
    "learning rate schedule": Case(schedule=lambda it: torch.optim.lr_scheduler.StepLR(it, 2, 0.5)),
    "warm-up from zero": Case(schedule=lambda it: torch.optim.lr_scheduler.LambdaLR(it, lambda step: min(1.0, step / 3))),
    "accumulation": Case(size=2, accumulation=2, epochs=2),
    "clip_grad_norm_": Case(clip=0.5),
    "clip_grad_norm_, Adam, accumulation": Case(adam(), size=3, accumulation=2, clip=0.05),
    "BatchNorm in train mode": Case(model=with_norm),
    "BatchNorm in eval mode": Case(model=with_norm, train=False),
    "DistributedDataParallel": Case(sgd(momentum=0.9), wrap="ddp", model=with_norm),
    "DistributedDataParallel, Adam, clipping": Case(adam(), wrap="ddp", clip=0.5),
    "DataParallel": Case(wrap="data parallel"),
    "torch.compile": Case(wrap="compile", model=with_norm),
    "LoRA, by hand": Case(adamw(), model=lambda: network(lora=True)),
    "LoRA, peft": Case(adamw(), model=peft_network),
    "frozen layers": Case(sgd(momentum=0.5), model=lambda: network(frozen=True)),
    "float64": Case(adam(), dtype=torch.float64),
    "bfloat16 autocast": Case(autocast=True),
    "label smoothing, class weights": Case(
        loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1),
    ),
    "sum over examples": Case(sgd(lr=0.01), loss=nn.CrossEntropyLoss(reduction="sum")),
    "Adam, bias before BatchNorm": Case(adam(), model=with_norm, cause="rounding in Adam"),
    "AMSGrad": Case(adam(amsgrad=True, lr=0.05), epochs=4, cause="AMSGrad"),
    "eps changed": Case(adam(eps=1e-4), cause="epsilon"),
    "dampening": Case(sgd(momentum=0.9, dampening=0.9), cause="dampening"),
    "weight decay on some parameters": Case(decay_of_matrices_only, cause="weight decay of some"),
    "accumulation, loss not divided": Case(size=2, accumulation=2, divided=False, cause="loss scale"),
    "dropout in train mode": Case(model=lambda: network(dropout=True), cause="dropout"),
    "another optimiser": Case(lambda model: torch.optim.RMSprop(model.parameters(), lr=0.001), cause="noted"),
}  # fmt: skip


def play(case: Case, folder: Path, *, recording: bool = True, seed: int = 0) -> tuple[nn.Module, LoopRecorder | None]:
    """Runs the loop, recorded or not; returns the trained network and the recorder."""
    torch.manual_seed(seed)
    inner = case.model().to(case.dtype)
    model: nn.Module = inner
    with contextlib.ExitStack() as stack:
        if case.wrap == "ddp":
            stack.enter_context(process_group(folder))
            model = nn.parallel.DistributedDataParallel(inner)
        elif case.wrap == "data parallel":
            model = nn.DataParallel(inner)
        elif case.wrap == "compile":
            model = torch.compile(inner, backend="eager")  # type: ignore[assignment]
        model.train(case.train)
        optimiser = case.optimiser(model)
        if not recording:
            loop(case, model, optimiser, None)
            return inner, None
        places = {"out": folder / "client.safetensors", "truth": folder / "client.truth.safetensors"}
        with record(model, loss=case.loss, spec=SPEC, **{**places, **case.declared}) as recorder:  # type: ignore[arg-type]
            loop(case, model, optimiser, recorder)
    return inner, recorder


def loop(case: Case, model: nn.Module, optimiser: torch.optim.Optimizer, recorder: LoopRecorder | None) -> None:
    """Local training as a person writes it."""
    inputs, labels = data()
    inputs = inputs.to(case.dtype)
    schedule = case.schedule(optimiser) if case.schedule else None
    taken = 0
    for _ in range(case.epochs):
        order = torch.randperm(len(inputs)) if case.shuffle else torch.arange(len(inputs))
        for rows in order.split(case.size):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.autocast):
                loss = case.loss(model(inputs[rows]), labels[rows])
            (loss / case.accumulation if case.divided else loss).backward()
            if recorder is not None:
                recorder.batch(inputs[rows], labels[rows])
            taken += 1
            if taken % case.accumulation == 0:
                if case.clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), case.clip)
                optimiser.step()
                optimiser.zero_grad()
                if schedule is not None:
                    schedule.step()


def verdict(case: Case, folder: Path) -> tuple[Validation, Observation]:
    """What `validate` says of the files that the recorder wrote."""
    trained, _ = play(case, folder)
    blank = case.model().to(case.dtype)
    seen = Observation.load(folder / "client.safetensors", blank)
    del trained
    return validate(seen, seen.model, Batch.load(folder / "client.truth.safetensors")), seen
