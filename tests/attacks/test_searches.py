"""L-BFGS and Adam, many restarts at once, against plain versions of themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.base import Search, SearchState
from leakgauge.attacks.matching.search.lbfgs import LBFGS, LBFGSState
from leakgauge.errors import OptionError
from leakgauge.randomness import rng

Function = Callable[[Tensor], Tensor]  # (A, D) -> (A,)


def told(state: SearchState, function: Function) -> None:
    """One round of the conversation."""
    points = state.ask().detach().requires_grad_()
    values = function(points)
    (slopes,) = torch.autograd.grad(values.sum(), points)
    state.tell(values.detach(), slopes)


def run(search: Search, start: Tensor, function: Function, rounds: int) -> SearchState:
    state = search.begin(start, None, None, rounds)
    for _ in range(rounds):
        if len(state.active) == 0:
            break
        told(state, function)
    return state


def quadratic(size: int, seed: int, condition: float = 100.0) -> tuple[Function, Tensor]:
    """A convex quadratic and its minimiser."""
    generator = rng(seed, "quadratic")
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    matrix = basis @ torch.diag(torch.logspace(0, torch.log10(torch.tensor(condition)).item(), size).double()) @ basis.T
    centre = torch.randn(size, generator=generator, dtype=torch.float64)
    return lambda x: 0.5 * ((x - centre) @ matrix * (x - centre)).sum(1), centre


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def wells(x: Tensor) -> Tensor:
    """Many minima and much negative curvature."""
    return (x.square() / 20 + torch.cos(3 * x) + 0.1 * x * x.roll(1, 1)).sum(1)


def draw(restarts: int, size: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(restarts, size, generator=rng(seed, "start"), dtype=torch.float64)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(2, 20), st.integers(0, 1000))
def test_lbfgs_solves_convex_quadratics(restarts: int, size: int, history: int, seed: int) -> None:
    function, centre = quadratic(size, seed)
    state = run(LBFGS(history=history), draw(restarts, size, seed), function, 400)
    torch.testing.assert_close(state.point, centre.expand(restarts, size), rtol=0, atol=1e-6)


def two_loops(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """H g by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4); pairs (s, y), oldest first."""
    q, alphas = slope.clone(), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (s @ y)
        alphas.append(alpha)
        q = q - alpha * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - (y @ r) / (s @ y))
    return r


@pytest.mark.parametrize("function", [rosenbrock, wells, quadratic(6, 3)[0]], ids=["rosenbrock", "wells", "quadratic"])
@pytest.mark.parametrize("history", [1, 3, 40])
def test_directions_are_those_of_the_two_loop_recursion(function: Function, history: int) -> None:
    start = draw(3, 6, 1, 1.5)
    state = LBFGS(history=history).begin(start, None, None, 0)
    assert isinstance(state, LBFGSState)
    held: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    compared = skipped = wrapped = 0
    for _ in range(60):
        rows = state.active.tolist()
        if not rows:
            break
        before, slopes, begun = state.point.clone(), state.slope.clone(), state.begun.clone()
        told(state, function)
        for row in rows:
            if torch.equal(state.point[row], before[row]) and begun[row]:
                if state.pairs[row] == 0:
                    held[row].clear()
                continue
            s, y = state.point[row] - before[row], state.slope[row] - slopes[row]
            useful = bool(begun[row] and s @ y > 1e-10 * (y @ y))
            skipped += bool(begun[row] and not useful)
            if useful:
                held[row].append((s, y))
                wrapped += len(held[row]) > history
            if state.pairs[row] == 0:
                held[row].clear()
                torch.testing.assert_close(state.direction[row], -state.slope[row])
            elif state.slope[row].norm() > 1e-6:
                expected = -two_loops(state.slope[row], held[row][-history:])
                torch.testing.assert_close(state.direction[row], expected, rtol=1e-6, atol=1e-8 * float(expected.norm()))
                compared += 1
    assert compared > 10
    assert wrapped > 5 or history == 40
    if function is wells:
        assert skipped > 0


@pytest.mark.parametrize("function", [rosenbrock, wells], ids=["rosenbrock", "wells"])
@pytest.mark.parametrize("search", [LBFGS(history=3), LBFGS(history=20), Adam(lr=0.05), Adam(lr=0.05, signed=True)], ids=repr)
def test_each_restart_goes_its_own_way(function: Function, search: Search) -> None:
    start = draw(4, 5, 2, 1.5)
    rounds = 20  # many more, and rounding (batched products add in another order) grows along the valley
    together = run(search, start, function, rounds).point
    for row in range(4):
        alone = run(search, start[row : row + 1], function, rounds).point
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-10)


def test_a_dropped_restart_disturbs_nobody() -> None:
    start = draw(3, 5, 2)
    state = LBFGS(history=4).begin(start, None, None, 0)
    for count in range(30):
        if count == 10:
            state.drop(torch.tensor([1]))
        told(state, rosenbrock)
    assert state.active.tolist() == [0, 2]
    alone = run(LBFGS(history=4), start[[0, 2]], rosenbrock, 30)
    torch.testing.assert_close(state.point[[0, 2]], alone.point, rtol=1e-10, atol=1e-10)


def test_lbfgs_finds_the_end_of_rosenbrocks_valley() -> None:
    state = run(LBFGS(), torch.tensor([[-1.2, 1.0], [2.0, -2.0], [0.0, 0.0]], dtype=torch.float64), rosenbrock, 200)
    torch.testing.assert_close(state.point, torch.ones(3, 2, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_line_search_steps_back_from_what_is_not_finite() -> None:
    def logarithmic(x: Tensor) -> Tensor:
        return (x - torch.log(x)).sum(1)  # NaN for x < 0; minimum at 1

    start = torch.tensor([[0.01, 3.0], [5.0, 0.2], [-1.0, 1.0]], dtype=torch.float64)
    state = run(LBFGS(), start, logarithmic, 200)
    torch.testing.assert_close(state.point[:2], torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert torch.equal(state.point[2], start[2])
    assert 2 not in state.active.tolist(), "a start without a finite value ends at once"


def test_the_objective_never_rises() -> None:
    state = LBFGS(history=5).begin(draw(4, 6, 5, 2.0), None, None, 0)
    assert isinstance(state, LBFGSState)
    last = torch.full((4,), float("inf"), dtype=torch.float64)
    for _ in range(60):
        if len(state.active) == 0:
            break
        told(state, wells)
        assert bool((state.value <= last).all())
        last = state.value.clone()


def test_a_start_at_the_minimum_ends() -> None:
    function, centre = quadratic(4, 0)
    state = run(LBFGS(), centre[None].clone(), function, 3)
    assert len(state.active) == 0
    assert torch.equal(state.point[0], centre)


def test_adam_is_torchs_adam() -> None:
    start = draw(3, 5, 4)
    state = Adam(lr=0.07, schedule="constant", betas=(0.8, 0.95)).begin(start, None, None, 0)
    leaf = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.07, betas=(0.8, 0.95))
    for _ in range(30):
        told(state, wells)
        optimiser.zero_grad()
        wells(leaf).sum().backward()
        optimiser.step()
        torch.testing.assert_close(state.point, leaf.detach(), rtol=1e-12, atol=1e-12)


def test_signed_adam_does_not_see_the_size_of_the_slope() -> None:
    start = draw(2, 5, 4)
    search = Adam(lr=0.1, signed=True, schedule="constant")
    plain = run(search, start, wells, 20).point
    scaled = run(search, start, lambda x: 1e-6 * wells(x), 20).point
    torch.testing.assert_close(plain, scaled, rtol=0, atol=1e-12)
    first = run(search, start, wells, 1).point
    torch.testing.assert_close((first - start).abs(), torch.full_like(start, 0.1), rtol=1e-6, atol=0)


def test_the_box_holds() -> None:
    low, high = torch.tensor([-1.0, 0.0, -float("inf")]), torch.tensor([0.5, 0.1, float("inf")])
    state = Adam(lr=0.3, schedule="constant").begin(torch.zeros(2, 3), low, high, 0)
    for _ in range(25):
        told(state, lambda x: (x - 3).square().sum(1))
        assert bool((state.point >= low).all() and (state.point <= high).all())
    torch.testing.assert_close(state.point[:, :2], high[:2].expand(2, 2))
    assert bool((state.point[:, 2] > 1).all())


def test_the_schedule_has_its_marks() -> None:
    steps, cosine, constant = Adam(schedule="steps"), Adam(schedule="cosine"), Adam(schedule="constant")
    factors = [steps.factor(step, 800) for step in (0, 299, 300, 499, 500, 699, 700, 799)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert [cosine.factor(step, 100) for step in (0, 50, 100, 150)] == pytest.approx([1, 0.5, 0, 0])
    assert constant.factor(99, 100) == 1


def test_adam_ends_a_restart_that_is_not_finite() -> None:
    start = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    state = Adam(lr=0.01, schedule="constant").begin(start, None, None, 0)
    for _ in range(5):
        told(state, lambda x: (x - torch.log(x)).sum(1))
    assert state.active.tolist() == [0]
    assert torch.equal(state.point[1], start[1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LBFGS(history=0), "LBFGS.history is 0"),
        (lambda: Adam(lr=0.0), "Adam.lr is 0.0"),
        (lambda: Adam(schedule="linear"), "Adam.schedule is 'linear'; expected one of constant, steps, cosine"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Search], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()
