"""The tables of `score_predicts`: every network, and how well each score orders them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.architectures import Architecture
from benchmarks.common import machine, table
from benchmarks.rank_statistics import correlations

ERROR = "posterior error at the picture"
DRAWN = "posterior error at drawn pictures"
ROUNDED = "posterior error, noise 1e-7"
WHITE = "posterior error, white prior"
DEFICIT = "joint deficit"
METRIC = "-c(M)"
NORM = "gradient norm"
SCORES = (ERROR, DRAWN, ROUNDED, WHITE, DEFICIT, METRIC, NORM)
NEGATED = (NORM,)  # more of it is taken for more leakage
SEEN = 60.0  # dB; what lies above looks the same
SAFE, FOUND = 15.0, 25.0  # dB: a score below the first beside a reconstruction above the second refutes the score


@dataclass(frozen=True)
class Results:
    """All rows of one condition.

    Args:
        rows: key -> row, as written by `score_predicts`.
        networks: in the order shown.
        pictures: indices.
        attacks: names.
        budget: gradient evaluations of each attack.
        noise: relative noise on the gradient that attacks saw.
    """

    rows: dict[tuple[Any, ...], dict[str, Any]]
    networks: list[Architecture]
    pictures: tuple[int, ...]
    attacks: list[str]
    budget: int
    noise: float

    def errors(self, network: Architecture, index: int) -> dict[str, float]:
        """Mean squared error of each attack that could treat the network."""
        rows = {name: self.rows["attack", network.name, index, name, self.budget, self.noise] for name in self.attacks}
        return {name: row["mse"] for name, row in rows.items() if row["mse"] is not None and math.isfinite(row["mse"])}

    def leakage(self) -> np.ndarray:
        """Lowest error of all attacks, (networks, pictures)."""
        return np.array([[min(self.errors(net, index).values()) for index in self.pictures] for net in self.networks])

    def score(self, name: str) -> np.ndarray:
        """A score with the sign that makes it grow as leakage falls, (networks, pictures); nan where undefined."""
        values = [[self._one(name, network, index) for index in self.pictures] for network in self.networks]
        return np.array(values, dtype=float) * (-1.0 if name in NEGATED else 1.0)

    def _one(self, name: str, network: Architecture, index: int) -> Any:
        if name in (METRIC, DRAWN):
            return self.rows["metric" if name == METRIC else "drawn", network.name, -1, "", 0, 0.0][name]
        return self.rows["scores", network.name, index, "", 0, 0.0][name]

    def bottleneck(self, network: Architecture) -> str:
        """The layer at fault, where the pictures agree."""
        named = {self.rows["scores", network.name, index, "", 0, 0.0]["bottleneck"] for index in self.pictures}
        return "differs" if len(named) > 1 else str(named.pop() or "none")


def psnr(error: float) -> float:
    """PSNR of a mean squared error in [0, 1] units, dB."""
    return -10.0 * math.log10(max(float(error), 1e-30))


def show(results: Results) -> None:
    """Prints the tables of one condition in Markdown, and what refutes the score."""
    networks, leakage = results.networks, results.leakage()
    scores = {name: results.score(name) for name in SCORES}
    defined = ~np.isnan(scores[METRIC]).any(1)
    title = f"Gradient with relative noise {results.noise:g}" if results.noise else "Gradient as computed in float32"
    print(f"\n### {title}\n\nMachine: {machine()}. {results.budget} evaluations for each of {', '.join(results.attacks)}.\n")
    _networks(results, leakage, scores)
    targets = {"mean squared error": leakage, f"the same, all above {SEEN:.0f} dB equal": np.maximum(leakage, 10 ** (-SEEN / 10))}
    published = defined & np.array([network.published for network in networks])
    for words, target in targets.items():
        if published.sum() > 3:
            kind = f"{published.sum()} networks of the kind that c(M) was published for"
            _correlations(f"Leakage: {words}; {kind}", target, scores, published)
        if defined.sum() > 3:
            _correlations(f"Leakage: {words}; the {defined.sum()} networks that every score treats", target, scores, defined)
    refuted = [
        f"{network.name}, picture {index}"
        for number, network in enumerate(networks)
        for column, index in enumerate(results.pictures)
        if psnr(scores[ERROR][number, column]) < SAFE and psnr(leakage[number, column]) > FOUND
    ]
    print(f"\nScore below {SAFE:.0f} dB, yet rebuilt above {FOUND:.0f} dB: {'; '.join(refuted) or 'none'}.")
    _attacks(results)
    spent = sum(row["seconds"] for row in results.rows.values() if row["kind"] == "scores")
    print(f"\nCPU seconds of a score: {spent / (len(networks) * len(results.pictures)):.1f}.")


def _attacks(results: Results) -> None:
    """What each attack spent and reached; closed forms count no gradient evaluations against the budget."""
    lines = []
    for name in results.attacks:
        cells = [(network, index) for network in results.networks for index in results.pictures]
        keys = [("attack", network.name, index, name, results.budget, results.noise) for network, index in cells]
        rows = [results.rows[key] for key in keys]
        treated = [row for row in rows if row["mse"] is not None]
        best = sum(min(errors, key=errors.__getitem__) == name for errors in (results.errors(*cell) for cell in cells))
        lines.append([
            name, f"{len(treated)} of {len(rows)}", best, f"{np.median([psnr(row['mse']) for row in treated]):.1f}",
            f"{np.mean([row['evaluations'] for row in treated]):.0f}", f"{np.mean([row['seconds'] for row in treated]):.1f}",
        ])  # fmt: skip
    print()
    print(table(["attack", "treated", "best of all", "median PSNR (dB)", "mean evaluations", "mean CPU-s"], lines))


def _networks(results: Results, leakage: np.ndarray, scores: dict[str, np.ndarray]) -> None:
    def middle(name: str, number: int) -> float:
        return float(np.median(scores[name][number]))

    lines = []
    for number, network in enumerate(results.networks):
        found = [results.errors(network, index) for index in results.pictures]
        best = dict.fromkeys(min(errors, key=errors.__getitem__) for errors in found)
        metric = middle(METRIC, number)
        lines.append([
            network.name, network.note, f"{psnr(np.median(leakage[number])):.1f}", ", ".join(best),
            *(f"{psnr(middle(name, number)):.1f}" for name in (ERROR, DRAWN, ROUNDED)),
            f"{middle(DEFICIT, number):.0f}", results.bottleneck(network), "undefined" if math.isnan(metric) else f"{metric:.0f}",
            f"{-middle(NORM, number):.2g}",
        ])  # fmt: skip
    header = ["network", "what it is", "best attack (dB)", "by", "score (dB)", "drawn (dB)", "noise 1e-7 (dB)", "joint deficit",
              "bottleneck", "-c(M)", "gradient norm"]  # fmt: skip
    print(table(header, lines))


def _correlations(title: str, target: np.ndarray, scores: dict[str, np.ndarray], rows: np.ndarray) -> None:
    found = correlations(target[rows], {name: values[rows] for name, values in scores.items()}, ERROR)
    print(f"\n{title}:\n")
    lines = [[name, own, "" if name == ERROR else more] for name, (own, more) in found.items()]
    print(table(["score", "Spearman (95 %)", "posterior error at the picture is higher by"], lines))
