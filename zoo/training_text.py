"""Finds the text that a language model was trained on, from the provenance in its checkpoint."""

import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

import zoo.datamodules
from zoo.cli import ZooParser
from zoo.config_files import expand_configs, read_config
from zoo.datamodules import TextDataModule, TokenizerFile
from zoo.errors import ZooError
from zoo.source import Source


def training_text(source: str, config: str | None, vocab_size: int) -> tuple[TextDataModule, list[str]]:
    """The text that a model was trained on, or the text of a config, as token ids of the model.

    Args:
        source: The model, as `zoo.load` takes it.
        config: Path or shipped name of a config with a `data` part; by default the config that the model was trained
            with, as the model's checkpoint records it.
        vocab_size: Number of tokens V of the model.

    Returns:
        A datamodule that is set up, and notes for the reader.

    Raises:
        ZooError: If the model does not say what it was trained on, or the tokens are not the model's.
    """
    notes: list[str] = []
    told = Source.open(source).provenance()
    if config is not None:
        data = _datamodule(_parts_of(config), f"config {config}")
        made_by = f"config {config}"
    else:
        part = _without_cache((told.get("config") or {}).get("data"))
        data, made_by = _datamodule([part] if part else [], source), source
    if data.vocab_size != vocab_size:
        raise ZooError(f"the tokenizer of {made_by} has {data.vocab_size} tokens, and {source} knows {vocab_size}")
    tokenizer = Source.open(source).tokenizer_json()
    before, now = told.get("corpus_fingerprint"), data.cache.corpus_fingerprint
    if before is not None and before != now:
        notes.append("the text is not the one the model was trained on, such as that of another version of Python")
        if tokenizer is not None:
            data = _with_tokenizer(data, tokenizer)
    data.prepare_data()
    data.setup()
    if tokenizer is None:
        notes.append(f"{source} has no tokenizer of its own, so whether its tokens are those of the text is not known")
    elif Tokenizer.from_str(tokenizer).get_vocab() != data.tokenizer.get_vocab():
        raise ZooError(f"the tokenizer of {made_by} is not the one that came with {source}")
    return data, notes


def text_in_own_tokens(source: str, config: str | None, vocab_size: int) -> TextDataModule:
    """The text of a config, or else the default corpus, in the tokens of a model that was not trained by the zoo.

    Args:
        source: The model, as `zoo.load` takes it.
        config: Path or shipped name of a config with a `data` part, whose tokenizer is not used; None for the default
            corpus, Python's standard library.
        vocab_size: Number of rows V of the model's embedding.

    Returns:
        A datamodule that is set up.

    Raises:
        ZooError: If the model has no tokenizer, or one with more tokens than the model knows.
    """
    tokenizer = Source.open(source).tokenizer_json()
    if tokenizer is None:
        raise ZooError(f"{source} has no tokenizer.json, so no text can be read in its tokens")
    data = TextDataModule() if config is None else _datamodule(_parts_of(config), f"config {config}")
    data = _with_tokenizer(data, tokenizer)
    if data.vocab_size > vocab_size:
        raise ZooError(f"the tokenizer of {source} has {data.vocab_size} tokens, and its embedding {vocab_size} rows")
    data.prepare_data()
    data.setup()
    return data


def _parts_of(config: str) -> list[dict[str, Any]]:
    """The data parts of a config and of those it builds on."""
    words = expand_configs(["--config", config])
    return [part for word in words[1::2] if (part := read_config(Path(word)).get("data"))]


def _datamodule(parts: list[dict[str, Any]], made_by: str) -> TextDataModule:
    """The datamodule from the data parts of configs; each part builds on the one before."""
    if not parts:
        raise ZooError(f"{made_by} does not say on what text; name a config that has a data part, with --config")
    for name in zoo.datamodules.__all__:
        getattr(zoo.datamodules, name)  # configs may use the short names of classes that are imported
    parser = ZooParser()
    parser.add_lightning_class_args(TextDataModule, "data", subclass_mode=True)
    settings = None
    for part in parts:
        name = str(part.get("class_path", "TextDataModule")).rpartition(".")[2]
        if name != "TextDataModule":
            raise ZooError(f"the data of {made_by} is a {name}; text is needed, a TextDataModule")
        settings = parser.parse_object({"data": part}, settings)
    data = parser.instantiate_classes(settings).data
    assert isinstance(data, TextDataModule)
    return data


def _without_cache(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A run's data part without its cache folder, which may be on another machine."""
    if not part:
        return None
    return {**part, "init_args": {k: v for k, v in (part.get("init_args") or {}).items() if k != "cache_dir"}}


def _with_tokenizer(data: TextDataModule, tokenizer: str) -> TextDataModule:
    """The same text, encoded with a serialised tokenizer."""
    cache = data.cache
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(tokenizer, "utf-8")
        source = TokenizerFile(str(file))
    return TextDataModule(
        cache.corpus,
        source,
        data.context_length,
        data.batch_size,
        cache.val_fraction,
        cache.test_fraction,
        data.seed,
        data.prompts,
        str(cache.folder.parent),
    )
