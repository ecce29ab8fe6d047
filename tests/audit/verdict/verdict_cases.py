"""Results of cells made by hand: what an attack returned is given, so that what must follow is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Conditions, Control, ExampleScore, Record
from leakgauge.audit.run.result import CellResult, Status
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.core.reconstruction import LayerReport, Outcome

SIZE = 12  # values of one made-up example
OUTCOMES = {"underdetermined": "UNDERDETERMINED", "unsupported": "UNSUPPORTED", "timeout": "TIMEOUT"}


def cell(data: str = "folder:x?indices=0", attack: str = "dlg", seed: int = 0, **fields: Any) -> Cell:
    return Cell(data, "lenet-dlg", attack, seed, **fields)


def score(index: int, psnr: float, **fields: Any) -> ExampleScore:
    mse = 0.0 if psnr == math.inf else 10 ** (-psnr / 10)
    return ExampleScore(index, f"picture-{index}.png", mse, psnr, 0.5, mse, **fields)


def record(
    psnrs: Sequence[float],
    status: str = "ok",
    *,
    control: float = 10.0,
    realistic: bool = True,
    determinable: bool = True,
    **fields: Any,
) -> Record:
    outcome = OUTCOMES.get(status, "CONVERGED")
    conditions = Conditions(
        model="lenet-dlg", model_state="untrained", shape=(1, 8, 8), input_range="[0, 1]", batch_size=len(psnrs),
        training="one gradient", mode="eval", batch_norm="none in the network", labels="recovered", defence="none",
        dtype="float32", threat="honest-but-curious server", knowledge=(), realistic=realistic, budget="fast", seeds={},
        versions={},
    )  # fmt: skip
    certified = bool(fields.pop("certified", False))
    return Record(
        key="dlg-1", title="made up", attack="dlg", outcome=outcome, outcome_text=Outcome[outcome].value, explains=False,
        certified=0, evaluations=1, restarts=1, objective=0.0, residual=0.0, curve=(), frame_evaluations=(), cause="", notes=(),
        seconds=0.0, conditions=conditions, determinable=determinable,
        scores=tuple(score(place, psnr, certified=certified) for place, psnr in enumerate(psnrs)),
        control=Control("mid-grey", tuple(score(place, control) for place in range(len(psnrs)))), **fields,
    )  # fmt: skip


def layer(unknowns: int, rank: int) -> LayerReport:
    return LayerReport("fc", "weights", unknowns, rank, rank, 1.0, 0.0, math.inf)


def line_up(
    name: str, truth: float, decoys: Sequence[float], *, place: int = 0, others: Sequence[str] = (), **fields: Any
) -> LineUp:
    patient = str(fields.pop("patient", ""))
    return LineUp(place, name, f"{name}.png", patient, "mse", truth, tuple(decoys), tuple(others))


def result(of: Cell, psnrs: Sequence[float], line_ups: Sequence[LineUp] = (), status: Status = "ok", **fields: Any) -> CellResult:
    return CellResult(of, status, record=record(psnrs, status, **fields), line_ups=tuple(line_ups))


def spread(count: int, low: float = 0.05, high: float = 0.2) -> list[float]:
    """Distances as decoys have them, evenly spread."""
    return np.linspace(low, high, count).tolist()


def played(
    generator: np.random.Generator,
    batches: Sequence[Sequence[int]],
    decoys: int,
    guess: str,
    *,
    attacks: int = 1,
    leaked: Sequence[int] = (),
    listed: int | None = None,
) -> tuple[list[tuple[str, list[LineUp]]], dict[int, str]]:
    """Line-ups of private examples and decoys drawn alike, as `line_ups_of` makes them, and the private examples' hashes.

    Args:
        generator: of everything.
        batches: positions of private examples; one may be in several.
        decoys: how many examples are private in no batch.
        guess: 'random' (drawn for each reconstruction) or 'common' (one for the whole audit, as a class mean).
        attacks: cells per batch.
        leaked: private examples that come out almost exactly.
        listed: only so many decoys, and no private example, are in anybody's line-up, as for a large source; all by default.
    """
    private = 1 + max(place for batch in batches for place in batch)
    examples = generator.standard_normal((private + decoys, SIZE))
    names = [f"{number:06d}" for number in generator.permutation(private + decoys)]
    common = 0.3 * generator.standard_normal(SIZE)
    candidates = range(private + decoys) if listed is None else range(private, private + listed)
    cells = []
    for number, batch in enumerate(batches):
        for attack in range(attacks):
            found = np.stack([common if guess == "common" else generator.standard_normal(SIZE) for _ in batch])
            for row, place in enumerate(batch):
                if place in leaked:
                    found[row] = examples[place] + 1e-3 * generator.standard_normal(SIZE)
            near = ((examples[:, None] - found[None]) ** 2).mean(2).min(1)
            others = [place for place in candidates if place not in batch]
            cells.append(
                (
                    f"{number}-{attack}",
                    [
                        line_up(
                            names[place], float(near[place]), near[others].tolist(), place=row, others=[names[k] for k in others]
                        )
                        for row, place in enumerate(batch)
                    ],
                )
            )
    return cells, dict(enumerate(names[:private]))
