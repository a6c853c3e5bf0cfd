"""From a checkpoint to a folder that other programs read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo import catalog, checkpoint_config, checkpoints, saelens, sources
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.replacing import replacing
from zoo.source_files import reject_step

DTYPES = {"float32": None, "float16": torch.float16}


def export(source: str | Path, folder: str | Path, dtype: str = "float32", steps: Sequence[int] | None = None) -> Path:
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
    folder = expanded(folder)
    if dtype not in DTYPES:
        raise ZooError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    _check_apart(source, folder)
    if steps is None:
        model, part = _read(source)
        return _save(model, part, folder, folder.name, dtype)
    if not steps:
        raise ZooError("there are no steps to write")
    checkpoints.check_kind(folder)
    with replacing(folder, checkpoint_config.FILES) as new:
        for step in sorted(set(steps)):
            model, part = _read(source, step)
            last = _save(model, part, new / catalog.step_folder(step), folder.name, dtype)
        (new / "README.md").write_text((last / "README.md").read_text("utf-8"), "utf-8")
    return folder


def export_saelens(source: str | Path, folder: str | Path) -> Path:
    """Write a sparse autoencoder as a SAELens folder.

    Args:
        source: What `export` takes.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged or no sparse autoencoder, or something else is in the folder.
    """
    model, part = _read(source)
    return saelens.write(model, folder, saelens.training_data(part.get("provenance") or {}))


def _check_apart(source: str | Path, folder: Path) -> None:
    """Refuse to write over what is read, or over the steps of a run."""
    if str(source).startswith("hf:"):
        return
    place, target = catalog.place(source).resolve(), folder.resolve()
    if target in (place, place / "steps") or target in place.parents:
        raise ZooError(f"{folder} is where {source} lies; choose another folder")


def _save(model: nn.Module, part: dict[str, Any], folder: Path, title: str, dtype: str) -> Path:
    saved = {key: part.get(key) for key in ("provenance", "tokenizer_json", "token_counts")}
    return checkpoints.save(model, folder, part.get("step", 0), **saved, dtype=DTYPES[dtype], title=title)


def _read(source: str | Path, step: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what its checkpoint says of it."""
    source = sources.run_checkpoint(source, step)
    if str(source).endswith(".ckpt"):
        reject_step(source, step)
        state, part = sources.read_lightning(Path(source))
        return checkpoints.build(part["class"], part["init_args"], state, source), part
    model = sources.load(source, step)
    counts = sources.token_counts(source, step)
    beside = {
        "tokenizer_json": sources.tokenizer_json(source, step),
        "token_counts": counts.tolist() if counts is not None else None,
    }
    part = sources.zoo_part(source, step) or {"provenance": {"source": str(source)}}
    return model, part | beside
