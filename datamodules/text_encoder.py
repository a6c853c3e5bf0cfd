"""Encoder from text to token ids, which counts the bytes of the text that every token stands for."""

import json
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, pre_tokenizers

from zoo.datamodules.tokenizers import end_of_text_id
from zoo.errors import ZooError

SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # all white space of Unicode
MARKER = "\ue000 dropped"


@dataclass(frozen=True)
class EncodedText:
    """The tokens of a text, and the number of bytes of the text that they leave out.

    Attributes:
        ids: Token ids, (N,).
        n_bytes: Number of bytes of the text, in UTF-8, that each token stands for, (N,); 0 for the unknown token.
        unknown: Number of bytes that are encoded as the unknown token.
        spaces: Number of bytes of white space that no token stands for, such as spaces that a word-level tokenizer
            drops.
        lost: Number of other bytes that no token stands for.
    """

    ids: np.ndarray
    n_bytes: np.ndarray
    unknown: int = 0
    spaces: int = 0
    lost: int = 0


class TextEncoder:
    """A tokenizer that adds no padding or special tokens, does not truncate, and accounts for every byte of the text.

    Args:
        tokenizer: The tokenizer, of which a copy is made.
        special_tokens: Whether the name of a special token in a text, such as <|endoftext|>, is read as that token. If
            not, the name is encoded as ordinary text. Some tokenizers nevertheless encode the name of the end-of-text
            token as that token; the token is then left out and its bytes are counted as lost.
        end_of_text: Name of the token that ends a document; None to look for a common name.
    """

    def __init__(self, tokenizer: Tokenizer, special_tokens: bool = False, end_of_text: str | None = None) -> None:
        self.end = end_of_text_id(tokenizer, end_of_text)
        self._reserved = -1 if special_tokens else self.end
        # A post-processor only adds special tokens and removes spaces from the offsets of tokens.
        unused = {"truncation": None, "padding": None, "post_processor": None}
        settings = json.loads(tokenizer.to_str()) | unused
        for added in settings["added_tokens"]:
            added["special"] |= added["id"] == self.end
        self._unknown = _unknown_id(settings["model"], tokenizer)
        self._token_bytes = _token_bytes(tokenizer, self._unknown) if _is_byte_level(settings) else None
        self._tokenizer = self._witness = _build(settings, special_tokens)
        # The witness is a copy of the tokenizer that encodes every character that the tokenizer drops as this id.
        self._marker = -1
        if settings["model"]["type"] == "BPE" and self._unknown < 0:
            self._marker = max(tokenizer.get_vocab().values()) + 1
            self._witness = _build(_marking(settings, self._marker), special_tokens)

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts.

        Raises:
            ZooError: If the tokenizer cannot encode one of them.
        """
        if self._token_bytes is None:
            encodings = self._run(self._witness.encode_batch, texts)
            return [self._account(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]
        encoded = []
        for text, encoding in zip(texts, self._run(self._tokenizer.encode_batch_fast, texts), strict=True):
            ids = np.array(encoding.ids, np.int64)
            whole = EncodedText(ids, self._token_bytes[ids])
            if whole.n_bytes.sum() != len(text.encode()) or (ids == self._reserved).any():
                whole = self._account(text, *self._run(self._witness.encode_batch, [text]))
            encoded.append(whole)
        return encoded

    def _run(self, encode: Callable[..., list[Encoding]], texts: Sequence[str]) -> list[Encoding]:
        try:
            return encode(texts, add_special_tokens=False)
        except Exception as error:
            if len(texts) > 1:
                return [encoding for text in texts for encoding in self._run(encode, [text])]
            raise ZooError(
                f"the tokenizer cannot encode the text {reprlib.repr(texts[0])}: {error}; a tokenizer without a token "
                "for every text needs an unknown token in its vocabulary"
            ) from None

    def _account(self, text: str, encoding: Encoding) -> EncodedText:
        """Return the tokens and their bytes, computed from the character offsets of the witness's tokens."""
        ids = np.array(encoding.ids, np.int64)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        widths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)  # bytes of every character in UTF-8
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        until = np.maximum.accumulate(ends)
        since = np.maximum(starts, np.concatenate([[0], until])[: len(ids)])
        n_bytes = _share_out(np.concatenate([[0], widths.cumsum()]), since, until)

        depth = np.bincount(since, minlength=len(codes) + 1) - np.bincount(until, minlength=len(codes) + 1)
        left = np.flatnonzero(depth[:-1].cumsum() == 0)  # characters that are in no token
        spaces = int(widths[left[np.isin(codes[left], SPACES)]].sum())
        unknown = int(n_bytes[ids == self._unknown].sum())
        n_bytes[(ids == self._unknown) | (ids == self._marker)] = 0
        if (ids == self._marker).any():
            ids, n_bytes = self._tokens_of_the_rest(text, int(n_bytes.sum()))
        kept = ids != self._reserved
        ids, n_bytes = ids[kept], n_bytes[kept]
        return EncodedText(ids, n_bytes, unknown, spaces, int(widths.sum() - n_bytes.sum()) - unknown - spaces)

    def _tokens_of_the_rest(self, text: str, n_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """Encode a text from which the tokenizer drops characters; divide `n_bytes` among the tokens by length.

        The offsets of the tokenizer cannot be used, because they are wrong after a dropped character.
        """
        (encoding,) = self._run(self._tokenizer.encode_batch, [text])
        ids = np.array(encoding.ids, np.int64)
        lengths = np.array([len(t.encode()) for t in encoding.tokens], np.int64)
        lengths = lengths if self._token_bytes is None else self._token_bytes[ids]
        return ids, np.diff(n_bytes * lengths.cumsum() // max(lengths.sum(), 1), prepend=0)


def _share_out(position: np.ndarray, since: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Return the bytes of every token, (N,). If tokens share characters, the bytes are divided equally among them.

    Args:
        position: Number of bytes before every character, and in the whole text, (characters + 1,).
        since: Index of the first character of a token that no earlier token covers, (N,).
        until: Index after the last character that a token or an earlier one covers, (N,).
    """
    n_bytes = position[until] - position[since]
    leads = np.flatnonzero((n_bytes > 0) | (np.arange(len(since)) == 0))  # the first token of each character or word
    sizes = np.diff(np.append(leads, len(since)))
    total, size = np.repeat(n_bytes[leads], sizes), np.repeat(sizes, sizes)
    place = np.arange(len(since)) - np.repeat(leads, sizes)
    return total * (place + 1) // size - total * place // size


def _build(settings: dict[str, Any], special_tokens: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.encode_special_tokens = not special_tokens
    return tokenizer


def _marking(settings: dict[str, Any], marker: int) -> dict[str, Any]:
    """Return settings of the same BPE, except that every character that it drops becomes a token of this id."""
    added = {token["content"]: token["id"] for token in settings["added_tokens"]}
    vocabulary = {**settings["model"]["vocab"], **added, MARKER: marker}
    return settings | {"model": settings["model"] | {"vocab": vocabulary, "unk_token": MARKER}}


def _unknown_id(model: dict[str, Any], tokenizer: Tokenizer) -> int:
    """Return the id of the unknown token, -1 if there is none."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if found is None else found


def _is_byte_level(settings: dict[str, Any]) -> bool:
    """Return whether every token of a tokenizer is a piece of the bytes of the normalised text."""
    step = settings["pre_tokenizer"] or {}
    steps = step.get("pretokenizers", [step])
    adds_space = any(s.get("add_prefix_space") for s in steps)
    return any(s.get("type") == "ByteLevel" for s in steps) and not adds_space


def _token_bytes(tokenizer: Tokenizer, unknown: int) -> np.ndarray:
    """Return the number of bytes that every token of a byte-level tokenizer stands for, (V,); 0 for the unknown."""
    alphabet, vocabulary = set(pre_tokenizers.ByteLevel.alphabet()), tokenizer.get_vocab()
    added = tokenizer.get_added_tokens_decoder()
    n_bytes = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, i in vocabulary.items():
        n_bytes[i] = len(token) if i not in added and alphabet.issuperset(token) else len(token.encode())
    if unknown >= 0:
        n_bytes[unknown] = 0
    return n_bytes
