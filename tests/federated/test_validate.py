"""`validate`: a right pair agrees; each planted cause is named."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakgauge.core import ImageSpec, LocalTraining, Observation, ThreatModel, Update
from leakgauge.core.pack import pack
from leakgauge.defences import GaussianNoise, HalfPrecision, LaplacianNoise, Prune
from leakgauge.federated.client import Client
from leakgauge.federated.validation.causes import HYPOTHESES
from leakgauge.federated.validation.recompute import mini_batch_orders
from leakgauge.federated.validation.validate import validate
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((3, 6, 6), mean=(0.5, 0.4, 0.6), std=(0.25, 0.2, 0.3))


def network(seed: int = 0, *, norm: bool = False, dropout: bool = False) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)]
    if norm:
        layers.insert(1, nn.BatchNorm2d(4))
    if dropout:
        layers.insert(len(layers) - 1, nn.Dropout(0.5))
    model, generator = nn.Sequential(*layers), rng(seed, "weights")
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator) + (0.4 if parameter.ndim == 1 else 0.0)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.add_((0.5 if "var" in name else 0.2) * torch.rand(buffer.shape, generator=generator))
    return model


def a_batch(count: int = 4, seed: int = 0) -> Batch:
    pixels = torch.rand((count, *SPEC.shape), generator=rng(seed, "batch"))
    return Batch(SPEC.normalise(pixels), torch.arange(count) % 3, SPEC)


def shared(update: Update, model: nn.Module, **declared: Any) -> Observation:
    """The update as observed, with another protocol declared than was followed."""
    update = replace(update, training=replace(update.training, **declared))
    return ThreatModel.honest_but_curious().observe(update, model, SPEC)


RIGHT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one gradient": ({}, {}),
    "BatchNorm, eval mode": ({}, {"norm": True}),
    "BatchNorm, train mode": ({"mode": "train"}, {"norm": True}),
    "sum": ({"reduction": "sum"}, {}),
    "one step": ({"lr": 0.1}, {}),
    "small steps, rounded at the weights": ({"lr": 1e-5, "steps": 2}, {}),
    "several steps, BatchNorm in train mode": ({"lr": 0.1, "steps": 4, "mode": "train"}, {"norm": True}),
    "Adam, weight decay": ({"lr": 0.01, "steps": 3, "optimiser": "adam", "weight_decay": 0.1}, {}),
    "mini-batches in order": ({"lr": 0.1, "epochs": 2, "batch_size": 2, "shuffle": False}, {}),
    "mini-batches shuffled, one epoch": ({"lr": 0.1, "epochs": 1, "batch_size": 2}, {}),
    "mini-batches shuffled, two epochs": ({"lr": 0.1, "epochs": 2, "batch_size": 2}, {}),
    "double precision": ({"dtype": "float64", "lr": 0.1, "steps": 3}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}),
    "mixed precision": ({"amp": True}, {}),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_pair_agrees(case: str) -> None:
    training, network_options = RIGHT[case]
    model, data = network(**network_options), a_batch()
    found = validate(shared(Client(model, training=LocalTraining(**training)).train(data, seed=1), model), model, data)
    assert found.agrees
    assert found.residual <= found.tolerance
    assert found.cause == found.hypothesis == ""
    assert found.tried == ()
    assert set(found.per_tensor) == {name for name, _ in model.named_parameters()}
    assert math.isnan(found.buffers_residual) != ("norm" in network_options)
    shuffled = training.get("shuffle", True) and "batch_size" in training
    assert ("order of the mini-batches is not known" in found.note) == shuffled


def test_a_saved_observation_and_a_fresh_architecture_agree(tmp_path: Any) -> None:
    model, data = network(norm=True), a_batch()
    seen = shared(Client(model, training=LocalTraining(mode="train")).train(data), model)
    seen.save(tmp_path / "seen.safetensors")
    fresh = network(seed=5, norm=True)
    assert validate(Observation.load(tmp_path / "seen.safetensors", fresh), fresh, data).agrees


def test_a_packed_training_loop_agrees_and_a_wrong_protocol_is_named(tmp_path: Any) -> None:
    model, data = network(norm=True), a_batch()
    torch.save(model.state_dict(), tmp_path / "before.pt")
    trained = copy.deepcopy(model).train()
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(trained(data.inputs), data.labels).backward()
        optimiser.step()
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "after.pt")
    right = LocalTraining(lr=0.05, steps=3, momentum=0.9, weight_decay=1e-3, mode="train")

    def verdict(training: LocalTraining) -> Any:
        before, after = tmp_path / "before.pt", tmp_path / "after.pt"
        seen = pack(network(seed=3, norm=True), before=before, after=after, training=training, spec=SPEC, num_examples=4)
        return validate(seen, model, data)

    found = verdict(right)
    assert found.agrees
    assert found.buffers_residual < 1e-5
    assert "ran in train mode" in verdict(replace(right, mode="eval")).cause
    assert "Momentum was 0.9" in verdict(replace(right, momentum=0.0)).cause
    assert "Weight decay was 0.001" in verdict(replace(right, weight_decay=0.0)).cause


def test_withheld_and_frozen_tensors_are_left_out() -> None:
    model, data = network(), a_batch()
    model.get_parameter("0.weight").requires_grad_(False)
    client = Client(model, training=LocalTraining(lr=0.1, steps=3), withhold=("5.bias",))
    found = validate(shared(client.train(data), model), model, data)
    assert found.agrees
    assert set(found.per_tensor) == {"0.bias", "2.weight", "2.bias", "5.weight"}


@dataclass(frozen=True)
class Planted:
    """A cause: what the client did, what is declared, and the words that must name it."""

    words: str
    hypothesis: str
    did: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    loss: Any = "cross_entropy"
    declared_loss: str = ""
    rewrite: Callable[[Update, nn.Module], Update] | None = None
    batch: Callable[[Batch], Batch] | None = None
    count: int = 4


def times(factor: float) -> Callable[[Update, nn.Module], Update]:
    return lambda update, model: replace(update, tensors={name: factor * tensor for name, tensor in update.tensors.items()})


def protected(defence: Any) -> Callable[[Update, nn.Module], Update]:
    return lambda update, model: replace(defence.protect(update, generator=rng(3, "defence")), defences=())


def as_weights(update: Update, model: nn.Module) -> Update:
    return replace(update, tensors={name: model.get_parameter(name).detach() + tensor for name, tensor in update.tensors.items()})


def exchanged(update: Update, model: nn.Module) -> Update:
    tensors = dict(update.tensors)
    tensors["0.bias"], tensors["2.bias"] = tensors["2.bias"], tensors["0.bias"]
    return replace(update, tensors=tensors)


def with_decay(update: Update, model: nn.Module) -> Update:
    return replace(
        update, tensors={name: tensor + 0.05 * model.get_parameter(name).detach() for name, tensor in update.tensors.items()}
    )


def half_loss(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * nn.functional.cross_entropy(output, target)


def as_pixels(batch: Batch) -> Batch:
    assert isinstance(batch.inputs, Tensor)
    return replace(batch, inputs=SPEC.denormalise(batch.inputs))


def bgr(batch: Batch) -> Batch:
    assert isinstance(batch.inputs, Tensor)
    return replace(batch, inputs=batch.inputs.flip(1))


STEPS = {"lr": 0.1, "steps": 4}
PARTS = {"lr": 0.1, "epochs": 1, "batch_size": 2}
CAUSES: dict[str, Planted] = {
    "train mode": Planted("ran in train mode, not in eval mode", "mode", {"mode": "train"}, {"mode": "eval"}, {"norm": True}),
    "eval mode": Planted("ran in eval mode, not in train mode", "mode", {"lr": 0.1}, {"mode": "train"}, {"norm": True}),
    "sum": Planted("reduced by sum over the 4 examples", "reduction", {"reduction": "sum"}, {"reduction": "mean"}),
    "mean": Planted("reduced by mean over the 4 examples", "reduction", STEPS, {"reduction": "sum"}),
    "half": Planted("0.5 times the recomputed one: a half", "factor", loss=half_loss, declared_loss="cross_entropy"),
    "two": Planted("2 times the recomputed one: two", "factor", rewrite=times(2.0)),
    "sign of a delta": Planted("sign is reversed (before minus after", "factor", STEPS, rewrite=times(-1.0)),
    "sign of a gradient": Planted("sign is reversed", "factor", rewrite=times(-1.0)),
    "times N": Planted("the number of examples N = 5", "factor", STEPS, rewrite=times(5.0), count=5),
    "divided by lr": Planted("1/lr (the weight change was divided", "factor", STEPS, rewrite=times(10.0)),
    "averaged over steps": Planted("1/steps for 3 steps", "factor", {"lr": 0.1, "steps": 3}, rewrite=times(1 / 3)),
    "gradient for a delta": Planted(
        "gradient was shared instead of the weight change", "factor", {"lr": 0.03}, rewrite=times(-1 / 0.03),
    ),
    "delta for a gradient": Planted("weight change instead of a gradient", "factor", rewrite=times(-0.03)),
    "other factor": Planted("a constant factor: the update is 0.7321 times", "constant factor", rewrite=times(0.7321)),
    "other rate": Planted("a learning rate of 0.037 gives the same", "constant factor", {"lr": 0.037}, {"lr": 0.1}),
    "weights": Planted("weights after training were shared instead of the change", "weights shared", STEPS, rewrite=as_weights),
    "clipped": Planted("clipped to the norm 0.05", "clipping", {"clip_norm": 0.05}, {"clip_norm": None}),
    "clipped step": Planted("clipped to the norm 0.05", "clipping", {"lr": 0.1, "clip_norm": 0.05}, {"clip_norm": None}),
    "clipped steps": Planted(
        "clipped to the norm 0.07", "clipping of each step", {**STEPS, "clip_norm": 0.07}, {"clip_norm": None},
    ),
    "not clipped": Planted("clipped to the norm none, not 0.1", "clipping of each step", STEPS, {"clip_norm": 0.1}),
    "exchanged": Planted("exchanged: '0.bias' and '2.bias'", "tensors exchanged", STEPS, rewrite=exchanged),
    "float16": Planted("rounded to 16 bits (float16)", "rounding", rewrite=protected(HalfPrecision())),
    "pruned": Planted("were set to zero (pruning)", "pruning", rewrite=protected(Prune(0.3))),
    "noise": Planted("Gaussian noise of standard deviation 0.01", "noise", rewrite=protected(GaussianNoise(0.01))),
    "Laplacian": Planted("Laplacian noise of scale 0.0", "noise", rewrite=protected(LaplacianNoise(0.01))),
    "not normalised": Planted("inputs that were not normalised", "inputs", STEPS, batch=as_pixels),
    "BGR": Planted("colour channels are in reverse order", "inputs", batch=bgr),
    "mse": Planted("the loss was 'mse', not 'cross_entropy'", "loss", loss="mse", declared_loss="cross_entropy"),
    "adam": Planted("the optimiser was adam, not sgd", "optimiser", {**STEPS, "optimiser": "adam"}, {"optimiser": "sgd"}),
    "sgd": Planted("the optimiser was sgd, not adam", "optimiser", STEPS, {"optimiser": "adam"}),
    "adamw": Planted(
        "the optimiser was adamw with torch's default weight_decay 0.01", "optimiser",
        {**STEPS, "optimiser": "adamw", "weight_decay": 0.01}, {"optimiser": "adam", "weight_decay": 0.0},
    ),
    "more steps": Planted("took 7 step(s), not 4", "steps", {"lr": 0.1, "steps": 7}, {"steps": 4}),
    "fewer steps": Planted("took 1 step(s), not 2", "steps", {"lr": 0.1, "steps": 1}, {"steps": 2}),
    "more epochs": Planted("trained for 3 epoch(s), not 1", "steps", {"lr": 0.1, "epochs": 3}, {"epochs": 1}),
    "shuffled": Planted("mini-batches were shuffled", "order", PARTS, {"shuffle": False}),
    "drop_last": Planted(
        "was dropped (drop_last=True)", "order", {**PARTS, "shuffle": False, "drop_last": True}, {"drop_last": False}, count=5,
    ),
    "batch size": Planted(
        "mini-batches held 2, not the whole batch", "order", {**STEPS, "batch_size": 2, "shuffle": False}, {"batch_size": None},
    ),
    "decay of a gradient": Planted("gradient contains weight decay, 0.05", "weight decay of a gradient", rewrite=with_decay),
    "decay, one step": Planted(
        "weight decay was 0.03, not none", "weight decay", {"lr": 0.1, "weight_decay": 0.03}, {"weight_decay": 0.0},
    ),
    "decay, steps": Planted(
        "weight decay was 0.0005, not none", "weight decay", {**STEPS, "weight_decay": 5e-4}, {"weight_decay": 0.0},
    ),
    "no decay": Planted("weight decay was none, not 0.1", "weight decay", STEPS, {"weight_decay": 0.1}),
    "smoothing": Planted(
        "label smoothing was 0.1, not none", "label smoothing", {"label_smoothing": 0.1}, {"label_smoothing": 0.0},
    ),
    "odd smoothing": Planted(
        "label smoothing was 0.17", "label smoothing", {**STEPS, "label_smoothing": 0.17}, {"label_smoothing": 0.0},
    ),
    "momentum": Planted("momentum was 0.9, not none", "momentum", {**STEPS, "momentum": 0.9}, {"momentum": 0.0}),
    "odd momentum": Planted("momentum was 0.83, not none", "momentum", {**STEPS, "momentum": 0.83}, {"momentum": 0.0}),
    "Nesterov": Planted(
        "Nesterov momentum was 0.9", "Nesterov momentum", {**STEPS, "momentum": 0.9, "nesterov": True}, {"nesterov": False}
    ),
    "proximal": Planted("proximal term was 0.3, not none", "proximal term", {**STEPS, "proximal": 0.3}, {"proximal": 0.0}),
    "rate, steps": Planted("learning rate was 0.037, not 0.1", "learning rate", {"lr": 0.037, "steps": 4}, {"lr": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("case", CAUSES)
def test_a_planted_cause_is_named(case: str) -> None:
    planted = CAUSES[case]
    model, data = network(**planted.network), a_batch(planted.count)
    trained_on = planted.batch(data) if planted.batch else data
    update = Client(model, loss=planted.loss, training=LocalTraining(**planted.did)).train(trained_on, seed=2)
    if planted.rewrite is not None:
        update = planted.rewrite(update, model)
    if planted.declared_loss:
        update = replace(update, loss=planted.declared_loss)
    found = validate(shared(update, model, **planted.declared), model, data)
    assert not found.agrees
    assert planted.words.lower() in found.cause.lower(), found
    assert found.hypothesis == planted.hypothesis
    assert found.cause_residual <= found.tolerance
    assert found.residual > found.tolerance
    assert not found.cause[0].islower()
    assert found.cause.endswith(".")
    assert not found.declared


def test_other_weights_are_recognised_and_unknown_ones_admitted() -> None:
    model, other, data = network(), network(seed=1), a_batch()
    update = Client(model, training=LocalTraining()).train(data)
    seen = shared(update, other)
    found = validate(seen, model, data)
    assert found.cause.startswith("The update was computed at the weights of the given model")
    unknown = validate(seen, other, data)
    assert unknown.cause == "No single cause found; other weights or another batch are likely."
    assert unknown.hypothesis == ""
    assert math.isnan(unknown.cause_residual)
    assert unknown.tried == tuple(hypothesis.name for hypothesis in HYPOTHESES)
    another = validate(shared(update, model), model, a_batch(seed=9))
    assert another.cause == "No single cause found; other weights or another batch are likely."


def test_weights_before_and_after_exchanged() -> None:
    model, data = network(), a_batch()
    update = Client(model, training=LocalTraining(lr=0.1, steps=3)).train(data)
    after = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in update.tensors.items():
            after.get_parameter(name).add_(tensor)
    found = validate(shared(times(-1.0)(update, model), after), after, data)
    assert found.cause == "The weights before and after training are exchanged."


def test_a_declared_defence_is_said_to_be_declared() -> None:
    model, data = network(), a_batch()
    update = Client(model, defences=(GaussianNoise(0.02),)).train(data)
    found = validate(shared(update, model), model, data)
    assert not found.agrees
    assert found.declared
    assert "as the observation declares (gaussian-noise std 0.02)" in found.cause


def test_dropout_cannot_be_recomputed() -> None:
    model, data = network(dropout=True), a_batch()
    found = validate(shared(Client(model, training=LocalTraining(mode="train")).train(data, seed=1), model), model, data)
    assert found.hypothesis == "dropout"
    assert "depends on draws that were not shared" in found.cause


def test_dropout_switched_off_is_named() -> None:
    model, data = network(norm=True, dropout=True), a_batch()
    off = copy.deepcopy(model)
    off[6].p = 0.0  # type: ignore[index]
    update = Client(off, training=LocalTraining(mode="train")).train(data)
    found = validate(shared(update, model), model, data)
    assert found.hypothesis == "dropout off"
    assert found.cause == "Dropout was off, although the client trained in train mode."


def test_another_number_of_examples_and_other_buffers() -> None:
    model, data = network(norm=True), a_batch()
    update = Client(model, training=LocalTraining(mode="train")).train(data)
    found = validate(shared(update, model), model, a_batch(3))
    assert found.cause == "The observation was made from 4 example(s), but the batch holds 3."
    moved = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in update.buffers.items()}
    found = validate(shared(replace(update, buffers=moved), model), model, data)
    assert found.hypothesis == "buffers"
    assert found.residual <= found.tolerance
    assert found.buffers_residual > 0.1


def test_a_cause_that_explains_nearly_everything_is_told_with_its_rest() -> None:
    model, data = network(), a_batch()
    update = protected(GaussianNoise(1e-4))(times(3.3)(Client(model).train(data), model), model)
    found = validate(shared(update, model), model, data)
    assert found.cause.startswith("A constant factor: the update is 3.3")
    assert "this leaves a residual of" in found.cause


def test_an_order_out_of_thousands_is_searched_for() -> None:
    model, data = network(), a_batch(8)
    update = Client(model, training=LocalTraining(lr=0.1, epochs=1, batch_size=2)).train(data, seed=1)
    found = validate(shared(update, model), model, data)
    assert found.agrees
    assert "of many more" in found.note
    unlike = validate(shared(update, network(seed=1)), network(seed=1), data)
    assert unlike.cause.endswith("or an order of the mini-batches that was not tried.")


def test_the_search_for_an_order_ends_where_nothing_can_be_exchanged() -> None:
    model, data = network(), a_batch(130)
    update = Client(model, training=LocalTraining(lr=0.1, steps=1, batch_size=1)).train(data, seed=3)
    assert "of many more" in validate(shared(update, network(seed=1)), network(seed=1), data).note


def test_validation_leaves_the_global_generator_and_the_model_alone() -> None:
    model, data = network(norm=True), a_batch()
    seen = shared(Client(model, training=LocalTraining(mode="train")).train(data), model, mode="eval")
    state, before = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    first, second = validate(seen, model, data), validate(seen, model, data)
    assert repr(first) == repr(second)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("training", "count", "orders", "every"),
    [
        ({"batch_size": None}, 4, 1, True),
        ({"epochs": 1, "batch_size": 2}, 4, 6, True),
        ({"epochs": 1, "batch_size": 4}, 8, 70, True),
        ({"epochs": 2, "batch_size": 2}, 4, 36, True),
        ({"epochs": 1, "batch_size": 2, "accumulation": 2}, 5, 30, True),
        ({"steps": 1, "batch_size": 2}, 5, 10, True),
        ({"epochs": 3, "batch_size": 2, "shuffle": False}, 8, 1, True),
        ({"epochs": 3, "batch_size": 2}, 8, 40, False),
    ],
)
def test_mini_batch_orders(training: dict[str, Any], count: int, orders: int, every: bool) -> None:
    found, all_of_them = mini_batch_orders(LocalTraining(lr=0.1, **training), count)
    assert all_of_them == every
    distinct = {tuple(tuple(sorted(batch.tolist())) for step in order for batch in step) for order in found}
    assert len(distinct) in ((orders, orders + 1) if not every else (orders,))
