"""Text to token ids, and how much of the text the tokens stand for."""

import json
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, pre_tokenizers

from zoo.datamodules.tokenizers import end_of_text_id
from zoo.errors import ZooError

SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # all that Unicode has
MARKER = "\ue000 dropped"


@dataclass(frozen=True)
class EncodedText:
    """A text's tokens, and what of it they leave out.

    Attributes:
        ids: Token ids, (N,).
        n_bytes: Bytes of the text, in UTF-8, that each token stands for, (N,): none for the unknown token.
        unknown: Bytes that became the unknown token.
        spaces: Bytes of white space that no token stands for, as between the words of a tokenizer of words.
        lost: Other bytes that no token stands for.
    """

    ids: np.ndarray
    n_bytes: np.ndarray
    unknown: int = 0
    spaces: int = 0
    lost: int = 0


class TextEncoder:
    """A tokenizer without padding, truncation and special tokens, which accounts for every byte of the text.

    Args:
        tokenizer: The tokenizer; it is copied.
        special_tokens: Whether the name of a special token within a text, such as <|endoftext|>, is that token. If not,
            it is encoded as other text is; where a tokenizer cannot but make the token that ends a document of it, it
            is left out and counted as lost.
    """

    def __init__(self, tokenizer: Tokenizer, special_tokens: bool = False) -> None:
        self.end = end_of_text_id(tokenizer)
        self._reserved = -1 if special_tokens else self.end
        # A post-processor only adds special tokens, and cuts spaces from the places of tokens.
        unused = {"truncation": None, "padding": None, "post_processor": None}
        settings = json.loads(tokenizer.to_str()) | unused
        for added in settings["added_tokens"]:
            added["special"] |= added["id"] == self.end
        self._unknown = _unknown_id(settings["model"], tokenizer)
        self._token_bytes = _token_bytes(tokenizer, self._unknown) if _is_byte_level(settings) else None
        self._tokenizer = self._witness = _build(settings, special_tokens)
        self._marker = -1  # stands, in the witness's tokens, for a letter that the tokenizer drops
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
        """Tokens and their bytes, by the characters that the witness says each stands for."""
        ids = np.array(encoding.ids, np.int64)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        widths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)  # bytes of every character in UTF-8
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        until = np.maximum.accumulate(ends)
        since = np.maximum(starts, np.concatenate([[0], until])[: len(ids)])
        n_bytes = _share_out(np.concatenate([[0], widths.cumsum()]), since, until)

        depth = np.bincount(since, minlength=len(codes) + 1) - np.bincount(until, minlength=len(codes) + 1)
        left = np.flatnonzero(depth[:-1].cumsum() == 0)  # characters within no token
        spaces = int(widths[left[np.isin(codes[left], SPACES)]].sum())
        unknown = int(n_bytes[ids == self._unknown].sum())
        n_bytes[(ids == self._unknown) | (ids == self._marker)] = 0
        if (ids == self._marker).any():
            ids, n_bytes = self._tokens_of_the_rest(text, int(n_bytes.sum()))
        kept = ids != self._reserved
        ids, n_bytes = ids[kept], n_bytes[kept]
        return EncodedText(ids, n_bytes, unknown, spaces, int(widths.sum() - n_bytes.sum()) - unknown - spaces)

    def _tokens_of_the_rest(self, text: str, n_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of a text that loses letters, and the share of each, by its length, in the `n_bytes` that are left.

        The places that the tokenizer tells are wrong behind a letter that it drops.
        """
        (encoding,) = self._run(self._tokenizer.encode_batch, [text])
        ids = np.array(encoding.ids, np.int64)
        lengths = np.array([len(t.encode()) for t in encoding.tokens], np.int64)
        lengths = lengths if self._token_bytes is None else self._token_bytes[ids]
        return ids, np.diff(n_bytes * lengths.cumsum() // max(lengths.sum(), 1), prepend=0)


def _share_out(position: np.ndarray, since: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Bytes of every token (N,); those of characters that several tokens share are shared out among them.

    Args:
        position: Bytes before every character, and of the whole text, (characters + 1,).
        since: First character that is new with a token, (N,).
        until: Character after its last, (N,).
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
    """Settings of the same BPE with a token of this id in the place of every letter that it drops."""
    added = {token["content"]: token["id"] for token in settings["added_tokens"]}
    vocabulary = {**settings["model"]["vocab"], **added, MARKER: marker}
    return settings | {"model": settings["model"] | {"vocab": vocabulary, "unk_token": MARKER}}


def _unknown_id(model: dict[str, Any], tokenizer: Tokenizer) -> int:
    """Id of the unknown token, -1 if there is none."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if found is None else found


def _is_byte_level(settings: dict[str, Any]) -> bool:
    """Whether every token of a tokenizer is a piece of the normalised text's bytes."""
    step = settings["pre_tokenizer"] or {}
    steps = step.get("pretokenizers", [step])
    adds_space = any(s.get("add_prefix_space") for s in steps)
    return any(s.get("type") == "ByteLevel" for s in steps) and not adds_space


def _token_bytes(tokenizer: Tokenizer, unknown: int) -> np.ndarray:
    """Bytes that every token of a byte-level tokenizer stands for, (V,): none for the unknown token."""
    alphabet, vocabulary = set(pre_tokenizers.ByteLevel.alphabet()), tokenizer.get_vocab()
    added = tokenizer.get_added_tokens_decoder()
    n_bytes = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, i in vocabulary.items():
        n_bytes[i] = len(token) if i not in added and alphabet.issuperset(token) else len(token.encode())
    if unknown >= 0:
        n_bytes[unknown] = 0
    return n_bytes
