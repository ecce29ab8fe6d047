"""Mini-batches in one pass: grouped BatchNorm against mini-batches that go through a module one after another."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leakgauge.local.network import Network, group_shares
from leakgauge.randomness import rng

MOMENTA = (0.1, 0.5, None)


def network(momentum: float | None) -> nn.Module:
    """Two BatchNorm layers, one of them without an affine map; running statistics that are not the default."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=momentum), nn.Softplus(), nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4, momentum=momentum, affine=False), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip
    draws = rng(0, "weights")
    state = {
        name: torch.randn(tensor.shape, generator=draws, dtype=torch.float64) if tensor.is_floating_point() else tensor + 3
        for name, tensor in model.state_dict().items()
    }
    state = {name: tensor.abs() + 0.5 if name.endswith("running_var") else tensor for name, tensor in state.items()}
    model.load_state_dict(state)
    return model


def inputs_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 5, 5, generator=rng(seed, "inputs"), dtype=torch.float64)


def one_after_another(model: nn.Module, inputs: Tensor, groups: int, rounds: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The oracle: torch's own module in train mode at fixed weights; the outputs of the last round, and its buffers."""
    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for _ in range(rounds):
            outputs = [model(part) for part in inputs.chunk(groups)]
    return torch.cat(outputs), dict(model.named_buffers())


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MOMENTA), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_one_pass_equals_mini_batches_one_after_another(
    momentum: float | None, groups: int, size: int, rounds: int, seed: int
) -> None:
    model, inputs = network(momentum), inputs_of(groups * size, seed)
    network_of_groups = Network(model, "train", groups=groups, rounds=rounds)
    output, after = network_of_groups(network_of_groups.parameters(), network_of_groups.buffers(), inputs)
    expected, buffers = one_after_another(model, inputs, groups, rounds)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    assert after.keys() == buffers.keys()
    for name, tensor in buffers.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_every_candidate_of_many_is_as_alone(momentum: float | None) -> None:
    grouped = Network(network(momentum), "train", groups=2, rounds=2)
    many = torch.stack([inputs_of(4, seed) for seed in range(3)])
    outputs, afters = torch.func.vmap(lambda one: grouped(grouped.parameters(), grouped.buffers(), one))(many)
    for index, one in enumerate(many):
        output, after = grouped(grouped.parameters(), grouped.buffers(), one)
        torch.testing.assert_close(outputs[index], output, rtol=1e-12, atol=1e-12)
        for name, tensor in after.items():
            torch.testing.assert_close(afters[name][index], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_first_and_second_derivatives(momentum: float | None) -> None:
    grouped = Network(network(momentum), "train", groups=2, rounds=2)

    def everything(inputs: Tensor) -> Tensor:
        output, after = grouped(grouped.parameters(), grouped.buffers(), inputs)
        moved = [tensor.reshape(-1) for tensor in after.values() if tensor.is_floating_point()]
        return torch.cat([output.reshape(-1), *moved]).sin().sum()

    leaf = inputs_of(4).requires_grad_()
    assert torch.autograd.gradcheck(everything, leaf, fast_mode=True)
    assert torch.autograd.gradgradcheck(everything, leaf, fast_mode=True)


def test_groups_do_not_mix() -> None:
    grouped = Network(network(0.1), "train", groups=2)
    whole = Network(network(0.1), "train")
    inputs = inputs_of(4)
    changed = torch.cat([inputs[:2], inputs[2:] + 1])

    def first_rows(of: Network, given: Tensor) -> Tensor:
        output, _ = of(of.parameters(), of.buffers(), given)
        assert isinstance(output, Tensor)
        return output[:2]

    assert torch.equal(first_rows(grouped, inputs), first_rows(grouped, changed))
    assert not torch.allclose(first_rows(whole, inputs), first_rows(whole, changed))


def test_eval_mode_knows_no_groups() -> None:
    model, inputs = network(0.1), inputs_of(4)
    grouped = Network(model, "eval", groups=2, rounds=3)
    output, after = grouped(grouped.parameters(), grouped.buffers(), inputs)
    torch.testing.assert_close(output, copy.deepcopy(model).eval()(inputs), rtol=1e-12, atol=1e-12)
    for name, tensor in model.named_buffers():
        assert torch.equal(after[name], tensor)


def test_later_mini_batches_count_more_unless_the_average_is_cumulative() -> None:
    assert group_shares(None, 4) == [0.25] * 4
    shares = group_shares(0.5, 3)
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert sum(group_shares(0.1, 5)) == pytest.approx(1)
