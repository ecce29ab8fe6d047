"""Parts of text matching against slow and obvious oracles, in float64."""

from __future__ import annotations

import pytest
import torch
from text_matching_cases import V, batch, bert, gpt2, observe
from torch import Tensor

from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.text.matching.balanced import Balanced
from leakgauge.attacks.text.matching.cosines import Cosines
from leakgauge.attacks.text.matching.decode import alternatives, decode
from leakgauge.attacks.text.matching.labels import labels_of
from leakgauge.attacks.text.matching.language import LanguagePrior
from leakgauge.attacks.text.matching.last import complete
from leakgauge.attacks.text.matching.moves import permutation
from leakgauge.attacks.text.matching.problem import TextProblem
from leakgauge.attacks.text.matching.tag import Tag
from leakgauge.attacks.text.network import read_network
from leakgauge.attacks.text.span.subspace import subspace_of
from leakgauge.randomness import rng
from leakgauge.truth import Batch

ALL = torch.ones(V, dtype=torch.bool)


def problem(span: bool = False, task: str = "masked") -> tuple[TextProblem, Tensor]:
    texts = batch(task, length=6, predicted=1)
    seen = observe(bert(task), texts, dtype="float64")
    network, target = read_network(seen), target_of(seen, "eval", torch.float64, "cpu")
    site = network.sites[0]
    gradient = network.gradient(site, target.tensors)
    assert gradient is not None
    found = TextProblem(
        target=target,
        network=network,
        loss=seen.loss,
        distance=Balanced(),
        mask=torch.ones(1, 6, dtype=torch.int64),
        padding=0,
        causal=False,
        span=subspace_of(gradient / gradient.norm(), 1e-16) if span else None,
        norm_weight=0.0,
        labels=texts.model_labels,
        totals=torch.zeros(0),
        free=torch.ones(1, 6, dtype=torch.bool),
    )
    found.totals = found.tokens_as_totals(texts.inputs)
    return found, texts.inputs


@pytest.mark.parametrize("span", [False, True])
def test_the_truth_has_objective_zero_as_tokens_and_as_unknowns(span: bool) -> None:
    found, ids = problem(span)
    assert found.discrete(ids, found.labels)[1] < 1e-10
    values, slopes = found.evaluate(found.point())
    assert float(values[0]) < 1e-12
    assert slopes.shape == found.point().shape
    assert torch.allclose(found.network.normed(found.filled(found.point()[0])), found.network.normed(found.totals), atol=1e-6)


@pytest.mark.parametrize("span", [False, True])
def test_the_slope_is_the_objective_s_derivative(span: bool) -> None:
    found, _ = problem(span)
    point = found.point() * 1.1
    direction = torch.randn(point.shape, generator=rng(0, "direction"), dtype=point.dtype)
    _, slope = found.evaluate(point)
    step = 1e-6
    ahead, behind = (found.evaluate(point + sign * step * direction)[0] for sign in (1, -1))
    assert float((ahead - behind) / (2 * step)) == pytest.approx(float((slope * direction).sum()), rel=1e-5)


def test_slots_of_an_encoder_have_no_order_and_are_assigned_to_positions() -> None:
    found, ids = problem()
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    labels, totals = found.labels, found.totals.clone()
    found.labels = labels[:, order]
    assert float(found.value(totals[:, order])) < 1e-12
    decoded = decode(found, totals[:, order], ALL, positions=True, assign=True)
    assert torch.equal(decoded.ids, ids)
    assert torch.equal(order[decoded.slot[0]], torch.arange(6))
    assert not torch.equal(decode(found, totals[:, order], ALL, positions=False, assign=False).ids, ids)


