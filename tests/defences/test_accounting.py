"""Epsilon against Opacus's accountant, an independent accountant, and a published figure."""

from __future__ import annotations

import math
import sys
import warnings

import dp_accounting
import pytest
from dp_accounting import rdp as independent
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis import rdp as opacus_rdp

import leakgauge as lg
from leakgauge.errors import MissingExtraError, OptionError

SETTINGS = [
    (noise, rate, steps, delta)
    for noise, rate, steps in (
        (0.5, 0.01, 10), (0.6, 0.005, 300), (0.7, 256 / 60_000, 10_546), (0.8, 0.1, 30), (0.9, 0.02, 1000),
        (1.0, 1.0, 1), (1.0, 0.5, 7), (1.1, 256 / 60_000, 14_062), (1.3, 256 / 60_000, 4_687), (1.5, 0.04, 500),
        (2.0, 1.0, 20), (2.5, 0.25, 64), (3.0, 0.9, 11), (4.0, 1.0, 100), (5.0, 0.3, 1000),
        (6.0, 0.05, 20_000), (8.0, 1.0, 40), (10.0, 0.5, 400), (0.3, 0.001, 5), (20.0, 1.0, 500),
    )
    for delta in (1e-5,)
]  # fmt: skip


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SETTINGS)
def test_epsilon_is_that_of_opacus(noise: float, rate: float, steps: int, delta: float) -> None:
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = accountant.get_epsilon(delta)
    assert lg.epsilon(noise, rate, steps, delta) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SETTINGS)
def test_an_independent_accountant_agrees_within_a_percent(noise: float, rate: float, steps: int, delta: float) -> None:
    """Both take the best of the same orders, so that only the two bounds on each order's divergence can differ."""
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = independent.RdpAccountant(RDPAccountant.DEFAULT_ALPHAS)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    assert lg.epsilon(noise, rate, steps, delta) == pytest.approx(accountant.get_epsilon(delta), rel=0.01)


def test_a_published_figure() -> None:
    """MNIST tutorial of TensorFlow Privacy (tutorials/README.md): noise 1.12, batches of 256 of 60 000, 60 epochs: 2.92.

    The figure was converted from Renyi divergence by min(rdp + log(1/delta) / (order - 1)); today's conversion is tighter.
    """
    noise, rate, steps, delta = 1.12, 256 / 60_000, 60 * 60_000 // 256, 1e-5
    orders = RDPAccountant.DEFAULT_ALPHAS
    spent = opacus_rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    classic = min(float(part) + math.log(1 / delta) / (order - 1) for part, order in zip(spent, orders, strict=True))
    assert classic == pytest.approx(2.92, abs=0.005)
    assert 2.3 < lg.epsilon(noise, rate, steps, delta) < classic


def test_the_gaussian_mechanism_on_paper() -> None:
    """One step, everybody in it: the Renyi divergence of order a is a / (2 sigma^2), whatever the accountant."""
    sigma, delta = 5.0, 1e-5
    by_hand = min(
        order / (2 * sigma**2) + math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order in RDPAccountant.DEFAULT_ALPHAS
    )
    assert lg.epsilon(sigma, 1.0, 1, delta) == pytest.approx(by_hand, abs=1e-9)


def test_the_ends() -> None:
    assert lg.epsilon(0, 0.5, 10, 1e-5) == math.inf
    assert lg.epsilon(1.0, 0.5, 0, 1e-5) == 0.0
    assert lg.epsilon(0, 0.5, 0, 1e-5) == 0.0
    assert lg.epsilon(100.0, 0.001, 1, 0.5) == 0.0
    assert lg.epsilon(1e-8, 0.5, 10, 1e-5) > 1e15


def test_more_noise_fewer_steps_smaller_rate_mean_less_epsilon() -> None:
    base = lg.epsilon(1.0, 0.1, 100, 1e-5)
    assert lg.epsilon(1.2, 0.1, 100, 1e-5) < base
    assert lg.epsilon(1.0, 0.1, 90, 1e-5) < base
    assert lg.epsilon(1.0, 0.09, 100, 1e-5) < base
    assert lg.epsilon(1.0, 0.1, 100, 1e-4) < base


@pytest.mark.parametrize("noise", [1e-3, 100.0])
def test_no_warning_leaks(noise: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lg.epsilon(noise, 0.01, 5, 1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((-1.0, 0.1, 1, 1e-5), "epsilon's noise_multiplier is -1.0; expected a number >= 0"),
        ((float("nan"), 0.1, 1, 1e-5), "epsilon's noise_multiplier is nan"),
        ((1.0, 0.0, 1, 1e-5), r"epsilon's sample_rate is 0.0; expected a number in \(0, 1\]"),
        ((1.0, 1.1, 1, 1e-5), "epsilon's sample_rate is 1.1"),
        ((1.0, 0.1, -1, 1e-5), "epsilon's steps is -1; expected a whole number >= 0"),
        ((1.0, 0.1, 1.5, 1e-5), "epsilon's steps is 1.5"),
        ((1.0, 0.1, True, 1e-5), "epsilon's steps is True"),
        ((1.0, 0.1, 1, 0.0), r"epsilon's delta is 0.0; expected a number in \(0, 1\)"),
        ((1.0, 0.1, 1, 1.0), "epsilon's delta is 1.0"),
    ],
)
def test_values_out_of_range_are_named(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        lg.epsilon(*values)  # type: ignore[arg-type]


def test_without_opacus_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(MissingExtraError, match=r"epsilon needs the package 'opacus'.*pip install 'leakgauge\[dp\]'"):
        lg.epsilon(1.0, 0.1, 1, 1e-5)
