"""Functions that list the shipped checkpoints and find checkpoints by name or folder. Fast to import.

A checkpoint with several training steps is a folder with one subfolder per step, such as `step-000000` and
`step-000512`. Each subfolder is a complete checkpoint.
"""

import fnmatch
import re
from pathlib import Path
from typing import Any

from zoo import checkpoint_config
from zoo.paths import expanded

PRETRAINED = Path(__file__).parent / "pretrained"


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the shipped checkpoints that match a shell pattern, sorted."""
    names = sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir()) if PRETRAINED.is_dir() else []
    return fnmatch.filter(names, pattern)


def place(source: str | Path) -> Path:
    """Return the path of a source; a `str` may also be the name of a shipped checkpoint, a `Path` may not."""
    return PRETRAINED / source if source in list_models() else expanded(source)


def step_folder(step: int) -> str:
    """Return the name of the subfolder of a training step."""
    return f"step-{step:06d}"


def steps(path: Path) -> list[int]:
    """Return the training steps of a checkpoint with several steps, ascending; empty for a single checkpoint."""
    matches = (re.fullmatch(r"step-(\d+)", p.name) for p in path.iterdir() if p.is_dir())
    return sorted(int(m[1]) for m in matches if m)


def entries(pattern: str = "*") -> list[dict[str, Any]]:
    """Return what `python -m zoo list` shows: name, class, size of one step's weights, steps and metrics."""
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
