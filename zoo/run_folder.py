"""Functions for the folder of a run: they lock it, find its checkpoint, and check whether a run may start or resume."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from jsonargparse import ArgumentParser, Namespace

from zoo.errors import ZooError
from zoo.paths import expanded

# Settings that may change when a run is resumed: the result does not depend on them, or records their values itself.
FREE_ON_RESUME = (
    *("model.init_args.compile", "model.init_args.max_new_tokens", "model.init_args.temperature"),
    *("data.init_args.prompts", "data.init_args.cache_dir"),
)
ENDS = ("trainer.max_steps", "trainer.max_epochs")  # settings that determine the end of the run
COMPARED_TRAINER_KEYS = (
    "max_steps",
    "max_epochs",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
)


def plain_config(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return the whole configuration as plain values, without the paths of its config files."""
    plain = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))
    plain.pop("config", None)
    return plain


def find_checkpoint(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """Return the checkpoint file that `--ckpt_path` names, or None to start without one.

    Args:
        ckpt_path: Path of a file; "last" for the run's own last checkpoint; "auto" for the same, if it exists.
        run_dir: Folder of the run.

    Raises:
        ZooError: If the file does not exist.
    """
    last = run_dir / "checkpoints" / "last.ckpt"
    if ckpt_path is None or (ckpt_path == "auto" and not last.is_file()):
        return None
    path = last if ckpt_path in ("last", "auto") else expanded(ckpt_path)
    if not path.is_file():
        raise ZooError(f"ckpt_path {str(path)!r} does not exist")
    return path


@contextmanager
def occupied(run_dir: Path) -> Iterator[None]:
    """Make a run's folder and lock it, so that no other run uses it.

    Raises:
        ZooError: If the folder cannot be written, or another run uses it.
    """
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ZooError(f"another run uses the folder {run_dir}; wait until it ends, or add --run_dir OTHER") from None
    except OSError as error:
        raise ZooError(f"run_dir {run_dir} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def check_new(run_dir: Path, again: bool = False) -> None:
    """Refuse to start a new run in the folder of an earlier run.

    Args:
        run_dir: The folder.
        again: Whether a run that died before its first checkpoint may be started again; its steps are deleted.

    Raises:
        ZooError: If the folder holds a run.
    """
    if (run_dir / "checkpoints" / "last.ckpt").exists():
        raise ZooError(
            f"{run_dir} holds a run already; add --ckpt_path last to resume it, or --run_dir OTHER for a new run"
        )
    if (left := run_dir / "steps").exists():
        if not again:
            raise ZooError(
                f"{run_dir} holds steps of a run that was never saved; add --ckpt_path auto to delete them and start "
                "again, or --run_dir OTHER for a new run"
            )
        shutil.rmtree(left)


def check_resumed(run_dir: Path, ckpt_path: Path, part: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings, or in the folder of another run.

    Args:
        run_dir: Folder to which the resumed run will write.
        ckpt_path: The checkpoint.
        part: The zoo's part of the checkpoint, with its provenance.
        config: The present settings, as plain values.

    Raises:
        ZooError: If a setting differs from the checkpoint's, or the folder holds another run than the checkpoint's.
    """
    if run_dir.resolve() not in ckpt_path.resolve().parents:
        check_new(run_dir)
    saved = (part.get("provenance") or {}).get("config")
    if saved is None:  # trained from Python, so there are no settings to compare
        return
    for key, (old, new) in differences(_compared(saved), _compared(config)).items():
        if key in ENDS:
            print(f"note: {key} was {old} and is {new}; this changes a learning rate that decays to the end of the run")
        elif key not in FREE_ON_RESUME:
            raise ZooError(
                f"{key} is {new!r}, but the checkpoint {ckpt_path} was made with {old!r}; "
                "resume with the old value, or start a new run with init_from"
            )


class RunIsComplete(Exception):
    """Raised if the run to resume has already reached its end; the message shows its results."""


def check_unfinished(run_dir: Path, ckpt_path: Path, part: dict[str, Any], config: dict[str, Any]) -> None:
    """Check whether a run that is resumed in its own folder has already reached its end.

    Args:
        run_dir: The run's folder.
        ckpt_path: The checkpoint.
        part: The zoo's part of the checkpoint, with its provenance.
        config: The present settings, as plain values.

    Raises:
        RunIsComplete: If the run ended with this checkpoint, and `ENDS` have the same values as before.
    """
    provenance, ends = part.get("provenance") or {}, [config["trainer"][key.rpartition(".")[2]] for key in ENDS]
    before = (provenance.get("config") or {}).get("trainer") or {}
    is_own = ckpt_path.resolve() == (run_dir / "checkpoints" / "last.ckpt").resolve()
    if not is_own or [before.get(key.rpartition(".")[2]) for key in ENDS] != ends:
        return
    if not torch.load(ckpt_path, map_location="cpu", weights_only=True, mmap=True).get("complete"):
        return
    found = {k: v for k, v in provenance.get("metrics", {}).items() if k.startswith(("val/", "val_train/"))}
    lines = [f"the run in {run_dir} is complete, with {part['step']:,} steps; --trainer.max_steps continues it"]
    raise RunIsComplete("\n".join([*lines, *(f"  {name}  {value:.4g}" for name, value in sorted(found.items()))]))


def differences(old: Any, new: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ between two plain configurations, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in sorted(old.keys() | new.keys()):
            found |= differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        return found
    return {} if old == new else {key: (old, new)}


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    trainer = config.get("trainer", {})
    return {
        "model": config.get("model"),
        "data": config.get("data"),
        "seed_everything": config.get("seed_everything"),
        "trainer": {k: trainer.get(k) for k in COMPARED_TRAINER_KEYS},
    }
