"""Least squares against dense solves, and null spaces against ones that were built in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.linalg import LeastSquares, Preconditioner, cholesky_preconditioner, dense_least_squares, lsmr, null_space
from leakgauge.randomness import rng

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=rng(seed, "linalg"), dtype=torch.float64)


def with_spectrum(rows: int, columns: int, values: Tensor, seed: int) -> Tensor:
    """(rows, columns) matrix with the given singular values."""
    left = torch.linalg.qr(drawn(rows, len(values), seed=seed)).Q
    right = torch.linalg.qr(drawn(columns, len(values), seed=seed + 1)).Q
    return left * values @ right.T


def solved(matrix: Tensor, right: Tensor, **options: object) -> LeastSquares:
    return lsmr(lambda x: x @ matrix.T, lambda y: y @ matrix, right, **{"tolerance": 1e-14, **options})  # type: ignore[arg-type]


@SETTINGS
@given(st.integers(1, 25), st.integers(1, 25), st.integers(1, 4), st.integers(0, 10_000))
def test_several_right_hand_sides_agree_with_dense_solves(rows: int, columns: int, count: int, seed: int) -> None:
    """Square, tall and wide; of smallest norm where it is wide."""
    rank = min(rows, columns)
    matrix = with_spectrum(rows, columns, torch.linspace(1, 3, rank, dtype=torch.float64), seed)
    right = drawn(count, rows, seed=seed + 2)
    found = solved(matrix, right)
    wanted = (torch.linalg.pinv(matrix) @ right.T).T
    assert torch.allclose(found.solution, wanted, rtol=1e-9, atol=1e-9)
    off = (right - wanted @ matrix.T).norm(dim=1)
    assert torch.allclose(found.residual, off, rtol=1e-6, atol=1e-9)
    assert bool(found.converged.all())
    assert found.solution.shape == (count, columns)


def test_each_right_hand_side_is_solved_as_if_alone() -> None:
    matrix = with_spectrum(30, 20, torch.logspace(0, -2, 20, dtype=torch.float64), 0)
    right = drawn(4, 30, seed=1) * torch.tensor([1.0, 1e-6, 1e6, 1.0], dtype=torch.float64)[:, None]
    together = solved(matrix, right, iterations=500).solution
    for one, found in zip(right, together, strict=True):
        alone = solved(matrix, one[None], iterations=500).solution[0]
        assert float((alone - found).norm() / alone.norm()) < 1e-8


def test_damping_is_tikhonovs() -> None:
    matrix, right = with_spectrum(20, 12, torch.logspace(0, -4, 12, dtype=torch.float64), 3), drawn(2, 20, seed=4)
    for damping in (1e-3, 0.1, 2.0):
        found = solved(matrix, right, damping=damping)
        normal = matrix.T @ matrix + damping**2 * torch.eye(12, dtype=torch.float64)
        wanted = torch.linalg.solve(normal, matrix.T @ right.T).T
        assert float((found.solution - wanted).norm() / wanted.norm()) < 1e-8


def test_a_preconditioner_changes_the_way_not_the_answer() -> None:
    scale = torch.logspace(0, 4, 40, dtype=torch.float64)
    matrix = with_spectrum(60, 40, torch.linspace(1, 2, 40, dtype=torch.float64), 5) * scale
    right = drawn(1, 60, seed=6)
    wanted = torch.linalg.lstsq(matrix, right.T).solution.T
    even = Preconditioner.diagonal(1 / scale)
    found = solved(matrix, right, precondition=even)
    assert float(((found.solution - wanted) * scale).norm() / (wanted * scale).norm()) < 1e-9
    assert found.condition < 3
    assert found.iterations < 40
    assert not bool(solved(matrix, right, iterations=found.iterations).converged)
    other = lsmr(
        lambda x: x @ matrix.T, lambda y: y @ matrix, right, tolerance=1e-14,
        precondition=Preconditioner(lambda y: y.flip(1) / scale, lambda x: (x / scale).flip(1)),
    )  # fmt: skip
    assert float(((other.solution - wanted) * scale).norm() / (wanted * scale).norm()) < 1e-9


def test_damping_acts_on_the_preconditioned_unknowns() -> None:
    scale = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    matrix, right = drawn(6, 3, seed=7), drawn(1, 6, seed=8)
    found = solved(matrix, right, precondition=Preconditioner.diagonal(scale), damping=0.5)
    normal = matrix.T @ matrix + 0.25 * torch.diag(scale**-2)
    assert torch.allclose(found.solution[0], torch.linalg.solve(normal, matrix.T @ right[0]), rtol=1e-9)


def test_zero_right_hand_sides_give_zero_and_disturb_no_other() -> None:
    matrix, right = drawn(8, 5, seed=9), torch.zeros(3, 8, dtype=torch.float64)
    alone = solved(matrix, right)
    assert torch.equal(alone.solution, torch.zeros(3, 5, dtype=torch.float64))
    assert torch.equal(alone.residual, torch.zeros(3, dtype=torch.float64))
    assert alone.iterations == 0
    assert bool(alone.converged.all())
    right[1] = drawn(8, seed=10)
    mixed = solved(matrix, right)
    assert torch.equal(mixed.solution[::2], torch.zeros(2, 5, dtype=torch.float64))
    assert torch.allclose(mixed.solution[1], torch.linalg.lstsq(matrix, right[1][:, None]).solution[:, 0], rtol=1e-9)
    outside = solved(torch.zeros(4, 3, dtype=torch.float64), drawn(1, 4, seed=11))
    assert torch.equal(outside.solution, torch.zeros(1, 3, dtype=torch.float64))


def test_without_full_rank_the_solution_has_no_part_in_the_null_space() -> None:
    matrix = with_spectrum(40, 30, torch.linspace(1, 4, 21, dtype=torch.float64), 12)
    right = drawn(2, 40, seed=13)
    found = solved(matrix, right)
    wanted = (torch.linalg.pinv(matrix, rtol=1e-10) @ right.T).T
    assert torch.allclose(found.solution, wanted, rtol=1e-9, atol=1e-10)
    assert found.smallest > 0.9  # zero singular values never show
    assert found.largest == pytest.approx(4, rel=0.05)


def test_extreme_singular_values_come_to_light() -> None:
    values = torch.logspace(0, -1, 15, dtype=torch.float64)
    found = solved(with_spectrum(25, 15, values, 14), drawn(2, 25, seed=15), iterations=15)
    assert found.largest == pytest.approx(1, rel=1e-3)
    assert found.smallest == pytest.approx(0.1, rel=1e-2)


def test_limits_end_the_iteration() -> None:
    matrix, right = with_spectrum(80, 60, torch.logspace(0, -6, 60, dtype=torch.float64), 16), drawn(1, 80, seed=17)
    short = solved(matrix, right, iterations=5)
    assert short.iterations == 5
    assert not bool(short.converged)
    stopped = solved(matrix, right, expired=lambda: True)
    assert stopped.iterations == 0
    loose = solved(matrix, matrix @ drawn(60, seed=18) + torch.zeros(1, 80, dtype=torch.float64), fit=1e-2)
    assert bool(loose.converged)
    assert float(loose.residual) < 1e-2 * float(right.norm()) * 10


def test_float32_is_solved_in_float32() -> None:
    matrix, right = with_spectrum(20, 10, torch.linspace(1, 2, 10, dtype=torch.float64), 19), drawn(1, 20, seed=20)
    found = lsmr(lambda x: x @ matrix.float().T, lambda y: y @ matrix.float(), right.float(), tolerance=1e-6)
    assert found.solution.dtype == torch.float32
    assert torch.allclose(found.solution.double(), torch.linalg.lstsq(matrix, right.T).solution.T, atol=1e-5)


def test_dense_least_squares_cuts_small_singular_values() -> None:
    values = torch.tensor([3.0, 1.0, 1e-13], dtype=torch.float64)
    matrix, right = with_spectrum(7, 5, values, 21), drawn(7, 2, seed=22)
    found, spectrum = dense_least_squares(matrix, right)
    assert torch.allclose(spectrum[:2], values[:2], rtol=1e-12)
    assert torch.allclose(found, torch.linalg.pinv(matrix, rtol=1e-10) @ right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", ["own factor", "given factor"])
@pytest.mark.parametrize(("columns", "missing"), [(60, 7), (60, 1), (90, 30), (40, 0)])
def test_null_spaces_that_were_built_in_are_found(way: str, columns: int, missing: int) -> None:
    matrix = with_spectrum(120, columns, torch.logspace(0, -2, columns - missing, dtype=torch.float64), columns)
    wanted = torch.linalg.svd(matrix).Vh[columns - missing :].T
    factored = cholesky_preconditioner(matrix.T @ matrix) if way == "given factor" else None
    for estimate in {max(missing - 1, 1), missing + 3}:
        like = torch.zeros(columns, dtype=torch.float64)
        found = null_space(lambda x: x @ matrix.T, like, estimate, rng(0, "null"), factored)
        assert found.shape == (columns, missing)
        assert torch.allclose(found.T @ found, torch.eye(missing, dtype=torch.float64), atol=1e-9)
        assert float((matrix @ found).abs().max() if missing else 0.0) < 1e-6
        assert torch.allclose(found @ found.T, wanted @ wanted.T, atol=1e-5)


def test_a_cholesky_preconditioner_is_the_inverse_of_the_normal_matrix() -> None:
    matrix = with_spectrum(50, 20, torch.logspace(0, -3, 20, dtype=torch.float64), 31)
    gram = matrix.T @ matrix
    even = cholesky_preconditioner(gram.clone())
    eye = torch.eye(20, dtype=torch.float64)
    assert torch.allclose(even.apply(even.adjoint(eye)) @ gram, eye, atol=1e-6)
    right = drawn(1, 50, seed=32)
    found = solved(matrix, right, precondition=even)
    assert found.iterations <= 5
    assert torch.allclose(found.solution.T, torch.linalg.lstsq(matrix, right.T).solution, rtol=1e-8, atol=1e-8)


def test_the_null_space_of_a_wide_map_is_found_from_either_side() -> None:
    """Fewer rows than columns: at least columns - rows directions."""
    matrix = drawn(10, 25, seed=30)
    found = null_space(lambda x: x @ matrix.T, torch.zeros(25, dtype=torch.float64), 15, rng(0))
    assert found.shape == (25, 15)
    assert float((matrix @ found).abs().max()) < 1e-8
