"""`leakage_score`: how well one picture could be rebuilt from the gradient it causes, before any attack is run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leakgauge.analysis.bottleneck import bottleneck
from leakgauge.analysis.image_prior import ImagePrior
from leakgauge.analysis.jacobian import UpdateJacobian
from leakgauge.analysis.posterior import (
    GRAM_TOLERANCE,
    RANK_TOLERANCE,
    Posterior,
    exact_posterior,
    gram_factor,
    stochastic_posterior,
)
from leakgauge.analysis.probe import default_label, probe_pictures, probe_shape
from leakgauge.core.callables import Loss, check_loss
from leakgauge.core.spec import ImageSpec
from leakgauge.errors import OptionError
from leakgauge.randomness import rng

EXACT_UNKNOWNS = 3_200
MOST_UNKNOWNS = 10_000  # the same where `exact` is asked for
STORED_NUMBERS = 60_000_000  # of a stored Jacobian, 8 bytes each; above, J^T J is built from products

CAVEATS = (
    "Local: the network is linearised at the probe; other solutions far from it are not seen.",
    "Holds for this probe, label and state of the weights; a trained network scores differently.",
    "It does not promise that an optimiser finds the picture, only how much the gradient says about it.",
)
NATURAL = (
    "Depends on the prior, and is no bound: a picture smoother than the average one, or an attacker who knows more about it than "
    "a 1/f^2 spectrum, does better."
)
WHITE = "The white prior knows nothing of pictures, and so overstates safety: attacks with an image prior do better."
TABLE = "The natural prior describes pictures; for rows of a table use prior='white'."
DRAWN = "The probes were drawn from the prior, not from real data."
STOCHASTIC = (
    "Stochastic Lanczos estimate, with its standard error: neither the rank of the Jacobian nor the layer at fault can be "
    "told from it; exact=True tells more, where n products can be afforded."
)
LARGE = "The Jacobian was too large to store: the layer at fault was not looked for, and small singular values are less certain."


@dataclass(frozen=True)
class LeakageScore:
    """What the gradient leaves unknown of a picture, as means over the probes.

    Args:
        posterior_error: E, mean squared error per value in [0, 1] units of the best guess; lower means more leakage.
        standard_error: of `posterior_error`: over the probes drawn, and of the stochastic method; 0 where neither applies.
        leaked_dimensions: effective number of directions that the gradient pins down, 0 to n.
        leaked_standard_error: of `leaked_dimensions`.
        unknowns: n, values in one picture.
        joint_deficit: n minus the numerical rank of J (the median over probes); None for the method 'lanczos'.
        rank_tolerance: singular values below this share of the largest count as zero.
        bottleneck: name of the layer at which half of E has appeared (see `leakgauge.analysis.bottleneck`); None where E is
            below 1 % of the prior's error, and where J was not stored (a caveat says so).
        method: 'exact' or 'lanczos'.
        noise: relative size of the noise on the gradient.
        prior: 'natural' or 'white'.
        prior_error: E of an attacker who sees nothing, 1/16.
        pictures: number of probes.
        label: class that the probe's loss is taken at, or None where it differed or is no class.
        seed: of the probes drawn and of the stochastic method.
        caveats: what the figures do not say, one sentence each.
    """

    posterior_error: float
    standard_error: float
    leaked_dimensions: float
    leaked_standard_error: float
    unknowns: int
    joint_deficit: int | None
    rank_tolerance: float
    bottleneck: str | None
    method: str
    noise: float
    prior: str
    prior_error: float
    pictures: int
    label: int | None
    seed: int
    caveats: tuple[str, ...]

    @property
    def psnr_equivalent(self) -> float:
        """The PSNR of a picture with mean squared error E, in dB; higher means more leakage."""
        return -10.0 * math.log10(self.posterior_error) if self.posterior_error > 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return {**vars(self), "caveats": list(self.caveats), "psnr_equivalent": self.psnr_equivalent}


def leakage_score(
    model: nn.Module,
    probe: Tensor | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    loss: Loss = "cross_entropy",
    noise: float = 1e-3,
    label: int | Tensor | None = None,
    prior: str = "natural",
    spec: ImageSpec | None = None,
    exact: bool | None = None,
    probes: int = 8,
    steps: int = 400,
    pictures: int = 3,
    seed: int = 0,
) -> LeakageScore:
    r"""Scores how much the gradient of one example says about it: the posterior error of a linear-Gaussian picture.

    $E(\eta) = \frac1n \mathrm{tr}\left((\Sigma_x^{-1} + J^T J / s^2)^{-1}\right)$ with $J = \partial g / \partial x$ at the
    probe, g all P gradient entries, $s^2 = (\eta \lVert g \rVert)^2 / P$ and $\Sigma_x$ the covariance of pictures. It is the
    mean squared error of the best guess, were the network linear around the probe and the gradient seen with relative noise
    $\eta$. The label is taken as known, BatchNorm in eval mode.

    Args:
        model: any module; it is not changed.
        probe: one picture, (1, *shape) or (*shape), in model space; None draws `pictures` of them from the prior.
        input_shape: (C, H, W), or (D,) for a row; needed without a probe.
        loss: name or callable, as the client's.
        noise: eta > 0, relative to the length of the gradient, as the attacker sees it: about 1e-7 for a float32 gradient as
            computed, more where it is rounded or protected. The default is for comparing networks under one small noise.
        label: class, or a tensor with one row as the loss takes it; by default the class that the model predicts (0 or 1 for
            one logit).
        prior: 'natural' (1/f^2 spectrum) or 'white'.
        spec: normalisation of the pictures: E is then in pixel units; without it model space is taken for [0, 1].
        exact: True for all n directions (up to 10,000), False for stochastic Lanczos quadrature; by default exact up to 3,200.
            Where J has more than 60 million entries, exact costs n forward-mode and reverse-mode products, which takes minutes.
        probes: random vectors of the stochastic method, >= 2.
        steps: Lanczos steps of the stochastic method at most, >= 1.
        pictures: how many are drawn where there is no probe, >= 1.
        seed: of all draws.

    Returns:
        The score with its caveats.

    Raises:
        ShapeError: if the probe is not one example, or neither probe nor shape is given.
        OptionError: for a value out of range, an unknown prior or loss.
        ModelError: if the model does not take the input, or has nothing to train.
        UnsupportedError: for an operation without forward-mode derivatives, or an exact score that is too large.

    Source: van Trees 1968 (posterior covariance of a linear-Gaussian model); the single score of this form is derived here.
    """
    check_loss(loss)
    if not (isinstance(noise, int | float) and math.isfinite(noise) and noise > 0):
        raise OptionError(f"leakage_score's noise is {noise!r}; expected a number > 0, relative to the gradient's length.")
    for name, value, least in (("probes", probes, 2), ("steps", steps, 1), ("pictures", pictures, 1)):
        if value < least:
            raise OptionError(f"leakage_score's {name} is {value!r}; expected at least {least}.")
    shape = probe_shape(probe, input_shape, spec)
    picture_prior = ImagePrior(shape if len(shape) == 3 else (1, 1, shape[0]), prior)
    examples = probe_pictures(probe, shape, spec, picture_prior, pictures, rng(seed, "leakage score", "pictures"))
    found: list[Posterior] = []
    layers: list[str | None] = []
    labels: list[int | None] = []
    method, tolerance = "exact", RANK_TOLERANCE
    for index, example in enumerate(examples):
        target, number = default_label(model, example, spec, loss, label)
        jacobian = UpdateJacobian(model, example, target, loss, spec)
        std = noise * jacobian.norm / math.sqrt(jacobian.entries)
        labels.append(number)
        if jacobian.norm == 0.0:  # nothing is shared, so nothing leaks
            found.append(Posterior(picture_prior.error, 0.0, jacobian.unknowns))
            layers.append(None)
        elif (way := _method(jacobian, exact)) == "stored":
            matrix = jacobian.matrix()
            found.append(exact_posterior(matrix, picture_prior, std))
            layers.append(bottleneck(jacobian, matrix, picture_prior, std, found[-1].error))
        elif way == "gram":
            tolerance = GRAM_TOLERANCE
            found.append(exact_posterior(gram_factor(jacobian), picture_prior, std, tolerance))
        else:
            method = "lanczos"
            generator = rng(seed, "leakage score", "probes", index)
            found.append(stochastic_posterior(jacobian, picture_prior, std, probes=probes, steps=steps, generator=generator))
    notes = [WHITE if prior == "white" else NATURAL]
    if prior == "natural" and min(picture_prior.shape[1:]) == 1:
        notes.append(TABLE)
    if probe is None:
        notes.append(DRAWN)
    if method == "lanczos":
        notes.append(STOCHASTIC)
    elif tolerance == GRAM_TOLERANCE:
        notes.append(LARGE)
    deficits = [part.deficit for part in found if part.deficit is not None]
    return LeakageScore(
        posterior_error=statistics.fmean(part.error for part in found),
        standard_error=_spread([part.error for part in found], [part.error_spread for part in found]),
        leaked_dimensions=statistics.fmean(part.leaked for part in found),
        leaked_standard_error=_spread([part.leaked for part in found], [part.leaked_spread for part in found]),
        unknowns=picture_prior.size,
        joint_deficit=statistics.median_low(deficits) if method == "exact" else None,
        rank_tolerance=tolerance,
        bottleneck=statistics.mode(layers) if layers else None,
        method=method,
        noise=float(noise),
        prior=prior,
        prior_error=picture_prior.error,
        pictures=len(found),
        label=labels[0] if len(set(labels)) == 1 else None,
        seed=seed,
        caveats=(*CAVEATS, *notes),
    )


def _method(jacobian: UpdateJacobian, exact: bool | None) -> str:
    """'stored' (J itself), 'gram' (J^T J from n products) or 'lanczos' (products with few vectors)."""
    size = jacobian.unknowns
    if exact is None:
        exact = size <= EXACT_UNKNOWNS
    if not exact:
        return "lanczos"
    if size > MOST_UNKNOWNS:
        raise OptionError(
            f"The exact score stores a matrix of {size:,} x {size:,} numbers; expected at most {MOST_UNKNOWNS:,} unknowns. Leave "
            "`exact` out to use the stochastic method."
        )
    return "stored" if size * jacobian.equations <= STORED_NUMBERS else "gram"


def _spread(values: list[float], own: list[float]) -> float:
    """Standard error of the mean: the spread over probes, which holds each one's own error too; or that of a single one."""
    if len(values) == 1:
        return own[0]
    return statistics.stdev(values) / math.sqrt(len(values))
