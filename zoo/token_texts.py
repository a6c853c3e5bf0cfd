"""Texts of the tokens of a tokenizer, and detection of tokens that occur in no text."""

import codecs
import re
from functools import cache
from typing import Any

from zoo.errors import ZooError

REPLACED = "\ufffd"  # character to which bytes that are not valid text are decoded
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # notation of a byte, such as <0xE2>
# Contexts in which a token is tested. If any text contains the token whole, one of these does.
CONTEXTS = (
    "{}",
    "a{}",
    "{}a",
    "a{}a",
    "1{}",
    " {}",
    "{} ",
    "a {}",
    ". {}",
    "\n{}",
)


def decoded_tokens(tokenizer: Any, n_tokens: int | None = None) -> list[str]:
    """Return every token of a `tokenizers.Tokenizer` as text, by id. A token that starts a word has a leading space.

    Bytes that are not valid text by themselves are written like <0xE2>, and so are all byte tokens of SentencePiece.

    Args:
        tokenizer: The tokenizer.
        n_tokens: Number of tokens, from id 0 on. By default all up to the largest id.
    """
    if n_tokens is None:
        n_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1  # there may be unused ids
    texts = tokenizer.decode_batch([[i] for i in range(n_tokens)], skip_special_tokens=False)
    return [_named(text, tokenizer.id_to_token(i) or "") for i, text in enumerate(texts)]


def without_text(tokenizer: Any) -> list[bool]:
    """Return which tokens of a `tokenizers.Tokenizer` occur in no text, by id.

    No word into which the pre-tokenizer splits text contains such a token, neither alone nor next to letters, digits
    and spaces. For example, BERT splits [unused0] into four words, and ## with a Chinese character does not occur
    because each such character is a word. Added tokens, which a text may spell out, and parts of characters are not
    tested and count as occurring. So do all tokens if the tokenizer has no pre-tokenizer.
    """
    n_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    cut, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    if cut is None:
        return [False] * n_tokens
    added = tokenizer.get_added_tokens_decoder()
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None) or ""
    texts = tokenizer.decode_batch([[i] for i in range(n_tokens)], skip_special_tokens=False)

    def is_whole(token: str, text: str) -> bool:
        continues = bool(prefix) and token.startswith(prefix)
        token, text = (part.removeprefix(prefix) if continues else part for part in (token, text))
        for context in CONTEXTS:
            around = context.format(text)
            words = cut.pre_tokenize_str(normalizer.normalize_str(around) if normalizer else around)
            if any(token in word and not (continues and word.startswith(token)) for word, _ in words):
                return True
        return False

    return [
        (token := tokenizer.id_to_token(i)) is None
        or not (i in added or not text or REPLACED in text or BYTE.fullmatch(token) or is_whole(token, text))
        for i, text in enumerate(texts)
    ]


def _named(text: str, token: str) -> str:
    """Return the text of a token, given its decoded text and its spelling in the vocabulary."""
    if BYTE.fullmatch(token):
        return token
    if REPLACED in text:
        alphabet = _byte_alphabet()
        if not all(letter in alphabet for letter in token):
            return token
        return bytes(alphabet[letter] for letter in token).decode("utf-8", "zoo.bytes")
    return " " + text if token.startswith("\u2581") and not text.startswith(" ") else text  # SentencePiece's mark


def stored_text(token: str, model: str) -> str:
    """Return the text of a token as GGUF files store it. A token that starts a word has a leading space.

    Args:
        token: The token, in the spelling of its vocabulary.
        model: Kind of the tokenizer: "gpt2" for byte-level BPE; others mark the start of a word as SentencePiece does.
    """
    if model == "gpt2":
        alphabet = _byte_alphabet()
        is_spelled = bool(token) and all(letter in alphabet for letter in token)
        return bytes(alphabet[letter] for letter in token).decode("utf-8", "zoo.bytes") if is_spelled else token
    return token.replace("\u2581", " ")


def _marked(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("zoo.bytes", _marked)


@cache
def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each letter of GPT-2's byte-level alphabet stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def read_tokenizer(text: str, owner: str) -> Any:
    """Return the `tokenizers.Tokenizer` in the text of a tokenizer.json.

    Raises:
        ZooError: If the text is not a tokenizer. The message contains `owner`.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        raise ZooError(f"the tokenizer of {owner} cannot be read: {error}") from None
