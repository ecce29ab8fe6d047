"""Named attacks: each is a choice of parts for `GradientMatching`, registered as an entry point."""

from __future__ import annotations

from dataclasses import replace

from leakgauge.attacks.matching.distance import L1, Cosine, Distance, SquaredL2
from leakgauge.attacks.matching.matching import GradientMatching
from leakgauge.attacks.matching.priors import Box, Prior, TotalVariation
from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.gauss_newton import GaussNewton
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.matching.starts import Grey, Mixed, Start, Uniform, start_named
from leakgauge.errors import OptionError
from leakgauge.registry import described

DISTANCES: dict[str, Distance | None] = {"auto": None, "l2": SquaredL2(), "l1": L1(), "cosine": Cosine()}


def _distance(name: str) -> Distance | None:
    if name not in DISTANCES:
        raise OptionError(f"There is no distance {name!r}; expected one of {', '.join(DISTANCES)}.")
    return DISTANCES[name]


def _start(name: str) -> Start:
    return Mixed((Grey(), Uniform())) if name == "mixed" else start_named(name)


def _priors(tv: float, box: float) -> tuple[Prior, ...]:
    return tuple(prior for prior, weight in ((TotalVariation(tv), tv), (Box(box), box)) if weight > 0)


@described(needs="a network that is twice differentiable; one example, or few", source="Zhu, Liu & Han 2019 (DLG)")
def dlg(
    labels: str = "joint",
    restarts: int = 2,
    start: str = "mixed",
    distance: str = "auto",
    refine: bool = True,
    history: int = 30,
    tv: float = 0.0,
    box: float = 0.0,
    mode: str = "eval",
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """Deep Leakage from Gradients: pixels and soft labels together, L2 distance, L-BFGS, then Gauss-Newton.

    As published but for: labels in linear instead of softmax form (`labels=softmax` restores it), a line search, starts near
    grey, and a Levenberg-Marquardt refinement of the same objective (`refine=false` leaves it out).
    """
    return GradientMatching(
        distance=_distance(distance),
        priors=_priors(tv, box),
        search=LBFGS(history=history),
        start=_start(start),
        refine=GaussNewton() if refine else None,
        labels=labels,
        restarts=restarts,
        mode=mode,
        adaptive=adaptive,
        dtype=dtype,
        name="dlg",
    )


@described(needs="cross-entropy and the last layer's gradient; then as dlg", source="Zhao, Mopuri & Bilen 2020 (iDLG)")
def idlg(
    restarts: int = 2,
    start: str = "mixed",
    distance: str = "auto",
    refine: bool = True,
    history: int = 30,
    tv: float = 0.0,
    box: float = 0.0,
    mode: str = "eval",
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """Improved DLG: labels first, from the last layer's gradient, then pixels by matching."""
    parts = dlg("recovered", restarts, start, distance, refine, history, tv, box, mode, adaptive, dtype)
    return replace(parts, name="idlg")


@described(
    needs="labels (granted or recovered); any network, also ReLU and trained ones",
    source="Geiping et al. 2020 (Inverting Gradients)",
)
def inverting_gradients(
    tv: float = 0.1,
    lr: float = 0.1,
    restarts: int = 2,
    signed: bool = True,
    schedule: str = "steps",
    start: str = "noise",
    distance: str = "auto",
    mode: str = "eval",
    labels: str = "auto",
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """Inverting Gradients: cosine distance and total variation, signed Adam within the box, restarts."""
    return GradientMatching(
        distance=_distance(distance),
        usual=Cosine(),
        priors=_priors(tv, 0.0),
        search=Adam(lr=lr, signed=signed, schedule=schedule),
        start=_start(start),
        refine=None,
        labels=labels,
        restarts=restarts,
        evaluations=(4_000, 48_000, 192_000),
        tolerance=1e-9,
        mode=mode,
        adaptive=adaptive,
        box=True,
        dtype=dtype,
        name="inverting-gradients",
    )


@described(needs="a sigmoid or tanh network; one example", source="Mu 2022, Deep leakage from gradients (cats and dogs)")
def mu_2022(
    restarts: int = 1,
    start: str = "grey",
    refine: bool = True,
    history: int = 100,
    mode: str = "eval",
    adaptive: bool = True,
    dtype: str = "float64",
) -> GradientMatching:
    """Mu 2022: labels from the gradient, then pixels by matching, from fully connected to convolutional networks."""
    return GradientMatching(
        search=LBFGS(history=history),
        start=_start(start),
        refine=GaussNewton() if refine else None,
        labels="auto",
        restarts=restarts,
        evaluations=(6_000, 24_000, 96_000),
        mode=mode,
        adaptive=adaptive,
        dtype=dtype,
        name="mu-2022",
    )
