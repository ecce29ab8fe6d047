"""A truth that says in which mini-batches the client took its examples spares `validate` the search."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from leakgauge.core import ImageSpec, LocalTraining, ThreatModel
from leakgauge.core.update import Update
from leakgauge.errors import ShapeError
from leakgauge.federated.validation.validate import validate
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((1, 4, 4))
ORDER = (((5, 0, 3),), ((1, 7, 2),), ((6, 4),), ((2, 4, 6),), ((0, 1, 3),), ((5, 7),))
TRAINING = LocalTraining(lr=0.5, epochs=2, batch_size=3, mode="train")


def recorded() -> tuple[nn.Module, Update, Batch]:
    """Eight examples in mini-batches of three, two passes, by a plain loop of torch.optim."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))
    inputs, labels = torch.rand((8, *SPEC.shape), generator=rng(0, "inputs")), torch.arange(8) % 3
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in ORDER:
        optimiser.zero_grad()
        rows = torch.tensor(step[0])
        nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimiser.step()
    change = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    model.load_state_dict(before)
    update = Update(change, "delta", training=TRAINING, num_examples=8)
    return model, update, Batch(inputs, labels, SPEC, order=ORDER)


def test_the_order_in_the_truth_is_used_and_survives_the_file(tmp_path):
    model, update, batch = recorded()
    batch.save(tmp_path / "truth.safetensors")
    again = Batch.load(tmp_path / "truth.safetensors")
    assert again.order == ORDER
    seen = ThreatModel.honest_but_curious().observe(update, model, SPEC)
    found = validate(seen, model, again)
    assert found.agrees
    assert found.residual <= 1e-5
    assert found.note == ""
    assert not validate(seen, model, dataclasses.replace(again, order=tuple(reversed(ORDER)))).agrees


def test_an_order_of_another_protocol_is_left_aside():
    model, update, batch = recorded()
    seen = ThreatModel.honest_but_curious().observe(update, model, SPEC)
    shorter = dataclasses.replace(batch, order=ORDER[:2])
    assert "orders were tried" in (found := validate(seen, model, shorter)).note.replace("order(s)", "orders"), found


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(ShapeError, match="names row 9, but there are 8 examples"):
        Batch(torch.zeros(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64), SPEC, order=(((0, 9),),))
