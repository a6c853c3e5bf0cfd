"""From a Lightning checkpoint to a zoo checkpoint."""

from pathlib import Path

from zoo import checkpoints, sources


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
    state, part = sources.read_lightning(Path(ckpt))
    model = checkpoints.build(part["class"], part["init_args"], state, ckpt)
    saved = {name: part.get(name) for name in ("provenance", "tokenizer_json", "token_counts")}
    return checkpoints.save(model, folder, part.get("step", 0), **saved)
