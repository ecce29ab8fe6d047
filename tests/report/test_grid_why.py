"""Faults are put into real clients, networks and attacks, and the page has to name each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from grid_examples import batch, played
from report_examples import layers, one_rebuilt
from torch import nn

from leakgauge.audit.case import Case, run_case
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult, Status
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.data import load_data
from leakgauge.models import load_model
from leakgauge.report.grid.why import (
    AMBIGUOUS,
    APPLIES,
    BATCH_NORM,
    BUDGET,
    DEFENCE,
    FAILED,
    GAP,
    KINDS,
    NONFINITE,
    RANK,
    SATURATION,
    STALL,
    TIME,
    reasons,
)

DATA = "demo:cat?size=16"


def kinds(result: CellResult) -> list[str]:
    found = reasons(result)
    assert all(reason.kind in KINDS and reason.text.endswith(".") for reason in found)
    return [reason.kind for reason in found]


def cell(attack: str, model: str = "lenet-dlg", **changes: Any) -> Cell:
    return Cell(DATA, model, attack, 0, **changes)


def play(one: Cell, model: nn.Module | str | None = None, *, defences: tuple[str, ...] = (), **changes: Any) -> CellResult:
    settings: dict[str, Any] = {"num_classes": 4, "budget": 60, **changes}
    case = Case(one.model if model is None else model, DATA, one.attack, defences=defences, **settings)
    return CellResult(one, "ok", "", run_case(case, keep_unsupported=True))


def network(name: str = "lenet-dlg") -> nn.Module:
    found = load_data(DATA)
    assert found.pictures is not None
    return load_model(name, num_classes=4, input_shape=found.pictures.shape, seed=0)


def test_a_search_that_ends_too_early_leaves_a_gap_and_a_budget() -> None:
    found = kinds(play(cell("inverting-gradients"), budget=60))
    assert GAP in found
    assert BUDGET in found
    assert not {STALL, DEFENCE, SATURATION, RANK} & set(found)


def test_an_optimiser_that_does_not_move_has_stalled() -> None:
    found = kinds(play(cell("inverting-gradients:lr=1e-9,restarts=1"), budget=200))
    assert GAP in found
    assert STALL in found
    assert BUDGET not in found


def test_noise_on_the_update_is_named_and_not_taken_for_a_gap() -> None:
    found = kinds(play(cell("dlg", defence="gaussian-noise:std=0.1"), defences=("gaussian-noise:std=0.1",), budget=200))
    assert DEFENCE in found
    assert GAP not in found


def test_saturated_activations_are_named() -> None:
    model = network("mlp:hidden=8,activation=sigmoid")
    with torch.no_grad():
        model.get_parameter("linear1.bias").fill_(80.0)
    assert SATURATION in kinds(play(cell("inverting-gradients"), model))


def test_missing_rank_is_named_with_its_layer() -> None:
    """A strided first layer with one channel cannot determine its input."""
    result = play(cell("recursive"), nn.Sequential(nn.Conv2d(3, 1, 4, 4), nn.LeakyReLU(), nn.Flatten(), nn.Linear(16, 4)))
    found = reasons(result)
    assert found[0].kind == RANK
    assert result.record is not None
    assert any(layer.name in found[0].text for layer in result.record.layers) or result.record.bound


def test_batchnorm_statistics_that_were_not_seen_are_named() -> None:
    one = cell("bn-matching", threat=(("batch_norm", False),))
    hidden = ThreatModel.honest_but_curious(batch_norm=False)
    training = LocalTraining(mode="train")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 4))
    assert BATCH_NORM in kinds(play(one, model, threat=hidden, training=training))
    eval_mode = reasons(play(cell("inverting-gradients"), model, training=training))
    assert any(reason.kind == BATCH_NORM and "replays a client in eval mode" in reason.text for reason in eval_mode)
    observed = reasons(play(cell("inverting-gradients:mode=observed"), model, training=training))
    assert BATCH_NORM not in [reason.kind for reason in observed]


def test_an_attack_that_does_not_apply_gives_its_own_reason() -> None:
    truth, names, patients = batch(1, 1, 16)
    one = replace(played(cell("recursive"), truth, 0.6, names=names, patients=patients), status="unsupported", reason="No chain")
    assert [(reason.kind, reason.text) for reason in reasons(one)] == [(APPLIES, "No chain.")]


@pytest.mark.parametrize(
    ("status", "outcome", "kind"),
    [("failed", "CONVERGED", FAILED), ("failed", "NONFINITE", NONFINITE), ("timeout", "TIMEOUT", TIME)],
)
def test_ends_that_were_no_ends_are_named(status: Status, outcome: str, kind: str) -> None:
    truth, names, patients = batch(1, 1, 16)
    one = played(cell("dlg"), truth, 0.6, names=names, patients=patients, outcome=outcome)
    assert kind in kinds(replace(one, status=status, reason="It ended so."))
    assert kinds(CellResult(one.cell, status, "It ended so.")) == [kind if kind != NONFINITE else FAILED]


def test_an_explained_update_with_another_picture_is_ambiguous_and_a_lack_of_equations_is_not() -> None:
    truth, names, patients = batch(1, 1, 16)
    one = played(cell("dlg"), truth, 0.6, names=names, patients=patients, explains=True, residual=1e-9)
    assert kinds(one) == [AMBIGUOUS]
    assert one.record is not None
    lacking = replace(one, record=replace(one.record, layers=layers(missing=300)))
    assert [(reason.kind, reason.text) for reason in reasons(lacking)] == [
        (RANK, "Layer conv1 determines 2772 of its 3072 values.")
    ]


def test_what_was_rebuilt_needs_no_reason() -> None:
    assert reasons(CellResult(cell("dlg"), "ok", "", one_rebuilt())) == ()
