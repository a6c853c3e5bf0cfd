"""`Source` as functions of a name and a step, for the studies."""

from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.checkpoints import read_lightning
from zoo.source import Source, embedding, load
from zoo.source_files import LightningFile

__all__ = ["embedding", "load", "read_lightning"]


def at_step(source: str, step: int | None) -> tuple[str, int | None]:
    """A source and a step of it, as the functions here take them."""
    return source, step


def run_checkpoint(source: str | Path, step: int | None) -> str | Path:
    """The last checkpoint of a run's folder, unless its newest single step is as far; any other source as it is."""
    opened = Source.open(source).at(step)
    return opened.path if isinstance(opened, LightningFile) else source


def zoo_part(source: str | Path, step: int | None = None) -> dict[str, Any] | None:
    """See `Source.zoo_part`."""
    return Source.open(source).zoo_part(step)


def tokenizer_json(source: str | Path, step: int | None = None) -> str | None:
    """See `Source.tokenizer_json`."""
    return Source.open(source).tokenizer_json(step)


def token_strings(source: str | Path, step: int | None = None) -> list[str] | None:
    """See `Source.token_strings`."""
    return Source.open(source).token_strings(step)


def row_counts(source: str | Path, step: int | None, n_rows: int) -> Tensor | None:
    """See `Source.row_counts`."""
    return Source.open(source).row_counts(step, n_rows)
