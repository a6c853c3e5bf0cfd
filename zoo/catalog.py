"""Which checkpoints there are: the shipped ones by name, others by folder. Imports nothing heavy.

A checkpoint with several training steps is a folder of folders, `step-000000`, `step-000512`, ..., each one a complete
checkpoint.
"""

import difflib
import fnmatch
import re
from pathlib import Path
from typing import Any

from zoo import checkpoint_config
from zoo.errors import ZooError
from zoo.paths import expanded

PRETRAINED = Path(__file__).parent / "pretrained"


def list_models(pattern: str = "*") -> list[str]:
    """Names of the shipped checkpoints that match a shell pattern, sorted."""
    names = sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir()) if PRETRAINED.is_dir() else []
    return fnmatch.filter(names, pattern)


def folder(source: str | Path, step: int | None = None) -> Path:
    """The folder of a zoo name or path, at a training step (the last by default).

    Raises:
        ZooError: If there is no such checkpoint or step.
    """
    path = place(source)
    if source == "" or str(source).startswith("hf:"):
        raise ZooError(f"{source!r} is no name or folder of a checkpoint; `python -m zoo list` shows the names")
    if not path.is_dir():
        if path.exists():
            raise ZooError(f"{source} is a file; expected a folder, a .ckpt or, for an embedding, .safetensors or .npy")
        close = difflib.get_close_matches(str(source), list_models(), 1)
        hint = f"did you mean {close[0]}?" if close else "`python -m zoo list` shows the names"
        raise ZooError(f"no checkpoint {str(source)!r}: it is neither a zoo name nor a folder; {hint}")
    if not (path / checkpoint_config.NAME).is_file() and (path / "steps").is_dir():  # a run's folder
        path = path / "steps"
    found = steps(path)
    if not found and (path / "checkpoints").is_dir():
        raise ZooError(f"the run {source} kept no weights of single steps, as LogSpacedCheckpoints would have")
    if not found:
        if step is not None and (only := checkpoint_config.read(path)["step"]) != step:
            raise ZooError(f"{source} holds step {only} only, not step {step}")
        return path
    chosen = max(found) if step is None else step
    if chosen not in found:
        raise ZooError(f"{source} has no step {step}; it has {', '.join(map(str, found))}")
    return path / step_folder(chosen)


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
        config = checkpoint_config.read(folder(name))
        weights = folder(name) / checkpoint_config.WEIGHTS
        rows.append(
            {
                "name": name,
                "class": config["class"],
                "megabytes": round(weights.stat().st_size / 1e6, 2),
                "steps": steps(PRETRAINED / name) or [config["step"]],
                "metrics": config["provenance"].get("metrics", {}),
            }
        )
    return rows


def info(name: str) -> str:
    """The model card of a shipped checkpoint or of a zoo checkpoint's folder, in Markdown.

    Raises:
        ZooError: If there is no such checkpoint or it has no card.
    """
    path = folder(name)
    for readme in (path.parent / checkpoint_config.CARD, path / checkpoint_config.CARD):
        if readme.is_file() and (readme.parent == path or steps(path.parent)):
            try:
                return readme.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise ZooError(f"{readme} is damaged: {error}") from None
    raise ZooError(f"{name} has no model card (README.md)")
