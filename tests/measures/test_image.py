"""Pixel measures against slow, independent implementations, and by their properties."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.errors import MissingExtraError, OptionError, ShapeError
from leakgauge.measures import LPIPS, MSE, PSNR, SSIM, lpips, mse, psnr, ssim
from leakgauge.randomness import rng


def pictures(seed: int, shape: tuple[int, ...] = (2, 3, 20, 17)) -> Tensor:
    return torch.rand(shape, generator=rng(seed, "pictures"), dtype=torch.float64)


def slow_ssim(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
    """SSIM of one channel (H, W), one window at a time (Wang et al. 2004): weighted moments, windows inside the picture."""
    radius = int(3.5 * sigma + 0.5)
    axis = np.arange(-radius, radius + 1)
    line = np.exp(-(axis**2) / (2 * sigma**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2, values = 0.01**2, 0.03**2, []
    for row in range(radius, a.shape[0] - radius):
        for column in range(radius, a.shape[1] - radius):
            x = a[row - radius : row + radius + 1, column - radius : column + radius + 1]
            y = b[row - radius : row + radius + 1, column - radius : column + radius + 1]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            vxy = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("side", "sigma"), [(20, 1.5), (16, 1.5), (15, 1.5 * 15 / 16), (8, 0.75), (5, 1.5 * 5 / 16), (4, 0.375), (3, 1.5 * 3 / 16)]
)
def test_ssim_equals_a_slow_implementation(side: int, sigma: float) -> None:
    truth = pictures(0, (2, 2, side, side + 3))
    guess = (truth + 0.2 * pictures(1, tuple(truth.shape))).clamp(0, 1)
    expected = [
        np.mean([slow_ssim(truth[n, c].numpy(), guess[n, c].numpy(), sigma) for c in range(2)]) for n in range(len(truth))
    ]
    np.testing.assert_allclose(ssim(truth, guess).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_ssim_is_nan_where_no_window_fits() -> None:
    assert ssim(pictures(0, (2, 1, 1, 30)), pictures(1, (2, 1, 1, 30))).isnan().all()


def test_mse_and_psnr_equal_loops() -> None:
    truth, guess = pictures(0).float(), pictures(1).float()
    for n in range(2):
        error = (
            sum((float(t) - float(g)) ** 2 for t, g in zip(truth[n].flatten(), guess[n].flatten(), strict=True))
            / truth[n].numel()
        )
        assert float(mse(truth, guess)[n]) == pytest.approx(error, rel=1e-12)
        assert float(psnr(truth, guess)[n]) == pytest.approx(-10 * np.log10(error), rel=1e-12)
    assert mse(truth, guess).dtype == psnr(truth, guess).dtype == ssim(truth, guess).dtype == torch.float64


def test_psnr_of_a_known_error() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    assert float(psnr(truth, truth + 0.1)) == pytest.approx(20.0, abs=1e-6)
    assert float(psnr(truth, truth + 25.5, data_range=255.0)) == pytest.approx(20.0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    channels=st.integers(1, 3),
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    count=st.integers(1, 3),
)
def test_identity_symmetry_and_permutation(seed: int, channels: int, height: int, width: int, count: int) -> None:
    truth, guess = (pictures(seed + step, (count, channels, height, width)) for step in (0, 1))
    assert (mse(truth, truth) == 0).all()
    assert (psnr(truth, truth) == float("inf")).all()
    torch.testing.assert_close(ssim(truth, truth), torch.ones(count, dtype=torch.float64))
    order = torch.randperm(count, generator=rng(seed))
    for measure in (mse, psnr, ssim):
        torch.testing.assert_close(measure(truth, guess), measure(guess, truth))
        torch.testing.assert_close(measure(truth, guess)[order], measure(truth[order], guess[order]))
    assert (ssim(truth, guess) <= 1).all()
    assert (mse(truth, guess) <= 1).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_more_noise_is_never_nearer(seed: int) -> None:
    truth = pictures(seed, (2, 1, 16, 16))
    noise = torch.randn(truth.shape, generator=rng(seed, "noise"), dtype=torch.float64)
    guesses = [truth + strength * noise for strength in (0.01, 0.05, 0.2, 0.8)]
    for weak, strong in itertools.pairwise(guesses):
        assert (mse(truth, weak) < mse(truth, strong)).all()
        assert (psnr(truth, weak) > psnr(truth, strong)).all()
        assert (ssim(truth, weak) > ssim(truth, strong)).all()


def test_shapes_and_ranges_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3, 20, 17\) and guess \(1, 3, 20, 17\)"):
        mse(pictures(0), pictures(0)[:1])
    with pytest.raises(ShapeError, match=r"expected \(N, C, H, W\)"):
        psnr(torch.zeros(3, 3), torch.zeros(3, 3))
    with pytest.raises(OptionError, match="data range is 0"):
        ssim(pictures(0), pictures(0), data_range=0)


def test_a_guess_that_is_not_finite_is_nan() -> None:
    guess = pictures(1)
    guess[0, 0, 0, 0] = float("nan")
    assert ssim(pictures(0), guess).isnan().tolist() == [True, False]
    assert psnr(pictures(0), guess).isnan().tolist() == [True, False]


@pytest.mark.parametrize("measure", [MSE(), PSNR(), SSIM(), LPIPS()])
def test_each_measure_declares_itself(measure: MSE | PSNR | SSIM | LPIPS) -> None:
    low, high = measure.range
    assert low < high
    assert measure.name
    assert isinstance(measure.unit, str)
    assert measure.higher_is_better == (measure.name in ("psnr", "ssim"))
    if measure.name != "lpips":
        values = measure(pictures(0), pictures(1))
        assert values.shape == (2,)
        assert ((values >= low) & (values <= high)).all()
        assert (
            measure(pictures(0), pictures(0)).tolist()
            == {"mse": [0, 0], "psnr": [float("inf")] * 2, "ssim": [1, 1]}[measure.name]
        )


def test_lpips_says_what_to_install() -> None:
    if importlib.util.find_spec("lpips") is not None:
        pytest.skip("lpips is installed here")
    with pytest.raises(MissingExtraError, match=r"LPIPS needs the package 'lpips'.*pip install 'leakgauge\[perceptual\]'"):
        lpips(pictures(0), pictures(1))
    with pytest.raises(OptionError, match="Did you mean 'alex'"):
        lpips(pictures(0), pictures(1), network="alexnet")
    with pytest.raises(ShapeError, match="these have 2"):
        lpips(pictures(0, (1, 2, 8, 8)), pictures(1, (1, 2, 8, 8)))
