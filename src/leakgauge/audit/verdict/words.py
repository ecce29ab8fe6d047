"""Words of verdicts that records, pages and tables share."""

from __future__ import annotations

IDENTIFIED, PARTLY, NOT_FOUND = "identified", "partly", "not found"
UNATTACKABLE, INCOMPLETE = "not attackable", "incomplete"
ORDER = (IDENTIFIED, PARTLY, INCOMPLETE, NOT_FOUND, UNATTACKABLE)  # worst first; incomplete says less than 'not found'
NOT_FOUND_SENTENCE = "these attacks, with this knowledge and effort, did not find it; this is no proof of safety"
