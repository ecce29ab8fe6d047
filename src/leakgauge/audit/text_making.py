"""Texts into records: scores, control, conditions and printable tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from leakgauge.attacks.control_text import control_tokens
from leakgauge.audit.record import Control, Record
from leakgauge.audit.text_record import TextConditions, Texts, TextScore, Tokens
from leakgauge.core.observation import Knowledge, Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.data.text import public_tokens
from leakgauge.data.tokeniser import Tokeniser
from leakgauge.measures.text import score_texts, without_padding
from leakgauge.truth import Batch

NO_TOKENISER = "none, tokens are shown as numbers"


def text_conditions(seen: Observation, spec: TextSpec, tokeniser: Tokeniser | None) -> TextConditions:
    """The conditions that only texts have."""
    granted = "granted with the labels" if Knowledge.LABELS in seen.knowledge else "not granted"
    return TextConditions(
        task=spec.task,
        length=spec.length,
        vocabulary=spec.vocabulary,
        tokeniser=tokeniser.name if tokeniser else NO_TOKENISER,
        masked_places=granted if spec.task == "masked" else "none in this task",
        attention_mask="granted with the labels" if _lengths_in_labels(seen, spec) else "not granted",
        embeddings=embeddings_text(seen, spec),
        dropout=dropout_text(seen),
    )


def input_embedding(network: nn.Module) -> nn.Embedding | None:
    """The token embedding that a Hugging Face network names; None for other networks."""
    try:
        layer = getattr(network, "get_input_embeddings", lambda: None)()
    except (NotImplementedError, AttributeError):  # transformers raises these for networks of other inputs than tokens
        return None
    return layer if isinstance(layer, nn.Embedding) else None


def embeddings_text(seen: Observation, spec: TextSpec) -> str:
    """'trained', 'frozen' or 'not shared', and whether they are tied to the output."""
    layer = input_embedding(seen.model)
    if layer is None:
        found = [module for module in seen.model.modules() if isinstance(module, nn.Embedding)]
        layer = next((module for module in found if module.num_embeddings >= spec.vocabulary), None)
    if layer is None:
        return "not known"
    names = [name for name, tensor in seen.model.named_parameters(remove_duplicate=False) if tensor is layer.weight]
    if not layer.weight.requires_grad:
        state = "frozen"
    else:
        state = "trained" if any(name in seen.tensors for name in names) else "not shared"
    return state + (", tied to the output" if len(names) > 1 else "")


def dropout_text(seen: Observation) -> str:
    """'off', or 'on' with its rates, where the client trains in train mode."""
    rates = sorted({module.p for module in seen.model.modules() if isinstance(module, nn.Dropout) and module.p > 0})
    if seen.training.mode != "train" or not rates:
        return "off"
    return f"on, p {', '.join(f'{rate:g}' for rate in rates)}"


def with_texts(
    record: Record, seen: Observation, guess: Reconstruction, batch: Batch | None, tokeniser: Tokeniser | None
) -> Record:
    """The record with its tokens and, where the truth is given, with scores and control."""
    spec = seen.spec
    assert isinstance(spec, TextSpec)
    named = guess.labels if spec.task == "masked" else None
    texts = Texts(guess=tuple(printable(guess.inputs.cpu(), spec, tokeniser, labels=named)))
    if batch is None or not isinstance(batch.spec, TextSpec):
        return replace(record, texts=texts)
    scores = score_texts(batch, guess.inputs, guess.labels)
    control, shown = control_of_texts(batch, tokeniser)
    held = batch.model_inputs
    assert isinstance(held, dict)
    truth = printable(
        held["input_ids"].cpu(),
        spec,
        tokeniser,
        labels=batch.model_labels if spec.task == "masked" else None,
        mask=held["attention_mask"].cpu(),
    )
    texts = replace(
        texts,
        truth=tuple(truth),
        control=tuple(printable(shown, spec, tokeniser)),
        bag_precision=scores.bag_precision,
        bag_recall=scores.bag_recall,
    )
    return replace(record, scores=text_scores(batch, guess.inputs, guess.labels, guess.certified), control=control, texts=texts)


def text_scores(batch: Batch, inputs: Tensor, labels: Tensor | None, certified: Tensor | None) -> tuple[TextScore, ...]:
    """One entry per private text, assigned by `score_texts`."""
    found = score_texts(batch, inputs, labels)
    held = batch.model_inputs
    assert isinstance(held, dict)
    lengths = held["attention_mask"].sum(1).tolist()
    classes = batch.labels.tolist() if batch.labels.ndim == 1 else None
    named = labels.tolist() if labels is not None and labels.ndim == 1 else None
    lines = []
    for index in range(len(batch)):
        place = int(found.order[index])
        lines.append(
            TextScore(
                index=index,
                name=batch.names[index] if batch.names else f"text {index + 1}",
                length=int(lengths[index]),
                token_accuracy=float(found.token_accuracy[index]),
                exact=bool(found.exact[index] == 1),
                rouge1=float(found.rouge1[index]),
                rouge2=float(found.rouge2[index]),
                rougeL=float(found.rougeL[index]),
                unmasked_accuracy=float(found.unmasked_accuracy[index]),
                masked_accuracy=float(found.masked_accuracy[index]),
                label=None if classes is None else int(classes[index]),
                label_guess=None if classes is None or named is None or place < 0 else int(named[place]),
                guess=place,
                certified=place >= 0 and certified is not None and bool(certified[place]),
            )
        )
    return tuple(lines)


def control_of_texts(batch: Batch, tokeniser: Tokeniser | None) -> tuple[Control, Tensor]:
    """The control's scores, by the same rule of assignment, and its texts (N, L).

    The public texts are the bundled demo texts, without those that are in the batch.
    """
    spec = batch.spec
    assert isinstance(spec, TextSpec)
    public = public_texts_for(spec, tokeniser)
    if public is not None:
        public = _without(public, batch)
    rule, tokens = control_tokens(spec, "best", public)
    inputs = tokens.expand(len(batch), -1).clone()
    return Control(rule, text_scores(batch, inputs, None, None)), inputs


def public_texts_for(spec: TextSpec, tokeniser: Tokeniser | None) -> Tensor | None:
    """(M, L) token ids of the bundled texts, -100 beyond their end; None without a tokeniser."""
    return None if tokeniser is None else public_tokens(tokeniser, spec.length)


def printable(
    ids: Tensor, spec: TextSpec, tokeniser: Tokeniser | None, *, labels: Tensor | None = None, mask: Tensor | None = None
) -> list[Tokens]:
    """Each row of ids (N, L) as printable strings without its padding; words under the mask in double square brackets.

    Args:
        ids: token ids.
        spec: padding.
        tokeniser: None shows ids as numbers.
        labels: (N, L) of a masked text, -100 where nothing is predicted.
        mask: (N, L) attention mask; without it padding at the end is cut off.
    """

    def written(tokens: list[int]) -> list[str]:
        return tokeniser.pieces(tokens) if tokeniser else [f" {token}" for token in tokens]

    rows = []
    for row, line in enumerate(ids.tolist()):
        kept = line if mask is None else [token for token, there in zip(line, mask[row].tolist(), strict=True) if there]
        tokens = without_padding(kept, spec.padding) if mask is None else kept
        strings = written(tokens)
        under = labels[row].tolist() if labels is not None and labels.ndim == 2 and row < len(labels) else []
        for place, label in enumerate(under[: len(strings)]):
            if label != IGNORED:
                (word,) = written([label])
                strings[place] = f"{' ' * word.startswith(' ')}\u27e6{word.strip()}\u27e7"
        rows.append(tuple(strings))
    return rows


def _without(public: Tensor, batch: Batch) -> Tensor | None:
    """The public texts that are not in the batch."""
    held = batch.model_inputs
    assert isinstance(held, dict)
    ids = held["input_ids"].cpu()
    if batch.labels.shape == ids.shape:
        ids = torch.where(batch.model_labels.cpu() == IGNORED, ids, batch.model_labels.cpu())
    private = {tuple(row[there != 0].tolist()) for row, there in zip(ids, held["attention_mask"].cpu(), strict=True)}
    rows = [row for row in public if tuple(row[row != IGNORED].tolist()) not in private]
    return torch.stack(rows) if rows else None


def _lengths_in_labels(seen: Observation, spec: TextSpec) -> bool:
    """Whether granted labels give the length of each text away, as those of a causal model do."""
    return spec.task == "causal" and Knowledge.LABELS in seen.knowledge
