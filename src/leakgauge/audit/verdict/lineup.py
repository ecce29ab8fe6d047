"""LineUp: how near one reconstruction comes to its private example, and how near to look-alikes that it never saw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LineUp:
    """Distances from one private example, and from its decoys, to the nearest reconstruction of the batch.

    Nothing is assigned with the truth in sight: private example and decoys are treated alike, so that a reconstruction that
    knows nothing ranks the private example at random.

    Args:
        example: position of the private example in its batch.
        record: hash of the private example's content; equal in all cells that attack the same example.
        name: the private example's name; shown, never hashed, left out by redaction.
        patient: whose record it is, where the data say so; '' otherwise.
        distance: 'mse' for pictures, 'tokens' for texts (share of its tokens that the reconstruction lacks).
        truth: distance of the private example; inf where nothing was returned.
        decoys: distances of the decoys; empty where there are none, or where nothing was returned.
        others: hashes of the decoys' content, of the kind and length of `record`: decoys may be shared between records, and
            may be private examples of other cells, and a verdict has to know.
    """

    example: int
    record: str
    name: str
    patient: str
    distance: str
    truth: float
    decoys: tuple[float, ...]
    others: tuple[str, ...] = ()
