"""`validate` recomputes what `lg.record` captured from ordinary loops to 1e-5, or names why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_cases import CASES, EXAMPLES, Case, verdict


@pytest.mark.parametrize("name", CASES)
def test_captured_loop_is_recomputed_or_its_cause_is_named(name: str, tmp_path: Path) -> None:
    case: Case = CASES[name]
    found, seen = verdict(case, tmp_path)
    assert found.agrees is (case.cause == "")
    assert found.hypothesis == case.cause, found.cause
    if not case.cause:
        assert found.residual <= 1e-5
        assert not found.buffers_residual > 1e-5
    assert seen.num_examples == EXAMPLES
    assert seen.kind == "delta"
    parameters = dict(case.model().named_parameters())
    trained = {key for key, parameter in parameters.items() if parameter.requires_grad}
    assert set(seen.tensors) == trained  # names without the wrappers'
    assert set(seen.withheld) == set(parameters) - trained


def test_the_protocol_is_the_loops(tmp_path: Path) -> None:
    _, seen = verdict(CASES["clip_grad_norm_, Adam, accumulation"], tmp_path)
    training = seen.training
    assert (training.optimiser, training.lr, training.clip_norm) == ("adam", 0.01, 0.05)
    assert (training.epochs, training.batch_size, training.accumulation, training.mode) == (2, 3, 2, "train")
    assert seen.provenance is not None
    assert "clip_norm" in seen.provenance.assumed  # inferred from the norms that clipping left behind


def test_a_schedule_is_one_factor_for_each_step(tmp_path: Path) -> None:
    _, seen = verdict(CASES["learning rate schedule"], tmp_path)
    assert seen.training.lr == 0.1
    assert seen.training.schedule == (1.0, 1.0, 0.5, 0.5, 0.25, 0.25)


def test_settings_without_a_field_are_noted(tmp_path: Path) -> None:
    for name, words in (("AMSGrad", "AMSGrad"), ("eps changed", "eps was 0.0001"), ("dampening", "dampening was 0.9")):
        _, seen = verdict(CASES[name], tmp_path)
        assert seen.provenance is not None
        assert any(words in note for note in seen.provenance.notes)


def test_mixed_precision_and_dtype_are_seen(tmp_path: Path) -> None:
    assert verdict(CASES["bfloat16 autocast"], tmp_path)[1].training.amp
    seen = verdict(CASES["float64"], tmp_path)[1]
    assert seen.training.dtype == "float64"
    assert all(tensor.dtype == torch.float64 for tensor in seen.tensors.values())
