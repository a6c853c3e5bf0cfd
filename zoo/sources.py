"""`Source` as functions of a name and a step, for the studies."""

from pathlib import Path
from typing import Any

from zoo.checkpoints import read_lightning as read_lightning
from zoo.source import Source
from zoo.source import embedding as embedding
from zoo.source import load as load
from zoo.source_files import LightningFile


def at_step(source: str, step: int | None) -> tuple[str, int | None]:
    """A source and a step of it, as the functions here take them."""
    return source, step


def run_checkpoint(source: str | Path, step: int | None) -> str | Path:
    """The last checkpoint of a run's folder, unless its newest single step is as far; any other source as it is."""
    opened = Source.open(source).at(step)
    return opened.path if isinstance(opened, LightningFile) else source


def _of(method: str) -> Any:
    return lambda source, step=None, *given: getattr(Source.open(source), method)(step, *given)


zoo_part, tokenizer_json, token_strings = map(_of, ("zoo_part", "tokenizer_json", "token_strings"))
token_counts, row_counts = map(_of, ("token_counts", "row_counts"))
