"""Tracing: every rule, chain against module, every named network, and rules of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import leakgauge as lg
from leakgauge.chain import rules
from leakgauge.chain.link import KINDS, Chain
from leakgauge.chain.rules import Part, rule
from leakgauge.chain.trace import trace
from leakgauge.models.catalogue import NETWORKS
from leakgauge.randomness import rng


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A module in float64, its weights drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double().eval()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


def traced(model: nn.Module, shape: tuple[int, ...]) -> Chain:
    """The chain, after a check that it computes what the module does, link by link."""
    chain = trace(model, shape)
    state = state_of(model)
    values = torch.randn(1, *shape, generator=rng(0, "inputs"), dtype=torch.float64)
    with torch.no_grad():
        expected = model(values.clone())
        assert torch.allclose(chain.run(values, state), expected, rtol=1e-12, atol=1e-13)
        for link in chain.links:
            assert tuple(values.shape[1:]) == link.input_shape
            assert link.kind in KINDS
            values = link.function(values, state)
            assert tuple(values.shape[1:]) == link.output_shape
    return chain


def kinds(chain: Chain) -> list[str]:
    return [link.kind for link in chain.links]


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,), "linear"),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), (2, 9), "conv"),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), (2, 9, 7), "conv"),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, padding=1), (2, 4, 5, 6), "conv"),
    "conv same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 8, 8), "conv"),
    "conv valid": (lambda: nn.Conv2d(2, 3, 4, padding="valid"), (2, 8, 8), "conv"),
    "conv dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1), padding=(2, 0)), (2, 8, 8), "conv"),
    "conv groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 6, 6), "conv"),
    "conv rectangular": (lambda: nn.Conv2d(2, 3, (3, 5), stride=(2, 1), padding=(1, 2)), (2, 7, 10), "conv"),
    "leaky": (lambda: nn.LeakyReLU(0.2), (5,), "activation"),
    "leaky in place": (lambda: nn.LeakyReLU(0.2, inplace=True), (5,), "activation"),
    "relu": (nn.ReLU, (5,), "activation"),
    "elu": (lambda: nn.ELU(0.7), (5,), "activation"),
    "softplus": (lambda: nn.Softplus(2.0, 10.0), (5,), "activation"),
    "sigmoid": (nn.Sigmoid, (5,), "activation"),
    "tanh": (nn.Tanh, (2, 3, 3), "activation"),
    "identity": (nn.Identity, (5,), "identity"),
    "flatten": (nn.Flatten, (2, 3, 3), "reshape"),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6,), "reshape"),
    "average pool 1d": (lambda: nn.AvgPool1d(2), (2, 8), "pool"),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1), (2, 8, 8), "pool"),
    "average pool 3d": (lambda: nn.AvgPool3d(2), (2, 4, 4, 4), "pool"),
    "average pool of one pixel": (lambda: nn.AvgPool2d(1), (2, 8, 8), "identity"),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((3, 2)), (2, 8, 8), "pool"),
    "padding": (lambda: nn.ZeroPad2d((1, 0, 2, 0)), (2, 4, 4), "pool"),
    "batch norm": (lambda: nn.BatchNorm2d(3), (3, 4, 4), "affine"),
    "batch norm 1d": (lambda: nn.BatchNorm1d(3), (3,), "affine"),
    "dropout": (lambda: nn.Dropout(0.5), (5,), "identity"),
    "dropout 2d": (lambda: nn.Dropout2d(0.5), (3, 4, 4), "identity"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_rule_gives_a_link_that_computes_the_module(name: str) -> None:
    build, shape, kind = LAYERS[name]
    model = seeded(lambda: nn.Sequential(build()))
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=rng(1)) + 0.5)
    chain = traced(model, shape)
    assert kinds(chain) == [kind]
    (link,) = chain.links
    assert chain.reasons == ()
    assert (link.geometry is not None) == (kind == "conv")
    assert (link.activation is not None) == (kind == "activation")
    if link.geometry is not None:
        assert (link.geometry.out_channels, *link.geometry.output_size) == link.output_shape
        assert link.weight == "0.weight"
        assert link.bias == (None if name == "conv2d" else "0.bias")


class Functional(nn.Module):
    """Everything as functions and methods of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.third, self.last = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        values = functional.leaky_relu(self.first(inputs), 0.1)
        values = functional.avg_pool2d(values, kernel_size=2)
        values = torch.tanh(self.second(functional.pad(values, (0, 1, 0, 1))))
        values = functional.dropout(values.relu(), 0.5, self.training)
        values = functional.elu(self.third(values.view(values.size(0), -1)), alpha=0.5)
        values = torch.sigmoid(functional.softplus(values, beta=2) * 0.5 + 1.0)
        return self.last(torch.flatten(values, 1))


