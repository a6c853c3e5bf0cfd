"""Where the checkpoint lies from which a run goes on, and the command that does so."""

import shlex
from pathlib import Path

import lightning as L


def last_checkpoint(trainer: L.Trainer) -> Path:
    """The file from which the trainer's run goes on, which may not be there yet."""
    return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"


def resume_hint(checkpoint: Path) -> str:
    """What to type to go on from a checkpoint; that there is none, if so."""
    if not checkpoint.is_file():
        return "nothing was saved yet"
    return f"resume with: python -m zoo fit --ckpt_path {shlex.quote(str(checkpoint))}"
