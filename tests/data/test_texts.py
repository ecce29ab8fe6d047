"""Texts from files and from the demo: token ids, padding, masks; and every wrong use as one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from leakgauge.data import load_data
from leakgauge.data.text import public_tokens
from leakgauge.data.tokeniser import has_tokeniser, load_tokeniser
from leakgauge.errors import DataError, OptionError

pytest.importorskip("transformers")


def test_demo_texts_come_back_as_they_were():
    batch = load_data("demo:texts?indices=0-3")
    tokeniser = load_tokeniser("demo")
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert batch.spec.vocabulary == tokeniser.size > 300
    assert bool((ids[mask == 0] == tokeniser.padding).all())
    assert batch.labels.tolist() == [1, 0, 1, 0]
    kept = ids[1][mask[1] == 1].tolist()
    assert tokeniser.decode(kept[1:-1]).startswith("john okafor asked to move his appointment")
    assert torch.equal(load_data("demo:texts?indices=0-3").inputs["input_ids"], ids)


def test_the_demo_vocabulary_is_the_same_in_every_process():
    """A trained one would not be: its ties are broken by the order of a hash table."""
    script = "from leakgauge.data.tokeniser import load_tokeniser as l; print(l('demo').encode('maria lindgren sleeps; zyx'))"
    found = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert found == {f"{load_tokeniser('demo').encode('maria lindgren sleeps; zyx')}\n"}


def test_masked_texts_hide_what_they_ask_for():
    batch = load_data("demo:texts?task=masked&mask=0.3&indices=0-7&seed=3")
    plain = load_data("demo:texts?indices=0-7").inputs["input_ids"]
    hidden = batch.labels != -100
    ids = batch.inputs["input_ids"]
    assert bool((ids[hidden] == load_tokeniser("demo").mask).all())
    assert torch.equal(torch.where(hidden, batch.labels, ids), plain)
    assert bool((hidden.sum(1) >= 1).all())
    assert not bool((hidden & (batch.inputs["attention_mask"] == 0)).any())


def test_a_table_and_a_plain_file(tmp_path):
    table = tmp_path / "notes.tsv"
    table.write_text('label\tsentence\n1\tshe said " no\n0\tall is well\n', encoding="utf-8")
    batch = load_data(f"text:{table}?task=causal")
    assert torch.equal(batch.labels[batch.labels != -100], batch.inputs["input_ids"][batch.inputs["attention_mask"] == 1])
    plain = tmp_path / "notes.txt"
    plain.write_text('she said " no\n\nall is well\n', encoding="utf-8")
    assert torch.equal(load_data(f"text:{plain}").inputs["input_ids"], batch.inputs["input_ids"])
    assert load_data(f"text:{plain}?length=40").spec.length == 40


def test_a_word_piece_folder(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "all", "is", "well"]), encoding="utf-8"
    )
    batch = load_data(f"demo:texts?indices=0&tokeniser={tmp_path}")
    assert batch.spec.vocabulary == 8
    assert 1 in batch.inputs["input_ids"][0].tolist()


def test_real_vocabularies(data_root):
    batch = load_data(f"text:{data_root}/text/rotten_tomatoes.tsv?tokenizer={data_root}/text/gpt2&indices=1")
    tokeniser = load_tokeniser(f"{data_root}/text/gpt2")
    assert tokeniser.decode(batch.inputs["input_ids"][0].tolist()) == "simplistic , silly and tedious ."
    with pytest.raises(OptionError, match="needs a mask token"):
        load_data(f"demo:texts?task=masked&tokeniser={data_root}/text/gpt2")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("text:/nowhere.tsv", DataError, "cannot be read"),
        ("text:", OptionError, "names nothing after 'text'"),
        ("demo:texts?indices=99", DataError, "holds 32 texts"),
        ("demo:texts?task=mask", OptionError, "Did you mean 'masked'"),
        ("demo:texts?lenght=3", OptionError, "Did you mean 'length'"),
        ("demo:texts?length=3", DataError, "has \\d+ tokens"),
        ("demo:texts?length=0", OptionError, "a whole number >= 1"),
        ("demo:texts?mask=2", OptionError, "a share above 0"),
        ("demo:texts?task=causal&task=masked", OptionError, "twice"),
        ("demo:texts?tokeniser=/nowhere", DataError, "no folder '/nowhere'"),
    ],
)
def test_wrong_use_is_one_sentence(text, error, words):
    with pytest.raises(error, match=words):
        load_data(text)


def test_tables_that_do_not_fit(tmp_path):
    table = tmp_path / "notes.csv"
    table.write_text("label,note\nx,hello\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'sentence'"):
        load_data(f"text:{table}")
    with pytest.raises(DataError, match="Line 2 .* the label 'x'"):
        load_data(f"text:{table}?column=note")
    table.write_text("label,text\n1,\n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        load_data(f"text:{table}")


def test_pieces_make_up_the_text(tmp_path):
    tokeniser = load_tokeniser("demo")
    ids = tokeniser.encode("she said: maria sleeps.")
    assert "".join(tokeniser.pieces(ids)) == " [CLS] she said: maria sleeps. [SEP]"
    assert tokeniser.pieces([ids[1], 10**6, -3]) == [" she", " <1000000>", " <-3>"]
    assert tokeniser.special == {0, 1, 2, 3, 4}
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sleep", "##s", "well"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    folder = load_tokeniser(str(tmp_path))
    assert folder.style == "pieces"
    assert "".join(folder.pieces(folder.encode("sleeps well"))) == " [CLS] sleeps well [SEP]"
    assert has_tokeniser(tmp_path)
    assert not has_tokeniser(tmp_path / "none")


def test_pieces_of_bytes(data_root):
    tokeniser = load_tokeniser(f"{data_root}/text/gpt2")
    text = "Caf\u00e9 na\u00efve, it's 3.5 \u20ac; two  blanks"
    assert "".join(tokeniser.pieces(tokeniser.encode(text))) == text
    assert tokeniser.style == "bytes"


def test_rows_of_a_table_keep_their_quotes_and_lines(tmp_path):
    table = tmp_path / "notes.csv"
    table.write_bytes('\ufefflabel,text\r\n1,"all, is\nwell"\r\n0,fine\x85ly\r\n'.encode())
    batch = load_data(f"text:{table}")
    assert batch.labels.tolist() == [1, 0]
    assert batch.names == ("notes.csv#0", "notes.csv#1")
    table.write_text('text\n"' + "a" * 200_000 + '"\n', encoding="utf-8")
    with pytest.raises(DataError, match="of .*notes.csv cannot be read"):
        load_data(f"text:{table}")


def test_texts_without_padding_have_one_length(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[?]": 2}, unk_token="[?]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("a b\nb a\na\n", encoding="utf-8")
    batch = load_data(f"text:{tmp_path}/notes.txt?tokeniser={tmp_path}&indices=0-1")
    assert batch.spec.padding is None
    assert batch.inputs["input_ids"].tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="no padding token, and the texts have 1 to 2 tokens"):
        load_data(f"text:{tmp_path}/notes.txt?tokeniser={tmp_path}")
    with pytest.raises(DataError, match="no padding token"):
        load_data(f"text:{tmp_path}/notes.txt?tokeniser={tmp_path}&indices=0-1&length=5")


def test_public_texts_are_cut_and_filled():
    found = public_tokens(load_tokeniser("demo"), 8)
    assert found.shape == (32, 8)
    assert torch.equal(found[0], load_data("demo:texts?indices=0").inputs["input_ids"][0, :8])
    assert public_tokens(load_tokeniser("demo"), 40)[0, -1] == -100