def test_the_nearest_token_is_nearest_by_true_cosine() -> None:
    found, _ = problem()
    totals = torch.randn(found.totals.shape, generator=rng(0, "totals"), dtype=torch.float64)
    table = found.network.parameter(found.network.tokens)
    plain = torch.nn.functional.cosine_similarity((totals - found.places)[0, :, None], table[None], dim=2).argmax(1)
    assert torch.equal(decode(found, totals, ALL, positions=False, assign=False).ids[0], plain)
    both = table[None] + found.places[:, None]
    rows = torch.nn.functional.cosine_similarity(
        totals[0, :, None] - totals[0].mean(1)[:, None, None], both - both.mean(2, keepdim=True), dim=2
    )
    decoded = decode(found, totals, ALL, positions=True, assign=False)
    assert torch.equal(decoded.ids[0], rows.argmax(1))
    near = alternatives(found, totals, decoded.slot, ALL, 3)
    assert all(torch.equal(near[0][t], rows[t].topk(3).indices) for t in range(6))


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_token_of_a_causal_text_follows_from_its_label(count: int) -> None:
    texts = batch("causal", count, length=6)
    seen = observe(gpt2(), texts, dtype="float64")
    network = read_network(seen)
    head = {name: seen.tensors[name] for name in list(seen.tensors)[-4:]}
    wrong = texts.inputs.clone()
    wrong[:, -1] = 7
    assert torch.equal(complete(network, wrong, torch.ones_like(wrong), head, ALL), texts.inputs)


def test_distances_are_what_they_say() -> None:
    generator = rng(0, "tensors")
    found, target = ({name: torch.randn(4, generator=generator, dtype=torch.float64) for name in "ab"} for _ in range(2))
    off = {name: found[name] - target[name] for name in "ab"}
    whole = sum(float(tensor.square().sum()) for tensor in target.values())
    balanced = sum(float(off[name].square().sum()) / (float(target[name].square().sum()) + 1e-8 * whole) for name in "ab") / 2
    assert float(Balanced()(found, target)) == pytest.approx(balanced)
    size = sum(float(tensor.abs().sum()) for tensor in target.values())
    layers = float(off["a"].abs().sum()) + 0.5 * float(off["b"].abs().sum())
    tag = sum(float(part.square().sum()) for part in off.values()) / whole + 0.3 * layers / size
    assert float(Tag(0.3).fitted(target)(found, target)) == pytest.approx(tag)


def test_one_cosine_for_each_tensor_and_none_for_rounding_errors() -> None:
    generator = rng(0, "tensors")
    scales = {"strong": 1.0, "weak": 1e-4, "rounding": 1e-9}
    found, target = (
        {name: scale * torch.randn(6, generator=generator, dtype=torch.float64) for name, scale in scales.items()}
        for _ in range(2)
    )
    cosines = [float(torch.nn.functional.cosine_similarity(found[name], target[name], dim=0)) for name in ("strong", "weak")]
    assert float(Cosines()(found, target)) == pytest.approx(1 - sum(cosines) / 2)
    assert float(Cosines().fitted(target)(found, target)) == pytest.approx(1 - sum(cosines) / 2)
    assert float(Cosines()(target, target)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", range(4))
def test_rearrangements_lose_no_token(kind: int) -> None:
    for seed in range(20):
        order = permutation(7, kind, rng(seed, "moves"))
        assert sorted(order.tolist()) == list(range(7))


def test_a_prior_is_the_mean_loss_of_the_language_model() -> None:
    model, ids = gpt2(), batch("causal", 2, length=6).inputs
    wanted = float(model(input_ids=ids, labels=ids).loss.detach())
    assert LanguagePrior(model)(ids, torch.ones_like(ids)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("words", [(7, 7), (7, 7, 7), (7, 7, 9, 9), (7, 9, 9)])
def test_masked_labels_are_counted_also_where_all_occur_equally_often(words: tuple[int, ...]) -> None:
    """Two of one label give the bias the gradient that one gives; the rank of the layers before the head tells them apart."""
    plain = batch("masked", predicted=1)
    assert isinstance(plain.inputs, Tensor)
    ids, labels = torch.where(plain.labels != -100, plain.labels, plain.inputs), torch.full_like(plain.inputs, -100)
    for place, word in enumerate(words, start=1):
        labels[0, place], ids[0, place] = word, 3
    model = bert()
    seen = observe(model, Batch(ids, labels, plain.spec))
    found = labels_of(seen, read_network(seen, torch.float64), rng(0, "labels"))
    assert found.multiset is not None
    assert sorted(found.multiset.tolist()) == sorted(words)
