"""Which checkpoints there are: the shipped ones by name, others by folder. Imports nothing heavy.

A checkpoint with several training steps is a folder of folders, `step-000000`, `step-000512`, ..., each one a complete
checkpoint.
"""

import fnmatch
import re
from pathlib import Path
from typing import Any

from zoo import checkpoint_config
from zoo.paths import expanded

PRETRAINED = Path(__file__).parent / "pretrained"


def list_models(pattern: str = "*") -> list[str]:
    """Names of the shipped checkpoints that match a shell pattern, sorted."""
    names = sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir()) if PRETRAINED.is_dir() else []
    return fnmatch.filter(names, pattern)


def place(source: str | Path) -> Path:
    """Where a name or path points to; a text that is a zoo name means that, a Path never does."""
    return PRETRAINED / source if source in list_models() else expanded(source)


def step_folder(step: int) -> str:
    """Name of the folder that holds a training step."""
    return f"step-{step:06d}"


def steps(path: Path) -> list[int]:
    """Training steps of a checkpoint with several, ascending; empty for a plain one."""
    matches = (re.fullmatch(r"step-(\d+)", p.name) for p in path.iterdir() if p.is_dir())
    return sorted(int(m[1]) for m in matches if m)


def entries(pattern: str = "*") -> list[dict[str, Any]]:
    """What `python -m zoo list` shows: name, class, size of the weights of a step, steps and metrics."""
    rows = []
    for name in list_models(pattern):
        kept = steps(PRETRAINED / name)
        folder = PRETRAINED / name / (step_folder(kept[-1]) if kept else "")
        config = checkpoint_config.read(folder)
        rows.append(
            {
                "name": name,
                "class": config["class"],
                "megabytes": round((folder / checkpoint_config.WEIGHTS).stat().st_size / 1e6, 2),
                "steps": kept or [config["step"]],
                "metrics": config["provenance"].get("metrics", {}),
            }
        )
    return rows
