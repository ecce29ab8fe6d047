"""Tokenisers: from a folder with a vocabulary, or the small one of the demo texts. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from leakgauge.errors import DataError, MissingExtraError

DEMO = "demo"
FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


_CLOSING = frozenset(".,;:!?)%")


def _byte_signs() -> dict[str, int]:
    """The printable sign of each byte, as byte-level vocabularies write it: itself, or from 256 on where it cannot be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_signs()


@dataclass(frozen=True)
class Tokeniser:
    """Text to token ids and back.

    Args:
        name: as it was asked for.
        size: number of token ids.
        padding: id of the padding token; the end-of-text token where the vocabulary has none of its own, None without either.
        mask: id of the mask token, or None.
        special: ids that stand for no part of a text.
        style: how its entries mark a blank: 'bytes' (GPT-2's), 'sentence' (a bar before a word), 'pieces' ('##' where there
            is none) or 'words'.
    """

    name: str
    size: int
    padding: int | None
    mask: int | None
    special: frozenset[int]
    style: str
    _inner: Any = field(repr=False)

    def encode(self, text: str) -> list[int]:
        """Token ids, with the special tokens that the vocabulary's models expect around a text."""
        ids: list[int] = self._inner(text)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._inner.decode(list(ids)))

    def words(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's own entry of each token."""
        return [str(token) for token in self._inner.convert_ids_to_tokens(list(ids))]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One printable string per token; strung together they are the text, with a blank where a word begins.

        Ids outside the vocabulary are shown as numbers, bytes that are no character of their own as the sign for that.
        """
        return [self._piece(token) if 0 <= token < self.size else f" <{token}>" for token in ids]

    def _piece(self, token: int) -> str:
        (word,) = self.words([token])
        if token in self.special:
            return f" {word}"
        if self.style == "bytes":
            return bytes(_BYTES[sign] for sign in word if sign in _BYTES).decode("utf-8", "replace")
        if self.style == "sentence":
            return word.replace("\u2581", " ")
        if self.style == "pieces" and word.startswith("##"):
            return word[2:]
        return word if word in _CLOSING else f" {word}"


@lru_cache(maxsize=4)
def load_tokeniser(name: str) -> Tokeniser:
    """The tokeniser of a folder (tokenizer.json, vocab.txt, or vocab.json with merges.txt), or 'demo'.

    Raises:
        MissingExtraError: without transformers.
        DataError: if the folder is missing or holds no vocabulary that can be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "text", "Texts") from error
    if name == DEMO:
        return _wrapped(name, transformers.PreTrainedTokenizerFast(tokenizer_object=_own(), **_special()))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise DataError(f"There is no folder {name!r} with a tokeniser; expected tokenizer.json, vocab.txt or vocab.json in it.")
    try:
        return _wrapped(name, _read(folder, transformers))
    except DataError:
        raise
    except Exception as error:  # the libraries raise anything for a damaged vocabulary
        raise DataError(f"The tokeniser in {name!r} cannot be read ({' '.join(str(error).split())[:200]}).") from error


def has_tokeniser(folder: str | Path) -> bool:
    """Whether a folder holds a vocabulary that `load_tokeniser` knows."""
    place = Path(folder).expanduser()
    return any((place / name).is_file() for name in FILES)


def _read(folder: Path, transformers: Any) -> Any:
    if (folder / "tokenizer.json").is_file():
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if (folder / "vocab.txt").is_file():
        return transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return transformers.GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    raise DataError(
        f"The folder {str(folder)!r} holds no tokeniser; expected tokenizer.json, vocab.txt, or vocab.json and merges.txt."
    )


def _wrapped(name: str, inner: Any) -> Tokeniser:
    padding = inner.pad_token_id if inner.pad_token_id is not None else inner.eos_token_id
    special = frozenset(int(token) for token in inner.all_special_ids)
    return Tokeniser(
        name, len(inner), None if padding is None else int(padding), inner.mask_token_id, special, _style(inner), inner
    )


def _style(inner: Any) -> str:
    entries = inner.get_vocab()
    for style, marked in (("bytes", "\u0120"), ("sentence", "\u2581"), ("pieces", "##")):
        if any(entry.startswith(marked) and entry != marked for entry in entries):
            return style
    return "words"


def _special() -> dict[str, str]:
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return dict(zip(names, SPECIAL, strict=True))


def _own() -> Any:
    """A small vocabulary of the demo texts' words, and of single characters for all others. It is made, not trained: training
    breaks ties in another way in every process."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    from leakgauge.data.demo_texts import TEXTS

    before, lower = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    words = {word for _, text in TEXTS for word, _ in before.pre_tokenize_str(lower.normalize_str(text))}
    characters = sorted({*"".join(words), *"abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-@()"})
    entries = [*SPECIAL, *characters, *(f"##{one}" for one in characters), *sorted(word for word in words if len(word) > 1)]
    vocabulary = {entry: place for place, entry in enumerate(entries)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = lower, before, decoders.WordPiece()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return inner
