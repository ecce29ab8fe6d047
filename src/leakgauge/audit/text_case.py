"""Texts in a case: which tokeniser, whether the network takes them, and what an attack is handed beside the observation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leakgauge.audit.text_making import input_embedding, public_texts_for
from leakgauge.core.spec import Spec
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.data import load_data
from leakgauge.data.text import is_text, load_texts, parse_text_data
from leakgauge.data.tokeniser import DEMO, Tokeniser, has_tokeniser, load_tokeniser
from leakgauge.errors import LeakgaugeError, ModelError, OptionError, ShapeError
from leakgauge.truth import Batch

HUB = "hf:"


def load_batch(data: str, model: str) -> Batch:
    """The batch that a text names. Texts that name no tokeniser take the one in the model's folder, else the demo's."""
    return load_texts(data, folder_of(model) or DEMO) if is_text(data) else load_data(data)


def folder_of(model: str) -> str:
    """The folder of an 'hf:' model that holds a tokeniser; '' where there is none."""
    place = Path(model.removeprefix(HUB)).expanduser()
    folder = place if place.is_dir() else place.parent
    return str(folder) if model.startswith(HUB) and place.exists() and has_tokeniser(folder) else ""


def tokeniser_for(spec: Spec | None, model: str, given: str | None = None, data: str = "") -> Tokeniser | None:
    """The tokeniser to read recovered texts with: the one given, or named in the data, or in the model's folder, or the demo's,
    where it has as many ids as the texts; None where inputs are no texts, or none fits.

    Raises:
        OptionError: if the one given has another number of ids.
        DataError, MissingExtraError: if the one given cannot be read.
    """
    if not isinstance(spec, TextSpec):
        if given:
            raise OptionError(f"A tokeniser ({given!r}) is for texts; the observation is not of texts.")
        return None
    if given:
        found = load_tokeniser(given)
        if found.size != spec.vocabulary:
            raise OptionError(
                f"The tokeniser {given!r} has {found.size} token ids and the observation's texts {spec.vocabulary}; give the one "
                "that made them."
            )
        return found
    named = parse_text_data(data).tokeniser if is_text(data) else ""
    for name in filter(None, (named, folder_of(model), DEMO)):
        try:
            found = load_tokeniser(name)
        except LeakgaugeError:
            continue
        if found.size == spec.vocabulary:
            return found
    return None


def check_network(network: nn.Module, batch: Batch, name: str) -> None:
    """Raises ModelError, in one sentence, unless a network takes the batch's texts and its outputs fit task and labels."""
    spec = batch.spec
    if not isinstance(spec, TextSpec):
        return
    rows = _token_ids(network)
    if rows is not None and rows < spec.vocabulary:
        raise ModelError(
            f"The model {name!r} has {rows} token ids and the texts' tokeniser {spec.vocabulary}; give the tokeniser that the "
            "model was made for, as in text:PATH?tokeniser=FOLDER."
        )
    most = _positions(network)
    if most is not None and most < spec.length:
        raise ModelError(
            f"The texts are padded to {spec.length} tokens and the model {name!r} takes at most {most}; choose shorter ones with "
            "indices, or a smaller length."
        )
    logits = _logits(network, batch, name)
    wanted = 2 if spec.task == "classification" else 3
    if logits.ndim != wanted:
        kind = "(N, classes)" if wanted == 2 else "(N, tokens, token ids)"
        raise ModelError(
            f"The model {name!r} returns {tuple(logits.shape)} for {len(logits)} text(s); the task '{spec.task}' needs {kind}. "
            "Give a model for this task, or another task."
        )
    labels = batch.labels[batch.labels != IGNORED]
    if len(labels) and not (0 <= int(labels.min()) <= int(labels.max()) < logits.shape[-1]):
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ModelError(
            f"The label {wrong} has no output: the model {name!r} has {logits.shape[-1]}, from 0"
            + (f"; give --classes {wrong + 1} or more." if wrong >= 0 else ".")
        )


def check_truth(spec: Spec | None, batch: Batch | None, path: str | None) -> None:
    """Raises ShapeError where a truth cannot belong to an observation of texts, or one of texts to another."""
    if batch is None or not (isinstance(spec, TextSpec) or isinstance(batch.spec, TextSpec)):
        return
    if spec != batch.spec:
        raise ShapeError(
            f"The truth in {path} holds {_in_words(batch.spec)}; the observation is of {_in_words(spec)}. Is it the right file?"
        )


def with_public(name: str, options: Mapping[str, Any], spec: Spec | None, tokeniser: Tokeniser | None) -> dict[str, Any]:
    """An attack's options, for the control on texts with public ones: attacks read no data."""
    if name != "control" or not isinstance(spec, TextSpec) or "public" in options:
        return dict(options)
    return {**options, "public": public_texts_for(spec, tokeniser)}


def _in_words(spec: Spec | None) -> str:
    if isinstance(spec, TextSpec):
        return f"texts of {spec.length} tokens out of {spec.vocabulary} (task '{spec.task}')"
    return "inputs of no known shape" if spec is None else f"pictures of shape {spec.shape}"


def _token_ids(network: nn.Module) -> int | None:
    layer = input_embedding(network)
    return None if layer is None else layer.num_embeddings


def _positions(network: nn.Module) -> int | None:
    """Tokens that a Hugging Face network takes at most; None where its configuration does not say."""
    config = getattr(network, "config", None)
    for name in ("max_position_embeddings", "n_positions"):
        most = getattr(config, name, None)
        if isinstance(most, int) and most > 0:
            return most
    return None


def _logits(network: nn.Module, batch: Batch, name: str) -> torch.Tensor:
    held = batch.model_inputs
    assert isinstance(held, dict)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = network(**{key: tensor[:2] for key, tensor in held.items()})
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise ModelError(f"The model {name!r} does not take texts ({' '.join(str(error).split())[:200]}).") from error
    logits = output.logits if hasattr(output, "logits") else output
    if not isinstance(logits, torch.Tensor):
        raise ModelError(
            f"The model {name!r} returns a {type(logits).__name__} for a text; expected a tensor or an output with logits."
        )
    return logits
