"""RDLV against an obvious loop over scikit-image, in both variants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

import leakgauge as lg
from leakgauge.errors import OptionError, ShapeError
from leakgauge.measures import Measure
from leakgauge.randomness import rng


def similarity(first: np.ndarray, second: np.ndarray, data_range: float) -> float:
    """SSIM by scikit-image: Gaussian window of 11 pixels, population covariance, mean over channels and interior pixels."""
    values = [
        structural_similarity(
            a, b, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, win_size=11
        )
        for a, b in zip(first, second, strict=True)
    ]
    return float(np.mean(values))


def by_loop(truth: Tensor, guess: Tensor, prior: Tensor | None, variant: str) -> list[float]:
    result = []
    for index, private in enumerate(truth.double().numpy()):
        best = -math.inf
        for picture in guess.double().numpy():
            if variant == "released":
                spread = (picture - picture.min()) / (picture.max() - picture.min()) * 255
                best = max(best, similarity(private * 255, spread, 256))
            else:
                best = max(best, similarity(private.clip(0, 1), picture.clip(0, 1), 1))
        if prior is None:
            result.append(best)
            continue
        known = (prior if prior.ndim == 3 else prior[index]).double().numpy()
        if variant == "released":
            base = similarity(private * 255, known * 255, 256)
        else:
            base = similarity(private.clip(0, 1), known.clip(0, 1), 1)
        result.append((best - base) / base if variant == "released" or base >= 0.05 else math.nan)
    return result


def pictures(count: int, channels: int = 3, side: int = 20) -> Tensor:
    """Smooth random pictures, pixels in [0.2, 0.8]."""
    coarse = torch.rand((count, channels, 5, 5), generator=rng(count, "coarse"))
    return 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    truth = pictures(3)
    noise = torch.randn((4, *truth.shape[1:]), generator=rng(0, "noise"))
    guess = torch.cat([truth[1:] + 0.05 * noise[:2], 1.2 * truth[:1] + 0.2 * noise[2:3], 0.5 * noise[3:]])
    return truth, guess, 0.7 * truth.mean(0) + 0.1


@pytest.mark.parametrize("variant", ["default", "released"])
@pytest.mark.parametrize("kind", ["one prior", "a prior each", "no prior"])
def test_both_variants_equal_the_loop(case: tuple[Tensor, Tensor, Tensor], variant: str, kind: str) -> None:
    truth, guess, mean = case
    prior = {"one prior": mean, "a prior each": torch.stack([mean, truth[2], 1 - truth[1]]), "no prior": None}[kind]
    found = lg.rdlv(truth, guess, prior, variant)
    wanted = torch.tensor(by_loop(truth, guess, prior, variant), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, equal_nan=True)
    assert found.dtype == torch.float64
    assert torch.equal(lg.RDLV(prior=prior, variant=variant)(truth, guess).nan_to_num(9.0), found.nan_to_num(9.0))


@pytest.mark.parametrize("side", [8, 16, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_without_a_prior_it_is_scikit_images_ssim(side: int, channels: int) -> None:
    truth = pictures(2, channels, side)
    guess = (truth + 0.1 * torch.randn(truth.shape, generator=rng(1, "noise"))).clamp(0, 1)
    found = lg.rdlv(truth, guess[:1], None)
    for row, private in enumerate(truth.double().numpy()):
        wanted = structural_similarity(
            private, guess[0].double().numpy(), data_range=1.0, channel_axis=0, gaussian_weights=True,
            sigma=1.5 * min(1.0, side / 16), use_sample_covariance=False,
        )  # fmt: skip
        assert float(found[row]) == pytest.approx(float(wanted), abs=1e-12)


def test_what_the_numbers_mean() -> None:
    truth = pictures(2)
    prior = truth.mean(0)
    base = lg.rdlv(truth, prior[None], None)
    torch.testing.assert_close(lg.rdlv(truth, prior[None], prior), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    perfect = lg.rdlv(truth, truth.flip(0), prior)
    torch.testing.assert_close(perfect, (1 - base) / base)
    worse = lg.rdlv(truth, torch.rand(truth.shape, generator=rng(0, "guess")), prior)
    assert bool((worse < 0).all())


def test_the_nearest_reconstruction_may_serve_twice() -> None:
    truth = pictures(1).repeat(2, 1, 1, 1)
    found = lg.rdlv(truth, torch.cat([truth[:1], torch.rand(3, *truth.shape[1:], generator=rng(0, "x"))]), truth[0])
    assert torch.equal(found, torch.zeros(2, dtype=torch.float64))


def test_a_prior_that_says_nothing_leaves_the_default_undefined_and_the_released_wild() -> None:
    truth, guess = pictures(2), pictures(4)[:2]
    prior = torch.rand(truth.shape[1:], generator=rng(3, "prior"))
    assert float(lg.rdlv(truth, prior[None], None).abs().max()) < 0.05
    assert bool(lg.rdlv(truth, guess, prior).isnan().all())
    released = lg.rdlv(truth, guess, prior, "released")
    assert bool(released.isfinite().all())
    assert float(released.abs().max()) > 5


def test_clamping_and_stretching() -> None:
    truth = pictures(1)
    prior = truth.flip(3)
    outside = torch.where(truth > 0.5, 3.0, -2.0)
    torch.testing.assert_close(lg.rdlv(truth, outside, prior), lg.rdlv(truth, (truth > 0.5).float(), prior))
    dull = 0.4 + 0.05 * truth
    assert float(lg.rdlv(truth, dull, prior, "released")) > float(lg.rdlv(truth, dull, prior)) + 0.1
    torch.testing.assert_close(
        lg.rdlv(truth, dull, prior, "released"), lg.rdlv(truth, truth, prior, "released"), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("variant", ["default", "released"])
def test_a_reconstruction_that_is_not_finite_counts_for_none(variant: str) -> None:
    truth, guess = pictures(2), pictures(2) * 0.9
    prior = truth.mean(0)
    bad = torch.full_like(guess[:1], float("nan"))
    endless = guess[:1].clone()
    endless[0, 0, 0, 0] = float("inf")
    alone = lg.rdlv(truth, guess, prior, variant)
    assert torch.equal(lg.rdlv(truth, torch.cat([bad, guess]), prior, variant), alone)
    if variant == "released":
        assert torch.equal(lg.rdlv(truth, torch.cat([guess, endless, torch.full_like(bad, 0.3)]), prior, variant), alone)
    assert bool(lg.rdlv(truth, bad, prior, variant).isnan().all())
    assert bool(lg.rdlv(truth, guess[:0], prior, variant).isnan().all())


def test_nothing_handed_in_is_changed(case: tuple[Tensor, Tensor, Tensor]) -> None:
    copies = [tensor.clone() for tensor in case]
    lg.rdlv(*case)
    lg.rdlv(*case, "released")
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(case, copies, strict=True))


@pytest.mark.parametrize(
    ("truth", "guess", "prior", "words"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8), None, "Truth has shape (3, 8, 8)"),
        (torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 8, 8), None, "at least one picture"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), None, "Guess has shape (1, 1, 8, 8)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8), None, "Guess has shape (3, 8, 8)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), "The prior has shape (1, 3, 8, 8)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(8, 8), "The prior has shape (8, 8)"),
    ],
)
def test_wrong_shapes_are_one_sentence(truth: Tensor, guess: Tensor, prior: Tensor | None, words: str) -> None:
    with pytest.raises(ShapeError) as caught:
        lg.rdlv(truth, guess, prior)
    assert words in str(caught.value)


def test_an_unknown_variant_is_one_sentence(case: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(OptionError, match="Did you mean 'released'"):
        lg.rdlv(*case, "release")


def test_the_class_declares_itself() -> None:
    assert issubclass(lg.RDLV, Measure)
    assert (lg.RDLV.name, lg.RDLV.higher_is_better) == ("rdlv", True)
    assert lg.RDLV() == lg.RDLV(None, "default")
