"""The loop around every search: budget, clock, tolerance, and the best so far."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from attack_cases import lenet, observe, pictures
from torch import Tensor

import leakgauge as lg
from leakgauge.attacks.base import Limits, Progress, resolve_device
from leakgauge.attacks.matching.driver import Trail, drive
from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.base import SearchState
from leakgauge.core import Outcome
from leakgauge.errors import OptionError


class Bowl:
    """A stand-in for a problem whose minimum is known: sum of squares, NaN where the first unknown is negative."""

    def __init__(self, holes: bool = False) -> None:
        self.calls, self.holes = 0, holes

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += len(points)
        values = points.square().sum(1)
        if self.holes:
            values = torch.where(points[:, 0] < 0, torch.full_like(values, float("nan")), values)
        return values, 2 * points


class Walk(SearchState):
    """Visits given points, one after another; the same number for each restart."""

    def __init__(self, points: Tensor) -> None:
        super().__init__(points[:, 0])
        self.points, self.count = points, 0

    def ask(self) -> Tensor:
        return self.points[self.active, self.count % self.points.shape[1]]

    def tell(self, values: Tensor, slopes: Tensor) -> None:
        self.count += 1


def walked(points: Tensor, budget: int, *, limits: Limits | None = None, tolerance: float = -1.0, holes: bool = False) -> Trail:
    state = Walk(points)
    trail = Trail.begun(state.point)
    problem = Bowl(holes)
    drive(problem, state, trail, limits or Limits(), budget, tolerance)  # type: ignore[arg-type]
    assert trail.evaluations == problem.calls
    return trail


def one(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_the_best_point_is_kept_whatever_comes_after() -> None:
    trail = walked(one(3, 1, 2, 5), 4)
    assert trail.values.tolist() == [1.0]
    assert trail.best.tolist() == [[1.0]]
    assert trail.outcomes == [Outcome.STEP_LIMIT]


def test_values_that_are_not_finite_are_never_best() -> None:
    trail = walked(one(3, -1, 2), 3, holes=True)
    assert trail.best.tolist() == [[2.0]]
    start = torch.full((2, 3), -1.0)
    trail = Trail.begun(start)
    drive(Bowl(holes=True), Adam().begin(start, None, None, 10), trail, Limits(), 10, -1.0)  # type: ignore[arg-type]
    assert trail.outcomes == [Outcome.NONFINITE] * 2
    assert torch.isinf(trail.values).all()
    assert trail.evaluations == 2


@pytest.mark.parametrize("budget", [1, 3, 10, 100])
def test_the_budget_is_kept(budget: int) -> None:
    assert walked(one(3, 2), budget).evaluations == budget
    pair = torch.rand(2, 3, 1)
    assert walked(pair, budget).evaluations in (budget, budget + 1), "rounds are whole"


def test_the_tolerance_ends_it() -> None:
    trail = walked(one(3, 2, 0.1, 0.05), 100, tolerance=0.02)
    assert trail.evaluations == 3
    assert trail.outcomes == [Outcome.CONVERGED]


def test_cancelling_ends_it_with_the_best_so_far() -> None:
    polled = []

    def cancelled() -> bool:
        polled.append(True)
        return len(polled) > 2

    trail = walked(one(3, 1, 2, 0.5), 100, limits=Limits(cancelled=cancelled))
    assert trail.evaluations == 2
    assert trail.outcomes == [Outcome.TIMEOUT]
    assert trail.best.tolist() == [[1.0]]


def test_the_clock_ends_it() -> None:
    assert walked(one(3, 1), 10**9, limits=Limits(time_limit=0.05)).outcomes == [Outcome.TIMEOUT]


def test_hopeless_restarts_are_dropped() -> None:
    points = torch.tensor([[[1.0]], [[5.0]], [[20.0]]], dtype=torch.float64)
    trail = walked(points, 90)
    assert trail.values.tolist() == [1, 25, 400]
    plain = 3 * 11  # a third of the budget with all three (the drop comes after the round), then two
    assert trail.evaluations in {90, 91}
    assert trail.curve[-1][0] >= plain
    state = Walk(points)
    drive(Bowl(), state, Trail.begun(state.point), Limits(), 90, -1.0)  # type: ignore[arg-type]
    assert state.active.tolist() == [0, 1]


def test_curve_frames_and_progress_run_forwards() -> None:
    told: list[Progress] = []
    points = torch.rand(2, 500, 3, dtype=torch.float64)
    trail = walked(points, 1000, limits=Limits(progress=told.append))
    at = [count for count, _ in trail.curve]
    assert at == sorted(set(at))
    assert 20 <= len(at) <= 70
    for (_, before), (_, after) in zip(trail.curve, trail.curve[1:], strict=False):
        assert bool((after <= before).all())
    frames = [count for count, _ in trail.frames]
    assert frames == sorted(set(frames))
    assert 3 <= len(frames) <= 13
    values = [frame.square().sum(1) for _, frame in trail.frames]
    assert all(bool((after <= before).all()) for before, after in pairwise(values))
    assert [step.evaluations for step in told] == sorted(step.evaluations for step in told)
    assert all(step.planned == 1000 for step in told)


@pytest.mark.parametrize("name", ["dlg", "inverting-gradients", "mu-2022", "idlg"])
@pytest.mark.parametrize("budget", [40, 300])
def test_a_whole_attack_keeps_its_budget(name: str, budget: int) -> None:
    seen = observe(lenet(), pictures(1))
    guess = lg.attack(seen, name, budget=budget, device="cpu")
    assert guess.stats.evaluations <= budget + 20, "one step's trial points beyond it at most"
    at = [point.evaluations for point in guess.stats.curve]
    assert at == sorted(at)
    objectives = [point.objective for point in guess.stats.curve]
    assert objectives == sorted(objectives, reverse=True)
    assert [frame.evaluations for frame in guess.stats.frames] == sorted(frame.evaluations for frame in guess.stats.frames)


def test_a_whole_attack_stops_by_hand_and_by_the_clock() -> None:
    seen = observe(lenet(), pictures(4), labels=True)
    count = [0]

    def cancelled() -> bool:
        count[0] += 1
        return count[0] > 5

    by_hand = lg.attack(seen, "inverting-gradients", device="cpu", cancelled=cancelled)
    assert by_hand.outcome is Outcome.TIMEOUT
    assert by_hand.stats.evaluations == 10
    by_clock = lg.attack(seen, "inverting-gradients", device="cpu", budget="max", time_limit=0.3)
    assert by_clock.outcome is Outcome.TIMEOUT
    assert 0.3 <= by_clock.seconds < 20
    assert by_clock.stats.evaluations > 0
    assert "gradient evaluations" in by_clock.stats.cause
    assert len(by_clock) == 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": "quick"}, "The budget is 'quick'; expected fast, paper, max or a number"),
        ({"budget": 0}, "The budget is 0; expected at least one"),
        ({"budget": True}, "The budget is True"),
        ({"time_limit": 0.0}, "The time limit is 0.0; expected seconds > 0"),
    ],
)
def test_wrong_limits_are_named(wrong: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Limits(**wrong)


def test_limits_read_their_numbers() -> None:
    assert Limits("250").evaluations(1, 2, 3) == 250
    assert [Limits(name).evaluations(1, 2, 3) for name in ("fast", "paper", "max")] == [1, 2, 3]
    assert Limits(cancelled=lambda: True).expired
    assert not dataclasses.replace(Limits(), time_limit=1e6).expired
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(OptionError, match="The device 'cuda:77' cannot be used here"):
        resolve_device("cuda:77")
