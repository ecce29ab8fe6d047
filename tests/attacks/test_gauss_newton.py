"""Levenberg-Marquardt on small residuals with known answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leakgauge.attacks.matching.search.gauss_newton import GaussNewton, LevenbergMarquardt
from leakgauge.randomness import rng


def never() -> bool:
    return False


def linear(rows: int, size: int) -> tuple[Tensor, Tensor]:
    generator = rng(0, "linear", rows, size)
    return (
        torch.randn(rows, size, generator=generator, dtype=torch.float64),
        torch.randn(rows, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(("rows", "size"), [(5, 5), (12, 5), (40, 17)])
def test_linear_least_squares_takes_one_step(rows: int, size: int) -> None:
    matrix, wanted = linear(rows, size)
    start = torch.randn(size, generator=rng(1), dtype=torch.float64)
    iteration = LevenbergMarquardt(lambda x: matrix @ x - wanted, start, GaussNewton(chunk=4), never)
    iteration.damping = 0.0
    step = iteration.step()
    assert step is not None
    assert step.moved
    expected = torch.linalg.lstsq(matrix, wanted[:, None]).solution[:, 0]
    torch.testing.assert_close(step.point, expected, rtol=1e-8, atol=1e-8)
    assert step.value == pytest.approx(float((matrix @ expected - wanted).square().sum()), rel=1e-8, abs=1e-18)


def test_a_residual_that_vanishes_is_approached_quadratically() -> None:
    matrix, _ = linear(12, 6)
    truth = torch.randn(6, generator=rng(2), dtype=torch.float64)

    def residual(x: Tensor) -> Tensor:
        return torch.tanh(matrix @ x / 3) - torch.tanh(matrix @ truth / 3)

    iteration = LevenbergMarquardt(residual, truth + 0.3, GaussNewton(), never)
    errors = [float((iteration.point - truth).norm())]
    for _ in range(8):
        step = iteration.step()
        assert step is not None
        errors.append(float((step.point - truth).norm()))
        if errors[-1] < 1e-12:
            break
    assert errors[-1] < 1e-10
    assert len(errors) <= 6, errors


def test_the_value_falls_and_a_stall_is_reported() -> None:
    matrix, wanted = linear(20, 4)  # has no solution: the value stays above zero
    iteration = LevenbergMarquardt(
        lambda x: torch.sin(matrix @ x) - wanted, torch.zeros(4, dtype=torch.float64), GaussNewton(), never
    )
    last, moved = iteration.value, True
    for _ in range(200):
        step = iteration.step()
        assert step is not None
        assert step.value <= last
        last, moved = step.value, step.moved
        if not moved:
            break
    assert not moved
    leaf = iteration.point.clone().requires_grad_()
    (slope,) = torch.autograd.grad((torch.sin(matrix @ leaf) - wanted).square().sum(), leaf)
    assert float(slope.norm()) < 1e-5


@pytest.mark.parametrize("chunk", [1, 3, 7, 512])
def test_the_jacobian_is_the_derivative(chunk: int) -> None:
    matrix, wanted = linear(9, 7)

    def residual(x: Tensor) -> Tensor:
        return torch.sin(matrix @ x) * x.sum() - wanted

    point = torch.randn(7, generator=rng(3), dtype=torch.float64)
    iteration = LevenbergMarquardt(residual, point, GaussNewton(chunk=chunk), never)
    jacobian = iteration._jacobian()
    assert jacobian is not None
    torch.testing.assert_close(jacobian.T, torch.func.jacrev(residual)(point), rtol=1e-12, atol=1e-12)


def test_the_clock_ends_it_in_the_middle() -> None:
    matrix, wanted = linear(5, 5)
    polled = []

    def expired() -> bool:
        polled.append(True)
        return len(polled) > 2

    start = torch.zeros(5, dtype=torch.float64)
    iteration = LevenbergMarquardt(lambda x: matrix @ x - wanted, start, GaussNewton(chunk=1), expired)
    assert iteration.step() is None
    assert len(polled) == 3
    assert torch.equal(iteration.point, start)


def test_a_singular_jacobian_is_damped() -> None:
    def residual(x: Tensor) -> Tensor:
        return torch.stack([x[0] + x[1] - 1, 2 * (x[0] + x[1] - 1), x[0] * 0])

    iteration = LevenbergMarquardt(residual, torch.tensor([3.0, -1.0], dtype=torch.float64), GaussNewton(), never)
    for _ in range(8):
        step = iteration.step()
        assert step is not None
    assert iteration.value < 1e-12


def test_it_applies_to_small_problems_only() -> None:
    settings = GaussNewton(unknowns=100, numbers=10_000)
    assert settings.applies(100, 100)
    assert not settings.applies(101, 10)
    assert not settings.applies(100, 101)
