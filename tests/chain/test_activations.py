"""Activations: inverse, derivative and curvature against torch's own, and where an output determines its input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.chain import activations
from leakgauge.chain.activations import Activation

CASES: dict[str, tuple[Activation | None, Callable[[Tensor], Tensor]]] = {
    "leaky 0.2": (activations.leaky_relu(0.2), lambda z: functional.leaky_relu(z, 0.2)),
    "leaky 1": (activations.leaky_relu(1.0), lambda z: z),
    "relu": (activations.relu(), functional.relu),
    "elu": (activations.elu(), functional.elu),
    "elu 0.3": (activations.elu(0.3), lambda z: functional.elu(z, 0.3)),
    "softplus": (activations.softplus(), functional.softplus),
    "softplus 3": (activations.softplus(3.0, 6.0), lambda z: functional.softplus(z, 3.0, 6.0)),
    "sigmoid": (activations.sigmoid(), torch.sigmoid),
    "tanh": (activations.tanh(), torch.tanh),
    "identity": (activations.identity(), lambda z: z),
}
KINKED = ("leaky", "relu")


def points() -> Tensor:
    """Both signs, no zero, from nearly flat to nearly saturated."""
    positive = torch.logspace(-6, 0.7, 40, dtype=torch.float64)
    return torch.cat([-positive.flip(0), positive])


@pytest.mark.parametrize("name", CASES)
def test_value_derivative_and_curvature_are_torchs(name: str) -> None:
    found, wanted = CASES[name]
    assert found is not None
    z = points()
    first = torch.func.vmap(torch.func.grad(wanted))(z)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(wanted)))(z)
    assert torch.equal(found.forward(z), wanted(z))
    assert torch.allclose(found.derivative(z), first, rtol=1e-9, atol=1e-14)
    assert torch.allclose(found.curvature(z), second, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_inverse_gives_back_what_is_known(name: str) -> None:
    found, _ = CASES[name]
    assert found is not None
    z = points()
    y = found.forward(z)
    known = found.known(y)
    assert known.dtype == torch.bool
    back = found.inverse(y)
    error = (back - z).abs() * found.derivative(z).abs()
    assert float((error[known] / (1 + z.abs())[known]).max()) < 1e-13
    assert bool(known.all()) == (name != "relu")
    if name == "relu":
        assert torch.equal(known, z > 0)
    assert found.partial == (name == "relu")


@pytest.mark.parametrize("name", CASES)
def test_homogeneous_means_that_scaling_passes_through(name: str) -> None:
    found, _ = CASES[name]
    assert found is not None
    z = points()
    assert found.homogeneous == torch.allclose(found.forward(3 * z), 3 * found.forward(z), rtol=1e-12, atol=0)
    assert found.homogeneous == (name.startswith(KINKED) or name == "identity")


@pytest.mark.parametrize(
    ("name", "z"), [("sigmoid", 60.0), ("sigmoid", -800.0), ("tanh", 30.0), ("tanh", -30.0), ("elu", -60.0), ("softplus", -800.0)]
)
def test_a_saturated_output_is_not_known(name: str, z: float) -> None:
    found, _ = CASES[name]
    assert found is not None
    y = found.forward(torch.tensor([z], dtype=torch.float64))
    assert not bool(found.known(y))
    assert bool(torch.isfinite(found.derivative(torch.tensor([z], dtype=torch.float64))))


def test_functions_without_an_inverse_are_none() -> None:
    assert activations.leaky_relu(-0.1) is None
    assert activations.elu(0.0) is None
    assert activations.elu(-1.0) is None
    assert activations.softplus(-1.0) is None
    flat = activations.leaky_relu(0.0)
    assert flat is not None
    assert flat.partial
