"""From a checkpoint to a folder that other programs read."""

from pathlib import Path
from typing import Any

from torch import nn

from zoo import catalog, checkpoints, saelens, sources


def export(source: str | Path, folder: str | Path) -> Path:
    """Write a network as a zoo checkpoint, which `transformers` reads too if it is a GPT-2.

    Args:
        source: A .ckpt file written by a module of the zoo, a run's folder, a zoo name, or a zoo checkpoint's folder.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged or not the zoo's, or something else is in the folder.
    """
    model, part = _read(source)
    saved = {name: part.get(name) for name in ("provenance", "tokenizer_json", "token_counts")}
    return checkpoints.save(model, folder, part.get("step", 0), **saved)


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


def _read(source: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what its checkpoint says of it."""
    source = sources.run_checkpoint(source, step=None)
    if str(source).endswith(".ckpt"):
        state, part = sources.read_lightning(Path(source))
        return checkpoints.build(part["class"], part["init_args"], state, source), part
    path = catalog.folder(str(source))
    counts = sources.token_counts(path)
    beside = {
        "tokenizer_json": sources.tokenizer_json(path),
        "token_counts": counts.tolist() if counts is not None else None,
    }
    return checkpoints.load(path), checkpoints.read_config(path) | beside
