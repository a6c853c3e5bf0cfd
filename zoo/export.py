"""From a checkpoint to a folder that other programs read."""

from collections.abc import Sequence
from pathlib import Path

import torch

from zoo import catalog, checkpoint_config, checkpoints, saelens
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.replacing import replacing
from zoo.source import Source

DTYPES = {"float32": None, "float16": torch.float16}


def export(
    source: str | Path | Source, folder: str | Path, dtype: str = "float32", steps: Sequence[int] | None = None
) -> Path:
    """Write a network as a zoo checkpoint, which `transformers` reads too if it is a GPT-2.

    Args:
        source: What `zoo.load` takes: a .ckpt file written by a module of the zoo, a run's folder, a zoo name, ...
        folder: Where to write.
        dtype: float16 rounds the weights to half the size; loading gives float32 in either case.
        steps: Of a source that holds several training steps, those to write, each into a folder `step-000512`. By
            default only the last step is written, into `folder` itself.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged, cannot be read or lacks a step, or something else is in the folder.
    """
    opened, folder = Source.open(source), expanded(folder)
    if dtype not in DTYPES:
        raise ZooError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    _check_apart(opened, folder)
    if steps is None:
        return _save(opened, None, folder, folder.name, dtype)
    if not steps:
        raise ZooError("there are no steps to write")
    checkpoints.check_kind(folder)
    with replacing(folder, checkpoint_config.FILES) as new:
        for step in sorted(set(steps)):
            last = _save(opened, step, new / catalog.step_folder(step), folder.name, dtype)
        (new / "README.md").write_text((last / "README.md").read_text("utf-8"), "utf-8")
    return folder


def export_saelens(source: str | Path | Source, folder: str | Path) -> Path:
    """Write a sparse autoencoder as a SAELens folder.

    Args:
        source: What `export` takes.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged or no sparse autoencoder, or something else is in the folder.
    """
    opened = Source.open(source)
    return saelens.write(opened.load(), folder, saelens.training_data(opened.provenance()))


def _check_apart(source: Source, folder: Path) -> None:
    """Refuse to write over what is read, or over the steps of a run."""
    if source.path is None:
        return
    place, target = source.path.resolve(), folder.resolve()
    if target in (place, place / "steps") or target in place.parents:
        raise ZooError(f"{folder} is where {source.name} lies; choose another folder")


def _save(source: Source, step: int | None, folder: Path, title: str, dtype: str) -> Path:
    model, counts = source.load(step), source.token_counts(step)
    part = source.zoo_part(step) or {"provenance": {"source": source.name}}
    return checkpoints.save(
        model,
        folder,
        part.get("step", 0),
        part.get("provenance"),
        source.tokenizer_json(step),
        token_counts=None if counts is None else counts.tolist(),
        dtype=DTYPES[dtype],
        title=title,
    )
