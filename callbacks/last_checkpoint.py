"""The path of a run's last checkpoint, and the command that resumes from it."""

import shlex
from pathlib import Path

import lightning as L


def last_checkpoint(trainer: L.Trainer) -> Path:
    """Return the path of the checkpoint from which the trainer's run resumes. The file may not exist yet."""
    return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"


def resume_hint(checkpoint: Path) -> str:
    """Return the command that resumes from a checkpoint, or the statement that nothing was saved yet."""
    if not checkpoint.is_file():
        return "nothing was saved yet"
    return f"resume with: python -m zoo fit --ckpt_path {shlex.quote(str(checkpoint))}"
