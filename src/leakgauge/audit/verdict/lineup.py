"""LineUp: how near one reconstruction comes to its private example, and how near to look-alikes that it never saw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LineUp:
    """Distances of one reconstruction to the private example and to its decoys.

    Args:
        example: position of the private example in its batch.
        record: hash of the private example's content; equal in all cells that attack the same example.
        name: the private example's name; shown, never hashed, left out by redaction.
        patient: whose record it is, where the data say so; '' otherwise.
        distance: 'mse' for pictures, 'tokens' for texts (1 - token F1).
        truth: distance to the private example; inf where nothing was returned for it.
        decoys: distances to the decoys, the same decoys in the same order in all cells that attack the same example.
    """

    example: int
    record: str
    name: str
    patient: str
    distance: str
    truth: float
    decoys: tuple[float, ...]
