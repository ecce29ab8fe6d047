"""Opacus: a client that PrivacyEngine trains, and what an Opacus optimiser says of its defence."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leakgauge.core.callables import Loss, check_loss
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import Update
from leakgauge.defences.private import DPSGD
from leakgauge.errors import IntegrationError, MissingExtraError, UnsupportedError
from leakgauge.integrations.recording.wrappers import is_private
from leakgauge.local.losses import loss_value
from leakgauge.local.private import mixing_layers
from leakgauge.randomness import derived_seed, isolated, rng
from leakgauge.truth.batch import Batch

REFUSED = {"clip_norm": None, "proximal": 0.0, "accumulation": 1, "class_weights": None, "amp": False}


@dataclass
class OpacusClient:
    """A client whose local training Opacus's PrivacyEngine makes private: each example's gradient is clipped, noise is added.

    One engine counts the privacy spent over all calls of `train`, as over the rounds of one federation.

    Args:
        model: the module as received; never changed. Opacus must support its layers: no BatchNorm, GroupNorm instead.
        loss: by name, or a callable (output, target) -> scalar.
        training: the protocol; Opacus clips in train mode only, so that the update's protocol says mode 'train'.
        noise_multiplier: sigma >= 0.
        clip_norm: C > 0, bound on the 2-norm of one example's gradient.
        poisson: take each example with the same probability, independently, in each step (Opacus's default, and what its
            accountant counts on), instead of shuffled mini-batches. Mini-batches then vary in size, and may be empty.
        accountant: Opacus's name of one: 'rdp', 'prv' or 'gdp'.
    """

    model: nn.Module = field(repr=False)
    loss: Loss = "cross_entropy"
    training: LocalTraining = LocalTraining()  # noqa: RUF009 - frozen
    noise_multiplier: float = 1.0
    clip_norm: float = 1.0
    poisson: bool = True
    accountant: str = "rdp"
    _engine: Any = field(default=None, init=False, repr=False)

    def train(self, batch: Batch, seed: int = 0) -> Update:
        """Local training on the batch; kind 'gradient' when `training.lr` is None, else 'delta'.

        Args:
            batch: the private examples; inputs a tensor.
            seed: of mini-batches, dropout and noise.

        Raises:
            UnsupportedError: for BatchNorm, inputs that are no tensor, or a field of the protocol that Opacus does not have.
            MissingExtraError: without the package opacus.
        """
        check_loss(self.loss)
        defence = DPSGD(self.noise_multiplier, self.clip_norm)
        self._refuse(batch)
        model = copy.deepcopy(self.model).to(getattr(torch, self.training.dtype)).train()
        before = {name: part.detach().clone() for name, part in model.named_parameters()}
        with isolated(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="opacus|torch")
            torch.manual_seed(derived_seed(seed, "opacus", "dropout"))
            private, optimiser, loader = self._made_private(model, batch, seed)
            gradient = self._trained(private, optimiser, loader)
        trained = [name for name, part in model.named_parameters() if part.requires_grad]
        after = dict(model.named_parameters())
        tensors = gradient or {name: after[name].detach() - before[name] for name in trained}
        size = optimiser.expected_batch_size or self.training.batch_size
        return Update(
            tensors={name: tensors[name] for name in trained},
            kind=self.training.kind,
            buffers={name: part.detach().clone() for name, part in model.named_buffers()},
            loss=self.loss,
            training=replace(self.training, mode="train", batch_size=size if size and size < len(batch) else None),
            num_examples=len(batch),
            labels=batch.labels,
            client_seed=seed,
            defences=(defence.record(),),
            withheld=tuple(name for name in before if name not in trained),
        )

    def epsilon(self, delta: float) -> float:
        """Epsilon spent by all calls of `train` so far, by the engine's own accountant; neighbours differ in one record more.

        It equals `lg.epsilon(noise_multiplier, sample_rate, steps, delta)` for the accountant 'rdp'.

        Args:
            delta: in (0, 1).

        Raises:
            UnsupportedError: without Poisson sampling, whose amplification the accountant would claim all the same.
        """
        if not self.poisson:
            raise UnsupportedError(
                "Opacus's accountant counts on Poisson sampling, and this client takes shuffled mini-batches (poisson=False): "
                "its epsilon would claim too much. lg.epsilon(sigma, 1.0, passes, delta) claims no amplification."
            )
        if self._engine is None:
            return 0.0
        if self.noise_multiplier == 0:
            return float("inf")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(self._engine.get_epsilon(delta))

    def _refuse(self, batch: Batch) -> None:
        wrong = [name for name, usual in REFUSED.items() if getattr(self.training, name) != usual]
        if wrong:
            raise UnsupportedError(f"OpacusClient cannot train with {wrong[0]}={getattr(self.training, wrong[0])!r}.")
        if not isinstance(batch.inputs, Tensor):
            raise UnsupportedError("OpacusClient takes inputs that are one tensor; the batch holds a dict of them.")
        mixing = mixing_layers(self.model, "train")
        if mixing:
            raise UnsupportedError(
                f"Opacus cannot clip single examples where BatchNorm mixes them ({mixing[0]!r}); use GroupNorm, or "
                "opacus.validators.ModuleValidator.fix(model)."
            )

    def _made_private(self, model: nn.Module, batch: Batch, seed: int) -> tuple[nn.Module, Any, Any]:
        try:
            from opacus import PrivacyEngine
        except ImportError as error:
            raise MissingExtraError("opacus", "dp", "OpacusClient") from error
        inputs = batch.inputs
        assert isinstance(inputs, Tensor)
        data = torch.utils.data.TensorDataset(inputs.to(getattr(torch, self.training.dtype)), batch.labels)
        loader = torch.utils.data.DataLoader(
            data,
            batch_size=min(self.training.batch_size or len(batch), len(batch)),
            shuffle=self.training.shuffle,
            drop_last=self.training.drop_last,
            generator=rng(seed, "opacus", "order"),
        )
        if self._engine is None:
            self._engine = PrivacyEngine(accountant=self.accountant)
        self._engine.dataset = None  # each round has its own data set object around the same examples
        found: tuple[nn.Module, Any, Any] = self._engine.make_private(
            module=model,
            optimizer=_optimiser(self.training, model),
            data_loader=loader,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.clip_norm,
            poisson_sampling=self.poisson,
            loss_reduction=self.training.reduction,
            noise_generator=rng(seed, "opacus", "noise"),
        )
        return found

    def _trained(self, private: nn.Module, optimiser: Any, loader: Any) -> dict[str, Tensor]:
        """Runs all steps; returns the gradient where that is what is shared, else nothing."""
        training = self.training
        steps = len(loader) * training.epochs if training.epochs is not None else training.steps
        batches = _again_and_again(loader)
        for index in range(steps):
            inputs, labels = next(batches)
            optimiser.zero_grad()
            loss_value(self.loss, private(inputs), labels, training).backward()  # type: ignore[no-untyped-call]
            if training.lr is None:
                optimiser.pre_step()
                inner = private._module.named_parameters()  # type: ignore[union-attr]
                return {name: part.grad.detach().clone() for name, part in inner if part.grad is not None}
            factor = 1.0 if training.schedule is None else training.schedule[min(index, len(training.schedule) - 1)]
            for group in optimiser.param_groups:
                group["lr"] = training.lr * factor
            optimiser.step()
        return {}


def dp_sgd_of(optimiser: Optimizer) -> DPSGD:
    """The defence that an Opacus optimiser applies.

    Args:
        optimiser: a DPOptimizer, as PrivacyEngine.make_private returns it.

    Raises:
        IntegrationError: for another optimiser.
        UnsupportedError: for clipping per layer, where no single norm bounds an example's gradient.
    """
    if not is_private(optimiser):
        raise IntegrationError(f"The optimiser is a {type(optimiser).__name__}; expected Opacus's DPOptimizer.")
    private: Any = optimiser
    if not isinstance(private.max_grad_norm, int | float):
        raise UnsupportedError(
            "The Opacus optimiser clips each layer by itself (clipping='per_layer'); only one norm for all (clipping='flat') "
            "can be recorded as DP-SGD."
        )
    return DPSGD(float(private.noise_multiplier), float(private.max_grad_norm))


def fields_of(optimiser: Optimizer) -> dict[str, Any]:
    """The protocol's fields that an Opacus optimiser states: what it divides the sum of clipped gradients by."""
    private: Any = optimiser
    size = {} if private.expected_batch_size is None else {"batch_size": int(private.expected_batch_size)}
    return {"reduction": private.loss_reduction, **size}


def notes_of(optimiser: Optimizer) -> list[str]:
    """What the protocol cannot say of a loop that Opacus makes private, as sentences."""
    private: Any = optimiser
    notes = [
        "Opacus clipped each example's gradient. With Poisson sampling, its default, each step takes every example with the same "
        "probability, independently: mini-batches vary in size and may be empty, and the protocol's batch_size is the expected "
        "size, which the sum is divided by."
    ]
    if float(private.noise_multiplier) > 0:
        notes.append("The noise of DP-SGD was added in every step; no one can recompute it from the batch.")
    if "AdaClip" in type(private).__name__:
        notes.append("The clip norm was adapted during training; the record names the last one.")
    return notes


def _optimiser(training: LocalTraining, model: nn.Module) -> Optimizer:
    parameters = [part for part in model.parameters() if part.requires_grad]
    lr = training.lr if training.lr is not None else 1.0
    if training.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=training.momentum, nesterov=training.nesterov, weight_decay=training.weight_decay
        )
    kind = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=lr, betas=training.betas, weight_decay=training.weight_decay)


def _again_and_again(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
