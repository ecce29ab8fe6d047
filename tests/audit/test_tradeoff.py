"""Trade-offs: one federation per defence, the frontier, the policy, the fresh run, and the trend."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from simulation_plans import tiny

from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.tradeoff.record import Leakage, TradeoffPoint, TradeoffResult, combined, non_dominated, trends_of
from leakgauge.audit.tradeoff.run import defended, run_tradeoff
from leakgauge.audit.tradeoff.strength import strengths
from leakgauge.errors import OptionError
from leakgauge.report.tradeoff.files import tradeoff_csv, tradeoff_to_json

SWEEP = ["none", "gaussian-noise:std=1e-1", "gaussian-noise:std=1e-3", "half-precision"]


def plan(**changes: object) -> SimulationPlan:
    settings = {"defences": SWEEP, "policy": "ssim <= 0.5", "measure": "ssim"}
    attack = {"with": ["idlg"], "budget": 200, "rounds": [1], "clients": ["single"]}
    return tiny(**{"attack": attack, "rounds": 1, "tradeoff": settings, **changes})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TradeoffResult:
    return run_tradeoff(plan(), tmp_path_factory.mktemp("tradeoff"))


def test_every_defence_is_played_plain_and_adaptive(result: TradeoffResult) -> None:
    assert result.complete
    assert [point.strength.text for point in result.points] == [SWEEP[0], SWEEP[2], SWEEP[1], SWEEP[3]]
    none, *rest = result.points
    assert {entry.variant for entry in none.leakages} == {"plain"}
    for point in rest:
        assert {entry.variant for entry in point.leakages} == {"plain", "adaptive"}
        assert point.leakage("ssim") == max(point.leakage("ssim", variant=form) for form in ("plain", "adaptive"))
        assert point.guarantee.startswith("no guarantee")
        assert point.epsilon is None


def test_without_a_defence_the_picture_comes_back_and_noise_stops_it(result: TradeoffResult) -> None:
    by_text = {point.strength.text: point for point in result.points}
    assert by_text["none"].leakage("ssim") > 0.9
    assert by_text["none"].broken
    assert by_text["gaussian-noise:std=1e-1"].leakage("ssim") < 0.5


def test_the_first_that_meets_the_policy_is_verified_with_another_seed(result: TradeoffResult) -> None:
    assert result.choice is not None
    for point, fresh in result.choice.tried:
        assert (point.seed, fresh.seed) == (0, 1)
        assert point.strength == fresh.strength
        assert not point.broken
    *before, (last, fresh) = result.choice.tried
    assert all(entry.broken for _, entry in before)
    assert result.choice.chosen == (None if fresh.broken else last)
    assert "with seed 0 and again with seed 1" in result.choice.verdict or "No tested setting" in result.choice.verdict


def test_json_and_csv_have_every_point(result: TradeoffResult) -> None:
    found = tradeoff_to_json(result)
    assert len(found["points"]) == 4
    assert len(found["fresh_points"]) == len(result.choice.tried if result.choice else ())
    lines = tradeoff_csv(result).splitlines()
    assert len(lines) == 1 + 1 + 3 * 2 + sum(len(fresh.leakages) for _, fresh in result.choice.tried if result.choice)


def test_a_second_run_reads_what_is_there(tmp_path: Path) -> None:
    short = plan(tradeoff={"defences": SWEEP[:2], "measure": "ssim"})
    first = run_tradeoff(short, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    second = run_tradeoff(short, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == files
    assert [point.leakages for point in first.points] == [point.leakages for point in second.points]
    assert first.choice is None


def test_a_sweep_that_is_stopped_keeps_what_is_done(tmp_path: Path) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 150

    found = run_tradeoff(plan(), tmp_path, cancelled=cancelled)
    assert not found.complete
    assert len(found.points) < 4
    assert found.choice is None


def test_a_policy_about_identification_needs_decoys(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="which needs 19 decoys of the picture's class; client 'single' has a picture with 0"):
        run_tradeoff(plan(tradeoff={"defences": ["none"], "policy": "identification >= 0.05"}), tmp_path)
    with pytest.raises(OptionError, match=r"The plan has no table \[tradeoff\]"):
        run_tradeoff(tiny(), tmp_path)


def test_a_defence_of_the_server_goes_to_the_server() -> None:
    changed = defended(plan(), "central-dp:noise_multiplier=1,clip_norm=1", 3)
    assert changed.federation.server_defence.startswith("central-dp")
    assert changed.seed == 3
    assert all(not client.defences for client in changed.clients)
    assert all(client.defences == ["clip:norm=1"] for client in defended(plan(), "clip:norm=1", 0).clients)


def made(text: str, accuracy: float, leak: float, adaptive: float | None = None) -> TradeoffPoint:
    def leakage(variant: str, value: float) -> Leakage:
        numbers = dict.fromkeys(("rdlv", "ssim", "psnr"), value)
        return Leakage("idlg", variant, 1, 0, numbers, numbers, math.nan, math.nan)

    entries = [leakage("plain", leak), *([leakage("adaptive", adaptive)] if adaptive is not None else [])]
    (strength,) = strengths([text])
    return TradeoffPoint(strength, 0, accuracy, tuple(entries), "no guarantee", None, ())


def test_the_frontier_holds_what_nothing_beats() -> None:
    points = [made("none", 0.9, 0.8), made("gaussian-noise:std=1", 0.8, 0.2), made("gaussian-noise:std=2", 0.7, 0.3)]
    points += [made("gaussian-noise:std=3", 0.6, 0.1), made("sign", math.nan, 0.0)]
    assert non_dominated(points, "ssim") == (True, True, False, True, False)
    twins = [made("none", 0.9, 0.8), made("sign", 0.9, 0.8)]
    assert non_dominated(twins, "ssim") == (True, True)


def test_the_trend_is_spearmans_and_counts_no_defence_as_the_weakest() -> None:
    points = [made("none", 0.9, 0.9), *(made(f"gaussian-noise:std={std}", 0.9, 1 / std, 1 / std) for std in (2, 4, 8))]
    found = {(trend.family, trend.variant): trend for trend in trends_of(points, "ssim")}
    assert found[("gaussian-noise", "plain")].correlation == pytest.approx(-1.0)
    assert found[("gaussian-noise", "adaptive")].points == 4
    bits = [made("none", 0.9, 0.9), *(made(f"quantise:bits={bits}", 0.9, bits / 10) for bits in (8, 4, 2))]
    assert trends_of(bits, "ssim")[0].correlation == pytest.approx(-1.0)
    flat = [made(f"gaussian-noise:std={std}", 0.9, 0.5) for std in (2, 4, 8)]
    assert math.isnan(trends_of(flat, "ssim")[0].correlation)


def test_probabilities_are_combined_as_fisher_did() -> None:
    assert math.isnan(combined([]))
    assert combined([0.3]) == pytest.approx(0.3)
    assert combined([0.05, 0.05]) < 0.05
    assert combined([0.5, 0.9, 0.7]) > 0.5
