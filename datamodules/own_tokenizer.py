"""The tokenizer that is stored with a language model, and the tokens that it puts before a text."""

import json
from collections.abc import Iterable
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from tokenizers import Tokenizer

from zoo.checkpoint_config import TOKENIZER
from zoo.datamodules.tokenizers import END_NAMES, TokenizerFile, TokenizerSource, vocabulary_size
from zoo.errors import ZooError
from zoo.source import Source
from zoo.source_files import Folder
from zoo.token_texts import read_tokenizer

CONFIG = "tokenizer_config.json"
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>")  # in chat models, eos_token may end a turn, not a document


class OwnTokenizer(TokenizerSource):
    """The tokenizer that is stored with a model.

    Every document ends with the token <|endoftext|> or <|end_of_text|> if the tokenizer has one of them, otherwise with
    the `eos_token` of `tokenizer_config.json`, and otherwise with a token of a common name for the end of a text.

    Args:
        tokenizer_json: The tokenizer, serialised.
        source: Name of the model in messages.
        config: Content of `tokenizer_config.json`.
    """

    def __init__(self, tokenizer_json: str, source: str, config: dict[str, Any]) -> None:
        self._json, self._tokenizer = tokenizer_json, read_tokenizer(tokenizer_json, source)
        self.vocab_size = vocabulary_size(self._tokenizer, f"the tokenizer of {source}")
        end, common = map(self._first, ([*DOCUMENT_ENDS, _token_name(config, "eos_token")], END_NAMES))
        self.end_of_text = None if end == common else end

    def tokenizer(self, training_texts: Iterable[str]) -> Tokenizer:
        """See `TokenizerSource.tokenizer`."""
        return self._tokenizer

    def fingerprint(self) -> str:
        """See `TokenizerSource.fingerprint`."""
        same = json.dumps(json.loads(self._json), sort_keys=True)  # as `TokenizerFile` does for the same tokenizer
        return same if self.end_of_text is None else f"{same} documents end with {self.end_of_text}"

    def _first(self, names: Iterable[str | None]) -> str | None:
        return next((name for name in names if name and self._tokenizer.token_to_id(name) is not None), None)


def stored_tokenizer(source: Source, step: int | None, needed: bool) -> str | None:
    """Return the tokenizer that is stored with a model, serialised, or None if there is none.

    Raises:
        ZooError: If it is needed, and there is none or it cannot be read.
    """
    try:
        own = source.tokenizer_json(step)
    except ZooError:
        if needed:
            raise
        own = None
    if own is None and needed:
        raise ZooError(f"{source.name} has no {TOKENIZER}; set data.tokenizer to the tokenizer it was trained with")
    return own


def tokenizer_config(source: Source, step: int | None) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`; empty if there is none or it cannot be read."""
    opened = source.at(step)
    if not isinstance(opened, Folder) or opened.zoo_part:
        return {}
    try:
        return opened.json(CONFIG) if opened.path(CONFIG) else {}
    except ZooError as error:
        rank_zero_info(f"note: {error}; BOS and the end of a document are those that {TOKENIZER} tells")
        return {}


def tokens_before_text(
    source: Source, step: int | None, tokenizer: TokenizerSource | None, config: dict[str, Any], wanted: bool | None
) -> list[int]:
    """Return the tokens with which the contexts of a model begin.

    They are those that its tokenizer puts before a text. If it puts none, and the `tokenizer_config.json` says
    `add_bos_token` or `wanted` is true, it is the `bos_token` of that file. Otherwise there are none.

    Args:
        source: The model. Models of the zoo are trained without such tokens, so they get them only if they are wanted.
        step: Its training step.
        tokenizer: Its tokenizer. One that is trained on the corpus puts no tokens before a text.
        config: Content of `tokenizer_config.json`.
        wanted: Whether contexts shall begin with BOS; None to follow the tokenizer and its config.

    Raises:
        ZooError: If `wanted` is true and the tokenizer has no such token.
    """
    if wanted is False or (wanted is None and source.zoo_part(step)):
        return []
    ids: list[int] = []
    if isinstance(tokenizer, TokenizerFile | OwnTokenizer):
        known = tokenizer.tokenizer(())
        ids = added_before_text(known)
        bos = _token_name(config, "bos_token") if wanted or config.get("add_bos_token") is True else None
        if not ids and bos and (bos_id := known.token_to_id(bos)) is not None:
            ids = [bos_id]
    if wanted and not ids:
        raise ZooError(f"data.prepend_bos is true, but the tokenizer of {source.name} has no BOS token")
    return ids


def added_before_text(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the special tokens that a tokenizer puts before a text, such as BOS; often there are none."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    try:
        encoding = plain.encode("a", add_special_tokens=True)
    except Exception:  # a tokenizer of words that has neither this word nor an unknown token
        return []
    return encoding.ids[: [*encoding.special_tokens_mask, 0].index(0)]


def _token_name(config: dict[str, Any], key: str) -> str | None:
    """Return the name of a token in `tokenizer_config.json`, which may give a token as a dict of its settings."""
    setting = config.get(key)
    name = setting.get("content") if isinstance(setting, dict) else setting
    return name if isinstance(name, str) else None
