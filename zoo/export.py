"""From a checkpoint to a folder that other programs read."""

from pathlib import Path
from typing import Any

from torch import nn

from zoo import catalog, checkpoints, saelens, sources


def export(ckpt: str | Path, folder: str | Path) -> Path:
    """Write the network of a Lightning checkpoint as a zoo checkpoint, which `transformers` reads too if it is a GPT-2.

    Args:
        ckpt: A .ckpt file written by a module of the zoo.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        ZooError: If the checkpoint is damaged or not the zoo's, or something else is in the folder.
    """
    model, part = _read(ckpt)
    saved = {name: part.get(name) for name in ("provenance", "tokenizer_json", "token_counts")}
    return checkpoints.save(model, folder, part.get("step", 0), **saved)


def export_saelens(source: str | Path, folder: str | Path) -> Path:
    """Write a sparse autoencoder as a SAELens folder.

    Args:
        source: A .ckpt file written by a module of the zoo, a run's folder, a zoo name, or a zoo checkpoint's folder.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        ZooError: If the source is damaged or no sparse autoencoder, or something else is in the folder.
    """
    source = sources.run_checkpoint(source, step=None)
    if str(source).endswith(".ckpt"):
        model, part = _read(source)
    else:
        path = catalog.folder(str(source))
        model, part = checkpoints.load(path), checkpoints.read_config(path)
    return saelens.write(model, folder, saelens.training_data(part.get("provenance") or {}))


def _read(ckpt: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    state, part = sources.read_lightning(Path(ckpt))
    return checkpoints.build(part["class"], part["init_args"], state, ckpt), part
