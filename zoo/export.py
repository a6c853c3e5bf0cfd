"""Functions that write a network as a zoo checkpoint or as a SAELens folder."""

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
    """Write a network as a zoo checkpoint. `transformers` can read the checkpoint of a GPT-2 too.

    Args:
        source: Anything that `zoo.load` takes, such as a .ckpt file of a zoo module, a run's folder or a zoo name.
        folder: Folder to write to.
        dtype: "float32" or "float16". float16 halves the size of the file; loading returns float32 in both cases.
        steps: Training steps to write, for a source that holds several. Each is written into a subfolder such as
            `step-000512`. By default only the last step is written, into `folder` itself.

    Returns:
        The folder.

    Raises:
        ZooError: If the source cannot be read, is damaged or has no such step, or the folder has other files.
    """
    opened, folder = Source.open(source), expanded(folder)
    if dtype not in DTYPES:
        raise ZooError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    _check_apart(opened, folder)
    if steps is None:
        return _save(opened, None, folder, folder.name, dtype)
    if not steps:
        raise ZooError("steps is empty; at least one step is needed")
    checkpoints.check_kind(folder)
    with replacing(folder, checkpoint_config.FILES) as new:
        for step in sorted(set(steps)):
            last = _save(opened, step, new / catalog.step_folder(step), folder.name, dtype)
        (new / "README.md").write_text((last / "README.md").read_text("utf-8"), "utf-8")
    return folder


def export_saelens(source: str | Path | Source, folder: str | Path) -> Path:
    """Write a sparse autoencoder as a SAELens folder.

    Args:
        source: Anything that `export` takes.
        folder: Folder to write to.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged or is not a sparse autoencoder, or the folder has other files.
    """
    opened = Source.open(source)
    return saelens.write(opened.load(), folder, saelens.training_data(opened.provenance()))


def _check_apart(source: Source, folder: Path) -> None:
    """Refuse to overwrite the source, a folder that contains it, or the steps of a run."""
    if source.path is None:
        return
    place, target = source.path.resolve(), folder.resolve()
    if target in (place, place / "steps") or target in place.parents:
        raise ZooError(f"writing to {folder} would overwrite the source {source.name}; choose another folder")


def _save(source: Source, step: int | None, folder: Path, title: str, dtype: str) -> Path:
    model, counts = source.load(step), source.token_counts(step)
    part = source.zoo_part(step) or {"provenance": {"source": source.name, **source.provenance(step)}}
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
