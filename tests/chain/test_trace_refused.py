"""What is said about networks that closed forms cannot treat: every reason, at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.chain.trace import trace
from leakgauge.errors import ModelError, UnsupportedError

REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "max-pool": (lambda: nn.MaxPool2d(2), (2, 4, 4), "max-pooling has no inverse"),
    "GELU": (nn.GELU, (5,), "not injective"),
    "SiLU": (nn.SiLU, (5,), "not injective"),
    "leaky with a negative slope": (lambda: nn.LeakyReLU(-0.1), (5,), "not injective"),
    "LayerNorm": (lambda: nn.LayerNorm(5), (5,), "statistics of the example itself"),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3), "statistics of the example itself"),
    "BatchNorm without running statistics": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 4), "no running statistics",
    ),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 6, 6), "padding_mode='reflect'"),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3), (2, 6, 6), "transposed convolutions are not covered"),
    "linear on a matrix": (lambda: nn.Linear(5, 4), (3, 5), "2-dimensional inputs"),
    "softmax": (lambda: nn.Softmax(1), (5,), "there is no rule"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_treated_says_why(name: str) -> None:
    build, shape, words = REFUSED[name]
    chain = trace(nn.Sequential(OrderedDict(odd=build())), shape)
    assert len(chain.reasons) == 1
    assert words in chain.reasons[0]
    assert chain.reasons[0].startswith("'odd'")


def test_every_reason_is_named_at_once() -> None:
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), bend=nn.GELU(), pool=nn.MaxPool2d(2), flat=nn.Flatten(),
            norm=nn.LayerNorm(36), last=nn.Linear(36, 3),
        )
    )  # fmt: skip
    chain = trace(model, (2, 6, 6))
    assert len(chain.reasons) == 4
    with pytest.raises(UnsupportedError) as caught:
        chain.require("`somebody`", "Do something else.")
    for words in ("'conv' (Conv2d)", "'bend' (GELU)", "'pool' (MaxPool2d)", "'norm' (LayerNorm)", "Do something else."):
        assert words in str(caught.value)
    assert str(caught.value).count("`somebody`") == 1


def test_functional_layers_that_cannot_be_treated_say_why() -> None:
    class Odd(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            values = functional.max_pool2d(inputs, 2)
            values = functional.gelu(values)
            return torch.softmax(values.flatten(1), 1)

    reasons = trace(Odd(), (2, 4, 4)).reasons
    assert len(reasons) == 3
    assert "max-pooling has no inverse" in reasons[0]
    assert "not injective" in reasons[1]
    assert "up to a constant" in reasons[2]


def test_attention_and_parameters_used_directly_are_refused() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.position = nn.Parameter(torch.zeros(1, 4, 6))

        def forward(self, inputs: Tensor) -> Tensor:
            values = inputs + self.position
            found, _ = self.attention(values, values, values)
            return found.flatten(1)

    reasons = " ".join(trace(Attentive(), (4, 6)).reasons)
    assert "attention multiplies functions of its input" in reasons
    assert "uses a parameter of the network directly" in reasons


class Branching(nn.Module):
    """What runs depends on the data, so that no one graph stands for it; it also holds a layer of each unsupported kind."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.linear = nn.MaxPool2d(2), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        values = self.pool(inputs) if float(inputs.sum()) >= 0 else inputs[..., ::2, ::2]
        return self.linear(values.flatten(1))


def test_control_flow_on_data_is_named_beside_the_layers() -> None:
    chain = trace(Branching(), (2, 4, 4))
    assert chain.links[0].kind == "unsupported"
    assert "torch.fx cannot trace it" in chain.reasons[0]
    assert any("max-pooling" in reason for reason in chain.reasons)


def test_a_shape_that_the_network_does_not_take_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"does not accept inputs of shape \(3, 8, 8\)"):
        trace(nn.Conv2d(2, 3, 3), (3, 8, 8))


class Twice(nn.Module):
    """One convolution used twice: its gradient is the sum of both uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.conv(torch.tanh(self.conv(inputs)))).flatten(1))


class Tied(nn.Module):
    """Two convolutions that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.linear = nn.Linear(48, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.second(torch.tanh(self.first(inputs)))).flatten(1))


@pytest.mark.parametrize("build", [Twice, Tied])
def test_weights_that_are_used_twice_are_refused(build: Callable[[], nn.Module]) -> None:
    assert trace(build(), (3, 4, 4)).reasons


def test_weights_that_are_computed_from_others_are_refused() -> None:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(16, 8))
    assert trace(nn.Sequential(nn.Flatten(), linear, nn.Tanh(), nn.Linear(8, 4)), (1, 4, 4)).reasons
