"""Epsilon of the subsampled Gaussian mechanism, by Opacus's accountant of Renyi differential privacy."""

from __future__ import annotations

import math
import warnings

from leakgauge.defences.base import is_number
from leakgauge.errors import MissingExtraError, OptionError


def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Epsilon for which `steps` subsampled Gaussian mechanisms together are (epsilon, delta)-differentially private.

    Each step takes every record with probability `sample_rate`, independently (Poisson sampling), and adds Gaussian noise of
    standard deviation `noise_multiplier` times the sensitivity to the sum. With `sample_rate` 1 it is the plain Gaussian
    mechanism, whatever the order of the records. Neighbours differ in one record that is there or not; for records that are
    replaced, halve the noise multiplier (and use `sample_rate` 1). `guarantee` does that for leakgauge's own clients.

    Args:
        noise_multiplier: sigma >= 0; 0 gives infinity.
        sample_rate: q in (0, 1].
        steps: number of steps >= 0; 0 gives 0.
        delta: in (0, 1).

    Returns:
        epsilon >= 0, an upper bound, at the best of Opacus's default orders (1.1 to 10.9 in tenths, 12 to 63); at the ends of
        that range a finer choice would give a smaller value.

    Raises:
        OptionError: for a value out of range.
        MissingExtraError: without the package opacus.

    Source: Mironov 2017; Mironov, Talwar & Zhang 2019 (sampled Gaussian); Balle et al. 2020 (conversion to epsilon).
    """
    _check(is_number(noise_multiplier) and noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "a number >= 0")
    _check(is_number(sample_rate) and 0 < sample_rate <= 1, "sample_rate", sample_rate, "a number in (0, 1]")
    _check(is_number(steps) and steps >= 0 and float(steps).is_integer(), "steps", steps, "a whole number >= 0")
    _check(is_number(delta) and 0 < delta < 1, "delta", delta, "a number in (0, 1)")
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus warns where the best order is the first or last; the docstring says so
        try:
            from opacus.accountants import RDPAccountant
            from opacus.accountants.analysis import rdp
        except ImportError as error:
            raise MissingExtraError("opacus", "dp", "epsilon") from error
        orders = RDPAccountant.DEFAULT_ALPHAS
        spent = rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=int(steps), orders=orders)
        found, _ = rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)
    return math.inf if math.isnan(float(found)) else max(0.0, float(found))


def _check(held: bool, name: str, value: object, expected: str) -> None:
    if not held:
        raise OptionError(f"epsilon's {name} is {value!r}; expected {expected}.")
