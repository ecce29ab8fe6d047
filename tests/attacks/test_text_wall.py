"""Texts past the rank wall: lengths, classes, last tokens, and whole texts of a batch with more tokens than the width."""

from __future__ import annotations

import pytest
import torch
from text_exact_cases import batch, gpt2, seen_of

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.network import read_network
from leakgauge.attacks.text.wall.attack import EmbeddingRows
from leakgauge.attacks.text.wall.endings import last_tokens
from leakgauge.attacks.text.wall.fit import Fit
from leakgauge.attacks.text.wall.rows import Rows, lengths_and_labels, read_rows
from leakgauge.attacks.text.wall.search import read_texts
from leakgauge.core.reconstruction import Outcome
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng
from leakgauge.truth import Batch

WIDTH = 16


def rows_of(texts: Batch, **options: bool) -> Rows:
    seen = seen_of(gpt2(width=WIDTH), texts, **options)
    return read_rows(seen, read_network(seen, torch.float64))


def texts_of(texts: Batch) -> list[tuple[int, ...]]:
    assert isinstance(texts.inputs, torch.Tensor)
    return sorted(tuple(row[row > 0].tolist()) for row in texts.inputs)


def test_derivatives_of_the_true_texts_add_up_to_the_rows() -> None:
    texts = batch((9, 7, 6))
    rows = rows_of(texts)
    assert isinstance(texts.inputs, torch.Tensor)
    assert isinstance(texts.labels, torch.Tensor)
    words, places = torch.zeros_like(rows.words), torch.zeros_like(rows.places)
    for text, label in zip(texts.inputs, texts.labels, strict=True):
        ids = text[text > 0]
        found = rows.derivatives(ids[None], label[None])[0]
        words.index_add_(0, torch.searchsorted(rows.bag, ids), found)
        places[: len(ids)] += found
    torch.testing.assert_close(words, rows.words, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(places, rows.places, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_lengths_and_classes_are_read_off_the_position_rows(seed: int) -> None:
    texts = batch((9, 7, 6), seed=seed)
    assert isinstance(texts.labels, torch.Tensor)
    expected = sorted(zip((9, 7, 6), texts.labels.tolist(), strict=True))
    assert sorted(lengths_and_labels(rows_of(texts), rng(0, "attack"))) == expected


def test_a_batch_with_more_tokens_than_the_network_is_wide_is_read() -> None:
    texts = batch((9, 7, 6))
    found = read_texts(rows_of(texts), rng(0, "attack"))
    assert sum(map(len, found.texts)) > WIDTH
    assert sorted(tuple(text.tolist()) for text in found.texts) == texts_of(texts)
    assert found.residual < 1e-4


def test_changes_are_what_a_new_fit_gives() -> None:
    draw = rng(0, "fit")
    table, rows = torch.randn(4, 6, 3, generator=draw), torch.randn(7, 3, generator=draw)
    spots, chosen = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 1, 2, 3, 0, 1])
    variance, floor = torch.linspace(1, 2, 6, dtype=torch.float64), torch.full((7,), 0.1, dtype=torch.float64)
    fit = Fit(table, rows, spots, chosen, variance, floor)
    for places, tokens in (([[2]], [[3]]), ([[0, 4]], [[2, 1]]), ([[1, 2]], [[2, 1]])):
        changed = chosen.clone()
        changed[torch.tensor(places[0])] = torch.tensor(tokens[0])
        wanted = Fit(table, rows, spots, changed, variance, floor).misfit - fit.misfit
        assert float(fit.changes(torch.tensor(places), torch.tensor(tokens))) == pytest.approx(wanted, rel=1e-5)
    before = fit.misfit
    assert fit.sweep(draw) > 0
    assert fit.misfit < before


def test_last_tokens_of_opposite_classes_stay_in_one_row() -> None:
    """Their derivatives nearly cancel, so that the row that holds them is quiet."""
    draw = rng(0, "last")
    side = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    parts = side[:, None] * torch.randn(1, 16, generator=draw) + 0.05 * torch.randn(5, 16, generator=draw)
    words = 0.02 * torch.randn(9, 16, generator=draw)
    words[3] += parts.sum(0)
    assert last_tokens(words, parts, draw).tolist() == [3] * 5


@pytest.mark.parametrize(("task", "options"), [("causal", {}), ("classification", {"frozen": True})])
def test_what_cannot_be_read_is_refused(task: str, options: dict[str, bool]) -> None:
    texts = batch((9, 7, 6), task)
    seen = seen_of(gpt2(task, width=WIDTH), texts, **options)
    with pytest.raises(UnsupportedError, match=r"embedding-rows needs"):
        read_rows(seen, read_network(seen, torch.float64))


def test_the_attack_reads_what_explains_the_update_and_certifies_nothing() -> None:
    texts = batch((9, 7, 6))
    guess = EmbeddingRows()(seen_of(gpt2("classification", width=WIDTH), texts), rng(0, "attack"))
    assert sorted(tuple(row[row > 0].tolist()) for row in guess.inputs) == texts_of(texts)
    assert guess.explains
    assert guess.outcome is Outcome.CONVERGED
    assert not guess.certified.any()
    assert guess.stats.evaluations > 0


def test_the_attack_stops_at_its_budget_and_says_that_tokens_are_wrong() -> None:
    texts = batch((9, 7, 6))
    seen = seen_of(gpt2("classification", width=WIDTH), texts)
    few = EmbeddingRows()(seen, rng(0, "attack"), Limits(1))
    assert not few.explains
    assert few.outcome is Outcome.STEP_LIMIT
    assert "some tokens are wrong" in few.stats.cause
    assert few.stats.residual > 1e-3
