"""Records of texts: the rule behind the verdict, the file and back, old records, and what is handed to attacks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from leakgauge.audit.folder import load_records, record_from_json, record_to_json, save_record
from leakgauge.audit.making import record_of, unsupported
from leakgauge.audit.prior import names_picture
from leakgauge.audit.record import ExampleScore, nearness, verdict_of
from leakgauge.audit.text_case import tokeniser_for, with_public
from leakgauge.audit.text_making import control_of_texts, printable
from leakgauge.audit.text_record import TextScore, half_right
from leakgauge.core import ThreatModel
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.data import load_data
from leakgauge.data.tokeniser import load_tokeniser
from leakgauge.errors import OptionError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.truth import Batch

transformers = pytest.importorskip("transformers")
NAN = math.nan


def score(place: float, rouge: float, exact: bool = False, unmasked: float = NAN, under: float = NAN) -> TextScore:
    return TextScore(0, "", 10, place, exact, rouge, rouge, rouge, unmasked, under)


@pytest.mark.parametrize(
    ("got", "control", "verdict"),
    [
        (score(1, 1, True), None, "rebuilt"),
        (score(1, 1, True), score(1, 1, True), "rebuilt"),
        (score(0.5, 0.1), score(0.3, 0.3), "partly"),
        (score(0.1, 0.5), score(0.3, 0.3), "partly"),
        (score(0.5, 0.5), score(0.31, 0.31), "not found"),
        (score(0.5, 0.6), score(0.0, 0.5), "partly"),
        (score(0.49, 0.49), None, "not found"),
        (score(0.9, 0.9, unmasked=0.4), score(0.9, 0.1), "partly"),
        (score(1, 0.9, True, unmasked=1.0), None, "partly"),
        (score(1, 0.9, True, unmasked=1.0, under=0.5), None, "partly"),
        (score(1, 1, True, unmasked=1.0, under=1.0), None, "rebuilt"),
        (score(NAN, NAN), None, "not found"),
    ],
)
def test_the_rule_behind_the_verdict(got: TextScore, control: TextScore | None, verdict: str) -> None:
    assert verdict_of(got, control) == verdict


def test_nearness_orders_pictures_as_psnr_does_and_ends_at_one() -> None:
    pictures = [ExampleScore(0, "", 0.0, psnr, 0.0, 0.0) for psnr in (-5.0, 0.0, 12.0, 30.0, 80.0, 300.0, math.inf)]
    values = [nearness(one) for one in pictures]
    assert values == sorted(values)
    assert values[-1] == nearness(score(1, 1, True)) == 1.0
    assert math.isnan(nearness(score(NAN, NAN)))


def test_what_cannot_be_scored_is_redacted() -> None:
    assert half_right(score(NAN, NAN))
    assert half_right(score(0.1, 0.5))
    assert not half_right(score(0.1, 0.49))


def client(task: str = "masked") -> tuple[Observation, Batch]:
    batch = load_data(f"demo:texts?task={task}&indices=0-2")
    config = transformers.BertConfig(
        vocab_size=batch.spec.vocabulary, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config._attn_implementation = "eager"
    network = transformers.BertForMaskedLM(config).eval()
    return ThreatModel.honest_but_curious().observe(Client(network).train(batch), network, batch.spec), batch


def guess(inputs: torch.Tensor, labels: torch.Tensor | None = None) -> Reconstruction:
    none = unverified(len(inputs))
    return Reconstruction(inputs, labels, Outcome.CONVERGED, False, none, none.float(), Stats(), 1.0, "dlg-text")


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    seen, batch = client()
    ids = batch.inputs["input_ids"].clone()
    ids[0, 3] = 9
    record = record_of(seen, guess(ids, batch.labels), batch, tokeniser=load_tokeniser("demo"))
    assert [verdict_of(one, None) for one in record.text_scores] == ["partly", "rebuilt", "rebuilt"]
    assert record.texts is not None
    assert record.texts.bag_precision == pytest.approx(1 - 1 / int(batch.inputs["attention_mask"].sum()))
    save_record(record, tmp_path)
    (again,) = load_records(tmp_path)
    assert repr(again) == repr(record)
    assert again.texts == record.texts
    assert again.conditions.text == record.conditions.text
    assert again.conditions.shape == (batch.spec.length,)
    json.dumps(record_to_json(replace(record, scores=(score(NAN, NAN),))), allow_nan=False)


def test_records_of_earlier_versions_load() -> None:
    seen, batch = client()
    entries = record_to_json(record_of(seen, guess(batch.inputs["input_ids"])))
    del entries["texts"], entries["conditions"]["text"]
    old = record_from_json(entries)
    assert old.texts is None
    assert old.conditions.text is None


def test_printable_tokens_hide_padding_and_name_the_words_under_the_mask() -> None:
    _, batch = client()
    read = load_tokeniser("demo")
    rows = printable(batch.inputs["input_ids"], batch.spec, read, labels=batch.labels, mask=batch.inputs["attention_mask"])
    assert not any("[PAD]" in token or "[MASK]" in token for row in rows for token in row)
    assert sum("\u27e6" in token for row in rows for token in row) == int((batch.labels != -100).sum())
    plain = "".join(rows[1]).replace("\u27e6", "").replace("\u27e7", "")
    assert plain == " [CLS] john okafor asked to move his appointment to the second week of june. [SEP]"
    assert printable(torch.tensor([[7, 999, 0]]), TextSpec(3, 10, 0), read)[0][1] == " <999>"
    assert printable(torch.tensor([[7, 9, 0]]), TextSpec(3, 10, 0), None) == [(" 7", " 9")]


def test_the_control_never_holds_a_private_text() -> None:
    whole = load_data("demo:texts")
    control, _ = control_of_texts(whole, load_tokeniser("demo"))
    assert "no public texts" in control.rule, "all public texts are in the batch"
    some, shown = control_of_texts(load_data("demo:texts?task=masked&indices=0-1"), load_tokeniser("demo"))
    assert "30 public texts" in some.rule
    assert len(some.scores) == len(shown) == 2


def test_what_does_not_apply_is_an_empty_record() -> None:
    seen, batch = client()
    nothing = unsupported(seen, "idlg", UnsupportedError("No picture."))
    record = record_of(seen, nothing, batch)
    assert record.outcome == "UNSUPPORTED"
    assert all(math.isnan(one.token_accuracy) for one in record.text_scores)


def test_a_language_model_as_prior_is_no_picture() -> None:
    for prior, picture in (
        ("hf:folder", False),
        ("own.models:prior", False),
        ("demo:cat", True),
        ("folder:a.b", True),
        (None, False),
    ):
        assert names_picture({"prior": prior}) is picture


def test_which_tokeniser_reads_a_text(tmp_path: Path) -> None:
    seen, batch = client()
    assert tokeniser_for(seen.spec, "any:thing").name == "demo"
    assert tokeniser_for(TextSpec(4, 9, 0), "any:thing") is None
    with pytest.raises(OptionError, match="the one that made them"):
        tokeniser_for(TextSpec(4, 9, 0), "any:thing", "demo")
    with pytest.raises(OptionError, match="is for texts"):
        tokeniser_for(None, "any:thing", "demo")
    options = with_public("control", {}, seen.spec, load_tokeniser("demo"))
    assert options["public"].shape == (32, batch.spec.length)
    assert with_public("idlg", {"a": 1}, seen.spec, None) == {"a": 1}
