"""The parts of span-check against slow references in float64: networks, ranks, thresholds, first-layer candidates, growth."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from tests.attacks.text_exact_cases import V, batch, bert, gpt2, seen_of

from leakgauge.attacks.text.network import read_network
from leakgauge.attacks.text.span.first import candidates, invented
from leakgauge.attacks.text.span.grow import Growth
from leakgauge.attacks.text.span.subspace import rank_of, subspace_of
from leakgauge.randomness import rng


def families():
    import transformers as t

    small = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    opt = {"vocab_size": V, "hidden_size": 16, "ffn_dim": 32, "word_embed_proj_dim": 16, "num_hidden_layers": 2}
    return {
        "gpt2": (lambda: gpt2("causal", 16), True, True),
        "bert": (lambda: bert("masked", 16), False, True),
        "distilbert": (lambda: t.DistilBertForSequenceClassification(
            t.DistilBertConfig(vocab_size=V, dim=16, hidden_dim=32, n_layers=2, n_heads=2)), False, False),
        "roberta": (lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**small)), False, False),
        "opt": (lambda: t.OPTForCausalLM(t.OPTConfig(num_attention_heads=2, **opt)), True, True),
        "llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**small)), True, False),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "bert", "distilbert", "roberta", "opt", "llama"])
def test_a_family_is_read(name):
    make, causal, tied = families()[name]
    torch.manual_seed(0)
    model = make().eval()
    network = read_network(seen_of(gpt2(), batch((4,))).__class__(**{**_fields(model)}))
    assert network.causal is causal
    assert network.tied is tied
    assert len(network.attention) == 2
    assert network.hidden == 16
    ids = torch.randint(5, V, (2, 6), generator=rng(0, "ids"))
    places = torch.arange(6).expand(2, -1)
    assert torch.allclose(network.first_inputs(ids, places), network.block_inputs(0, ids), atol=1e-9)
    query, key, value = network.attention[0].split(dict(network.module.named_parameters()))
    assert query.shape == key.shape == value.shape == (16, 16)
    kinds = [site.kind for site in network.sites]
    assert kinds[0] == "token" and ("prefix" if causal else "text") in kinds and ("text" in kinds) is not causal


def _fields(model):
    from leakgauge.core.text_spec import TextSpec
    from leakgauge.core.training import LocalTraining

    tensors = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    return {"model": model, "tensors": tensors, "kind": "gradient", "loss": "cross_entropy", "training": LocalTraining(),
            "spec": TextSpec(8, V, 1), "num_examples": 1}  # fmt: skip


@pytest.mark.parametrize("rank", [1, 5, 17])
@pytest.mark.parametrize("noise", [1e-7, 1e-4])
def test_the_rank_is_read_off_the_spectrum_and_members_lie_at_the_noise(rank, noise):
    generator = rng(rank, "span")
    inputs = torch.randn(rank, 24, generator=generator, dtype=torch.float64)
    weights = torch.randn(rank, 60, generator=generator, dtype=torch.float64) * torch.logspace(0, -1, rank)[:, None]
    gradient = inputs.T @ weights
    gradient = gradient + noise * gradient.abs().max() * torch.randn(24, 60, generator=generator, dtype=torch.float64)
    space = subspace_of(gradient, 6e-8).with_threshold(torch.randn(200, 24, generator=generator, dtype=torch.float64))
    assert space.rank == rank
    assert space.separates
    assert bool(space.members(inputs).all())
    assert 0.2 < float(space.ratio(inputs).median()) < 3
    others = torch.randn(500, 24, generator=generator, dtype=torch.float64)
    assert not bool(space.members(others).any())


def test_a_full_spectrum_separates_nothing():
    space = subspace_of(torch.randn(24, 60, generator=rng(0, "full"), dtype=torch.float64), 6e-8)
    space = space.with_threshold(torch.randn(100, 24, generator=rng(1, "full"), dtype=torch.float64))
    assert not space.separates


def test_zeros_have_rank_zero_and_a_drop_to_exact_zero_counts():
    assert rank_of(torch.zeros(5), 6e-8) == 0
    assert rank_of(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64), 6e-8) == 3


@pytest.mark.parametrize("make", [gpt2, bert])
def test_the_quick_first_layer_agrees_with_one_vector_at_a_time(make):
    texts = batch((8, 5, 6))
    model = make()
    model.get_submodule("transformer.h.0.ln_1" if make is gpt2 else "bert.embeddings.LayerNorm").bias.data += 0.1
    seen = seen_of(model, texts, frozen=True)
    network = read_network(seen)
    site = network.sites[0]
    space = subspace_of(network.gradient(site, seen.tensors, balanced=True), 6e-8)
    space = space.with_threshold(invented(network, site, 10, rng(0, "decoys")))
    quick = candidates(network, site, space, 10, torch.ones(V, dtype=torch.bool))
    for place in range(10):
        rows = network.first_inputs(torch.arange(V), torch.full((V,), place))
        assert quick[place].tolist() == space.members(rows).nonzero().flatten().tolist()
    true = {(int(token), place) for text in texts.inputs for place, token in enumerate(text) if token != 0}
    assert true <= {(int(token), place) for place, tokens in enumerate(quick) for token in tokens}


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_growth_from_kept_keys_and_values_equals_whole_texts(name):
    torch.manual_seed(0)
    network = read_network(seen_of(gpt2(), batch((4,))).__class__(**_fields(families()[name][0]().eval())))
    site = next(each for each in network.sites if each.kind == "prefix" and each.order > 3)
    growth = Growth(network, site)
    assert growth.cached
    prefix, tokens = torch.tensor([7, 9, 30]), torch.arange(5, 25)
    whole = network.inputs_of(site, torch.cat([prefix.expand(20, -1), tokens[:, None]], 1))[:, -1]
    assert torch.allclose(growth(prefix, tokens), whole, atol=1e-9)


def test_a_gap_at_what_no_input_holds_is_none_and_a_drifted_sum_takes_the_widest():
    generator = rng(3, "held")
    inputs = torch.randn(6, 24, generator=generator, dtype=torch.float64)
    inputs = inputs - inputs.mean(1, keepdim=True)  # as behind a LayerNorm without shift
    gradient = inputs.T @ torch.randn(6, 60, generator=generator, dtype=torch.float64)
    noise = 1e-3 * torch.randn(24, 60, generator=generator, dtype=torch.float64)
    gradient = gradient + noise - noise.mean(0)  # noise that keeps the mean at zero: the last singular value is rounding
    others = torch.randn(100, 24, generator=generator, dtype=torch.float64)
    others = others - others.mean(1, keepdim=True)
    assert subspace_of(gradient, 1.2e-16).rank == 23
    assert subspace_of(gradient, 1.2e-16, others).rank == 6
    values = torch.logspace(0, -0.5, 4, dtype=torch.float64)
    values = torch.cat([values, 1e-4 * values, 1e-7 * values, 1e-7 * values[-1] * torch.logspace(-0.1, -4, 6)])
    assert rank_of(values, 1.2e-16) == 8
    assert rank_of(values, 1.2e-16, drifted=True) == 4


def test_a_rank_without_a_clear_gap_separates_only_far_decoys():
    values = torch.logspace(0, -3, 20, dtype=torch.float64)
    space = subspace_of(torch.diag(values), 6e-8)
    assert not space.with_threshold(torch.eye(20, dtype=torch.float64)).stands_out
    clear = subspace_of(torch.diag(torch.cat([torch.ones(5), 1e-3 * torch.linspace(1.0, 0.9, 15)]).double()), 6e-8)
    assert clear.rank == 5
    assert clear.stands_out
