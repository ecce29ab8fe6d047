"""Records of texts, written token by token; their scores are worked out here and not by the package."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from report_examples import HOSTILE, conditions, record, scene

from leakgauge.audit.record import Control, Record
from leakgauge.audit.text_record import TextConditions, Texts, TextScore, Tokens

LETTER = "[CLS] please write to anna.keller@example.org or call 020 7946 0958 before 4 may 1961 [SEP]"
NOTE = "[CLS] the patient sleeps well and takes one tablet in the morning [SEP]"


def tokens(text: str) -> Tokens:
    return tuple(f" {word}" for word in text.split())


def common(one: Tokens, other: Tokens) -> float:
    """ROUGE-L by the plainest recursion that ends in time for short texts: a table of all prefixes."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one, start=1):
        for j, b in enumerate(other, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    return 2 * table[-1][-1] / max(len(one) + len(other), 1)


def text_score(truth: Tokens, guess: Tokens, index: int, /, **extra: Any) -> TextScore:
    right = sum(a == b for a, b in zip(truth, guess, strict=False)) / len(truth)
    bag = 2 * sum(min(truth.count(token), guess.count(token)) for token in set(truth)) / max(len(truth) + len(guess), 1)
    extra = {"name": f"notes.tsv#{index}", "label": index % 2, "label_guess": 0, "guess": index, **extra}
    return TextScore(index, length=len(truth), token_accuracy=right, exact=truth == guess, rouge1=bag, rouge2=bag / 2,
                     rougeL=common(truth, guess), **extra)  # fmt: skip


def text_conditions(**changes: Any) -> TextConditions:
    settings: dict[str, Any] = {
        "task": "classification", "length": 24, "vocabulary": 30522, "tokeniser": "bert-base-uncased",
        "masked_places": "none in this task", "attention_mask": "not granted", "embeddings": "frozen", "dropout": "off",
    }  # fmt: skip
    return TextConditions(**{**settings, **changes})


def texts(key: str, truth: list[str], guess: list[str], **changes: Any) -> Record:
    """A record of texts with a control that guesses 'the' everywhere."""
    ours, theirs = [tokens(text) for text in truth], [tokens(text) for text in guess]
    plain = [(" the",) * len(row) for row in ours]
    scores = tuple(text_score(one, other, index) for index, (one, other) in enumerate(zip(ours, theirs, strict=True)))
    settings: dict[str, Any] = {
        "attack": "dlg-text",
        "conditions": conditions(
            model="hf:bert", shape=(24,), input_range="token ids 0 to 30521", batch_size=len(truth), text=text_conditions()
        ),
        "scores": scores,
        "control": Control("'the' throughout", tuple(text_score(ours[i], plain[i], i) for i in range(len(ours)))),
        "pictures": None,
        "texts": Texts(tuple(theirs), tuple(ours), tuple(plain), bag_precision=0.8, bag_recall=0.75),
        **changes,
    }  # fmt: skip
    return record(key, scene(1)[None], scene(1)[None], **settings)


def three_texts() -> Record:
    """Exact, partly right, and not found."""
    half = NOTE.replace("takes one tablet in the", "gave two pills at that")
    return texts("three", [LETTER, NOTE, NOTE.replace("sleeps", "eats")], [LETTER, half, "[CLS] blue lips"], title="Three notes")


def masked() -> Record:
    """A masked text whose open tokens are right and whose words under the mask were not named."""
    hidden, shown = NOTE.replace("tablet", "\u27e6tablet\u27e7"), NOTE.replace("tablet", "[MASK]")
    one = texts("masked", [hidden], [shown], title="A masked note", attack="lamp")
    told = replace(one.scores[0], exact=True, token_accuracy=1.0, unmasked_accuracy=1.0, masked_accuracy=math.nan,
                   label=None, label_guess=None)  # fmt: skip
    about = text_conditions(task="masked", masked_places="not granted")
    return replace(one, scores=(told,), conditions=replace(one.conditions, text=about))


def untold() -> Record:
    """No original given."""
    one = texts("untold", [NOTE], [NOTE], title="A note without its original", explains=True)
    assert one.texts is not None
    return replace(one, scores=(), control=None, texts=Texts(one.texts.guess))


def hostile_text() -> Record:
    one = texts("hostile-text", [f"{HOSTILE} a b"], [f"{HOSTILE} a c"], title=HOSTILE, attack=HOSTILE)
    name = replace(one.scores[0], name=HOSTILE)
    about = text_conditions(tokeniser=HOSTILE, embeddings=HOSTILE, dropout=HOSTILE, task=HOSTILE)
    return replace(one, scores=(name,), conditions=replace(one.conditions, text=about))


def all_texts() -> list[Record]:
    return [three_texts(), masked(), untold(), hostile_text()]
