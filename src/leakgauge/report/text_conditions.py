"""The conditions of texts, named and in words."""

from __future__ import annotations

from leakgauge.audit.text_record import TextConditions


def text_rows(conditions: TextConditions | None) -> list[tuple[str, str]]:
    """Each condition that only texts have; none for pictures."""
    if conditions is None:
        return []
    return [
        ("Task", TASKS.get(conditions.task, conditions.task)),
        ("Vocabulary", f"{conditions.vocabulary:,} token ids"),
        ("Tokeniser", conditions.tokeniser),
        ("Length of a padded text", f"{conditions.length} tokens"),
        ("Places under the mask", conditions.masked_places),
        ("Length of each text (attention mask)", conditions.attention_mask),
        ("Token embeddings", conditions.embeddings),
        ("Dropout of the client", conditions.dropout),
    ]


TASKS = {
    "masked": "masked language model",
    "classification": "classification of sequences",
    "causal": "causal language model",
}