def test_functions_are_treated_as_modules_are() -> None:
    chain = traced(seeded(Functional), (2, 6, 6))
    assert chain.reasons == ()
    assert kinds(chain) == [
        "conv", "activation", "pool", "pool", "conv", "activation", "activation", "identity", "reshape", "linear",
        "activation", "activation", "affine", "affine", "activation", "reshape", "linear",
    ]  # fmt: skip
    names = [link.activation.name for link in chain.links if link.activation is not None]
    assert names == ["LeakyReLU(0.1)", "Tanh", "ReLU", "ELU(0.5)", "Softplus(2)", "Sigmoid"]


class Averaged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(self.conv(inputs).mean((2, 3)))


def test_a_mean_over_positions_is_a_pool() -> None:
    assert kinds(traced(seeded(Averaged), (2, 6, 6))) == ["conv", "pool", "linear"]


class Residual(nn.Module):
    """Two convolutions with a shortcut around the second one, then a block whose shortcut has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.inner = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.block = nn.ModuleDict({"left": nn.Conv2d(4, 5, 3, stride=2), "right": nn.Conv2d(4, 5, 3, stride=2)})
        self.linear = nn.Linear(20, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        values = torch.tanh(self.entry(inputs))
        values = torch.tanh(self.inner(values)) + values
        values = torch.tanh(self.block["left"](values) + self.block["right"](values))
        return self.linear(values.flatten(1))


def test_side_branches_become_a_block_with_its_links_inside() -> None:
    chain = traced(seeded(Residual), (2, 6, 6))
    assert chain.reasons == ()
    assert kinds(chain) == ["conv", "activation", "block", "block", "activation", "reshape", "linear"]
    first, second = chain.links[2:4]
    assert [link.kind for link in first.inner] == ["conv", "activation", "join"]
    assert [link.kind for link in second.inner] == ["conv", "conv", "join"]
    assert second.name == "block"
    assert second.parameters == ("block.left.weight", "block.left.bias", "block.right.weight", "block.right.bias")
    assert len(list(chain.walk())) == 7 - 2 + 6


@pytest.mark.parametrize("name", NETWORKS)
def test_every_named_network_is_traced(name: str) -> None:
    shape = NETWORKS[name].default_shape
    model = lg.load_model(name, num_classes=10, input_shape=shape, seed=0).double().eval()
    chain = traced(model, shape)
    weights = {parameter for link in chain.walk() for parameter in link.parameters}
    assert weights == {parameter for parameter, _ in model.named_parameters()}
    assert bool(chain.reasons) == ("resnet" in name and any(isinstance(part, nn.GroupNorm) for part in model.modules()))


def test_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LeakyReLU(0.2, inplace=True)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (1, 6, 6))
    assert model.training
    assert model[2].inplace
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Doubled(nn.Linear):
    """A linear layer of one's own, with twice the output."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


class Cubed(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs**3


@pytest.fixture
def own_rules() -> Iterator[None]:
    """The registry as it was, after the test."""
    before = dict(rules._RULES)
    yield
    rules._RULES.clear()
    rules._RULES.update(before)


def test_an_own_rule_is_used(own_rules: None) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 4), Cubed()))
    assert "there is no rule" in trace(model, (4,)).reasons[0]

    @rule(Cubed)
    def _cubed(module: Cubed, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Part:
        assert inputs == outputs == (4,)
        return Part("identity")

    chain = traced(model, (4,))
    assert chain.reasons == ()
    assert [link.type for link in chain.links] == ["Linear", "Cubed"]


def test_a_rule_for_a_subclass_goes_before_that_of_its_base(own_rules: None) -> None:
    @rule(Doubled)
    def _doubled(module: Doubled, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Part:
        return rules.unsupported("it is one of ours")

    assert trace(nn.Sequential(Doubled(4, 4)), (4,)).reasons[0].endswith("it is one of ours")
